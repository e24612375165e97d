"""Read clips from video files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from vidtwin_gen.data.decoding import UnreadableVideoError, decode, guarded, open_reader
from vidtwin_gen.data.pixels import Crop, cover, from_uint8
from vidtwin_gen.data.windows import Start, frame_indices


@dataclass(frozen=True)
class VideoInfo:
    """What a file holds: frames that can be shown, the average frame rate (hertz), the size in pixels."""

    num_frames: int
    fps: float
    height: int
    width: int


def video_info(path: str | os.PathLike[str]) -> VideoInfo:
    """Frame count, frame rate and size of a video; one frame is decoded. Raises UnreadableVideoError."""

    def read() -> VideoInfo:
        reader, num_frames, _ = open_reader(path)
        height, width = reader.next().shape[:2]
        return VideoInfo(num_frames, float(reader.get_avg_fps()), height, width)

    return guarded(path, read)


def first_fps(paths: Iterable[str]) -> float:
    """The frame rate of the first of these videos that can be read.

    Raises:
        UnreadableVideoError: none of them can.
    """
    for path in paths:
        try:
            return video_info(path).fps
        except UnreadableVideoError as error:
            last = error
    raise last


class RawWindow(NamedTuple):
    """Frames (F, h, w, C) uint8 as a file has them, the number of the first, and the file's frame rate."""

    frames: np.ndarray
    start: int
    fps: float


def read_frames(
    path: str | os.PathLike[str],
    num_frames: int,
    *,
    fps: float | None = None,
    stride: int | None = None,
    start: Start = "random",
    generator: torch.Generator | None = None,
) -> RawWindow:
    """One window of a video file, of frames chosen by `frame_indices`.

    Raises:
        UnreadableVideoError: the file cannot be decoded where the window lies.
        VideoTooShortError: the window does not fit.
    """

    def read() -> RawWindow:
        reader, num_total, seekable = open_reader(path)
        rate = float(reader.get_avg_fps())
        indices = frame_indices(
            num_total, rate, num_frames, fps=fps, stride=stride, start=start, generator=generator, path=path
        )
        return RawWindow(decode(reader, indices, seekable), indices[0], rate)

    return guarded(path, read)


def read_clip(
    path: str | os.PathLike[str],
    num_frames: int,
    *,
    size: int | tuple[int, int],
    fps: float | None = None,
    stride: int | None = None,
    start: Start = "random",
    crop: Crop = "center",
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """(C, F, H, W) float32 in [-1, 1]: the window of `read_frames`, resized and cropped by `cover`. Errors as
    there."""
    raw = read_frames(path, num_frames, fps=fps, stride=stride, start=start, generator=generator)
    return cover(from_uint8(torch.from_numpy(raw.frames)), size, crop, generator)
