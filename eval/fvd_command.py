"""python -m eval fvd: the distance of generated clips from real ones."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import torch

from eval.clips import RealClips, batches, read_generated
from eval.fvd import FrechetVideoDistance, fvd_record
from eval.measuring import load_extractor, protocol_of, real_clips, write_json


def measure_fvd(args: argparse.Namespace) -> None:
    generated = read_generated(args.generated)
    count = args.num_samples or len(generated.frames)
    if count > len(generated.frames):
        raise ValueError(
            f"--num_samples {count}: {args.generated} holds {len(generated.frames)} clips; generate more "
            "or ask for fewer, none is used twice"
        )
    extractor = load_extractor(args)
    if extractor is None:
        return
    order = torch.randperm(len(generated.frames), generator=torch.Generator().manual_seed(args.seed))
    chosen = order[:count].tolist()
    real = real_clips(args, generated.frames.shape[1:4], args.split)
    names = [generated.names[i] for i in chosen]
    metric = FrechetVideoDistance(extractor)
    for clips in batches(torch.stack(list(real.matching(names))), args.batch_size, "real features"):
        metric.update(clips, real=True)
    for clips in batches(generated.frames[chosen], args.batch_size, "generated features"):
        metric.update(clips, real=False)
    record = fvd_record(
        metric.compute().item(), protocol_of(args, extractor, count, generated.frames.shape[1:4])
    )
    record["floor"] = _real_floor(args, real, metric, names) if args.floor else None
    record["skipped_videos"] = real.skipped
    write_json(args.out, record)
    floor = f", real against real {record['floor']:.1f}" if record["floor"] is not None else ""
    print(f"FVD {record['fvd']:.2f}{floor} ({_describe(record)})")


def _real_floor(
    args: argparse.Namespace, real: RealClips, metric: FrechetVideoDistance, names: Sequence[str]
) -> float | None:
    """FVD of the same real clips against as many others: what a perfect generator would score at this N."""
    if any(2 * names.count(name) > len(real.rows[name]) for name in set(names)):
        print("no floor: it needs twice as many real videos of each class as there are samples")
        return None
    floor = FrechetVideoDistance(metric.extractor)
    floor.real_sum, floor.real_outer = metric.real_sum.clone(), metric.real_outer.clone()
    floor.real_count = metric.real_count.clone()
    for clips in batches(torch.stack(list(real.matching(names))), args.batch_size, "other real features"):
        floor.update(clips, real=False)
    return floor.compute().item()


def _describe(record: dict[str, Any]) -> str:
    protocol = record["protocol"]
    flag = ", rank-deficient" if record["rank_deficient"] else ""
    return f"{protocol['name']}: {record['num_real']} real, {record['num_generated']} generated clips{flag}"
