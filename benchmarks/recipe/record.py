"""The record of an ablation: its JSON, which the same command goes on with, and the table beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.checkout import commit
from benchmarks.recipe.inputs import Settings
from benchmarks.recipe.table import markdown
from eval.machine import machine
from vidtwin_gen.files import changed_flags, read_json, write_json, write_text


def open_record(path: Path, settings: Settings, command: str, preset: Mapping[str, Any]) -> dict[str, Any]:
    """What stands at `path`, or a new record. Raises ValueError where it is of other settings, or of the
    preset as it was: its rows would be compared with others."""
    new: dict[str, Any] = {
        "command": command,
        "commits": [commit("--abbrev=40") or "unknown"],
        "machine": machine(torch.device("cpu")),
        "settings": dataclasses.asdict(settings),
        "preset": dict(preset),
        "rows": {},
    }
    if not path.exists():
        return new
    before = read_json(path, "remove it, or name another --out")
    if changed := changed_flags(before["settings"], new["settings"]):
        raise ValueError(f"{path} is of other flags ({changed}): repeat those, or name another --out")
    if changed := changed_flags(before.get("preset", {}), new["preset"]):
        raise ValueError(
            f"{path} is of the preset {settings.size} as it was ({changed}): go on with it at its commit, "
            f"{before['commits'][-1]}, or name another --out"
        )
    commits = dict.fromkeys([*before["commits"], *new["commits"]])  # of code that made a part of it
    return {**before, "command": command, "commits": list(commits)}


def steps_from(path: Path, settings: Settings) -> dict[str, dict[str, Any]]:
    """The steps and costs of the rows of another run. Raises ValueError where that trains something else."""
    other = read_json(path, f"name the stage_{settings.stage}.json of another run")
    decisive = ("stage", "size", "max_train_steps", "tiny")
    here, there = vars(settings), other.get("settings", {})
    if changed := changed_flags(*({name: of.get(name) for name in decisive} for of in (there, here))):
        raise ValueError(f"--steps_from {path} is of other flags ({changed}): time the steps here")
    measured = ("flags", "source", "parameters", "readings")
    return {
        name: {key: row[key] for key in row if key not in measured} for name, row in other["rows"].items()
    }


def write(path: Path, record: Mapping[str, Any]) -> None:
    write_json(path, record)
    write_text(path.with_suffix(".md"), markdown(record))
