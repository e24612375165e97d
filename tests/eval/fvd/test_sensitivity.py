"""`python -m eval sensitivity`."""

from __future__ import annotations

from pathlib import Path

from eval.__main__ import main
from eval.fvd.sensitivity import DISTORTIONS
from tests.builders.clips import drifting_clips, run, words_of
from tests.builders.extractors import FilterResponses
from tests.builders.processes import command_in_processes
from vidtwin_gen.data.writing import write_video


def test_no_more_frames_are_moved_than_there_are() -> None:
    levels = {name: distortion.levels_of(8) for name, distortion in DISTORTIONS.items()}
    assert levels["frame shuffle"] == (4, 8) and levels["freezing"] == (2, 4, 8)
    assert levels["Gaussian noise"] == DISTORTIONS["Gaussian noise"].levels  # 40 of 255, no frames
    assert all(distortion.levels_of(16) == distortion.levels for distortion in DISTORTIONS.values())


def test_every_distortion_grows_with_its_strength(extractor: FilterResponses, tmp_path: Path) -> None:
    (tmp_path / "Long").mkdir()
    for number, clip in enumerate(drifting_clips(8, 7, (16, 12, 16))):
        write_video(tmp_path / "Long" / f"{number}.mp4", clip, fps=8)
    flags = {"data": tmp_path, "split": "all", "num_clips": 8, "num_frames": 16, "height": 12, "width": 16}
    out, figure, shared = tmp_path / "s.json", tmp_path / "s.png", tmp_path / "shared.json"
    record = run("sensitivity", out, **flags, batch_size=1, figure=figure)
    command_in_processes(2, main, words_of("sensitivity", **flags, batch_size=1, out=shared))
    assert shared.read_bytes() == out.read_bytes()
    assert record["identical"] < 1e-4 and figure.stat().st_size
    for name, curve in record["distortions"].items():
        values = [value for _, value in curve["fvd"]]
        assert curve["monotone"] and values == sorted(set(values)), (name, values)
        kernel = [value for _, value in curve["kvd"]]
        assert kernel[-1] > kernel[0] and kernel[-1] > 0 and len(kernel) == len(values), (name, kernel)
        assert values[0] > record["identical"] and len(values) == len(DISTORTIONS[name].levels)
