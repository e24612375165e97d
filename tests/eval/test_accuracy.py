"""`python -m eval accuracy`: its memory, its processes, its intervals."""

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
from eval.clips import Clips
from eval.real_clips import ClipDraw, RealClips
from tests.builders.commands import run, words_of
from tests.builders.forked import files_below
from tests.builders.processes import command_in_processes
from tests.builders.results import accuracy_result, generated_record
from vidtwin_gen.data.writing import write_video
from vidtwin_gen.records import AccuracyResult, wilson_interval


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
        command_in_processes(count, main, words)
        written.append(files_below(out))
    assert written[0] == written[1] and len(written[0]) == 3
    result = AccuracyResult.read(tmp_path / "1" / "accuracy.json")
    assert (result.num_train, len(result.skipped_videos or ())) == (7, 2) and result.codec


def test_an_accuracy_has_an_interval() -> None:
    # Agresti and Coull, 1998: of 10 clips 8, and all
    assert wilson_interval(0.8, 10) == pytest.approx([0.490, 0.943], abs=5e-4)
    assert wilson_interval(1.0, 10) == pytest.approx([0.722, 1.0], abs=5e-4)
    sides = {"accuracy": 0.8, "num_clips": 10, "confusion": [[8]]}
    assert (
        accuracy_result(real=sides | {"interval": wilson_interval(0.8, 10)}).text("real")
        == "80.0% (49.0% to 94.3%)"
    )
    assert accuracy_result(real=sides).text("real") == "80.0%"  # of earlier versions


LEVELS = {"Dark": 30, "Light": 220}


def flat_clip(level: int, seed: int) -> torch.Tensor:
    """(F, H, W, 3) uint8: one look tells whether it is dark or light."""
    generator = torch.Generator().manual_seed(seed)
    return (level + torch.randint(-20, 20, (6, 16, 16, 3), generator=generator)).to(torch.uint8)


def test_a_clip_counts_for_the_class_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five clips asked for as Light, of which one is dark, and one as Dark."""
    for name, level in LEVELS.items():
        for number in range(12):
            path = tmp_path / "data" / name / f"v_{name}_g{number:02d}_c01.avi"
            write_video(path, flat_clip(level, number), fps=8)
    levels = [220, 220, 30, 220, 220, 30]
    clips = torch.stack([flat_clip(level, 100 + number)[:4] for number, level in enumerate(levels)])
    save_file({"frames": clips, "labels": torch.tensor([1, 1, 1, 1, 1, 0])}, tmp_path / "clips.safetensors")
    generated_record(class_names=list(LEVELS), class_labels=[0, 1]).write(tmp_path / "generated.json")
    asked: dict[str, Any] = {}
    train = eval.accuracy.train_classifier

    def watched(*arguments: Any, **options: Any) -> Any:
        asked.update(options)
        return train(*arguments, **options)

    monkeypatch.setattr(eval.accuracy, "train_classifier", watched)
    flags = {"data": tmp_path / "data", "generated": tmp_path / "clips.safetensors", "num_steps": 30}
    record = run("accuracy", tmp_path / "accuracy.json", **flags, seed=3, horizontal_flip=True)
    assert (asked["num_steps"], asked["seed"], asked["horizontal_flip"]) == (30, 3, True)
    generated, real = record["generated"], record["real"]
    assert generated["confusion"] == [[1, 0], [1, 4]]  # a row is a class that was asked for
    assert generated["interval"] == wilson_interval(5 / 6, 6)
    assert real["accuracy"] == 1 and min(map(sum, real["confusion"])) > 0
