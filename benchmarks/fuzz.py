"""Is bad input refused in one line? A fuzz of every kind of file that a command reads.

    python -m benchmarks.fuzz --seed 0 --budget 1500 --out table.json
    python -m benchmarks.fuzz --seed 0 --only 17

A case is a copy of small, whole inputs in which one thing is changed, and the command that a user would give
them. It ends well when the command refuses it in one line that names the file or the key, or gives the result
of whole inputs, or another one where the change is one that a user may make. Case n of a seed is always the
same; `--only` keeps its folder to be looked at.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow
import torch
from pyarrow import parquet
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from autoencoder.__main__ import main as autoencoder
from eval.__main__ import main as evaluation
from pipelines.__main__ import main as pipelines
from tests.builders.forked import Ended, Main, files_below, run, warm
from tests.builders.inputs import ACCURACY, DIT, ENCODE, FVD, SAMPLE, VIDEO, make_inputs, use_filters
from tests.builders.pipelines import NAMES
from tests.builders.runs import command_line
from vidtwin_gen.__main__ import main as vidtwin_gen
from vidtwin_gen.files import write_json
from vidtwin_gen.flags import positive

WELL = ("refused", "same", "other")
OUTCOMES = (*WELL, "traceback", "unnamed", "silent", "hang", "memory", "abort")


@dataclass(frozen=True)
class Change:
    """What was done to an input.

    Args:
        is_wrong: whether a result that differs from that of whole inputs is then an error.
        names: words of which a refusal must contain one.
    """

    what: str
    is_wrong: bool
    names: tuple[str, ...] = ()


Changer = Callable[[Path, Random], Change]


@dataclass(frozen=True)
class Kind:
    """Of input: what is copied, what is changed (a pattern, and how), and the command that reads it."""

    inputs: tuple[str, ...]
    changes: tuple[tuple[str, Changer], ...]
    main: Main
    words: Sequence[object]


# What is written in place of a file, and of a value in JSON.
TEXTS = (b"", b"null", b"[]", b"7", b"{}", b'"word"', b"\xff\xfe\x00", b"\x00" * 64, b"{", b"[{}]")
NO_NUMBERS = (math.nan, math.inf, -math.inf)
VALUES: tuple[Any, ...] = ("7", "", "x" * 300, "../../x", None, True, [], ["7"], {}, {"a": 1}, *NO_NUMBERS)
VALUES += (-1, 0, 1.5, 3, 10**9, -(10**9), 1e30, 2**63, 10**400)


def bytes_of(path: Path, rng: Random, *, is_wrong: bool = True) -> Change:
    """Cut, flipped, overwritten, or gone."""
    data = bytearray(path.read_bytes())
    way = rng.choice(["cut", "flip", "flip", "flips", "zeros", "text", "folder", "gone", "longer"])
    place = rng.randrange(max(1, len(data)))
    if way == "cut":
        del data[place:]
    elif way in ("flip", "flips") and data:
        for _ in range(1 if way == "flip" else 30):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif way == "zeros":
        data[place : place + 64] = bytes(len(data[place : place + 64]))
    elif way == "text":
        data = bytearray(rng.choice(TEXTS))
    elif way == "longer":
        data += b"\x00" * 100
    path.unlink()
    if way == "folder":
        path.mkdir()
    elif way != "gone":
        path.write_bytes(data)
    return Change(f"{path.name}: {way} at {place}", is_wrong, (path.name, path.parent.name))


def json_of(path: Path, rng: Random, *, free: str = "$^") -> Change:
    """Another value in a random place. A key that `free` matches may have one more of its kind, or none."""
    names = (path.name, path.parent.name)
    if rng.random() < 0.1:
        path.write_bytes(text := rng.choice(TEXTS))
        is_wrong = text != b"{}" or free == "$^"  # a result of no kind is left out, and that is told
        return Change(f"{path.name} is {text!r}", is_wrong, names)
    whole = json.loads(path.read_text())
    holder, key = rng.choice(list(_places(whole)))
    old, new = holder[key], rng.choice([value for value in (*VALUES, "missing") if value != holder[key]])
    if new == "missing":
        del holder[key]
    else:
        holder[key] = new
    path.write_text(json.dumps(whole))
    numbers = all(type(value) in (int, float) and abs(value) <= sys.float_info.max for value in (old, new))
    alike = numbers or type(old) is type(new) is str or new in ("missing", None) or old is None
    change = f"{path.name}: {key} {old!r:.40} -> {new!r:.40}"
    return Change(change, not (alike and re.search(free, str(key))), (*names, str(key)))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each place below: what holds it, and its key or number."""
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


def lines_of(path: Path, rng: Random) -> Change:
    """A line of JSON lines."""
    lines = path.read_text().splitlines()
    number = rng.randrange(len(lines))
    if rng.random() < 0.3:
        lines[number] = rng.choice(["null", "7", "[]", "{", "", "\x00", lines[number][:10]])
    else:
        record = json.loads(lines[number])
        record[rng.choice(sorted(record))] = rng.choice(VALUES)
        lines[number] = json.dumps(record)
    path.write_text("\n".join(lines) + "\n")
    return Change(f"{path.name}: line {number} {lines[number]!r:.60}", False, (path.name,))


def tensors_of(path: Path, rng: Random, *, cast: bool = True) -> Change:
    """Of a safetensors file. `cast`: another floating point type is none."""
    before = load_file(path)
    with safe_open(path, "pt") as file:
        about = file.metadata()
    tensors, name = dict(before), rng.choice(sorted(before))
    old = tensors[name]
    ways = ["bytes", "bytes", "NaN", "inf", "1e30", "int32", "float64", "shape", "gone", "extra", "empty"]
    way = rng.choice(ways)
    if way == "bytes":
        change = bytes_of(path, rng)
        try:
            after = load_file(path)
        except Exception:  # each damage raises in a way of its own
            return change
        alike = {k: (v.shape, v.dtype) for k, v in before.items()} == {
            k: (v.shape, v.dtype) for k, v in after.items()
        }
        finite = all(bool(tensor.isfinite().all()) for tensor in after.values())
        return dataclasses.replace(change, is_wrong=not (alike and finite))
    is_number = old.is_floating_point() and old.numel()
    if value := {"NaN": math.nan, "inf": math.inf, "1e30": 1e30}.get(way):
        flat = (old if old.is_floating_point() else old.double()).flatten().clone()
        flat[rng.randrange(flat.numel())] = value
        tensors[name] = flat.reshape(old.shape)
    elif way in ("int32", "float64"):
        tensors[name] = old.to(getattr(torch, way))
    elif way in ("shape", "empty"):
        tensors[name] = old.flatten()[: 0 if way == "empty" else max(1, old.numel() // 2)].clone()
    elif way == "gone":
        del tensors[name]
    else:
        tensors["stranger"] = torch.ones(2)
    save_file(tensors, path, metadata=about)
    may = (way == "1e30" or (way == "float64" and cast)) and is_number
    return Change(f"{path.name}: {name} {way}", not may, (path.name, path.parent.name, name, "pipeline"))


def rows_of(path: Path, rng: Random) -> Change:
    """Of a parquet file, written anew with its size and digest on record."""
    table = parquet.read_table(path)
    row, column = rng.randrange(len(table)), rng.choice(["mean", "logvar", "label", "class_name"])
    values, kind = table[column].to_pylist(), table.schema.field(column).type
    way = rng.choice(["value", "value", "value", "type", "gone", "fewer"])
    if way == "value":
        if column in ("mean", "logvar"):
            new: Any = rng.choice([*NO_NUMBERS, 1e30, 1e7])
            values[row][rng.randrange(len(values[row]))] = new
        else:
            new = rng.choice([-1, 2, 3, 10**9, None] if column == "label" else ["", "x", NAMES[3], None])
            values[row] = new
        way = f"of row {row} is {new!r}"
    elif way == "type":
        kind = {"label": "string", "class_name": "binary"}.get(column, "int32")
        values = [0] * len(values) if kind == "int32" else [str(value) for value in values]
    at = table.schema.get_field_index(column)
    if way == "gone":
        table = table.remove_column(at)
    elif way == "fewer":
        table = table.slice(1)
    else:
        table = table.set_column(at, column, pyarrow.array(values, kind))
    parquet.write_table(table, path)
    metadata = json.loads((record := path.parents[1] / "latents.json").read_text())
    about = metadata["files"][f"data/{path.name}"]
    about |= {"num_bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    record.write_text(json.dumps(metadata))
    return Change(f"{path.name}: {column} {way}", True, (path.name, "latents.json"))


def checkpoint_of(path: Path, rng: Random) -> Change:
    """The released autoencoder, a pickle."""
    if rng.random() < 0.3:
        return bytes_of(path, rng)
    saved = torch.load(path, weights_only=True)
    tensors: dict[Any, Any] = saved["state_dict"]
    name = rng.choice(sorted(tensors))
    old: torch.Tensor = tensors[name]
    ways: dict[str, Callable[[], Any]] = {
        "under a number": lambda: tensors.update({7: tensors.pop(name)}),
        "sparse": lambda: tensors.update({name: old.to_sparse()}),
        "meta": lambda: tensors.update({name: old.to("meta")}),
        "huge": lambda: tensors.update({name: torch.zeros(1).expand(2**17, *[2**9] * (old.ndim - 1))}),
        "NaN": lambda: tensors.update({name: old * math.nan}),
        "whole numbers": lambda: tensors.update({name: old.int()}),
        "a word": lambda: tensors.update({name: "word"}),
        "gone": lambda: tensors.pop(name),
        "beside another": lambda: tensors.update(stranger=old),
        "without dimensions": lambda: tensors.update({name: old.sum()}),
        "empty": lambda: tensors.update({name: old[:0]}),
        "alone under another name": lambda: saved.update(state_dict={"a": old}),
        "in a list": lambda: saved.update(state_dict=list(tensors.values())),
    }
    way = rng.choice(sorted(ways))
    ways[way]()
    torch.save(saved, path)
    return Change(f"{path.name}: {name} {way}", not name.endswith("pos_embed"), (path.name,))


def video_of(path: Path, rng: Random) -> Change:
    if rng.random() < 0.5:
        return bytes_of(path, rng, is_wrong=False)
    data, box = (
        bytearray(path.read_bytes()),
        rng.choice([b"stts", b"stsz", b"stsc", b"stco", b"mvhd", b"avc1"]),
    )
    at = data.find(box) + 4 + rng.randrange(0, 24)
    number = rng.choice([2**31 - 1, 2**32 - 1, 0, 2**24])
    data[at : at + 4] = number.to_bytes(4, "big")
    path.write_bytes(data)
    return Change(f"{box.decode()}: {number} at {at}", False, (path.name,))


def split_of(path: Path, rng: Random) -> Change:
    """A list of classes or videos."""
    if rng.random() < 0.3:
        return dataclasses.replace(bytes_of(path, rng, is_wrong=False), names=(path.name, "videos"))
    lines = path.read_text().splitlines()
    number = rng.randrange(len(lines))
    words = lines[number].split()
    strange = ["-1", "0", "1000000000", "x", "\x00", "../../x", "x" * 300, "Ünï", "\udcff", words[0], ""]
    words[rng.randrange(len(words))] = rng.choice(strange)
    lines[number] = " ".join(words)
    lines += [lines[number]] * (rng.random() < 0.2)
    path.write_bytes(("\n".join(lines) + "\n").encode(errors="surrogateescape"))
    return Change(f"{path.name}: line {number} {lines[number]!r:.50}", False, (path.name, "videos"))


RESULT = partial(json_of, free=".")
MODEL = partial(json_of, free="^(num_heads|qformer_heads|fps|\\d+|class_names)$|eps|dropout|_version")
GENERATE = ["generate", *SAMPLE, "--out", "out", "--num_videos_per_class", 1, "--class_labels", 0, 3]
RECONSTRUCT = ["reconstruct", VIDEO, "--vae", "vae", "--out", "out"]
TRAIN = ["train-dit", *command_line(DIT, max_train_steps=1, output_dir="out")]
RESULTS = [f"run/{name}.json" for name in ("eval/fvd", "eval/recon", "eval/accuracy", "generated/generated")]
CARD = ["card", "--pipeline", "pipeline", "--metrics", *RESULTS]
REPORT, OUT = ["report", "run"], ["--out", "out.json"]
CONVERT = ["convert", "released.ckpt", "out", "--num_heads", 2, "--qformer_heads", 2]
STATISTICS = partial(tensors_of, cast=False)
OF_A_MODEL = {
    "autoencoder's config": Kind(("vae", "videos"), (("vae/config.json", MODEL),), autoencoder, RECONSTRUCT),
    "autoencoder's weights": Kind(("vae", "videos"), (("vae/*rs", tensors_of),), autoencoder, RECONSTRUCT),
    "pipeline's index": Kind(("pipeline",), (("pipeline/model_index.json", MODEL),), pipelines, GENERATE),
    "DiT's config": Kind(("pipeline",), (("pipeline/transformer/config.json", MODEL),), pipelines, GENERATE),
    "its autoencoder's config": Kind(("pipeline",), (("pipeline/vae/*.json", MODEL),), pipelines, GENERATE),
    "scheduler's config": Kind(
        ("pipeline",),
        (("pipeline/scheduler/*.json", partial(json_of, free="shift|_seq_len|_version")),),
        pipelines,
        GENERATE,
    ),
    "pipeline's weights": Kind(("pipeline",), (("pipeline/*/*rs", tensors_of),), pipelines, GENERATE),
    "released checkpoint": Kind(
        ("released.ckpt",), (("released.ckpt", checkpoint_of),), autoencoder, CONVERT
    ),
}
OF_DATA = {
    "latents' metadata": Kind(
        ("vae", "latents"),
        (("latents/latents.json", partial(json_of, free="^(fps|\\d+)$")),),
        vidtwin_gen,
        TRAIN,
    ),
    "latents' rows": Kind(
        ("vae", "latents"),
        (("latents/data/*", bytes_of), *[("latents/data/*", rows_of)] * 3),
        vidtwin_gen,
        TRAIN,
    ),
    "video": Kind(("vae", "videos"), ((VIDEO, video_of),), autoencoder, RECONSTRUCT),
    "video among others": Kind(
        ("vae", "videos"),
        ((VIDEO, video_of),),
        vidtwin_gen,
        [*ENCODE, "--out", "out", "--max_bad_fraction", 1],
    ),
    "split lists": Kind(
        ("vae", "videos"), (("videos/*/*.txt", split_of),), vidtwin_gen, [*ENCODE, "--out", "out"]
    ),
    "a training's folder": Kind(
        ("vae", "latents", "dit"),
        (
            ("dit/run.json", RESULT),
            ("dit/metrics.jsonl", lines_of),
            *[("dit/checkpoint-2/**/*", bytes_of)] * 3,
        ),
        vidtwin_gen,
        ["train-dit", *command_line(DIT, output_dir="dit")],
    ),
}
OF_RESULTS = {
    "results, reported": Kind(
        ("run",), (("run/eval/*.json", RESULT), ("run/generated/*.json", RESULT)), evaluation, REPORT
    ),
    "results, on a card": Kind(
        ("pipeline", "run"), tuple((name, RESULT) for name in RESULTS), pipelines, CARD
    ),
    "logs and clips of a run": Kind(
        ("run",),
        (
            ("run/*/metrics.jsonl", lines_of),
            ("run/*/*/*.gif", partial(bytes_of, is_wrong=False)),
            ("run/demo.json", RESULT),
        ),
        evaluation,
        REPORT,
    ),
    "reference statistics": Kind(
        ("generated", "reference.safetensors"),
        (("reference.safetensors", STATISTICS),),
        evaluation,
        [*FVD, *OUT],
    ),
    "clips": Kind(
        ("generated", "videos"),
        (("generated/clips.safetensors", STATISTICS), ("generated/generated.json", RESULT)),
        evaluation,
        [*ACCURACY, *OUT],
    ),
    "counts of clips": Kind(
        ("pipeline", "counts.json"),
        (("counts.json", RESULT),),
        pipelines,
        ["generate", *SAMPLE, "--out", "out", "--labels_from", "counts.json"],
    ),
}
KINDS = OF_A_MODEL | OF_DATA | OF_RESULTS


class Fuzz:
    """Cases of a seed over `folder`, where `make_inputs` was."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.whole: dict[str, dict[str, str]] = {}

    def outcome(self, number: int, case: Path) -> tuple[str, str, Change, Ended]:
        """Of case `number`: the name of its kind, one of OUTCOMES, what was changed, and how it ended."""
        name = list(KINDS)[number % len(KINDS)]
        change, ended, written = self._run(KINDS[name], case, Random(f"{self.seed} {number}"))
        if ended.stopped or ended.status < 0:
            outcome = ended.stopped or "abort"
        elif ended.traceback:
            outcome = "traceback"
        elif ended.status:
            outcome = "refused" if any(word and word in ended.error for word in change.names) else "unnamed"
        elif written == self._result(name):
            outcome = "same"
        else:
            no_numbers = any(holds_no_number(case / path) for path in written)
            outcome = "silent" if change.is_wrong or no_numbers else "other"
        return name, outcome, change, ended

    def _result(self, name: str) -> dict[str, str]:
        """The files that a kind's command writes of whole inputs."""
        if name not in self.whole:
            with TemporaryDirectory() as whole:
                _, ended, self.whole[name] = self._run(KINDS[name], Path(whole), None)
            if ended.status:
                raise RuntimeError(f"{name}: whole inputs are refused: {ended.said}")
        return self.whole[name]

    def _run(self, kind: Kind, case: Path, rng: Random | None) -> tuple[Change, Ended, dict[str, str]]:
        """A kind's command in the folder `case`, on whole inputs without `rng`: the change, how it ended, and
        the files that it wrote."""
        for name in kind.inputs:
            copy = shutil.copytree if (self.folder / name).is_dir() else shutil.copy
            copy(self.folder / name, case / name)
        change = Change("", is_wrong=False)
        if rng:
            pattern, changer = rng.choice(kind.changes)
            change = changer(rng.choice([path for path in sorted(case.glob(pattern)) if path.is_file()]), rng)
        before = files_below(case)
        ended = run(kind.main, kind.words, case, prepare=use_filters)
        for path in case.rglob("generated.json"):  # its command has digests of what went in
            if before.get(path.relative_to(case).as_posix()) is None:
                record = json.loads(path.read_text())
                path.write_text(json.dumps({key: record[key] for key in record if key != "command"}))
        written = {name: digest for name, digest in files_below(case).items() if before.get(name) != digest}
        return change, ended, written


def holds_no_number(path: Path) -> bool:
    """Whether a result has NaN or infinity in it."""
    if path.suffix == ".safetensors":
        return not all(bool(tensor.double().isfinite().all()) for tensor in load_file(path).values())
    is_text = path.suffix in (".json", ".md")
    return is_text and re.search(r"\b(nan|inf|infinity)\b", path.read_text().lower()) is not None


def markdown(counts: dict[str, Counter[str]], slowest: dict[str, Ended], largest: dict[str, Ended]) -> str:
    """Kinds and outcomes, the most seconds and the most memory in GiB."""
    lines = [f"| kind | cases | {' | '.join(OUTCOMES)} | s | GiB |", "|---" * (len(OUTCOMES) + 4) + "|"]
    total = sum(counts.values(), Counter[str]())
    for name, of_kind in [*counts.items(), ("all", total)]:
        cells: list[object] = [name, of_kind.total(), *(of_kind[outcome] for outcome in OUTCOMES)]
        ends = [(slowest[n].seconds, largest[n].peak) for n in counts if name in (n, "all")]
        cells += [f"{max(s for s, _ in ends):.1f}", f"{max(peak for _, peak in ends) / 2**30:.2f}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--budget", type=positive, default=1500, help="cases, of all kinds in turn")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), help="those of these kinds alone")
    parser.add_argument("--only", type=int, nargs="+", help="these cases alone; their folders are kept")
    parser.add_argument("--out", type=Path, help="JSON file for the counts, and for what did not end well")
    flags = parser.parse_args(argv)
    torch.set_num_threads(1)
    os.environ |= {"HF_HUB_OFFLINE": "1"}
    warm()
    counts: dict[str, Counter[str]] = {}
    slowest: dict[str, Ended] = {}
    largest: dict[str, Ended] = {}
    failures: list[dict[str, Any]] = []
    kinds = flags.kinds or list(KINDS)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        made = run(make_inputs, [], folder, prepare=use_filters)
        if made.status:
            raise RuntimeError(f"the inputs can't be made: {made.said}")
        fuzz = Fuzz(folder, flags.seed)
        for number in flags.only or range(flags.budget):
            if list(KINDS)[number % len(KINDS)] not in kinds:
                continue
            case = Path(f"fuzz-{flags.seed}-{number}").absolute() if flags.only else folder / "case"
            shutil.rmtree(case, ignore_errors=True)
            case.mkdir()
            name, outcome, change, ended = fuzz.outcome(number, case)
            counts.setdefault(name, Counter())[outcome] += 1
            slowest[name] = max(ended, slowest.get(name, ended), key=lambda end: end.seconds)
            largest[name] = max(ended, largest.get(name, ended), key=lambda end: end.peak)
            if outcome not in WELL or flags.only:
                said = " ".join(ended.said.split())
                print(
                    f"{number}: {name}: {change.what}: {outcome} ({ended.status}) {said[-300:]}", flush=True
                )
                failures.append({"case": number, "change": change.what, "outcome": outcome, "said": said})
    print(markdown(counts, slowest, largest))
    if flags.out:
        write_json(flags.out, {"seed": flags.seed, "counts": counts, "failures": failures})
    return 0 if all(outcome in WELL for of_kind in counts.values() for outcome in of_kind) else 1


if __name__ == "__main__":
    sys.exit(main())
