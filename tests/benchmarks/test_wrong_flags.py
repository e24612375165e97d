"""A wrong flag of a benchmark, or of the script of a Space, is one line and status 2."""

import runpy
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("codecs", ["--window", "0"], "must be positive"),
        ("video_index", ["--num_videos", "0"], "must be positive"),
        ("fuzz", ["--budget", "0"], "must be positive"),
        ("gpu.__main__", ["speed", "--out", "out", "--device", "x"], "--device x: Expected one of"),
        ("gpu.__main__", ["speed", "--out", __file__, "--device", "cpu"], "takes no files"),
        ("scatter", ["--reference", "nope", "--out", str(ROOT)], "is a folder"),
    ],
)
def test_a_wrong_flag_is_refused(name, words, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        import_module(f"benchmarks.{name}").main(words)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        ("benchmarks/scatter.py", ["--reference", "nope", "--out", "out.json"], "nope can't be read"),
        ("examples/space/make_space.py", [ROOT / "docs"], "docs is there already"),
    ],
)
def test_a_wrong_path_is_one_line(script, words, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script, *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and message in said and said.count("\n") == 1
