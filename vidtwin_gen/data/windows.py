"""Which of a video's frames make a clip: a window of it, and the frames of that window."""

from __future__ import annotations

import math
import os
from typing import Literal

import torch

from vidtwin_gen.data.decoding import UnreadableVideoError, VideoTooShortError

Start = Literal["random", "center"] | int


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
