"""Command lines: flags are fields, and a user's mistake is one line."""

import argparse
import errno
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path

import pytest

from vidtwin_gen.flags import Verb, flag, folder_with, path_ending, positive, rate, run_verb, share, whole
from vidtwin_gen.program.errors import user_errors


@dataclass(kw_only=True)
class MeasureFlags:
    folder: Path = flag("of clips", positional=True, type=Path)
    num_clips: int = flag("how many", 16, type=positive)
    stride: int | None = flag("every stride-th frame", type=int, excludes="rate!")
    fps: float | None = flag("frames per second", type=float, excludes="rate!")
    fast: bool = flag("less exactly", False, action="store_true")
    pages: list[Path] | None = flag("pages to read", type=Path, nargs="+")
    out: Path | None = flag("a page", type=path_ending(".html", ".md", note="; it is a page"))
    command: str = ""


@dataclass(kw_only=True)
class ShowFlags:
    text: str = flag("what to show", required=True)


def run(*argv):
    """What the verb was given."""
    given = []

    def measure(flags):
        given.append(flags)
        if flags.num_clips == 13:
            raise ValueError("13 clips bring no luck: take 14")
        if flags.num_clips == 12:
            raise TypeError("ours")

    verbs = {
        "measure": Verb(MeasureFlags, measure, "measures"),
        "show": Verb(ShowFlags, given.append, "shows"),
    }
    run_verb("python -m program", "A program.", verbs, argv)
    return given


CHECKS = {
    "stride": positive,
    "fps": rate,
    "max_bad_fraction": share,
    "seed": whole,
    "num_workers": whole,
    **dict.fromkeys(("batch_size", "num_frames", "height", "width", "windows_per_video"), positive),
}


def test_the_commands_check_a_flag_alike():
    found = {}
    for program in ("autoencoder", "eval", "pipelines", "vidtwin_gen"):
        for verb in import_module(f"{program}.__main__").VERBS.values():
            for field in fields(verb.flags):
                if "argument" in field.metadata:
                    found.setdefault(field.name, set()).add(field.metadata["argument"].get("type"))
    assert {name: found[name] for name in CHECKS} == {name: {check} for name, check in CHECKS.items()}
    assert not {int, float} & set().union(*(found[name] for name in found if name.startswith("num_")))


@pytest.mark.parametrize("text", ["nan", "inf", "-0.1", "1.5", "half"])
def test_a_share_is_from_none_to_all(text):
    assert (share("0"), share("0.05"), share("1")) == (0, 0.05, 1)
    with pytest.raises(argparse.ArgumentTypeError, match=text):
        share(text)


def test_a_verb_gets_its_flags():
    assert run("show", "--text", "a b") == [ShowFlags(text="a b")]
    (flags,) = run("measure", "clips", "--stride", "2")
    assert flags == MeasureFlags(
        folder=Path("clips"), stride=2, command="python -m program measure clips --stride 2"
    )
    assert (flags.num_clips, flags.fps, flags.fast, flags.out) == (16, None, False, None)
    (flags,) = run("measure", "my clips", "--fps", "8", "--fast", "--num_clips", "3", "--out", "a.md")
    assert (flags.fps, flags.fast, flags.num_clips, flags.out) == (8.0, True, 3, Path("a.md"))
    assert flags.command.startswith("python -m program measure 'my clips' --fps 8")


def test_no_two_flags_name_a_file_that_one_writes(capsys, tmp_path):
    page = tmp_path / "a.md"
    for words in ([page, "--out", page], ["b", "--pages", "c", tmp_path / "." / "a.md", "--out", page]):
        with pytest.raises(SystemExit) as stopped:
            run("measure", "--stride", "1", *map(str, words))
        assert stopped.value.code == 2
        assert f"--out would write {page}, which " in capsys.readouterr().err


def test_a_verb_may_name_its_function(capsys):
    verbs = {"show": Verb(ShowFlags, "builtins:print", "shows")}
    run_verb("python -m program", "A program.", verbs, ["show", "--text", "a"])
    assert capsys.readouterr().out == "ShowFlags(text='a')\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("", "the following arguments are required: VERB"),
        ("paint", "invalid choice: 'paint'"),
        ("show", "the following arguments are required: --text"),
        ("measure clips", "one of the arguments --stride --fps is required"),
        ("measure clips --stride 1 --fps 8", "argument --fps: not allowed with argument --stride"),
        ("measure clips --stride 1 --num_clips 0", "argument --num_clips: must be positive, got 0"),
        ("measure clips --stride 1 --num_clips two", "--num_clips: must be a whole number, got 'two'"),
        ("measure clips --stride 1 --out a.txt", "a.txt does not end in .html or .md; it is a page"),
        (f"measure clips --stride 1 --out {__file__}/a.md", f"{__file__} takes no files"),
        (f"measure clips --stride 1 --out {'x' * 300}.md", "--out: " + "x" * 300 + ".md: File name too long"),
        ("measure clips --stride 1 --colour red", "unrecognized arguments: --colour red"),
        ("measure clips --stride 1 --command x", "unrecognized arguments: --command x"),
    ],
)
def test_a_wrong_command_line_is_refused(argv, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(*argv.split())
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_an_empty_word_is_no_value(capsys):
    """As a shell makes it of a variable that is not set."""
    for words in (
        ["show", "--text", ""],
        ["measure", "", "--stride", "1"],
        ["measure", "clips", "--stride", "1", "--pages", "a", ""],
    ):
        with pytest.raises(SystemExit) as stopped:
            run(*words)
        said = capsys.readouterr().err.splitlines()[-1]
        assert stopped.value.code == 2 and "is empty; give a value, or leave it out" in said


def test_a_folder_that_one_may_not_enter_is_named_by_its_flag(capsys, monkeypatch):
    """Where the tests run as root, every folder may be entered."""

    def refuse(path, **_):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(SystemExit) as stopped:
        run("measure", "clips", "--stride", "1", "--out", "closed/a.md")
    assert stopped.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "argument --out: closed/a.md: Permission denied" in said


def test_a_users_mistake_is_one_line(capsys):
    with pytest.raises(SystemExit) as stopped:
        run("measure", "clips", "--stride", "1", "--num_clips", "13")
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "python -m program measure: error: 13 clips bring no luck: take 14\n"
    with pytest.raises(SystemExit) as stopped, user_errors("cost"):
        raise ValueError("the step ran out of memory while it was measured")
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "cost: error: the step ran out of memory while it was measured\n"
    with pytest.raises(TypeError, match="ours"):
        run("measure", "clips", "--stride", "1", "--num_clips", "12")


def test_help_lists_the_verbs_and_their_flags(capsys):
    for argv, words in (
        (["--help"], ["measures", "shows"]),
        (["measure", "--help"], ["--num_clips", "how many"]),
    ):
        with pytest.raises(SystemExit) as stopped:
            run(*argv)
        assert stopped.value.code == 0
        page = capsys.readouterr().out
        assert all(word in page for word in words)


def test_a_folder_is_known_by_a_file_in_it(tmp_path):
    saved = folder_with("config.json", "train one")
    (tmp_path / "config.json").write_text("{}")
    assert saved(str(tmp_path)) == tmp_path
    with pytest.raises(argparse.ArgumentTypeError, match=r"nowhere holds no config\.json; train one"):
        saved("nowhere")
    with pytest.raises(argparse.ArgumentTypeError, match=r"config\.json is a file; train one"):
        saved(str(tmp_path / "config.json"))
