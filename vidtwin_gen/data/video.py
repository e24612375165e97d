"""Read clips from video files: which of a video's frames make a clip, and their pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median_low
from typing import Literal, NamedTuple

import numpy as np
import torch

from vidtwin_gen.data.decoding.frames import read_frames_at
from vidtwin_gen.data.decoding.guarded import FilePath, UnreadableVideoError, VideoTooShortError
from vidtwin_gen.data.decoding.video_index import video_index
from vidtwin_gen.data.pixels import cover, from_uint8
from vidtwin_gen.flags import Decoder

Start = Literal["random", "center"] | int
MOST_RATES = 64  # videos whose frame rates are looked at


def frame_rates(paths: Sequence[str]) -> dict[float, int]:
    """How many of up to 64 videos, spread over the list, have each frame rate (hertz), the commonest first.
    Rates that round to one whole number count as one, their median. Raises UnreadableVideoError where no
    video has one, and ValueError where there are no videos."""
    if not paths:
        raise ValueError("no videos, and so no frame rate of them")
    for part in (paths[:: math.ceil(len(paths) / MOST_RATES)], paths):
        rates: dict[int, list[float]] = {}
        for rate in filter(None, map(_frame_rate, part)):
            rates.setdefault(round(rate), []).append(rate)
        if rates:
            return {median_low(alike): len(alike) for alike in sorted(rates.values(), key=len, reverse=True)}
    video_index(paths[0])  # says why, but for a file without a rate
    raise UnreadableVideoError(paths[0], f"neither it nor another of {len(paths)} has a frame rate")


def common_frame_rate(paths: Sequence[str]) -> float:
    """The first of `frame_rates`."""
    return next(iter(frame_rates(paths)))


def is_other_speed(fps: float, other: float) -> bool:
    """Whether motion at one frame rate is much faster or slower than at another, by more than a quarter."""
    return fps < 0.8 * other or fps > 1.25 * other


def _frame_rate(path: str) -> float | None:
    try:
        rate = video_index(path).fps
    except UnreadableVideoError:
        return None
    return rate if math.isfinite(rate) else None


def frame_indices(
    num_total: int,
    video_fps: float,
    num_frames: int,
    *,
    fps: float | None = None,
    stride: int | None = None,
    start: Start = "random",
    generator: torch.Generator | None = None,
    times: np.ndarray | None = None,
    path: FilePath = "video",
) -> list[int]:
    """Which of a video's `num_total` frames make a clip of `num_frames`.

    With `stride` (1 when neither is given), every stride-th frame. With `fps`, for each instant k / fps the
    frame nearest to it: start + floor(k * video_fps / fps + 1/2), or the nearest by `times`. A frame is shown
    twice only where `fps` is above the video's own rate. A clip that does not fit is an error, never shrunk
    and never padded.

    Args:
        start: the first frame: `"random"` (uniform over all that fit), `"center"`, or its index.
        times: (F,) seconds, rising: when each frame is shown, where the frame rate varies.
        path: names the video in an error.

    Raises:
        VideoTooShortError: the clip does not fit.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames must be positive, got {num_frames}")
    first = start if isinstance(start, int) else 0
    if first < 0 or not (isinstance(start, int) or start in ("random", "center")):
        raise ValueError(f"start must be 'random', 'center' or a frame from 0 on, got {start!r}")
    step = frame_step(video_fps, fps=fps, stride=stride, path=path)
    offsets = [math.floor(k * step + 0.5) for k in range(num_frames)]
    last_start = num_total - 1 - offsets[-1]
    spans = f"{offsets[-1] + 1}, the video has {num_total}"
    if fps is not None and times is not None:
        instants = np.arange(num_frames) / fps
        last_start = int(np.searchsorted(times, times[-1] + 0.5 / video_fps - instants[-1])) - 1
        spans = f"{instants[-1]:.3g} s, the video {times[-1]:.3g} s"
    if last_start < first:
        asked = f"fps={fps} of {video_fps:.5g}" if fps is not None else f"stride={stride or 1}"
        begin = f" from frame {first}" if first else ""
        raise VideoTooShortError(
            path,
            f"{num_frames} frames at {asked}{begin} span {spans}; "
            "ask for fewer frames, a smaller stride or a higher fps, or leave this file out",
        )
    if start == "random":
        first = int(torch.randint(last_start + 1, (), generator=generator))
    elif start == "center":
        first = last_start // 2
    if fps is not None and times is not None:
        return nearest_frames(times, times[first] + instants).tolist()
    return [first + offset for offset in offsets]


def nearest_frames(times: np.ndarray, instants: np.ndarray) -> np.ndarray:
    """Numbers (K,) of the frames of `times` (F,) that are nearest to `instants` (K,), of two the later."""
    return np.searchsorted((times[:-1] + times[1:]) / 2, instants, side="right")


def frame_step(video_fps: float, *, fps: float | None, stride: int | None, path: FilePath) -> float:
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
    """Frames (F, h, w, C) uint8 as a file has them, and the number of the first."""

    frames: np.ndarray
    start: int


def read_frames(
    path: FilePath,
    num_frames: int,
    *,
    fps: float | None = None,
    stride: int | None = None,
    start: Start = "random",
    generator: torch.Generator | None = None,
    decoder: Decoder = "auto",
) -> RawWindow:
    """One window of a video file, of frames chosen by `frame_indices`, read as `read_frames_at` does.

    Raises:
        UnreadableVideoError: the file cannot be decoded where the window lies.
        VideoTooShortError: the window does not fit.
    """
    index = video_index(path)
    numbers = frame_indices(
        index.num_frames,
        index.fps,
        num_frames,
        fps=fps,
        stride=stride,
        start=start,
        generator=generator,
        times=index.times,
        path=path,
    )
    return RawWindow(read_frames_at(path, index, numbers, decoder), numbers[0])


def read_clip(
    path: FilePath,
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
