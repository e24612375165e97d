"""Command lines: the flags of a verb are a dataclass, and a help page imports nothing heavy.

    @dataclass(kw_only=True)
    class ReconFlags:
        vae: Path = flag("folder of the autoencoder", type=vae_folder, required=True)
        num_clips: int | None = flag("left out: one of every video", type=positive)

    VERBS = {"recon": Verb(ReconFlags, "eval.recon.command:measure_recon", "PSNR, SSIM, LPIPS, rFVD")}

    def main(argv=None):
        run_verb("python -m eval", "Measure a run.", VERBS, argv)

A module of flags imports neither torch nor diffusers; the module of a verb is imported when the verb runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Literal, NoReturn

from vidtwin_gen.files import check_reachable, read_json
from vidtwin_gen.program.errors import user_errors
from vidtwin_gen.program.output import first_process_speaks

Decoder = Literal["auto", "decord", "pyav", "torchcodec"]  # of videos
DEVICE = "such as cuda or cpu; left out: a GPU for each process if there is one, else the CPU"
DTYPES = ("float32", "bfloat16", "float16")
_FILES_TO_WRITE: list[Callable[[str], Path]] = []  # the types of flags that `path_ending` made


class OneLineErrors(argparse.ArgumentParser):
    """A wrong flag is answered with one line, as every other mistake is, and exit status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}; --help explains the flags\n")


def flag(
    help: str,  # noqa: A002
    default: Any = None,
    *,
    positional: bool = False,
    excludes: str | None = None,
    **argument: Any,
) -> Any:
    """A field that is a flag.

    Args:
        positional: it is named by its place.
        excludes: the name of a group, of whose flags one may be given; ending in "!", one has to be.
        argument: what `argparse.add_argument` takes: type, choices, nargs, metavar, action, required.
    """
    metadata = {"argument": {"help": help, **argument}, "positional": positional, "excludes": excludes}
    return dataclasses.field(default=default, metadata=metadata)


def add_flags(parser: argparse.ArgumentParser, flags: type[Any]) -> None:
    """Every field of the dataclass that `flag` made."""
    groups: dict[str, Any] = {}
    for field in dataclasses.fields(flags):
        if "argument" not in field.metadata:
            continue
        argument = {"default": field.default, **field.metadata["argument"]}
        if "action" not in argument:
            argument["type"] = _checked(argument.get("type", str))
        holder: Any = parser
        if name := field.metadata["excludes"]:
            if name not in groups:
                groups[name] = parser.add_mutually_exclusive_group(required=name.endswith("!"))
            holder = groups[name]
        if field.metadata["positional"]:
            holder.add_argument(field.name, **argument)
        else:
            holder.add_argument(f"--{field.name}", dest=field.name, **argument)


def _checked(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """The type of a flag, for argparse: an error of the system about a path is the flag's, and an empty word,
    as a shell makes it of a variable that is not set, is no value."""

    @wraps(convert, updated=())  # argparse names it
    def checked(text: str) -> Any:
        if not text:
            raise argparse.ArgumentTypeError("is empty; give a value, or leave it out")
        try:
            return convert(text)
        except OSError as error:
            raise argparse.ArgumentTypeError(f"{text}: {error.strerror}") from None

    return checked


@dataclass(frozen=True)
class Verb:
    """flags: a dataclass of `flag`s. run: what is done with one, or where that is, "module:function". help: a
    line of the list of verbs."""

    flags: type[Any]
    run: Callable[[Any], None] | str
    help: str


def run_verb(
    prog: str, description: str, verbs: Mapping[str, Verb], argv: Sequence[str] | None = None
) -> None:
    """Parses the command line and runs its verb. A user's mistake, a ValueError, ends the program with one
    line and status 2.

    A flags class that has a field `command` gets the whole command line, for its record.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    top = OneLineErrors(prog=prog, description=description)
    added = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, verb in verbs.items():
        add_flags(added.add_parser(name, help=verb.help, description=verb.help), verb.flags)
    values = vars(top.parse_args(words))
    name = values.pop("verb")
    if any(field.name == "command" for field in dataclasses.fields(verbs[name].flags)):
        values["command"] = shlex.join([*prog.split(), *words])
    run = verbs[name].run
    with user_errors(f"{prog} {name}"), first_process_speaks():
        flags = verbs[name].flags(**values)
        check_written_files(flags)
        (resolve_name(run) if isinstance(run, str) else run)(flags)


def check_written_files(flags: Any) -> None:
    """Raises ValueError where a flag names the file that another one writes."""
    fields = [field for field in dataclasses.fields(flags) if "argument" in field.metadata]
    paths: dict[str, set[Path]] = {}
    for field in fields:
        value = getattr(flags, field.name)
        several = value if isinstance(value, list | tuple) else [value]
        name = field.name if field.metadata["positional"] else f"--{field.name}"
        paths[name] = {Path(each).resolve() for each in several if isinstance(each, str | Path)}
    for name, field in zip(paths, fields, strict=True):
        if field.metadata["argument"].get("type") in _FILES_TO_WRITE:
            for other in paths.keys() - {name}:
                if written := paths[name] & paths[other]:
                    raise ValueError(f"{name} would write {written.pop()}, which {other} names: name another")


def dtype_flag(whose: str) -> Any:
    """A number type to compute in, see `devices.find_dtype`."""
    return flag(
        f"number type of the weights and arithmetic of {whose}; results are float32",
        "float32",
        choices=DTYPES,
    )


def dtype_record(dtype: str, name: str = "dtype") -> dict[str, str]:
    """What records say of it: of float32 nothing, as in earlier versions."""
    return {} if dtype == "float32" else {name: dtype}


def is_hub_id(text: str) -> bool:
    """OWNER/NAME, and not a place on this disk."""
    return re.fullmatch(r"\w[\w.-]*/[\w.-]+", text) is not None and not Path(text).parent.is_dir()


def positive(text: str) -> int:
    """A whole number from 1 on."""
    return _whole_from(1, "positive", text)


def whole(text: str) -> int:
    """A whole number from 0 on."""
    return _whole_from(0, "0 or more", text)


def _whole_from(least: int, words: str, text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}") from None
    if number < least:
        raise argparse.ArgumentTypeError(f"must be {words}, got {number}")
    return number


def rate(text: str) -> float:
    """Frames a second: a number above 0."""
    number = _number(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be above 0 and finite, got {text}")
    return number


def share(text: str) -> float:
    """A number from 0 to 1."""
    number = _number(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"is a share, from 0 to 1, got {text}")
    return number


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, got {text!r}") from None


def file_to_write(text: str) -> Path:
    """A path where a file can be written: what a command computes is not lost at its end."""
    path = Path(text)
    check_reachable(path)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder, and a file is to be written")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text} can't be written: {above} takes no files")
    return path


def folder_to_write(text: str) -> str:
    """A folder that is there or can be made, and takes files."""
    file_to_write(f"{text}/file")
    return text


def path_ending(
    *suffixes: str, note: str = "", ours: Callable[[Path], bool] | None = None
) -> Callable[[str], Path]:
    """As `file_to_write`, a path with one of these suffixes, which say what is written there.

    Args:
        ours: whether a file that is there is one that the same flag writes; another one is not replaced.
            Left out: any is.
    """

    def path(text: str) -> Path:
        place = file_to_write(text)
        if place.suffix not in suffixes:
            raise argparse.ArgumentTypeError(f"{text} does not end in {' or '.join(suffixes)}{note}")
        if ours and place.exists() and place.stat().st_size and not ours(place):
            raise argparse.ArgumentTypeError(
                f"{text} is there already and is nothing that this flag writes: remove it, or name another"
            )
        return place

    _FILES_TO_WRITE.append(path)
    return path


def json_to_write(*kinds: str, keys: Sequence[str] = ()) -> Callable[[str], Path]:
    """As `path_ending`, a JSON file. One of another `kind`, or without these keys, is not replaced."""

    def ours(path: Path) -> bool:
        try:
            value = read_json(path, "")
        except (OSError, ValueError):
            return False
        return value.get("kind") in kinds if kinds else set(keys) <= value.keys()

    return path_ending(".json", ours=ours)


def text_to_write(beginnings: Mapping[str, str]) -> Callable[[str], Path]:
    """As `path_ending`, with one of these suffixes. A file that begins otherwise is not replaced."""

    def ours(path: Path) -> bool:
        with open(path, "rb") as file:
            expected = beginnings[path.suffix].encode()
            return file.read(len(expected)) == expected

    return path_ending(*beginnings, ours=ours)


def folder_with(file: str, way_out: str) -> Callable[[str], Path]:
    """A folder that holds `file`; diffusers would take any other word for a name on its hub."""

    def folder(text: str) -> Path:
        check_reachable(Path(text) / file)
        if not (Path(text) / file).is_file():
            seen = "is a file" if Path(text).is_file() else f"holds no {file}"
            raise argparse.ArgumentTypeError(f"{text} {seen}; {way_out}")
        return Path(text)

    return folder
