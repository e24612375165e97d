"""Draws of real clips, and what is kept of their features."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from eval.feature_store import FeatureStore
from eval.real_clips import RealClips
from vidtwin_gen.data.decoding.guarded import VideoError


def real_clips(root: Path) -> RealClips:
    """Of 3 and of 5 files, which are not opened here."""
    for name, count in (("Left", 3), ("Right", 5)):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (root / name / f"{number}.mp4").touch()
    return RealClips.of_split(root, (4, 16, 16), "all")


def test_a_bad_video_moves_no_other_draw(tmp_path: Path) -> None:
    whole, real = real_clips(tmp_path), real_clips(tmp_path)
    real.bad[real.order[0]] = "bad"
    for count, kept in ((8, 7), (16, 14)):
        before, after = whole.of_videos(count), real.of_videos(kept)
        assert after == [draw for draw in before if draw.row not in real.bad]
    assert [draw.number for draw in whole.of_videos(20)] == list(range(20))
    names = ["Left", "Right"] * 3
    before, after = whole.of_classes(names), real.of_classes(names)
    assert {draw for draw in before if draw.row not in real.bad} < set(after)
    # a window is of a video and its turn, however the draw was asked for
    assert set(before) <= set(whole.of_videos(8))
    assert whole.of_classes(["Left"] * 6)[3:] == [
        draw for draw in whole.of_videos(16)[8:] if whole.names[draw.row] == "Left"
    ]
    assert whole.of_classes(["LEFT", "right"] * 3) == whole.of_classes(names)
    before, after = whole.each_once(None), real.each_once(None)
    assert [draw.number for draw in before] == list(range(8))
    assert len(after) == 7 and set(after) == {draw for draw in before if draw.row not in real.bad}


def test_a_class_that_runs_out_of_videos_has_fewer_clips_or_further_windows(
    few_videos: Path, tmp_path: Path
) -> None:
    """Each number keeps its class; no clip is taken for another video's."""
    root = Path(shutil.copytree(few_videos, tmp_path / "data"))

    def read(repeated: bool) -> tuple[list[int], list[int], RealClips]:
        real = RealClips.of_split(root, (4, 16, 16), "train")
        names = real.even_names(None)
        numbers: list[int] = []

        def note(clips: torch.Tensor, there: Sequence[int]) -> torch.Tensor:
            numbers.extend(there)
            return clips.flatten(1).float().mean(1)

        batches = list(real.labelled(names, 2, note, repeated=repeated))
        labels = [label for _, of_batch in batches for label in of_batch.tolist()]
        assert labels == [real.label(names[number]) for number in numbers]
        return numbers, labels, real

    numbers, labels, real = read(repeated=False)
    assert numbers == list(range(len(real.names))) and not real.bad
    draws = real.of_classes(real.even_names(None))
    for number in (1, 4):
        Path(real.paths[draws[number].row]).write_bytes(b"no video")
    fewer, of_fewer, after = read(repeated=False)
    assert len(fewer) == len(numbers) - 2 == len(after.good) and len(after.skipped) == 2
    assert sorted(of_fewer) == sorted(after.label(after.names[row]) for row in after.good)
    again, of_again, _ = read(repeated=True)
    assert again == numbers and of_again == labels


def test_a_link_that_leads_nowhere_is_a_bad_video(few_videos: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(few_videos, tmp_path / "data"))
    real = RealClips.of_split(root, (4, 16, 16), "train")
    draw = real.each_once(None)[0]
    path = Path(real.paths[draw.row])
    whole = real.key(draw)
    path.unlink()
    path.symlink_to("nowhere.avi")
    assert real.key(draw) != whole
    with pytest.raises(VideoError):
        real.read(draw)


def test_copies_of_the_data_hold_the_same_clips(tmp_path: Path) -> None:
    first, copy = real_clips(tmp_path / "a"), real_clips(tmp_path / "b")
    assert first.sha256(first.of_videos(8)) == copy.sha256(copy.of_videos(8))
    assert first.sha256(first.of_videos(8)) != first.sha256(first.of_videos(16)[8:])  # other windows
    (tmp_path / "b" / "Left" / "0.mp4").rename(tmp_path / "b" / "Left" / "00.mp4")
    other = RealClips.of_split(tmp_path / "b", (4, 16, 16), "all")
    assert first.sha256(first.of_videos(8)) != other.sha256(other.of_videos(8))


def test_features_are_kept_for_one_number_of_videos(tmp_path: Path) -> None:
    """One generator gives the order of the draws and their windows: with another video they are others."""
    first = real_clips(tmp_path)
    (tmp_path / "Left" / "9.mp4").touch()
    assert RealClips.of_split(tmp_path, (4, 16, 16), "all").reading != first.reading


def test_features_that_are_no_numbers_are_not_kept(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, {})
    features = torch.ones(3, 2)
    features[1, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinity for 1 of 3 clips, the first b: .* eval selftest"):
        store.add(["a", "b", "c"], features)
    store.flush()
    assert list(tmp_path.iterdir()) == []
    store.add(["a"], features[:1])
    store.flush()
    assert torch.equal(FeatureStore(tmp_path, {})["a"], features[0])
