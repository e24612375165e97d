"""The demo: from nothing to a report, and nothing twice."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import train_dit
import train_vae
from eval.fvd.i3d import I3D_WEIGHTS
from tests.builders.runs import DIT_FLAGS, VAE_FLAGS
from vidtwin_gen import __main__ as program
from vidtwin_gen import demo
from vidtwin_gen.data import synthetic

SHORT = {"max_train_steps": 2, "checkpointing_steps": 2, "validation_steps": 2}


def test_the_demo_ends_in_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(synthetic, "CLASSES", dict(list(synthetic.CLASSES.items())[:2]))
    size = demo.DemoSize(stride=2, windows_per_video=1, videos_per_class=2, fvd_clips=2)
    monkeypatch.setitem(demo.DEMO_SIZES, "demo", size)
    monkeypatch.setitem(train_vae.PRESETS, "demo", VAE_FLAGS | SHORT | {"num_validation_videos": 2})
    monkeypatch.setitem(train_dit.PRESETS, "demo", DIT_FLAGS | SHORT)
    monkeypatch.setenv(I3D_WEIGHTS.variable, str(tmp_path / "no-such-file"))

    def train_here(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        """In place of a process of its own, which would not see the presets above."""
        assert command[:2] == [sys.executable, "-m"]
        importlib.import_module(command[2]).main(command[3:])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(demo, "subprocess", SimpleNamespace(run=train_here))
    out = tmp_path / "demo"
    program.main(["data", "--out", str(out / "data"), "--clips_per_group", "1"])
    program.main(["demo", "--out", str(out)])
    for name in ("report.html", "report.md"):
        page = (out / name).read_text()
        assert "Class accuracy, generated" in page and "MAGVIT-v2" in page and "Not here" not in page
        assert "FVD, generated: not measured." in page
    record = json.loads((out / "demo.json").read_text())
    assert len(record["stages"]) == 8 and record["peak_memory_mb"] > 0

    capsys.readouterr()
    program.main(["demo", "--out", str(out)])  # nothing is done twice, but for the FVD that is wanting
    assert capsys.readouterr().out.count("is there already") == 8
    (out / "eval" / "fvd.json").write_text('{"fvd": 1.0}')
    assert all(stage.is_done for stage in demo.demo_stages(out, "demo", own_data=None))
