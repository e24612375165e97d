"""What the flags of an FVD, its protocol's name and its reference come to."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from eval.clips import GeneratedClips, RealClips
from eval.fvd.distance import FVDProtocol
from eval.fvd.features import FeatureExtractor, check_length
from eval.fvd.measuring import extractor_of
from eval.fvd.protocols import (
    ANY,
    FIRST_OF_CLASS,
    PROTOCOLS,
    ClipProtocol,
    Selection,
    choose,
    quick,
    quick_count,
)
from eval.fvd.reference import Reference


@dataclass(frozen=True)
class Settings:
    """`protocol` with the official split `fold` and the `seed` of all draws."""

    protocol: ClipProtocol
    fold: int
    seed: int

    def record(self, extractor: FeatureExtractor) -> FVDProtocol:
        selection = ANY if self.protocol.selection == "generated" else FIRST_OF_CLASS
        return self.protocol.record(extractor, fold=self.fold, seed=self.seed, generated_selection=selection)

    def real_clips(self, data: str | Path) -> RealClips:
        protocol = self.protocol
        return RealClips(
            data,
            protocol.shape,
            protocol.split,
            fold=self.fold,
            stride=protocol.stride,
            fps=protocol.fps,
            seed=self.seed,
        )


def settings_of(
    args: argparse.Namespace,
    shape: Sequence[int],
    selection: Selection,
    reference: FVDProtocol | None = None,
) -> Settings:
    """From the flags; what they leave out is the reference's, where there is one.

    `shape` and `selection` are for quick-N, which fixes neither: (num_frames, height, width) of a clip, and
    how real ones are drawn.

    Raises:
        ValueError: an unknown protocol, or flags that contradict it.
    """
    fold = args.fold or (reference.fold if reference else None) or 1
    seed = args.seed if args.seed is not None else reference.seed if reference else 0
    num_clips = quick_count(args.protocol)
    if num_clips is None:
        protocol = PROTOCOLS[args.protocol]
        for flag in ("split", "stride", "fps"):
            given, expected = getattr(args, flag), getattr(protocol, flag)
            if given is not None and given != expected:
                raise ValueError(
                    f"--{flag} {given}: {protocol.name} is defined with {expected}; leave the flag out, or "
                    f"measure with --protocol quick-{protocol.num_clips}"
                )
        return Settings(protocol, fold, seed)
    stride, fps = args.stride, args.fps
    if stride is None and fps is None and reference:
        stride, fps = reference.stride, reference.fps
    split: Any = args.split or (reference.split if reference else "train")
    return Settings(quick(num_clips, shape, split, stride, fps, selection), fold, seed)


def needed_extractor(args: argparse.Namespace, num_frames: int) -> FeatureExtractor:
    """The extractor of the flags, where there is nothing to write down without it.

    Raises:
        MissingWeightsError: no weights. ValueError: other weights, or it takes no clips of so many frames.
    """
    extractor = extractor_of(args)
    check_length(extractor, num_frames)
    return extractor


def check_sets(paths: Sequence[Path], generated: Sequence[GeneratedClips]) -> list[str]:
    """The files' sha256.

    Raises:
        ValueError: clips of several sizes, or the same clips twice.
    """
    digests: list[str] = []
    for path, clips in zip(paths, generated, strict=True):
        if clips.frames.shape[1:] != generated[0].frames.shape[1:]:
            sizes = ["x".join(map(str, c.frames.shape[1:4])) for c in (generated[0], clips)]
            raise ValueError(
                f"--generated {paths[0]} holds clips of {sizes[0]} (frames, height, width) and {path} of "
                f"{sizes[1]}: seeds of one generator have one size"
            )
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest in digests:
            twin = paths[digests.index(digest)]
            raise ValueError(
                f"--generated {twin} and {path} are the same clips: generate with another --seed"
            )
        digests.append(digest)
    return digests


def fvd_settings(args: argparse.Namespace, clips: GeneratedClips, kept: Reference | None) -> Settings:
    """Raises ValueError where flags contradict one another."""
    if args.protocol is None:
        count = args.num_samples or len(clips.frames)
        args.protocol = kept.protocol.name if kept and not args.num_samples else f"quick-{count}"
    elif args.num_samples and args.protocol != f"quick-{args.num_samples}":
        raise ValueError(f"--num_samples {args.num_samples} and --protocol {args.protocol}: give one of them")
    selection: Selection = "classes" if kept else "generated"
    return settings_of(args, clips.frames.shape[1:4], selection, kept.protocol if kept else None)


def check_clips(settings: Settings, path: Path, clips: GeneratedClips) -> None:
    """Raises ValueError where a file holds too few clips, or clips of another length, for the protocol."""
    protocol, (count, num_frames) = settings.protocol, clips.frames.shape[:2]
    if num_frames != protocol.num_frames:
        raise ValueError(
            f"--generated {path}: clips of {num_frames} frames, and --protocol {protocol.name} compares "
            f"clips of {protocol.num_frames}; a distance between clips of unequal length means nothing"
        )
    if count < protocol.num_clips:
        raise ValueError(
            f"--generated {path} holds {count} clips, --protocol {protocol.name} wants {protocol.num_clips}: "
            f"generate more, or measure with --protocol quick-{count}; none is used twice"
        )


def wanted_names(
    settings: Settings, clips: GeneratedClips, kept: Reference | None, real: RealClips | None
) -> list[str]:
    """The classes of the clips on each side."""
    if kept is not None:
        return kept.names
    if real is None:
        raise ValueError("give the real videos, --data, or their statistics, --reference")
    if settings.protocol.selection == "generated":
        names = [clips.names[index] for index in _order(settings, clips)[: settings.protocol.num_clips]]
        settings.protocol.check_classes(real, names)
        return names
    return settings.protocol.real_names(real)


def chosen_clips(settings: Settings, clips: GeneratedClips, names: Sequence[str], path: Path) -> list[int]:
    """Which clips of a file are measured, so that their classes are `names`. Raises as `choose`."""
    return choose(clips.names, names, _order(settings, clips), f"--generated {path}")


def _order(settings: Settings, clips: GeneratedClips) -> list[int]:
    if settings.protocol.selection != "generated":
        return list(range(len(clips.names)))
    return torch.randperm(len(clips.names), generator=torch.Generator().manual_seed(settings.seed)).tolist()
