"""The clips that are measured: generated ones from their file, real ones from the videos of a split."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import datasets
import torch
from safetensors.torch import load_file
from tqdm.auto import tqdm

from vidtwin_gen.decoding import VideoError
from vidtwin_gen.ucf101 import build_index
from vidtwin_gen.video import first_fps, read_clip, to_uint8

Split = Literal["train", "test", "all"]
SPLITS: tuple[Split, ...] = ("train", "test", "all")


@dataclass(frozen=True)
class GeneratedClips:
    """`frames` (N, F, H, W, C) uint8, and the class name asked for of each."""

    frames: torch.Tensor
    names: list[str]


def read_generated(path: str | Path) -> GeneratedClips:
    """What `python -m pipelines generate` writes: clips.safetensors, with generated.json beside it for the
    names of the labels."""
    told = json.loads(Path(path).with_name("generated.json").read_text(encoding="utf-8"))
    names = dict(zip(told["class_labels"], told["class_names"], strict=True))
    tensors = load_file(path)
    return GeneratedClips(tensors["frames"], [names[label] for label in tensors["labels"].tolist()])


class RealClips:
    """Clips of the real videos of one split, (F, H, W, C) uint8, in an order that the seed decides.

    Bad or short files are passed over and listed in `skipped`.

    Args:
        data: `<data>/<class>/<video>`. shape: (num_frames, height, width) of a clip.
        split, fold: which videos. stride, fps: how densely frames are taken, as for `read_clip`.

    Raises:
        ValueError: a class that the data does not have, or of which no video can be read.
    """

    def __init__(
        self,
        data: str | Path,
        shape: Sequence[int],
        split: Split,
        *,
        fold: int = 1,
        stride: int | None = None,
        fps: float | None = None,
        seed: int = 0,
    ) -> None:
        self.index: datasets.Dataset = build_index(data, split=split, fold=fold)
        self.class_names: list[str] = self.index.features["label"].names
        self.num_frames, self.size = shape[0], (shape[1], shape[2])
        self.stride, self.fps = stride, fps
        self.generator = torch.Generator().manual_seed(seed)
        self.skipped: list[str] = []
        names = self.index["class_name"]
        self.num_videos = len(names)
        self.rows: dict[str, list[int]] = {name: [] for name in self.class_names}
        for row in torch.randperm(len(names), generator=self.generator).tolist():
            self.rows[names[row]].append(row)
        self.drawn = dict.fromkeys(self.class_names, 0)

    @property
    def gif_fps(self) -> float:
        """The clips' frame rate, or the 50 a second that viewers of GIFs keep up with."""
        rate = self.fps if self.fps is not None else first_fps(self.index["path"]) / (self.stride or 1)
        return min(rate, 50.0)

    def label(self, name: str) -> int:
        if name not in self.rows:
            raise ValueError(
                f"a generated clip is of class {name!r}, the data has {', '.join(self.class_names)}: name "
                "the --data that the generator was trained on"
            )
        return self.class_names.index(name)

    def matching(self, names: Sequence[str]) -> Iterator[torch.Tensor]:
        """A clip of each class named, in turn: every video once before any again with another window."""
        for name in tqdm(names, desc="reading real clips", unit="clip"):
            self.label(name)
            yield self._next(name)

    def evenly(self, num_clips: int | None) -> Iterator[torch.Tensor]:
        """Clips of all classes in turn, at most one a video."""
        return self.matching(self._even_names(num_clips))

    def labelled(self, num_clips: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        """`evenly` as one tensor (N, F, H, W, C), with labels (N,)."""
        names = self._even_names(num_clips)
        return torch.stack(list(self.matching(names))), torch.tensor([self.label(name) for name in names])

    def _even_names(self, num_clips: int | None) -> list[str]:
        most = max(len(rows) for rows in self.rows.values())
        names = [name for i in range(most) for name in self.class_names if i < len(self.rows[name])]
        if num_clips is not None and num_clips > len(names):
            print(f"the split holds {len(names)} videos: measuring those instead of {num_clips}")
        return names[:num_clips]

    def _next(self, name: str) -> torch.Tensor:
        rows = self.rows[name]
        for _ in range(len(rows)):
            row = rows[self.drawn[name] % len(rows)]
            self.drawn[name] += 1
            path = self.index[row]["path"]
            try:
                clip = read_clip(
                    path,
                    self.num_frames,
                    size=self.size,
                    fps=self.fps,
                    stride=self.stride,
                    generator=self.generator,
                )
            except VideoError as error:
                self.skipped.append(str(error))
                continue
            return to_uint8(clip)
        raise ValueError(f"class {name!r} has no video to measure with; {'; '.join(self.skipped[-3:])}")


def batches(clips: torch.Tensor, batch_size: int, title: str) -> Iterator[torch.Tensor]:
    """(N, ...) in parts of at most `batch_size`, with a progress bar that counts clips."""
    with tqdm(total=len(clips), desc=title, unit="clip") as progress:
        for batch in clips.split(batch_size):
            yield batch
            progress.update(len(batch))
