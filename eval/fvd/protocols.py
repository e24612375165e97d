"""How published FVDs on UCF-101 are measured, by name. Numbers of different protocols do not compare."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from eval.flags import Codec, Resize, Split

# by video, in a random order; by class, each in turn; by the classes of the generated clips
Selection = Literal["videos", "classes", "generated"]
Divisor = Literal["N-1", "N"]
REAL_SELECTION: dict[Selection, str] = {
    "videos": "a random window of each video in a random order, again from the first when all were taken",
    "classes": "a random window of a random video, of each class in turn",
    "generated": "a random window of a random video, of the class of each generated clip",
}
FIRST_OF_CLASS = "of each class the first ones, as many as real clips"
ANY = "at random"
WITHOUT_CLASSES = "at random, of clips whose classes are not known"
QUICK = re.compile(r"quick-(\d+)")


@dataclass(frozen=True)
class ClipProtocol:
    """Which clips are compared, on both sides, and how. What else a number depends on is in the record.

    Args:
        name: e.g. "magvit-10k". num_clips: of each side. num_frames, height, width: of a clip.
        split: which real videos. stride, fps: source frames per clip frame, or a rate.
        selection: how real clips are drawn; the classes of the generated ones have to match theirs.
        num_seeds: generated sets that a published number is the mean of.
        generated_stride: of generated videos; None: as of real ones. resize: to height and width. codec: that
            clips of both sides go through at that size, but for generated videos, which have been through
            theirs. covariance_divisor: of N clips.
        not_published: what of a published protocol its source does not state, and we have chosen.
    """

    name: str
    num_clips: int
    num_frames: int
    height: int
    width: int
    split: Split
    stride: int | None
    selection: Selection
    fps: float | None = None
    num_seeds: int = 1
    generated_stride: int | None = None
    resize: Resize = "bilinear"
    codec: Codec = "none"
    covariance_divisor: Divisor = "N-1"
    not_published: str = ""

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.num_frames, self.height, self.width

    def floor_selection(self, num_videos: int) -> str:
        """Of how many videos there are, which ones the second set of real clips takes."""
        again = self.selection == "videos" and 2 * self.num_clips > num_videos
        return "other windows of the same videos" if again else "other videos"


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        ClipProtocol("magvit-10k", 10_000, 16, 128, 128, "train", 1, "videos", num_seeds=4),
        ClipProtocol("sgv-2048", 2_048, 16, 256, 256, "all", 1, "classes"),
        ClipProtocol("sgv-2048-stride3", 2_048, 16, 256, 256, "all", 3, "classes"),
        ClipProtocol(  # the evaluation config of V-RAE, arXiv 2608.13556
            name="vrae-2048",
            num_clips=2_048,
            num_frames=17,
            height=256,
            width=256,
            split="train",
            stride=3,
            selection="videos",
            generated_stride=1,
            resize="lanczos",
            codec="mp4",
            covariance_divisor="N",
            not_published="size and crop of frames, draw of clips, settings of the mp4, real clips in mp4",
        ),
    )
}


def quick(
    num_clips: int,
    shape: Sequence[int],
    split: Split,
    stride: int | None,
    fps: float | None,
    selection: Selection,
) -> ClipProtocol:
    """quick-N: N clips a side of any size and rate, for comparisons within one project."""
    num_frames, height, width = shape
    rate = stride or (1 if fps is None else None)
    return ClipProtocol(
        f"quick-{num_clips}", num_clips, num_frames, height, width, split, rate, selection, fps
    )


def quick_count(name: str) -> int | None:
    """The N of quick-N, None for a published protocol.

    Raises:
        ValueError: neither.
    """
    if name in PROTOCOLS:
        return None
    match = QUICK.fullmatch(name)
    if not match or int(match[1]) < 2:
        raise ValueError(
            f"--protocol {name}: expected {', '.join(PROTOCOLS)} or quick-N with N from 2 on, e.g. quick-256"
        )
    return int(match[1])
