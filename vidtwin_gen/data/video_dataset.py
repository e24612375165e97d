"""Clips as an endless stream, and the count of the files that gave none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypedDict

import datasets
import pyarrow
import torch
from accelerate.utils import gather_object
from torch.utils.data import default_collate

from vidtwin_gen.data.decoding.frames import random_access
from vidtwin_gen.data.decoding.guarded import VideoError
from vidtwin_gen.data.names import some
from vidtwin_gen.data.pixels import cover, from_uint8
from vidtwin_gen.data.video import Start, read_frames
from vidtwin_gen.devices import processes
from vidtwin_gen.draws import EpochOrder, seeded_generator
from vidtwin_gen.flags import Decoder

# Past this many bad files in a row the data set is broken, not a file.
MAX_SKIPS = 64


class Sample(TypedDict):
    """A clip (C, F, H, W), its class id, which row of the index it came from, and the number of its
    first frame in the file.

    `skipped` holds (row, reason) of the bad files met on the way; `substitute` says that there were any, so
    that the clip stands in for another one, or is blank.
    """

    video: torch.Tensor
    label: int
    index: int
    start: int
    substitute: bool
    skipped: list[tuple[int, str]]


class VideoDataset(torch.utils.data.Dataset[Sample]):
    """An endless stream of clips over an index, addressed by position.

    `dataset[position]` is defined for every position >= 0: epoch `position // len` visits every video once,
    in a permutation of its own, and window and mirroring depend on (seed, position) alone. So
    `DataLoader(dataset, sampler=range(start, stop), collate_fn=collate)` resumes anywhere and gives the same
    clips whatever the batch size and the number of workers. With `shuffle=False, start="center"` the first
    `len` clips are the index in order: the reader for encoding and evaluation.

    A bad file (VideoError) is replaced by the next good one of its epoch and reported in the sample; see
    `Sample` and `BadVideos`. Without `substitutes` a blank clip stands in its place, for a reader that leaves
    it out: however many neighbours are bad, none is read twice.

    Args:
        index: from `build_index`.
        num_frames, size, fps, stride, start: as `read_clip`.
        shuffle: a new order each epoch, or the index's.
        flip: mirror half of the clips. Off by default: left and right may be what a class is about.
        decoder: what reads seekable files; ValueError where it is not installed.
    """

    def __init__(
        self,
        index: datasets.Dataset,
        num_frames: int,
        size: int | tuple[int, int],
        *,
        fps: float | None = None,
        stride: int | None = None,
        shuffle: bool = True,
        start: Start = "random",
        flip: bool = False,
        seed: int = 0,
        decoder: Decoder = "auto",
        substitutes: bool = True,
    ) -> None:
        if not len(index):
            raise ValueError("the index holds no videos")
        random_access(decoder)
        # Arrow's columns, not lists: a forked worker that only looks at Python's objects copies them.
        self._videos: pyarrow.Table = index.select_columns(["path", "label"]).with_format("arrow")[:]
        self.num_frames, self.size = num_frames, size
        self.window: dict[str, Any] = {"fps": fps, "stride": stride, "start": start, "decoder": decoder}
        self.flip, self.seed, self.substitutes = flip, seed, substitutes
        self.order = EpochOrder(len(index), shuffle=shuffle, seed=seed)

    def __len__(self) -> int:
        """Number of videos: the clips of one epoch."""
        return len(self._videos)

    def paths(self) -> Iterator[str]:
        """Of all videos, in the order of the index."""
        return (path.as_py() for path in self._videos["path"])

    def __getitem__(self, position: int) -> Sample:
        first = position % len(self)
        skipped: list[tuple[int, str]] = []
        for turn in range(min(MAX_SKIPS, len(self))):
            row = self.order[position - first + (first + turn) % len(self)]  # of the same epoch
            try:
                video, start = self._read(row, position)
            except VideoError as error:
                skipped.append((row, str(error)))
                if self.substitutes:
                    continue
                video, start = self._blank(), 0
            return {
                "video": video,
                "label": self._videos["label"][row].as_py(),
                "index": row,
                "start": start,
                "substitute": bool(skipped),
                "skipped": skipped,
            }
        raise ValueError(f"{len(skipped)} videos in a row are bad: {some([why for _, why in skipped])}")

    def _read(self, row: int, position: int) -> tuple[torch.Tensor, int]:
        # Seeded for each file tried. Which of them are bad belongs to the draw, so none is remembered here.
        generator = seeded_generator(self.seed, "draw", position)
        mirrored = self.flip and bool(torch.rand((), generator=generator) < 0.5)
        path = self._videos["path"][row].as_py()
        frames, start = read_frames(path, self.num_frames, generator=generator, **self.window)
        video = cover(from_uint8(torch.from_numpy(frames)), self.size)
        return video.flip(-1) if mirrored else video, start

    def _blank(self) -> torch.Tensor:
        sides = (self.size, self.size) if isinstance(self.size, int) else self.size
        return torch.zeros(3, self.num_frames, *sides)


def collate(samples: Sequence[Sample]) -> dict[str, Any]:
    """Samples -> video (B, C, F, H, W), label, start and substitute (B,), and the lists `index` and
    `skipped`, which stay on the host: a loop that reads them waits for no device."""
    lists = ("index", "skipped")
    stacked = default_collate([{k: v for k, v in sample.items() if k not in lists} for sample in samples])
    return stacked | {
        "index": [sample["index"] for sample in samples],
        "skipped": [bad for sample in samples for bad in sample["skipped"]],
    }


class BadVideos:
    """The bad files that a loop meets: few are skipped and reported, many stop it.

    Args:
        num_videos: length of the data set.
        max_fraction: of the distinct files met, how many may be bad. Judged from 100 files on, or from all
            of a smaller set.
        of_all: how many of the whole set may be bad instead, for a loop in the order of the index, whose
            first files tell nothing of the rest.
    """

    def __init__(self, num_videos: int, max_fraction: float = 0.05, *, of_all: bool = False) -> None:
        self.num_videos = num_videos
        self.max_fraction = max_fraction
        self.of_all = of_all
        self.reasons: dict[int, str] = {}
        self._seen: set[int] = set()

    def update(self, batch: Mapping[str, Any]) -> None:
        """Take in a batch of `collate`. Raises ValueError when too many files are bad."""
        self.reasons.update(batch["skipped"])
        self._seen.update(batch["index"], self.reasons)
        judged = self.num_videos if self.of_all else len(self._seen)
        if judged >= min(100, self.num_videos) and len(self.reasons) > self.max_fraction * judged:
            raise ValueError(
                f"too many bad files (limit {self.max_fraction:.0%}, --max_bad_fraction sets another): "
                f"{self.summary()}"
            )

    def gather(self) -> None:
        """Take in what the other processes have met; all call it."""
        if processes().num_processes == 1:
            return
        for reasons, seen in gather_object([(self.reasons, self._seen)]):
            self.reasons |= reasons
            self._seen |= seen

    def summary(self) -> str:
        """One line: how many, and the first few by name."""
        count = f"{len(self.reasons)} of {len(self._seen)} videos are bad"
        return f"{count}: {some(list(self.reasons.values()))}" if self.reasons else count
