"""Read clips from video files: which of a video's frames make a clip, and their pixels."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch

from vidtwin_gen.data.decoding import (
    UnreadableVideoError,
    VideoTooShortError,
    frames_at,
    guarded,
    open_reader,
)
from vidtwin_gen.data.pixels import cover, from_uint8

Start = Literal["random", "center"] | int


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
    """The frame rate of the first of these videos that can be read. Raises UnreadableVideoError where none
    can."""
    for path in paths:
        try:
            return video_info(path).fps
        except UnreadableVideoError as error:
            last = error
    raise last


def frame_indices(
    num_total: int,
    video_fps: float,
    num_frames: int,
    *,
    fps: float | None = None,
    stride: int | None = None,
    start: Start = "random",
    generator: torch.Generator | None = None,
    path: str | os.PathLike[str] = "video",
) -> list[int]:
    """Which of a video's `num_total` frames make a clip of `num_frames`.

    With `stride` (1 when neither is given), every stride-th frame. With `fps`, for each instant k / fps the
    frame nearest to it: start + floor(k * video_fps / fps + 1/2). A frame is shown twice only where `fps` is
    above the video's own rate. A clip that does not fit is an error, never shrunk and never padded.

    Args:
        start: the first frame: `"random"` (uniform over all that fit), `"center"`, or its index.
        path: names the video in an error.

    Raises:
        VideoTooShortError: the clip does not fit.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames must be positive, got {num_frames}")
    step = sampling_step(video_fps, fps=fps, stride=stride, path=path)
    offsets = [math.floor(k * step + 0.5) for k in range(num_frames)]
    last_start = num_total - 1 - offsets[-1]
    if isinstance(start, int) and start < 0:
        raise ValueError(f"start must be 'random', 'center' or a frame from 0 on, got {start}")
    if last_start < (start if isinstance(start, int) else 0):
        asked = f"fps={fps} of {video_fps:.5g}" if fps is not None else f"stride={stride or 1}"
        begin = f" from frame {start}" if isinstance(start, int) and start else ""
        raise VideoTooShortError(
            path,
            f"{num_frames} frames at {asked}{begin} span {offsets[-1] + 1}, the video has {num_total}; "
            "ask for fewer frames, a smaller stride or a higher fps, or leave this file out",
        )
    if start == "random":
        start = int(torch.randint(last_start + 1, (), generator=generator))
    elif start == "center":
        start = last_start // 2
    elif not isinstance(start, int):
        raise ValueError(f"start must be 'random', 'center' or a frame from 0 on, got {start!r}")
    return [start + offset for offset in offsets]


def sampling_step(
    video_fps: float,
    *,
    fps: float | None = None,
    stride: int | None = None,
    path: str | os.PathLike[str] = "video",
) -> float:
    """How many of a video's frames lie between two that are taken: `stride`, 1 when neither is given, or
    video_fps / fps. `path` names the video in an error.

    Raises:
        ValueError: both are given, or not positive.
        UnreadableVideoError: `fps` is given and the video's own rate is not known.
    """
    if fps is not None and stride is not None:
        raise ValueError(f"give fps or stride, not both; got fps={fps} and stride={stride}")
    if (stride is not None and stride < 1) or (fps is not None and not 0 < fps < math.inf):
        raise ValueError(f"stride and fps must be positive and finite, got {stride} and {fps}")
    if fps is None:
        return stride or 1
    if not (math.isfinite(video_fps) and video_fps > 0):
        reason = (
            f"fps={fps} needs the video's frame rate, which reads {video_fps}; re-encode it or use stride"
        )
        raise UnreadableVideoError(path, reason)
    return video_fps / fps


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
        frames = np.stack(list(frames_at(reader, indices, seekable)))
        return RawWindow(frames, indices[0], rate)

    return guarded(path, read)


def read_clip(
    path: str | os.PathLike[str],
    num_frames: int,
    *,
    size: int | tuple[int, int],
    fps: float | None = None,
    stride: int | None = None,
    start: Start = "random",
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """(C, F, H, W) float32 in [-1, 1]: the window of `read_frames`, resized and cropped by `cover`. Errors as
    there."""
    raw = read_frames(path, num_frames, fps=fps, stride=stride, start=start, generator=generator)
    return cover(from_uint8(torch.from_numpy(raw.frames)), size)
