"""The classifier on squares whose only difference is which way they go."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import eval.accuracy
from eval.__main__ import main
from eval.accuracy import _augment, accuracy, interval, recognised, shrink, train_classifier
from eval.clips import Clips
from eval.real_clips import ClipDraw, RealClips
from tests.builders.commands import run, words_of
from tests.builders.forked import files_below
from tests.builders.processes import run_in_processes
from tests.builders.results import accuracy_result, generated_record
from vidtwin_gen.records import AccuracyResult


def moving_squares(per_class: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips (N, 8, 40, 40, 3) of a square going right, left, down or up from anywhere."""
    generator = torch.Generator().manual_seed(seed)
    clips, labels = [], []
    for label, (dy, dx) in enumerate(((0, 2), (0, -2), (2, 0), (-2, 0))):
        for _ in range(per_class):
            y, x = torch.randint(12, 21, (2,), generator=generator).tolist()
            clip = torch.full((8, 40, 40, 3), 40)
            colour = torch.randint(120, 256, (3,), generator=generator)
            for t in range(8):
                top, left = y + dy * (t - 4), x + dx * (t - 4)
                clip[t, top : top + 8, left : left + 8] = colour
            clips.append(clip.to(torch.uint8))
            labels.append(label)
    return torch.stack(clips), torch.tensor(labels)


def test_the_direction_of_motion_is_learned_and_reproducible() -> None:
    train, test = moving_squares(16, seed=0), moving_squares(8, seed=1)
    model = train_classifier(*train, num_classes=4, num_steps=40, batch_size=16)
    value, confusion = accuracy(model, [test])
    assert value >= 0.9
    assert confusion.sum(1).tolist() == [8] * 4
    assert confusion.trace().item() / confusion.sum().item() == pytest.approx(value)
    with torch.no_grad():  # no clip is judged by its batch
        torch.testing.assert_close(model(test[0][:1]), model(test[0])[:1])
    reverse = accuracy(model, [(test[0].flip(1), test[1])])[0]
    assert reverse < 0.2  # the same frames backwards are other classes: it is not the look that is told apart

    state = torch.random.get_rng_state()
    again = train_classifier(*train, num_classes=4, num_steps=3, batch_size=16, seed=3)
    once_more = train_classifier(*train, num_classes=4, num_steps=3, batch_size=16, seed=3)
    assert torch.equal(state, torch.random.get_rng_state())
    for name, value_once in again.state_dict().items():
        assert torch.equal(value_once, once_more.state_dict()[name])


def test_large_clips_are_averaged_down_and_small_ones_kept() -> None:
    clips = torch.zeros(1, 2, 64, 48, 3, dtype=torch.uint8)
    clips[:, :, ::2] = 100
    assert shrink(clips, 32).shape == (1, 2, 32, 32, 3)
    assert shrink(clips, 32).unique().tolist() == [50]
    assert shrink(clips, 64) is clips


def test_half_of_the_clips_are_degraded_and_none_is_mirrored_unasked() -> None:
    generator = torch.Generator().manual_seed(0)
    flat = torch.full((64, 2, 16, 16, 3), 128, dtype=torch.uint8)
    degraded = (_augment(flat, False, generator) != flat).flatten(1).any(1)
    assert 20 < degraded.sum() < 44
    rising = flat * torch.linspace(0, 1.9, 16)[:, None]
    for flip, low, high in ((False, 64, 64), (True, 20, 44)):
        clips = _augment(rising.to(torch.uint8), flip, generator).float()
        right, left = clips[..., -4:, :].flatten(1).mean(1), clips[..., :4, :].flatten(1).mean(1)
        assert low <= (right > left).sum() <= high


def test_labels_that_do_not_fit_are_refused() -> None:
    clips, labels = moving_squares(1, seed=0)
    with pytest.raises(ValueError, match=r"0\.\.2"):
        train_classifier(clips, labels, num_classes=3)
    with pytest.raises(ValueError, match="one label"):
        train_classifier(clips, labels[:2], num_classes=4)
    with pytest.raises(ValueError, match="uint8"):
        train_classifier(clips.float(), labels, num_classes=4)


def test_memory_does_not_grow_with_the_number_of_clips(
    synthetic_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the real clips a batch or two are there at their full size at any time."""
    names = sorted(path.name for path in synthetic_root.iterdir())[:2]
    frames = torch.zeros(2, 4, 48, 40, 3, dtype=torch.uint8)
    save_file({"frames": frames, "labels": torch.tensor([0, 1])}, tmp_path / "clips.safetensors")
    record = generated_record(class_names=names, class_labels=[0, 1])
    record.write(tmp_path / "generated.json")
    read, batch, made, held = RealClips.read, Clips.batch, [], []

    def watched_read(real: RealClips, draw: ClipDraw, *more_sizes: Any) -> Clips:
        held.append(sum(tensor.numel() for ref in made if (tensor := ref()) is not None) / frames[0].numel())
        clip = read(real, draw, *more_sizes)
        made.append(weakref.ref(clip.frames[0]))
        return clip

    def watched_batch(clips: Sequence[Clips]) -> Clips:
        whole = batch(clips)
        made.append(weakref.ref(whole.frames[0]))
        return whole

    monkeypatch.setattr(RealClips, "read", watched_read)
    monkeypatch.setattr(Clips, "batch", watched_batch)
    monkeypatch.setattr(eval.accuracy, "BATCH_SIZE", 3)
    flags = {"data": synthetic_root, "generated": tmp_path / "clips.safetensors"}
    flags |= {"num_steps": 1, "num_clips": 24}
    result = run("accuracy", tmp_path / "accuracy.json", **flags, real_gifs=tmp_path / "real")
    assert result["num_train"] == result["real"]["num_clips"] == 24
    assert len(held) == 48 and 2 <= max(held) <= 4 * 3  # and not 24 or 48
    assert len(list((tmp_path / "real").glob("*.gif"))) == 8


def in_process(_: int, words: list[str]) -> None:
    main(words)


def test_two_processes_judge_as_one(
    few_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Videos that can't be read are replaced as one process does it, and the record names them."""
    root = Path(shutil.copytree(few_videos, tmp_path / "data"))
    train = RealClips.of_split(root, (4, 16, 16), "train")
    for number in (1, 4):
        Path(train.paths[train.of_classes(train.even_names(None))[number].row]).write_bytes(b"no video")
    videos = tmp_path / "videos"
    for path in sorted(few_videos.glob("*/*"))[::4]:
        (videos / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, videos / path.parent.name)
    monkeypatch.setattr(eval.accuracy, "BATCH_SIZE", 2)
    flags = {"data": root, "generated": videos, "num_steps": 2, "num_frames": 4, "num_clips": 7}
    written = []
    for count in (1, 2):
        out = tmp_path / str(count)
        words = words_of("accuracy", **flags, real_gifs=out / "real", out=out / "accuracy.json")
        run_in_processes(count, in_process, words)
        written.append(files_below(out))
    assert written[0] == written[1] and len(written[0]) == 3
    result = AccuracyResult.read(tmp_path / "1" / "accuracy.json")
    assert (result.num_train, len(result.skipped_videos or ())) == (7, 2) and result.codec


def test_a_row_of_the_confusion_is_a_class_asked_for() -> None:
    value, confusion = recognised([(torch.tensor([1, 1, 0]), torch.tensor([0, 1, 0]))], 3)
    assert value == pytest.approx(2 / 3) and confusion.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]


def test_an_accuracy_has_an_interval() -> None:
    # Agresti and Coull, 1998: of 10 clips 8, and all
    assert interval(0.8, 10) == pytest.approx([0.490, 0.943], abs=5e-4)
    assert interval(1.0, 10) == pytest.approx([0.722, 1.0], abs=5e-4)
    sides = {"accuracy": 0.8, "num_clips": 10, "confusion": [[8]]}
    assert (
        accuracy_result(real=sides | {"interval": interval(0.8, 10)}).text("real") == "80.0% (49.0% to 94.3%)"
    )
    assert accuracy_result(real=sides).text("real") == "80.0%"  # of before
