"""Which clips of each side are compared: a protocol's, of these flags, this file and this data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from eval.clips import CODECS, RESIZES
from eval.fvd.features import FeatureExtractor
from eval.fvd.flags import ProtocolFlags
from eval.fvd.protocols import (
    ANY,
    FIRST_OF_CLASS,
    PROTOCOLS,
    REAL_SELECTION,
    ClipProtocol,
    Selection,
    quick,
    quick_count,
)
from eval.generated_clips import GeneratedClips
from eval.real_clips import ClipDraw, RealClips
from vidtwin_gen.data.names import folded
from vidtwin_gen.records import FVDProtocol


@dataclass(frozen=True)
class Settings:
    """`protocol` with the official split `fold` and the `seed` of all draws."""

    protocol: ClipProtocol
    fold: int
    seed: int

    def record(self, extractor: FeatureExtractor, generated_selection: str | None = None) -> FVDProtocol:
        """What stands beside a number that was measured so."""
        protocol = self.protocol
        if generated_selection is None:
            generated_selection = ANY if protocol.selection == "generated" else FIRST_OF_CLASS
        return FVDProtocol(
            name=protocol.name,
            num_real=protocol.num_clips,
            num_generated=protocol.num_clips,
            num_frames=protocol.num_frames,
            height=protocol.height,
            width=protocol.width,
            split=protocol.split,
            fold=None if protocol.split == "all" else self.fold,
            stride=protocol.stride,
            fps=protocol.fps,
            real_selection=REAL_SELECTION[protocol.selection],
            seed=self.seed,
            generated_selection=generated_selection,
            clip_resize=RESIZES[protocol.resize],
            resize=extractor.resize,
            feature_extractor=extractor.name,
            weights_sha256=extractor.weights_sha256,
            feature_dim=extractor.dim,
            codec=CODECS[protocol.codec],
            real_codec=CODECS[protocol.codec],
            covariance_divisor=protocol.covariance_divisor,
            generated_stride=protocol.generated_stride,
            not_published=protocol.not_published,
        )

    def real_clips(self, data: str | Path) -> RealClips:
        protocol = self.protocol
        return RealClips.of_split(
            data,
            protocol.shape,
            protocol.split,
            fold=self.fold,
            stride=protocol.stride,
            fps=protocol.fps,
            seed=self.seed,
            resize=protocol.resize,
            codec=protocol.codec,
        )


def choose_settings(
    flags: ProtocolFlags,
    protocol_name: str,
    shape: Sequence[int],
    selection: Selection,
    reference: FVDProtocol | None = None,
) -> Settings:
    """What the flags leave out is the reference's, where there is one.

    `shape`, (num_frames, height, width) of a clip, and `selection` are for quick-N, which fixes neither.

    Raises:
        ValueError: an unknown protocol, or flags that contradict it.
    """
    fold, seed = flags.fold or (reference.fold if reference else None) or 1, flags.seed
    if seed is None:
        seed = reference.seed if reference else 0
    num_clips = quick_count(protocol_name)
    if num_clips is None:
        protocol = PROTOCOLS[protocol_name]
        for name in ("split", "stride", "fps", "num_frames"):
            given, expected = getattr(flags, name, None), getattr(protocol, name)
            if given is not None and given != expected:
                raise ValueError(
                    f"--{name} {given}: {protocol.name} is defined with {expected}; leave the flag out, or "
                    f"measure with --protocol quick-{protocol.num_clips}"
                )
        return Settings(protocol, fold, seed)
    stride, fps = flags.stride, flags.fps
    if stride is None and fps is None and reference:
        stride, fps = reference.stride, reference.fps
    split: Any = flags.split or (reference.split if reference else "train")
    return Settings(quick(num_clips, shape, split, stride, fps, selection), fold, seed)


def draws_of(
    protocol: ClipProtocol, real: RealClips, names: Sequence[str], number: int = 0
) -> list[ClipDraw]:
    """The draws of one of several disjoint sets of real clips, by its number; `names` are the classes of each
    set where the selection goes by class."""
    sets = number + 1
    by_video = protocol.selection == "videos"
    draws = real.of_videos(sets * protocol.num_clips) if by_video else real.of_classes([*names] * sets)
    return draws[number * protocol.num_clips :]


def real_names(protocol: ClipProtocol, real: RealClips) -> list[str]:
    """The classes of the real clips, where they do not follow the generated ones.

    Raises:
        ValueError: fewer videos than the protocol wants.
    """
    # with twice as many clips as videos, a published set would be made of copies
    num_good = real.num_videos - len(real.bad)
    if protocol.num_clips > (2 * num_good if protocol.selection == "videos" else num_good):
        raise ValueError(
            f"--protocol {protocol.name} wants {protocol.num_clips} real clips, the {protocol.split} split "
            f"has {num_good} videos: give the whole data set, or --protocol quick-{num_good}"
        )
    if protocol.selection == "videos":
        return [real.names[draw.row] for draw in real.of_videos(protocol.num_clips)]
    return real.even_names(protocol.num_clips)


def check_classes(protocol: ClipProtocol, real: RealClips, names: Sequence[str]) -> None:
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
                f"--protocol {protocol.name} wants {names.count(name)} real clips of {name}, as many as the "
                f"generated ones; the {protocol.split} split has {len(rows[name])} videos of it that can be "
                f"read, and none is used more than twice: give more data{less}"
            )


def floor_objection(protocol: ClipProtocol, real: RealClips, names: Sequence[str]) -> str | None:
    """Why there is no second set of real clips of these classes; None where there is one."""
    if protocol.selection == "videos":
        return None
    rows = real.rows
    short = [name for name, count in Counter(names).items() if 2 * count > len(rows[name])]
    if not short:
        return None
    return (
        f"too few videos: {protocol.num_clips} other real clips need twice as many videos of each class as "
        f"clips, and {short[0]} has {len(rows[short[0]])} for 2 x {names.count(short[0])}"
    )


def check_sets(protocol: ClipProtocol, generated: Sequence[GeneratedClips]) -> None:
    """Raises ValueError where files hold clips of several sizes or samplings, or the same clips twice, or too
    few for the protocol, or are videos and not mp4 where it compares clips that went through mp4."""
    first, files = generated[0], dict[str, Path]()
    for clips in generated:
        if (clips.shape, clips.codec) != (first.shape, first.codec):
            one, other = (f"{'x'.join(map(str, c.shape))}, codec {c.codec}" for c in (first, clips))
            raise ValueError(
                f"--generated {first.path} holds clips of {one} (frames, height, width) and {clips.path} of "
                f"{other}: seeds of one generator have one size and one codec"
            )
        if differences := [
            f"{name} {value} and {clips.sampling[name]}"
            for name, value in first.sampling.items()
            if clips.sampling.get(name, value) != value
        ]:
            raise ValueError(
                f"--generated {first.path} and {clips.path} were sampled differently "
                f"({'; '.join(differences)}): seeds of one generator differ in nothing else"
            )
        same = files.setdefault(clips.sha256, clips.path)
        if same is not clips.path:
            raise ValueError(
                f"--generated {same} and {clips.path} are the same clips: generate with another --seed"
            )
    for video in (video for clips in generated for video in clips.videos):
        if protocol.codec == "mp4" and video.suffix.lower() != ".mp4":
            raise ValueError(
                f"--generated {video}: --protocol {protocol.name} compares clips that went through mp4: give "
                "mp4 files, or clips.safetensors, which it writes as such"
            )
    for clips in generated:
        if (count := len(clips)) < protocol.num_clips:
            raise ValueError(
                f"--generated {clips.path} holds {count} clips, --protocol {protocol.name} wants "
                f"{protocol.num_clips}: generate more, or measure with --protocol quick-{count}; none is "
                "used twice"
            )


def wanted_names(settings: Settings, clips: GeneratedClips, real: RealClips) -> list[str]:
    """The classes of the clips on each side, where no reference says them."""
    protocol = settings.protocol
    if protocol.selection != "generated" or clips.names is None:
        return real_names(protocol, real)
    chosen = [clips.names[index] for index in _order(settings, clips)[: protocol.num_clips]]
    names = [real.class_names[real.label(name)] for name in chosen]
    check_classes(protocol, real, names)
    return names


def chosen_clips(settings: Settings, clips: GeneratedClips, wanted: Sequence[str]) -> list[int]:
    """Of the generated clips the first ones of each class, as many as `wanted` has of it; of clips without
    classes as many, at random.

    Raises:
        ValueError: too few of a class.
    """
    if clips.names is None:
        return _order(settings, clips)[: len(wanted)]
    names = [folded(name) for name in clips.names]
    have = Counter(names)
    short = {name: count for name, count in Counter(wanted).items() if have[folded(name)] < count}
    if short:
        name, count = next(iter(short.items()))
        raise ValueError(
            f"--generated {clips.path}: the classes of its clips are not those of the real ones: "
            f"{have[folded(name)]} of {name} for {count}"
            + (f", and {len(short) - 1} more classes" if len(short) > 1 else "")
            + "; generate with `python -m pipelines generate --labels_from REFERENCE`, the file that "
            "`python -m eval reference` writes"
        )
    chosen, left = [], Counter(folded(name) for name in wanted)
    for index in _order(settings, clips):
        if left[names[index]] > 0:
            left[names[index]] -= 1
            chosen.append(index)
    return chosen


def _order(settings: Settings, clips: GeneratedClips) -> list[int]:
    if settings.protocol.selection != "generated" and clips.names is not None:
        return list(range(len(clips)))
    return torch.randperm(len(clips), generator=torch.Generator().manual_seed(settings.seed)).tolist()
