"""Small real and generated clips, and a small network, for the tests of the FVD's commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders.clips import CLASS_NAMES, drifting_clips, write_generated
from tests.builders.extractors import FilterResponses, install
from vidtwin_gen.data.writing import write_video


@pytest.fixture
def extractor(monkeypatch: pytest.MonkeyPatch) -> FilterResponses:
    """In place of I3D."""
    small = FilterResponses()
    install(monkeypatch, small)
    return small


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of each of three classes eight videos of 10 frames of 16 x 24."""
    root = tmp_path_factory.mktemp("videos")
    for label, name in enumerate(CLASS_NAMES):
        (root / name).mkdir()
        for number, clip in enumerate(drifting_clips(8, label, (10, 16, 24))):
            write_video(root / name / f"{name}_{number}.mp4", clip, fps=8)
    return root


@pytest.fixture
def generated(tmp_path: Path) -> Path:
    return write_generated(tmp_path / "generated")
