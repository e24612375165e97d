"""python -m eval sensitivity: do the distances grow with what is wrong with real clips? They are made worse
in four ways, each by degrees (after Unterthiner et al., arXiv 1812.01717, section 4)."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from matplotlib.figure import Figure

from eval.clips import Clips
from eval.extraction import Extraction
from eval.figures import COLOURS, tidy, write_figure
from eval.fvd.distance import FeatureSet, distance_of_sums, distances
from eval.fvd.features import check_length
from eval.fvd.flags import SensitivityFlags
from eval.fvd.networks import extractor_of
from eval.fvd.protocols import quick
from eval.fvd.selection import Settings
from vidtwin_gen.devices import processes
from vidtwin_gen.records import SensitivityResult


def noise(clips: torch.Tensor, sigma: float) -> torch.Tensor:
    """(B, F, H, W, C) uint8: with Gaussian noise of this standard deviation, in levels of 255."""
    drawn = [torch.randn(clip.shape, generator=_generator(clip)) for clip in clips]
    return (clips + sigma * torch.stack(drawn)).round().clamp(0, 255).to(torch.uint8)


def blur(clips: torch.Tensor, sigma: float) -> torch.Tensor:
    """(B, F, H, W, C) uint8: each frame smoothed by a Gaussian of this width in pixels, edges reflected."""
    radius = min(math.ceil(3 * sigma), min(clips.shape[2:4]) - 1)
    weights = torch.exp(-torch.arange(-radius, radius + 1).square() / (2 * sigma**2))
    weights = weights / weights.sum()
    frames = rearrange(clips, "b f h w c -> (b f c) 1 h w").float()
    frames = F.conv2d(F.pad(frames, (radius, radius, 0, 0), mode="reflect"), weights.view(1, 1, 1, -1))
    frames = F.conv2d(F.pad(frames, (0, 0, radius, radius), mode="reflect"), weights.view(1, 1, -1, 1))
    blurred = rearrange(frames, "(b f c) 1 h w -> b f h w c", b=clips.shape[0], f=clips.shape[1])
    return blurred.round().clamp(0, 255).to(torch.uint8)


def shuffle(clips: torch.Tensor, num_frames: float) -> torch.Tensor:
    """(B, F, H, W, C) uint8: so many frames, chosen at random, change places, none staying at its own."""
    shuffled = clips.clone()
    for clip, source in zip(shuffled, clips, strict=True):
        places = torch.randperm(len(source), generator=_generator(source))[: int(num_frames)]
        clip[places] = source[places.roll(1)]
    return shuffled


def freeze(clips: torch.Tensor, num_frames: float) -> torch.Tensor:
    """(B, F, H, W, C) uint8: each frame shown stays for so many; for all of them, a still picture."""
    shown = torch.arange(clips.shape[1]) // int(num_frames) * int(num_frames)
    return clips[:, shown]


def _generator(clip: torch.Tensor) -> torch.Generator:
    """Seeded by the clip itself, so that neither its batch nor its place in it changes what is drawn."""
    return torch.Generator().manual_seed(zlib.crc32(clip.contiguous().numpy().tobytes()))


@dataclass(frozen=True)
class Distortion:
    """A way to make clips worse: `apply(clips, level)` at each of its `levels`, which have a `unit`.

    undistorted: the level that changes nothing. counts_frames: whether a level is a number of frames.
    """

    apply: Callable[[torch.Tensor, float], torch.Tensor]
    levels: tuple[float, ...]
    unit: str
    undistorted: float
    counts_frames: bool = False

    def levels_of(self, num_frames: int) -> tuple[float, ...]:
        """The levels for clips of so many frames: no more of them can change places or stand still."""
        return tuple(level for level in self.levels if level <= num_frames or not self.counts_frames)


DISTORTIONS = {
    "Gaussian noise": Distortion(noise, (5, 10, 20, 40), "standard deviation, of 255", 0),
    "blur": Distortion(blur, (0.5, 1, 2, 4), "standard deviation, pixels", 0),
    "frame shuffle": Distortion(shuffle, (4, 8, 12, 16), "frames that change places", 0, counts_frames=True),
    "freezing": Distortion(freeze, (2, 4, 8, 16), "frames that each is held for", 1, counts_frames=True),
}


def measure_sensitivity(flags: SensitivityFlags) -> None:
    """The distances of real clips from themselves distorted, by kind and strength."""
    shape = (flags.num_frames, flags.height, flags.width)
    extractor = extractor_of(flags)
    check_length(extractor, flags.num_frames)

    def settings_of(num_clips: int) -> Settings:
        protocol = quick(num_clips, shape, flags.split, flags.stride, flags.fps, "classes")
        return Settings(protocol, flags.fold, flags.seed)

    real = settings_of(flags.num_clips).real_clips(flags.data)
    names, extraction = real.even_names(flags.num_clips), Extraction(flags)
    views = {"original": extraction.features(extractor, reading=real.reading, view="original")}
    for name, distortion in DISTORTIONS.items():
        for level in distortion.levels_of(flags.num_frames):
            views[f"{name} {level}"] = extraction.features(
                extractor,
                partial(_distorted, distortion=distortion, level=level),
                reading=real.reading,
                view=[name, level],
            )
    _, features = extraction.real(real, lambda: real.of_classes(names), views)
    original = FeatureSet.of(features["original"])
    distortions: dict[str, Any] = {}
    for name, distortion in DISTORTIONS.items():
        levels = distortion.levels_of(flags.num_frames)
        sets = (FeatureSet.of(features[f"{name} {level}"]) for level in levels)
        fvds, kvds = zip(*(distances(original, one, paired=True) for one in sets), strict=True)
        distortions[name] = {
            "unit": distortion.unit,
            "undistorted": distortion.undistorted,
            "fvd": [list(pair) for pair in zip(levels, fvds, strict=True)],
            "kvd": [list(pair) for pair in zip(levels, kvds, strict=True)],
            "monotone": all(a < b for a, b in zip([0.0, *fvds], fvds, strict=False)),
        }
    if not processes().is_main_process:
        return
    protocol = settings_of(len(names)).record(extractor, generated_selection="")
    result = SensitivityResult(
        num_clips=len(names),
        rank_deficient=protocol.rank_deficient,
        identical=distance_of_sums(original, FeatureSet.of(features["original"])),
        distortions=distortions,
        protocol=protocol.to_json(),
        skipped_videos=real.skipped,
    )
    result.write(flags.out)
    if flags.figure:
        plot(result, flags.figure)
    for name, found in result.in_words().items():
        print(f"{name}: {found}")


def _distorted(clips: Clips, distortion: Distortion, level: float) -> torch.Tensor:
    return distortion.apply(clips.frames[0], level)


def plot(result: SensitivityResult, path: Path) -> None:
    """A panel for each kind of distortion, its strength from left to right."""
    distortions, protocol = result.distortions, result.protocol
    figure = Figure(figsize=(2.9 * len(distortions), 2.7), layout="constrained")
    clips = f"{result.num_clips} real clips"
    flag = ", rank-deficient" if result.rank_deficient else ""
    size = f"{protocol['num_frames']}×{protocol['height']}×{protocol['width']}"
    figure.suptitle(
        f"FVD of {clips} ({size}, {protocol['split']} split{flag}) from themselves, distorted", fontsize=10
    )
    for place, (name, curve) in enumerate(distortions.items(), start=1):
        axes = figure.add_subplot(1, len(distortions), place)
        points: Sequence[Sequence[float]] = [(curve["undistorted"], result.identical), *curve["fvd"]]
        axes.plot(*zip(*points, strict=True), color=COLOURS[0], linewidth=1.2, marker=".")
        axes.set_title(name, fontsize=9)
        axes.set_xlabel(curve["unit"], fontsize=8)
        axes.set_ylim(bottom=0)
        tidy(axes)
    write_figure(path, figure)
