"""How far FVD and KVD scatter where both sides are the same distribution: real clips, parted at random.

    python -m benchmarks.scatter --reference runs/reference.safetensors --out runs/scatter.json

`--reference` is what `python -m eval reference` wrote of them: their features are in it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

import torch

from eval.fvd.distance import Distances, FeatureSet, distances
from eval.fvd.reference import read_reference
from vidtwin_gen.files import write_json
from vidtwin_gen.flags import json_to_write
from vidtwin_gen.program.errors import user_errors


def parted(rows: torch.Tensor, num_clips: int, generator: torch.Generator) -> Distances:
    """Of features (N, D) the distances between two disjoint sets of `num_clips` each, drawn at random."""
    order = torch.randperm(len(rows), generator=generator)[: 2 * num_clips]
    first, second = (FeatureSet.of(rows[half]) for half in order.chunk(2))
    return distances(first, second)


def scatter(
    rows: torch.Tensor, num_clips: Sequence[int], repeats: int, seed: int = 0
) -> list[dict[str, Any]]:
    """For each number of clips a side the mean and the standard deviation of both distances over `repeats`
    divisions of features (N, D).

    Raises:
        ValueError: fewer than two clips a side, more than half of N, or fewer than two repeats.
    """
    if not all(2 <= count <= len(rows) // 2 for count in num_clips) or repeats < 2:
        raise ValueError(
            f"expected 2 to {len(rows) // 2} clips a side of {len(rows)} and at least 2 repeats, got "
            f"--num_clips {' '.join(map(str, num_clips))} and --repeats {repeats}"
        )
    generator = torch.Generator().manual_seed(seed)
    table = []
    for count in num_clips:
        drawn = [parted(rows, count, generator) for _ in range(repeats)]
        row: dict[str, Any] = {"num_clips": count}
        for name in Distances._fields:
            values = [getattr(each, name) for each in drawn]
            row |= {name: mean(values), f"{name}_std": stdev(values)}
        table.append(row)
    return table


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", required=True, help="real clips, of `python -m eval reference`")
    parser.add_argument("--num_clips", type=int, nargs="+", default=[32, 64, 128], help="of each side")
    parser.add_argument("--repeats", type=int, default=50, help="divisions of the clips")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=json_to_write(keys=("protocol", "repeats", "table")), required=True)
    args = parser.parse_args(argv)
    reference = read_reference(args.reference)
    if reference.features.rows is None:
        parser.error(f"--reference {args.reference} is of a version that kept no features; measure it again")
    try:
        table = scatter(reference.features.rows, args.num_clips, args.repeats, args.seed)
    except ValueError as error:
        parser.error(str(error))
    protocol = reference.protocol.to_json()
    write_json(args.out, {"protocol": protocol, "repeats": args.repeats, "seed": args.seed, "table": table})
    print("| clips a side | FVD | KVD |\n|---|---|---|")
    for row in table:
        values = (f"{row[name]:.0f} ± {row[f'{name}_std']:.0f}" for name in Distances._fields)
        print(f"| {row['num_clips']} | {' | '.join(values)} |")


if __name__ == "__main__":
    with user_errors("python -m benchmarks.scatter"):
        main()
