"""python -m eval sensitivity: does the distance grow with what is wrong with real clips?"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from eval.clips import Clips
from eval.fvd.distance import FeatureSums, distance_of_sums
from eval.fvd.distortions import DISTORTIONS, Distortion
from eval.fvd.extraction import View, as_read, processes
from eval.fvd.features import FeatureExtractor
from eval.fvd.measuring import extraction_of, protocol_of, real_clips, write_json
from eval.fvd.settings import needed_extractor


def measure_sensitivity(args: argparse.Namespace) -> None:
    extractor = needed_extractor(args, args.num_frames)
    record = sensitivity(args, extractor)
    if not processes().is_main_process:
        return
    write_json(args.out, record)
    if args.figure:
        plot(record, args.figure)
    flag = ", rank-deficient" if record["rank_deficient"] else ""
    print(f"N = {record['num_clips']} real clips{flag}, against themselves {record['identical']:.2e}")
    for name, curve in record["distortions"].items():
        values = ", ".join(f"{at:g}: {value:.1f}" for at, value in curve["fvd"])
        print(f"{name} ({curve['unit']}): {values}; {'monotone' if curve['monotone'] else 'NOT monotone'}")


def sensitivity(args: argparse.Namespace, extractor: FeatureExtractor) -> dict[str, Any]:
    """The distance of real clips from themselves distorted, by kind and strength."""
    shape = (args.num_frames, args.height, args.width)
    real = real_clips(args, shape, args.split)
    names = real.even_names(args.num_clips)
    extraction = extraction_of(args, extractor)
    reading = real.reading
    views = {"original": View(extraction.store(reading=reading, view="original"), as_read)}
    for name, (distortion, levels, *_) in DISTORTIONS.items():
        for level in levels:
            store = extraction.store(reading=reading, view=[name, level])
            views[f"{name} {level}"] = View(store, partial(_distorted, distortion=distortion, level=level))
    _, features = extraction.real(real, lambda: real.of_classes(names), views)
    original = FeatureSums.of(features["original"])
    distortions: dict[str, Any] = {}
    for name, (_, levels, unit, none) in DISTORTIONS.items():
        values = [distance_of_sums(original, FeatureSums.of(features[f"{name} {level}"])) for level in levels]
        distortions[name] = {
            "unit": unit,
            "undistorted": none,
            "fvd": [list(pair) for pair in zip(levels, values, strict=True)],
            "monotone": all(a < b for a, b in zip([0.0, *values], values, strict=False)),
        }
    protocol = protocol_of(args, extractor, len(names), shape)
    return {
        "num_clips": len(names),
        "rank_deficient": protocol.rank_deficient,
        "identical": distance_of_sums(original, FeatureSums.of(features["original"])),
        "distortions": distortions,
        "protocol": protocol.to_json(),
        "skipped_videos": real.skipped,
    }


def _distorted(clips: Clips, distortion: Distortion, level: float) -> torch.Tensor:
    return distortion(clips[0], level)


def plot(record: Mapping[str, Any], path: str | Path) -> None:
    """A panel for each kind of distortion, its strength from left to right."""
    distortions: Mapping[str, Any] = record["distortions"]
    protocol = record["protocol"]
    figure = Figure(figsize=(2.9 * len(distortions), 2.7), layout="constrained")
    clips = f"{record['num_clips']} real clips"
    flag = ", rank-deficient" if record["rank_deficient"] else ""
    size = f"{protocol['num_frames']}×{protocol['height']}×{protocol['width']}"
    figure.suptitle(
        f"FVD of {clips} ({size}, {protocol['split']} split{flag}) from themselves, distorted",
        fontsize=10,
    )
    for place, (name, curve) in enumerate(distortions.items(), start=1):
        axes = figure.add_subplot(1, len(distortions), place)
        points: Sequence[Sequence[float]] = [(curve["undistorted"], record["identical"]), *curve["fvd"]]
        axes.plot(*zip(*points, strict=True), color="#3b6ea5", linewidth=1.2, marker=".")
        axes.set_title(name, fontsize=9)
        axes.set_xlabel(curve["unit"], fontsize=8)
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
