"""Write clips as files, and lay them out to be looked at."""

from __future__ import annotations

import errno
import math
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import torch
from PIL import Image

from vidtwin_gen.data.pixels import to_uint8
from vidtwin_gen.files import replacing_file

GIF_FPS = 50  # browsers slow down anything faster
BORDER = 2  # pixels between the cells of a grid: an even size stays even, as `write_video` needs


def write_video(
    path: str | Path, clip: torch.Tensor | np.ndarray, fps: float, *, quality: float = 8.0
) -> None:
    """Write one clip, float (C, F, H, W) in [-1, 1] or uint8 (F, H, W, C), as `video_writer` does.

    Raises:
        ValueError: as there, or not a clip.
    """
    frames = _frames(clip)
    with video_writer(path, frames.shape[1:3], fps, quality=quality) as write:
        write(frames)


@contextmanager
def video_writer(
    path: str | Path, size: tuple[int, ...], fps: float, *, quality: float = 8.0
) -> Iterator[Callable[[np.ndarray], int]]:
    """A function that appends uint8 frames (F, H, W, C) to `.mp4` (H.264) or `.avi` (MPEG-4, the codec of
    UCF-101's files), byte for byte reproducible. The file has its name when all went well.

    Args:
        size: (height, width), even, as 4:2:0 colour needs. Any even size is kept: no rounding up to 16.
        quality: 0 to 10, imageio's scale.

    Raises:
        ValueError: an odd size or another suffix.
        OSError: ffmpeg stopped.
    """
    import imageio_ffmpeg  # which GIFs and grids of clips, all that a training writes, do without

    height, width = size
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
    target += ["-f", suffix[1:]]
    quiet = ["-y", "-loglevel", "error"]
    with replacing_file(path) as partial, TemporaryFile() as complaints:
        command = [imageio_ffmpeg.get_ffmpeg_exe(), *quiet, *source, *target, str(partial.absolute())]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=complaints) as ffmpeg:
            pipe = ffmpeg.stdin
            assert pipe is not None
            try:
                yield lambda frames: pipe.write(np.ascontiguousarray(frames).data)
                pipe.close()
            except BaseException as error:
                ffmpeg.kill()
                with suppress(BrokenPipeError):
                    pipe.close()
                if not isinstance(error, BrokenPipeError):  # of that ffmpeg says the reason
                    raise
        if ffmpeg.returncode:
            complaints.seek(0)
            said = " ".join(complaints.read().decode(errors="replace").split())
            raise OSError(
                errno.EIO, f"{path}: ffmpeg ended with status {ffmpeg.returncode}, {said or 'silent'}"
            )


def gif_rate(fps: float) -> tuple[int, float]:
    """Of a video at this rate, which frames a GIF shows (all, every second, ...) and how many a second."""
    every = math.ceil(fps / GIF_FPS)
    return every, fps / every


def write_gif(path: str | Path, clip: torch.Tensor | np.ndarray, fps: float) -> None:
    """Write a looping GIF from float (C, F, H, W) in [-1, 1] or uint8 (F, H, W, C).

    GIF counts time in hundredths of a second; delays alternate (3, 3, 4 ... for 30 fps) so that the speed is
    right on average. Above GIF_FPS it has every second frame, or every third, ..., see `gif_rate`.

    Raises:
        ValueError: `fps` is not above 0, or not a clip.
    """
    if not 0 < fps < math.inf:
        raise ValueError(f"{path}: frames a second must be above 0, got {fps}")
    every, rate = gif_rate(fps)
    images = [Image.fromarray(frame) for frame in _frames(clip)[::every]]
    ticks = [round(k * 100 / rate) for k in range(len(images) + 1)]
    delays = [10 * (end - begin) for begin, end in zip(ticks[:-1], ticks[1:], strict=True)]
    whole = BytesIO()  # takes seconds to make; whoever is stopped meanwhile leaves no file behind
    images[0].save(
        whole, format="GIF", save_all=True, append_images=images[1:], duration=delays, loop=0, disposal=1
    )
    with replacing_file(path) as partial:
        partial.write_bytes(whole.getbuffer())


def write_png(path: str | Path, picture: Image.Image) -> None:
    with replacing_file(path) as partial:
        picture.save(partial, format="PNG")


def tile(clips: torch.Tensor | Sequence[torch.Tensor], columns: int | None = None) -> torch.Tensor:
    """B clips (C, F, H, W) in [-1, 1], all of one shape -> one (C, F, H', W') grid, row by row.

    White lines part the cells, and cells left over are white. `columns` defaults to a grid as square as
    possible.
    """
    shapes = {tuple(clip.shape) for clip in clips}
    if len(shapes) != 1 or any(len(shape) != 4 for shape in shapes):
        raise ValueError(f"tile needs clips (C, F, H, W) of one shape, got {sorted(shapes)}")
    columns = columns or math.ceil(math.sqrt(len(clips)))
    rows = math.ceil(len(clips) / columns)
    height, width = clips[0].shape[-2:]
    sides = (rows * (height + BORDER) - BORDER, columns * (width + BORDER) - BORDER)
    grid = clips[0].new_ones(*clips[0].shape[:2], *sides)
    for i, clip in enumerate(clips):
        top, left = i // columns * (height + BORDER), i % columns * (width + BORDER)
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
