"""A whole video as consecutive windows of one length, read one at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import count, islice, takewhile

import numpy as np
import torch

from vidtwin_gen.data.decoding.frames import frames_at
from vidtwin_gen.data.decoding.guarded import FilePath, UnreadableVideoError, VideoTooShortError, guarded_each
from vidtwin_gen.data.decoding.video_index import video_index
from vidtwin_gen.data.pixels import cover, from_uint8
from vidtwin_gen.data.video import frame_step, nearest_frames


class VideoWindows:
    """Every frame of a video file, or those of a lower rate, in windows of `num_frames`, none shared.

    Iterating gives `(clip, num_real)`. `clip` (C, F, H, W) is float32 in [-1, 1], resized and cropped by
    `cover`. Of the last window the first `num_real` frames are the video's, the others repeat the last of
    them; of all windows before it `num_real` is F. `len` is the number of windows. Only one window at a time
    is held in the file's own resolution.

    Attributes:
        info: what the file holds. fps: the rate (hertz) at which the frames taken play.
        indices: the frames taken, by their number in the file: the nearest to each instant k / fps, or every
            stride-th, as `frame_indices` takes them.
        most_pixels: of a frame as it is decoded, any number where left out; larger ones are refused.

    Raises:
        UnreadableVideoError: no video, or without a frame rate; when iterating, one that is damaged inside.
        VideoTooShortError: it does not fill one window.
        ValueError: fps and stride together, or not positive.
    """

    def __init__(
        self,
        path: FilePath,
        num_frames: int,
        *,
        size: int | tuple[int, int],
        fps: float | None = None,
        stride: int | None = None,
        most_pixels: int | None = None,
    ) -> None:
        self.path, self.num_frames, self.size = path, num_frames, size
        self.most_pixels, self.info = most_pixels, video_index(path, most_pixels)
        rate, total, times = self.info.fps, self.info.num_frames, self.info.times
        if not (math.isfinite(rate) and rate > 0):
            raise UnreadableVideoError(path, f"its frame rate reads {rate}; re-encode it")
        step = frame_step(rate, fps=fps, stride=stride, path=path)
        self.fps = fps if fps is not None else rate / step
        if fps is not None and times is not None:
            instants = np.arange(math.ceil((times[-1] + 0.5 / rate) * fps)) / fps
            self.indices = nearest_frames(times, instants).tolist()
        else:
            nearest = (math.floor(k * step + 0.5) for k in count())
            self.indices = list(takewhile(lambda index: index < total, nearest))
        if len(self.indices) < num_frames:
            asked = f"fps={fps:g} of {rate:.5g}" if fps is not None else f"stride={stride or 1}"
            raise VideoTooShortError(
                path,
                f"holds {total} frames, {len(self.indices)} at {asked}, and one window is {num_frames}; "
                "take a longer video, a smaller stride or a higher fps",
            )

    def __len__(self) -> int:
        return math.ceil(len(self.indices) / self.num_frames)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, int]]:
        # decord would decode hundreds ahead
        frames = guarded_each(self.path, frames_at, self.path, self.info, self.indices, self.most_pixels)
        for start in range(0, len(self.indices), self.num_frames):
            num_real = min(self.num_frames, len(self.indices) - start)
            window: list[np.ndarray] = list(islice(frames, num_real))
            # frame by frame, since floats of the file's own resolution are large
            shown = [cover(from_uint8(torch.from_numpy(frame)[None]), self.size) for frame in window]
            del window  # before the next one is read
            yield torch.cat(shown + shown[-1:] * (self.num_frames - num_real), dim=1), num_real
