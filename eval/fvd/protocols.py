"""How published FVDs on UCF-101 are measured, by name. Numbers of different protocols do not compare."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from eval.clips import RESIZE, Draw, RealClips, Split
from eval.fvd.distance import FVDProtocol
from eval.fvd.features import FeatureExtractor

# by video, in a random order; by class, each in turn; by the classes of the generated clips
Selection = Literal["videos", "classes", "generated"]
TOLD: dict[Selection, str] = {
    "videos": "a random window of each video in a random order, again from the first when all were taken",
    "classes": "a random window of a random video, of each class in turn",
    "generated": "a random window of a random video, of the class of each generated clip",
}
FIRST_OF_CLASS = "of each class the first ones, as many as real clips"
ANY = "at random"
QUICK = re.compile(r"quick-(\d+)")


@dataclass(frozen=True)
class ClipProtocol:
    """Which clips are compared, on both sides; what else a number depends on is the same for all (bilinear
    antialiased resize, rounding, no codec, covariance over N - 1) and stands in the record.

    Args:
        name: e.g. "magvit-10k". num_clips: of each side. num_frames, height, width: of a clip.
        split: which real videos. stride, fps: source frames per clip frame, or a rate.
        selection: how real clips are drawn; the classes of the generated ones have to match theirs.
        num_seeds: generated sets that a published number is the mean of.
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

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.num_frames, self.height, self.width

    def draws(self, real: RealClips, names: Sequence[str], sets: int = 1) -> list[Draw]:
        """The draws of so many disjoint sets of real clips, one after the other; `names` are the classes of
        one of them where the selection goes by class."""
        if self.selection == "videos":
            return real.of_videos(sets * self.num_clips)
        return real.of_classes([*names] * sets)

    def real_names(self, real: RealClips) -> list[str]:
        """The classes of the real clips, where they do not follow the generated ones.

        Raises:
            ValueError: fewer videos than the protocol wants.
        """
        # with twice as many clips as videos, a published set would be made of copies
        num_good = real.num_videos - len(real.bad)
        if self.num_clips > (2 * num_good if self.selection == "videos" else num_good):
            raise ValueError(
                f"--protocol {self.name} wants {self.num_clips} real clips, the {self.split} split has "
                f"{num_good} videos: give the whole data set, or --protocol quick-{num_good}"
            )
        if self.selection == "videos":
            return [real.names[draw.row] for draw in real.of_videos(self.num_clips)]
        return real.even_names(self.num_clips)

    def check_classes(self, real: RealClips, names: Sequence[str]) -> None:
        """Whether there are videos enough of the classes of the generated clips, each counting twice at most.

        Raises:
            ValueError: a class that the data does not have, or with too few videos.
        """
        rows = real.rows
        asked = Counter[str]()
        for number, name in enumerate(names):
            real.label(name)
            asked[name] += 1
            if asked[name] > 2 * len(rows[name]):
                less = f", or --protocol quick-{number}" if number > 1 else ""
                raise ValueError(
                    f"--protocol {self.name} wants {names.count(name)} real clips of {name}, as many as the "
                    f"generated ones; the {self.split} split has {len(rows[name])} videos of it that can be "
                    f"read, and none is used more than twice: give more data{less}"
                )

    def floor_objection(self, real: RealClips, names: Sequence[str]) -> str | None:
        """Why there is no second set of real clips of these classes, if so."""
        if self.selection == "videos":
            return None
        rows = real.rows
        short = [name for name, count in Counter(names).items() if 2 * count > len(rows[name])]
        if not short:
            return None
        return (
            f"too few videos: {self.num_clips} other real clips need twice as many videos of each class as "
            f"clips, and {short[0]} has {len(rows[short[0]])} for 2 x {names.count(short[0])}"
        )

    def record(
        self, extractor: FeatureExtractor, *, fold: int, seed: int, generated_selection: str = ""
    ) -> FVDProtocol:
        """What stands beside a number that was measured so."""
        return FVDProtocol(
            name=self.name,
            num_real=self.num_clips,
            num_generated=self.num_clips,
            num_frames=self.num_frames,
            height=self.height,
            width=self.width,
            split=self.split,
            fold=None if self.split == "all" else fold,
            stride=self.stride,
            fps=self.fps,
            real_selection=TOLD[self.selection],
            seed=seed,
            generated_selection=generated_selection,
            clip_resize=RESIZE,
            resize=extractor.resize,
            feature_extractor=extractor.name,
            weights_sha256=extractor.weights_sha256,
            feature_dim=extractor.dim,
        )

    @property
    def floor_selection(self) -> str:
        return "other windows of the same videos" if self.selection == "videos" else "other videos"


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        ClipProtocol("magvit-10k", 10_000, 16, 128, 128, "train", 1, "videos", num_seeds=4),
        ClipProtocol("sgv-2048", 2_048, 16, 256, 256, "all", 1, "classes"),
        ClipProtocol("sgv-2048-stride3", 2_048, 16, 256, 256, "all", 3, "classes"),
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


def choose(names: Sequence[str], wanted: Sequence[str], order: Sequence[int], title: str) -> list[int]:
    """Of generated clips of these classes the first ones of each in this order, as many as `wanted` has.

    Raises:
        ValueError: too few of a class; `title` is the file's name.
    """
    left = Counter(wanted)
    have = Counter(names)
    short = {name: count for name, count in left.items() if have[name] < count}
    if short:
        name, count = next(iter(short.items()))
        raise ValueError(
            f"{title}: the classes of its clips are not those of the real ones: {have[name]} of {name} for "
            f"{count}" + (f", and {len(short) - 1} more classes" if len(short) > 1 else "") + "; generate "
            "with `python -m pipelines generate --labels_from REFERENCE`, the file that `python -m eval "
            "reference` writes"
        )
    chosen = []
    for index in order:
        if left[names[index]] > 0:
            left[names[index]] -= 1
            chosen.append(index)
    return chosen
