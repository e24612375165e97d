"""What a command imports before it works: a help page or a refused flag needs none of the large libraries."""

import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vidtwin_gen.__main__ import main
from vidtwin_gen._registration import _after_import

ROOT = Path(__file__).parents[2]

RUN_AND_LOOK = """
import runpy, sys
_, program, *lines = sys.argv
for line in lines:
    sys.argv = [program, *line.split()]
    try:
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    except SystemExit as stopped:
        assert stopped.code == (0 if "--help" in line else 2), (line, stopped.code)
    else:
        raise AssertionError(line)
large = {"torch", "numpy", "diffusers", "transformers", "datasets"} & sys.modules.keys()
assert not large, large
"""


@pytest.mark.parametrize(
    ("program", "lines"),
    [
        (
            "vidtwin_gen",
            [
                "--help",
                "demo --help",
                "data --help",
                "encode --help",
                "encode --colour red",
                "encode --vae v --data d --out o",
                "demo --preset vast",
                "eval --help",
                "eval fvd --colour red",
                "generate --colour red",
                "pipelines export --help",
                "data",
            ],
        ),
        ("autoencoder", ["--help", "convert --help", "reconstruct --colour red"]),
        ("pipelines", ["--help", "generate --help", "generate --colour red"]),
        ("eval", ["--help", "fvd --help", "fvd --colour red", "cost --help", "report --help", "paint"]),
    ],
)
def test_help_and_refusals_import_nothing_large(program, lines):
    subprocess.run([sys.executable, "-c", RUN_AND_LOOK, program, *lines], cwd=ROOT, check=True, timeout=240)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train-vae", "--preset", "cpu", "--output_dir", "run"], "--data is required"),
        (["train-dit", "--output_dir", "run"], "--vae and --latents are required"),
        (["generate", "--pipeline", "none", "--out", "out"], "none does not exist"),
    ],
)
def test_one_program_is_the_door_to_all(words, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(words)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and message in error and error.count("\n") == 1


@pytest.mark.parametrize("script", ["train_vae", "train_dit"])
def test_a_training_script_answers_before_it_imports_torch(script):
    """Its parser is transformers', which imports numpy and no torch."""
    look = RUN_AND_LOOK.replace('{"torch", "numpy", "diffusers", "transformers", "datasets"}', '{"torch"}')
    lines = ["--help", "--colour red", "--preset vast", "--output_dir run", "--mixed_precision int4"]
    subprocess.run([sys.executable, "-c", look, script, *lines], cwd=ROOT, check=True, timeout=240)


@pytest.mark.parametrize("library", ["transformers", "torch"])
@pytest.mark.parametrize("script", ["train_vae.py", "train_dit.py"])
def test_ctrl_c_while_a_training_script_imports_is_one_line(script, library, tmp_path):
    """The parser imports the one, the training the other."""
    (tmp_path / f"{library}.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n1 / 0\n")
    words = ["--data", "."] if script == "train_vae.py" else ["--vae", ".", "--latents", "."]
    ended = subprocess.run(
        [sys.executable, script, *words, "--output_dir", str(tmp_path / "run")],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, f"{script}: interrupted by SIGINT\n")


@pytest.mark.slow
def test_stage_2_needs_no_library_of_videos():
    """It reads latents and writes GIFs."""
    without = "import sys; sys.modules |= dict.fromkeys(['av', 'decord', 'imageio', 'imageio_ffmpeg'])"
    subprocess.run([sys.executable, "-c", f"{without}; import train_dit"], cwd=ROOT, check=True, timeout=240)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module that replaces itself on import, as diffusers does, and was never imported."""
    source = (
        "import sys, types\nname = 'first'\nsys.modules[__name__] = types.SimpleNamespace(name='second')\n"
    )
    (tmp_path / "replaces_itself.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    yield tmp_path / "replaces_itself.py"
    sys.modules.pop("replaces_itself", None)


def test_a_module_is_changed_when_it_is_imported(module):
    finders = list(sys.meta_path)
    seen = []
    _after_import("replaces_itself", lambda imported: seen.append(imported.name))
    assert seen == [] and "replaces_itself" not in sys.modules
    importlib.import_module("replaces_itself")

    assert seen == ["second"] and sys.meta_path == finders
    _after_import("replaces_itself", lambda imported: seen.append("at once"))
    assert seen == ["second", "at once"] and sys.meta_path == finders


def test_a_module_that_fails_is_changed_when_it_succeeds(module):
    source = module.read_text()
    module.write_text("raise ImportError('a dependency is missing')\n")
    seen = []
    _after_import("replaces_itself", lambda imported: seen.append(imported.name))
    with pytest.raises(ImportError, match="a dependency is missing"):
        importlib.import_module("replaces_itself")
    assert seen == []
    module.write_text(source)
    importlib.import_module("replaces_itself")

    assert seen == ["second"]
