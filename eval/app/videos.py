"""A visitor's video: cut where it is long."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from vidtwin_gen.data.decoding.guarded import VideoError
from vidtwin_gen.data.whole_video import VideoWindows

MOST_FRAMES = 96  # that are shown
MOST_PIXELS = 4096 * 2304  # of a frame as it is decoded


@dataclass(frozen=True)
class Video:
    """`windows` (W, C, F, H, W') float in [-1, 1], of which the first `num_frames` frames are the video's;
    `num_total`: those that it has at this rate."""

    name: str
    windows: torch.Tensor
    num_frames: int
    num_total: int
    fps: float

    @property
    def remark(self) -> str:
        """That it was cut, "" where it was not."""
        if self.num_frames == self.num_total:
            return ""
        return f"{self.name} has {self.num_total} frames at this rate: the first {self.num_frames} are used."

    def lengths(self) -> Iterator[int]:
        """How many frames of each window are the video's."""
        size = self.windows.shape[2]
        yield from (min(size, self.num_frames - start) for start in range(0, self.num_frames, size))


def read_upload(
    file: str | None, size: tuple[int, int, int], *, stride: int | None = None, fps: float | None = None
) -> Video:
    """The windows of a file, of (frames, height, width), at every stride-th frame or at a rate. Raises
    ValueError for what is no such video, in words that do not tell where the file lies."""
    if file is None:
        raise ValueError("drop a video into A first")
    name = Path(file).name
    if not Path(file).is_file():
        raise ValueError(f"{name} is not here any more: drop it again")
    path = str(file)  # gradio has a str of its own
    most = max(MOST_FRAMES // size[0], 1)
    try:
        windows = VideoWindows(path, size[0], size=size[1:], stride=stride, fps=fps, most_pixels=MOST_PIXELS)
        clips = torch.stack([clip for clip, _ in islice(windows, most)])
    except VideoError as error:
        raise ValueError(f"{name}: {error.reason}") from None
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    total = len(windows.indices)
    return Video(name, clips, min(total, most * size[0]), total, windows.fps)
