"""What the commands that measure clips share: real clips by flags, the extractor, the record."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from eval import features
from eval.clips import RESIZE, RealClips, Split
from eval.extraction import Extraction, processes
from eval.features import FeatureExtractor
from eval.fvd import FVDProtocol
from eval.i3d import I3D_WEIGHTS
from vidtwin_gen.weights import MissingWeightsError


def real_clips(args: argparse.Namespace, shape: Sequence[int], split: Split) -> RealClips:
    return RealClips(
        args.data, shape, split, fold=args.fold, stride=args.stride, fps=args.fps, seed=args.seed
    )


def load_extractor(args: argparse.Namespace) -> FeatureExtractor | None:
    """The extractor of the flags, or None after saying plainly why not; the verb fvd also writes that down
    as its result."""
    try:
        return features.load_extractor(
            args.extractor,
            args.weights,
            device_of(args),
            weights_sha256=args.weights_sha256,
            revision=args.weights_revision,
        )
    except MissingWeightsError as error:
        if args.verb == "fvd" and processes().is_main_process:
            write_json(args.out, {"fvd": None, "reason": str(error), "install": I3D_WEIGHTS.install})
        print(f"FVD not measured: {error}")
        return None


def device_of(args: argparse.Namespace) -> torch.device:
    """--device; of several processes each has a GPU of its own. Raises ValueError where there is none."""
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device {args.device}: torch finds no GPU; leave the flag out")
    return processes().device if args.device == "cuda" else torch.device(args.device)


def extraction_of(args: argparse.Namespace, extractor: FeatureExtractor) -> Extraction:
    folder = args.features_dir or Path(args.out).with_suffix(".features")
    return Extraction(extractor, folder, batch_size=args.batch_size, num_workers=args.num_workers)


def protocol_of(args: argparse.Namespace, extractor: Any, count: int, shape: Sequence[int]) -> FVDProtocol:
    return FVDProtocol(
        name=f"quick-{count}",
        num_real=count,
        num_generated=count,
        num_frames=shape[0],
        height=shape[1],
        width=shape[2],
        split=args.split,
        fold=args.fold,
        stride=(args.stride or 1) if args.fps is None else None,
        fps=args.fps,
        real_selection="a random window of a random video, of each class in turn",
        seed=args.seed,
        clip_resize=RESIZE,
        resize=extractor.resize,
        feature_extractor=extractor.name,
        weights_sha256=extractor.weights_sha256,
        feature_dim=extractor.dim,
    )


def rate_of(args: argparse.Namespace) -> str:
    return f"{args.fps:g} fps" if args.fps is not None else f"stride {args.stride or 1}"


def write_json(path: str | Path, record: dict[str, Any]) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
