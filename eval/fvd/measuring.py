"""What the commands that measure clips share: real clips by flags, the extractor, the record."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from eval.clips import RealClips, Split
from eval.fvd import features
from eval.fvd.distance import FVDProtocol
from eval.fvd.extraction import Extraction, processes
from eval.fvd.features import FeatureExtractor
from eval.fvd.i3d import I3D_WEIGHTS
from eval.fvd.protocols import quick
from vidtwin_gen.weights import MissingWeightsError


def real_clips(args: argparse.Namespace, shape: Sequence[int], split: Split) -> RealClips:
    return RealClips(
        args.data, shape, split, fold=args.fold, stride=args.stride, fps=args.fps, seed=args.seed
    )


def load_extractor(args: argparse.Namespace) -> FeatureExtractor | None:
    """The extractor of the flags, or None after saying plainly why not: `args.no_extractor` then holds the
    reason. The verb fvd also writes that down as its result."""
    try:
        return extractor_of(args)
    except MissingWeightsError as error:
        args.no_extractor = str(error)
        if args.verb == "fvd" and processes().is_main_process:
            record = {"fvd": None, "reason": str(error)}
            write_json(
                args.out, record | ({"install": I3D_WEIGHTS.install} if args.extractor == "i3d" else {})
            )
        print(f"FVD not measured: {error}")
        return None


def extractor_of(args: argparse.Namespace) -> FeatureExtractor:
    """The extractor of the flags. Raises as `eval.fvd.features.load_extractor`."""
    return features.load_extractor(
        args.extractor,
        args.weights,
        device_of(args),
        weights_sha256=args.weights_sha256,
        revision=args.weights_revision,
    )


def device_of(args: argparse.Namespace) -> torch.device:
    """--device; of several processes each has a GPU of its own. Raises ValueError where there is none."""
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device {args.device}: torch finds no GPU; leave the flag out")
    try:
        return processes().device if args.device == "cuda" else torch.device(args.device)
    except RuntimeError as error:
        raise ValueError(f"--device {args.device}: {str(error).splitlines()[0]}") from None


def extraction_of(args: argparse.Namespace, extractor: FeatureExtractor) -> Extraction:
    folder = args.features_dir or Path(args.out).with_suffix(".features")
    return Extraction(extractor, folder, batch_size=args.batch_size, num_workers=args.num_workers)


def protocol_of(
    args: argparse.Namespace, extractor: FeatureExtractor, count: int, shape: Sequence[int]
) -> FVDProtocol:
    """quick-N of these flags."""
    protocol = quick(count, shape, args.split, args.stride, args.fps, "classes")
    return protocol.record(extractor, fold=args.fold, seed=args.seed)


def rate_of(args: argparse.Namespace) -> str:
    return f"{args.fps:g} fps" if args.fps is not None else f"stride {args.stride or 1}"


def write_json(path: str | Path, record: dict[str, Any]) -> None:
    """Whole or not at all.

    Raises:
        ValueError: a number that is not finite, which JSON has no word for.
    """
    path = Path(path)
    try:
        text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    except ValueError as error:
        raise ValueError(f"{path} is not written, a result is infinite or no number: {error}") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
