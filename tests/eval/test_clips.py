"""Files of generated clips, draws of real ones, and what is kept of their features."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from eval.clips import RealClips, read_generated
from eval.feature_store import FeatureStore

FRAMES = torch.zeros(3, 2, 4, 4, 3, dtype=torch.uint8)
LABELS = torch.tensor([7, 7, 9])
TOLD = {"class_labels": [7, 9], "class_names": ["Left", "Right"], "seed": 5}


def write(folder: Path, tensors: dict[str, torch.Tensor], told: Any) -> Path:
    save_file(tensors, folder / "clips.safetensors")
    (folder / "generated.json").write_text(told if isinstance(told, str) else json.dumps(told))
    return folder / "clips.safetensors"


def test_clips_have_the_names_of_their_labels(tmp_path: Path) -> None:
    clips = read_generated(write(tmp_path, {"frames": FRAMES, "labels": LABELS}, TOLD))
    assert clips.names == ["Left", "Left", "Right"] and clips.seed == 5
    assert torch.equal(clips.frames, FRAMES)


@pytest.mark.parametrize(
    ("tensors", "told", "words"),
    [
        ({"frames": FRAMES.float()}, TOLD, ("clips.safetensors", "uint8", "torch.float32")),
        ({"frames": FRAMES[0]}, TOLD, ("(N, F, H, W, 3)", "(2, 4, 4, 3)")),
        ({"frames": FRAMES.permute(0, 1, 4, 2, 3).contiguous()}, TOLD, ("(3, 2, 3, 4, 4)",)),
        ({"labels": LABELS[:2]}, TOLD, ("a label for each of 3 clips", "(2,)")),
        ({"labels": LABELS + 1}, TOLD, ("generated.json has no name for label 8",)),
        ({"video": FRAMES, "frames": None}, TOLD, ("clips.safetensors can't be read", "frames")),
        ({}, {"class_names": ["Left"]}, ("generated.json can't be read", "class_labels")),
        ({}, TOLD | {"class_names": ["Left"]}, ("generated.json can't be read",)),
        ({}, [1], ("generated.json can't be read",)),
        ({}, '{"class_labels": [7', ("generated.json can't be read", "JSONDecodeError")),
    ],
)
def test_other_files_are_refused_by_name(
    tensors: dict[str, Any], told: Any, words: tuple[str, ...], tmp_path: Path
) -> None:
    whole = {"frames": FRAMES, "labels": LABELS} | tensors
    path = write(tmp_path, {name: value for name, value in whole.items() if value is not None}, told)
    with pytest.raises(ValueError) as error:
        read_generated(path)
    for word in (*words, str(tmp_path), "python -m pipelines generate"):
        assert word in str(error.value)


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, {"frames": FRAMES, "labels": LABELS}, TOLD)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"clips.safetensors can't be read \(SafetensorError"):
        read_generated(path)


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
    before, after = whole.each_once(None), real.each_once(None)
    assert [draw.number for draw in before] == list(range(8))
    assert len(after) == 7 and set(after) == {draw for draw in before if draw.row not in real.bad}


def test_copies_of_the_data_hold_the_same_clips(tmp_path: Path) -> None:
    first, copy = real_clips(tmp_path / "a"), real_clips(tmp_path / "b")
    assert first.sha256(first.of_videos(8)) == copy.sha256(copy.of_videos(8))
    assert first.sha256(first.of_videos(8)) != first.sha256(first.of_videos(16)[8:])  # other windows
    (tmp_path / "b" / "Left" / "0.mp4").rename(tmp_path / "b" / "Left" / "00.mp4")
    other = RealClips.of_split(tmp_path / "b", (4, 16, 16), "all")
    assert first.sha256(first.of_videos(8)) != other.sha256(other.of_videos(8))


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
