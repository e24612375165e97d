"""What real and generated clips share: a clip as it was read, its way to a size, the videos of a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from vidtwin_gen.data.pixels import cover, from_uint8, to_uint8
from vidtwin_gen.data.ucf101 import VIDEO_SUFFIXES

RESIZE = "bilinear, antialiased, until the frame covers the size, centre crop, rounded to uint8"


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


def fit(clip: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(F, h, w, C) uint8 -> (F, H, W, C) uint8, as RESIZE says: one function for real and generated clips."""
    if tuple(clip.shape[1:3]) == size:
        return clip
    return to_uint8(cover(from_uint8(clip), size))


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
        videos = sorted(
            file
            for file in _files_below(path)
            if file.suffix.lower() in VIDEO_SUFFIXES and file.name[0] != "." and file.is_file()
        )
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
