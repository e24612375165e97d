"""Command lines: flags are fields, and a user's mistake is one line."""

import argparse
import errno
import gc
import multiprocessing
import os
import pty
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path

import pytest

from vidtwin_gen.flags import (
    Verb,
    flag,
    folder_with,
    path_ending,
    positive,
    rate,
    run_verb,
    share,
    user_errors,
    whole,
)


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


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(28, "No space left on device", "runs/a.json"), "runs/a.json: No space left on device; "),
        (OSError(28, "No space left on device"), "a disk, or /dev/shm, which data workers need: No space"),
        (
            RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left"),
            "/dev/shm is full (unable to allocate",
        ),
        (PermissionError(13, "Permission denied", "runs"), "runs: Permission denied; "),
        (OSError(23, "Too many open files in system", "runs"), "runs: Too many open files in system; "),
        (OSError(24, "Too many open files", "runs/a.json"), "too many open files; raise the limit (ulimit"),
        (RuntimeError("Too many open files. Communication with the workers is no"), "too many open files; "),
        (MemoryError(), "out of memory (of the CPU)"),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 2 GiB\nmore"),
            "out of memory (CUDA out of memory.",
        ),
    ],
)
def test_what_the_system_refuses_is_one_line(error, line, capsys, monkeypatch):
    def refuse():
        with pytest.raises(SystemExit) as stopped, user_errors("train.py"):
            raise error
        assert stopped.value.code == 1
        return capsys.readouterr().err

    said = refuse()
    assert said.startswith(f"train.py: error: {line}") and said.count("\n") == 1
    monkeypatch.setenv("VIDTWIN_GEN_TRACEBACK", "1")
    assert refuse().startswith("Traceback")


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


def test_only_some_errors_are_the_users(capsys):
    for error in (ValueError, FloatingPointError):
        with pytest.raises(SystemExit) as stopped, user_errors("train.py"):
            raise error("--data nowhere: no such folder")
        assert stopped.value.code == 2
        assert capsys.readouterr().err == "train.py: error: --data nowhere: no such folder\n"
    with pytest.raises(TypeError), user_errors("train.py"):
        raise TypeError("ours")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, ValueError, None])
def test_a_signal_is_told_whatever_becomes_of_it(error, number, capsys):
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as stopped, user_errors("encode"):
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        except KeyboardInterrupt:
            if error:
                raise error("a worker died") from None
    assert stopped.value.code == 128 + number
    assert capsys.readouterr().err == f"encode: interrupted by {number.name}\n"
    assert signal.getsignal(number) is before


def pipe_without_reader():
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def terminal_that_went_away():
    ours, theirs = pty.openpty()
    os.close(ours)
    return theirs


def full_disk():
    return os.open("/dev/full", os.O_WRONLY)


TALKS = """
import sys
from pathlib import Path
from tqdm import tqdm
from vidtwin_gen.flags import user_errors
with user_errors("encode"):
    for number in tqdm(range(3), mininterval=0):
        tqdm.write(10_000 * "x")
        print(number)
        sys.stdout.flush()
    print("done", file=Path("done").open("w"))
    if len(sys.argv) > 1:
        raise ValueError(sys.argv[1])
    print("left in the buffer", end="")
"""


@pytest.mark.parametrize("opened", [pipe_without_reader, terminal_that_went_away, full_disk, None])
@pytest.mark.parametrize("words", [[], ["a mistake"]])
def test_what_nobody_takes_is_lost_and_the_work_is_not(opened, words, tmp_path):
    """With a reader that was killed before it, or `>&-`, which closes the stream."""
    stream = opened and opened()
    ended = subprocess.run(
        [sys.executable, "-c", TALKS, *words],
        cwd=tmp_path,
        stdout=stream,
        stderr=stream,
        preexec_fn=None if opened else lambda: os.closerange(1, 3),
        env=os.environ | {"PYTHONPATH": os.getcwd()},
        check=False,
        timeout=60,
    )
    assert ended.returncode == (2 if words else 0)
    assert (tmp_path / "done").read_text() == "done\n"
    if stream is not None:
        os.close(stream)


def test_lost_lines_are_told_unless_their_reader_wanted_no_more(tmp_path):
    told = {}
    for opened in (pipe_without_reader, full_disk):
        ended = subprocess.run(
            [sys.executable, "-c", TALKS],
            cwd=tmp_path,
            stdout=opened(),
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.getcwd()},
            check=True,
            text=True,
        )
        told[opened] = ended.stderr.splitlines()[-1]
    line = "encode: what it said on standard output is lost in part: [Errno 28] No space left on device"
    assert told[full_disk] == line and "3/3" in told[pipe_without_reader]


class HalfMade:
    """Interrupted while it is made, as a progress bar may be, it can't be finalised."""

    def __init__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
        self.position = 0

    def __del__(self):
        self.position += 1


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_what_a_signal_leaves_half_made_says_nothing(capsys):
    with pytest.raises(SystemExit), user_errors("encode"):
        HalfMade()
    gc.collect()
    assert capsys.readouterr().err == "encode: interrupted by SIGINT\n"


class Swallows:
    """Destroyed when the signal comes: nothing is raised out of a destructor."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)


def test_a_signal_that_a_destructor_swallows_comes_again(capsys):
    went_on = False
    with pytest.raises(SystemExit) as stopped, user_errors("encode"):
        Swallows()
        time.sleep(5)
        went_on = True
    assert stopped.value.code == 130 and not went_on
    assert capsys.readouterr().err == "encode: interrupted by SIGINT\n"


def test_a_worker_is_not_interrupted_but_ends_when_its_parent_wants_it(capsys):
    """Its parent says what there is to say."""
    with user_errors("encode"):
        context = multiprocessing.get_context("fork")
        worker = context.Process(target=time.sleep, args=(30,), daemon=True)
        worker.start()
        time.sleep(0.05)
        os.kill(worker.pid, signal.SIGINT)
        worker.join(0.2)
        assert worker.is_alive()
        worker.terminate()
        worker.join(30)
    assert worker.exitcode == 128 + signal.SIGTERM and not capsys.readouterr().err


def test_a_folder_is_known_by_a_file_in_it(tmp_path):
    saved = folder_with("config.json", "train one")
    (tmp_path / "config.json").write_text("{}")
    assert saved(str(tmp_path)) == tmp_path
    with pytest.raises(argparse.ArgumentTypeError, match=r"nowhere holds no config\.json; train one"):
        saved("nowhere")
    with pytest.raises(argparse.ArgumentTypeError, match=r"config\.json is a file; train one"):
        saved(str(tmp_path / "config.json"))
