"""Read clips from video files, write them back, and lay them out to be looked at.

A clip is float32 (C, F, H, W) in [-1, 1]; uint8 frames (F, H, W, C) exist only at the edge to files.
"""

from __future__ import annotations

import math
import os
import subprocess
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import imageio_ffmpeg
import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image

from vidtwin_gen.data.decoding import UnreadableVideoError, VideoTooShortError, decode, guarded, open_reader

Start = Literal["random", "center"] | int
Crop = Literal["random", "center"]


@dataclass(frozen=True)
class VideoInfo:
    """What a file holds: frames that can be shown, the average frame rate (hertz), the size in pixels."""

    num_frames: int
    fps: float
    height: int
    width: int


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
    """(C, F, H, W) float32 in [-1, 1]: one window of a video file, resized and cropped.

    The frames are chosen by `frame_indices`, resized and cropped by `cover`.

    Raises:
        UnreadableVideoError: the file cannot be decoded where the clip lies.
        VideoTooShortError: the clip does not fit.
    """
    clip, _ = read_window(
        path, num_frames, size=size, fps=fps, stride=stride, start=start, crop=crop, generator=generator
    )
    return clip


def read_window(
    path: str | os.PathLike[str],
    num_frames: int,
    *,
    size: int | tuple[int, int],
    fps: float | None = None,
    stride: int | None = None,
    start: Start = "random",
    crop: Crop = "center",
    generator: torch.Generator | None = None,
) -> tuple[torch.Tensor, int]:
    """The clip of `read_clip`, and the number of its first frame in the file."""
    if crop not in ("random", "center"):
        raise ValueError(f"crop must be 'random' or 'center', got {crop!r}")
    raw = read_frames(path, num_frames, fps=fps, stride=stride, start=start, generator=generator)
    frames = torch.from_numpy(raw.frames)  # (F, h, w, C)
    return cover(from_uint8(frames), size, crop, generator), raw.start  # (C, F, H, W)


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
    """The window of `read_clip` in the file's own size. Arguments and errors as there."""

    def read() -> RawWindow:
        reader, num_total, seekable = open_reader(path)
        rate = float(reader.get_avg_fps())
        indices = frame_indices(
            num_total,
            rate,
            num_frames,
            fps=fps,
            stride=stride,
            start=start,
            generator=generator,
            path=path,
        )
        return RawWindow(decode(reader, indices, seekable), indices[0], rate)

    return guarded(path, read)


def cover(
    clip: torch.Tensor,
    size: int | tuple[int, int],
    crop: Crop = "center",
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """(C, F, h, w) -> (C, F, H, W): frames resized (bilinear, antialiased) until they just cover `size`, an
    edge or (height, width), and cropped to it; nothing is stretched or padded."""
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise ValueError(f"size must be positive, got {size}")
    scale = max(height / clip.shape[-2], width / clip.shape[-1])
    covered = (max(height, round(clip.shape[-2] * scale)), max(width, round(clip.shape[-1] * scale)))
    if covered != tuple(clip.shape[-2:]):
        frames = rearrange(clip, "c f h w -> f c h w")
        frames = F.interpolate(frames, covered, mode="bilinear", antialias=True, align_corners=False)
        clip = rearrange(frames, "f c h w -> c f h w")
    spare = (covered[0] - height, covered[1] - width)
    if crop == "random":
        top, left = (int(torch.randint(extra + 1, (), generator=generator)) for extra in spare)
    else:
        top, left = spare[0] // 2, spare[1] // 2
    return clip[..., top : top + height, left : left + width].contiguous()


def to_uint8(clip: torch.Tensor) -> torch.Tensor:
    """(..., C, F, H, W) in [-1, 1] -> uint8 (..., F, H, W, C). Clamped and rounded, never truncated."""
    levels = (clip.detach().float() + 1) * 127.5
    return rearrange(levels.round().clamp(0, 255).to(torch.uint8), "... c f h w -> ... f h w c")


def from_uint8(frames: torch.Tensor) -> torch.Tensor:
    """uint8 (..., F, H, W, C) -> float32 (..., C, F, H, W) in [-1, 1]. The inverse of `to_uint8`."""
    return rearrange(frames, "... f h w c -> ... c f h w").float() / 127.5 - 1


def write_video(
    path: str | os.PathLike[str], clip: torch.Tensor | np.ndarray, fps: float, *, quality: float = 8.0
) -> None:
    """Write `.mp4` (H.264) or `.avi` (MPEG-4, the codec of UCF-101's files), byte for byte reproducible.

    Args:
        clip: float (C, F, H, W) in [-1, 1] or uint8 (F, H, W, C); height and width even, as 4:2:0 colour
            needs. Any even size is kept: no rounding up to 16.
        quality: 0 to 10, imageio's scale.

    Raises:
        ValueError: an odd size, another suffix, or not a clip.
    """
    frames = _frames(clip)
    num_frames, height, width = frames.shape[:3]
    suffix = Path(path).suffix.lower()
    if suffix not in (".mp4", ".avi"):
        raise ValueError(f"{path}: can write .mp4 and .avi, not {suffix!r}; for .gif there is write_gif")
    if height % 2 or width % 2:
        raise ValueError(
            f"{path}: {suffix} needs an even height and width, got {height}x{width}; crop or pad"
        )
    if not (0 <= quality <= 10 and fps > 0):
        raise ValueError(f"quality must be 0 to 10 and fps positive, got {quality} and {fps}")
    loss = 1 - quality / 10
    codec = {
        ".mp4": ["libx264", "-crf", str(int(loss * 51)), "-movflags", "+faststart"],
        ".avi": ["mpeg4", "-vtag", "XVID", "-qscale:v", str(int(loss * 30) + 1)],
    }[suffix]
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{fps:g}", "-i", "-"]
    target = ["-c:v", *codec, "-pix_fmt", "yuv420p", "-threads", "1", "-fflags", "+bitexact"]
    with _atomic(path) as part:
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *source, *target, str(part)]
        done = subprocess.run(command, input=frames.tobytes(), capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{path}: ffmpeg could not write it: {done.stderr.decode(errors='replace')}")


def write_gif(path: str | os.PathLike[str], clip: torch.Tensor | np.ndarray, fps: float) -> None:
    """Write a looping GIF from float (C, F, H, W) in [-1, 1] or uint8 (F, H, W, C).

    GIF counts time in hundredths of a second and browsers slow down anything above 50 fps, so `fps` must not
    exceed 50; delays alternate (3, 3, 4 ... for 30 fps) so that the speed is right on average.
    """
    if not 0 < fps <= 50:
        raise ValueError(f"{path}: a GIF plays at most 50 fps, got {fps}; drop frames or write .mp4")
    images = [Image.fromarray(frame) for frame in _frames(clip)]
    ticks = [round(k * 100 / fps) for k in range(len(images) + 1)]
    delays = [10 * (end - begin) for begin, end in zip(ticks[:-1], ticks[1:], strict=True)]
    with _atomic(path) as part:
        images[0].save(
            part, format="GIF", save_all=True, append_images=images[1:], duration=delays, loop=0, disposal=1
        )


def tile(
    clips: torch.Tensor | Sequence[torch.Tensor], columns: int | None = None, border: int = 2
) -> torch.Tensor:
    """B clips (C, F, H, W) in [-1, 1], all of one shape -> one (C, F, H', W') grid, row by row.

    White lines of `border` pixels part the cells (an even border keeps even sizes even, as `write_video`
    needs); cells left over are white. `columns` defaults to a grid as square as possible.
    """
    shapes = {tuple(clip.shape) for clip in clips}
    if len(shapes) != 1 or any(len(shape) != 4 for shape in shapes):
        raise ValueError(f"tile needs clips (C, F, H, W) of one shape, got {sorted(shapes)}")
    columns = columns or math.ceil(math.sqrt(len(clips)))
    rows = math.ceil(len(clips) / columns)
    height, width = clips[0].shape[-2:]
    grid = clips[0].new_ones(
        *clips[0].shape[:2],
        rows * (height + border) - border,
        columns * (width + border) - border,
    )
    for i, clip in enumerate(clips):
        top, left = i // columns * (height + border), i % columns * (width + border)
        grid[:, :, top : top + height, left : left + width] = clip
    return grid


def filmstrip(clips: torch.Tensor | Sequence[torch.Tensor], num_frames: int = 8) -> Image.Image:
    """B clips (C, F, H, W) in [-1, 1] -> one picture: a row per clip, `num_frames` evenly spaced columns.

    Motion at a glance, for a PNG; the first and the last frame are always shown.
    """
    frames = []
    for clip in clips:
        shown = torch.linspace(0, clip.shape[1] - 1, min(num_frames, clip.shape[1])).round().long()
        frames += clip[:, shown].split(1, dim=1)
    return Image.fromarray(to_uint8(tile(frames, columns=len(frames) // len(clips)))[0].cpu().numpy())


def _frames(clip: torch.Tensor | np.ndarray) -> np.ndarray:
    """uint8 (F, H, W, 3) from either form of a clip."""
    clip = torch.as_tensor(clip)
    frames = to_uint8(clip) if clip.is_floating_point() and clip.ndim == 4 else clip
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(
            "expected one clip, float (3, F, H, W) in [-1, 1] or uint8 (F, H, W, 3), "
            f"got {clip.dtype} {tuple(clip.shape)}"
        )
    return frames.cpu().contiguous().numpy()


@contextmanager
def _atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path to write to in the same folder, which takes the name `path` only when all went well."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.stem}.{uuid.uuid4().hex[:8]}{target.suffix}")
    try:
        yield part
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
