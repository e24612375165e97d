"""What real and generated clips share: a clip as it was read, its way to a size, the videos of a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image

from eval.flags import Codec, Resize
from vidtwin_gen.data.pixels import cover, covering_size, from_uint8, to_uint8
from vidtwin_gen.data.ucf101 import VIDEO_SUFFIXES, is_video
from vidtwin_gen.data.video import read_frames
from vidtwin_gen.data.writing import write_video

RESIZE = "bilinear, antialiased, until the frame covers the size, centre crop, rounded to uint8"
# as records name them; the first word is what publications state
RESIZES: dict[Resize, str] = {
    "bilinear": RESIZE,
    "lanczos": "lanczos, by PIL in uint8, until the frame covers the size, centre crop",
}
MP4_FPS = 25  # UCF-101's; x264 spends its bits by it
CODECS: dict[Codec, str] = {"none": "none", "mp4": f"mp4 h264 yuv420p, -crf 10 at {MP4_FPS} fps"}


@dataclass(frozen=True)
class Clips:
    """A clip or a batch of them as it was read.

    Args:
        frames: uint8 (F, H, W, C), of a batch (B, F, H, W, C), at one or more sizes.
        origin: int64 (3,) or (B, 3): the first frame's number in its file, and the height and width there.
    """

    frames: tuple[torch.Tensor, ...]
    origin: torch.Tensor

    @classmethod
    def batch(cls, clips: Sequence[Clips]) -> Clips:
        sizes = zip(*(clip.frames for clip in clips), strict=True)
        return cls(tuple(map(torch.stack, sizes)), torch.stack([clip.origin for clip in clips]))


def fit(clip: torch.Tensor, size: tuple[int, int], resize: Resize = "bilinear") -> torch.Tensor:
    """(F, h, w, C) uint8 -> (F, H, W, C) uint8, as RESIZES says: one function for real and generated
    clips."""
    if tuple(clip.shape[1:3]) == size:
        return clip
    if resize == "lanczos":
        height, width = covering_size(clip.shape[1:3], size)
        pictures = (Image.fromarray(frame) for frame in clip.numpy())
        resized = (picture.resize((width, height), Image.Resampling.LANCZOS) for picture in pictures)
        clip = torch.from_numpy(np.stack([*map(np.asarray, resized)]))  # which `cover` has only to crop
    return to_uint8(cover(from_uint8(clip), size))


def prepare(
    clip: torch.Tensor, size: tuple[int, int], resize: Resize = "bilinear", codec: Codec = "none"
) -> torch.Tensor:
    """(F, h, w, C) uint8 -> (F, H, W, C) uint8, as it is compared: `fit`, then written and read again."""
    clip = fit(clip, size, resize)
    if codec == "none":
        return clip
    with TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_video(path, clip, MP4_FPS)
        return torch.from_numpy(read_frames(path, len(clip), start=0).frames)


def preparation(resize: Resize, codec: Codec) -> dict[str, str]:
    """What stored features depend on of these. Without a codec there is no field of it, as in features that
    earlier versions stored."""
    return {"resize": RESIZES[resize]} | ({"codec": CODECS[codec]} if codec != "none" else {})


def find_videos(paths: Sequence[str | Path]) -> list[Path]:
    """Files as they are given, and of each folder the videos at any depth (by their suffix, hidden ones left
    out), sorted, none twice. Links are followed, as those of --data are.

    Raises:
        ValueError: no such file or folder, or a folder without a video.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        path = path.expanduser()
        if path.is_file():
            found[path] = None
            continue
        if not path.is_dir():
            raise ValueError(f"{path} is neither a file nor a folder: name videos, or folders that hold some")
        videos = sorted(file for file in _files_below(path) if is_video(file.name) and file.is_file())
        if not videos:
            raise ValueError(
                f"{path} holds no video at any depth; what ends in {' '.join(sorted(VIDEO_SUFFIXES))} is one"
            )
        found |= dict.fromkeys(videos)
    return list(found)


def _files_below(root: Path) -> Iterator[Path]:
    """Through links too, and through each folder once, where links go round."""
    seen = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        folders.sort()
        place = os.path.realpath(folder)
        if place in seen:
            folders.clear()
            continue
        seen.add(place)
        yield from (Path(folder, name) for name in names)
