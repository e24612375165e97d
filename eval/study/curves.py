"""What the points of a study say together: means with their spread, and what it costs to come as far."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import numpy as np

HIGHER_IS_BETTER = {"accuracy": True, "fvd": False, "kvd": False}


def cell(values: Sequence[float | None], digits: int) -> str:
    """The mean and, of several, the standard deviation; – where there is none."""
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return "–"
    spread = f" ± {stdev(known):.{digits}f}" if len(known) > 1 else ""
    return f"{fmean(known):.{digits}f}{spread}"


def training_flops(row: Mapping[str, Any], steps: int) -> int:
    """Of so many steps of stage 2."""
    cost = row["cost"]
    return steps * cost["clips_per_step"] * cost["dit_training_flops"]


def sampling_flops(row: Mapping[str, Any], num_inference_steps: int, guidance_scale: float) -> int:
    """Of a clip."""
    passes = 2 if guidance_scale > 1 else 1
    return num_inference_steps * passes * row["cost"]["dit_forward_flops"]


def measured(row: Mapping[str, Any], steps: int, calls: int, measure: str) -> list[float | None]:
    """By seed."""
    points = (seed[str(steps)]["sampled"][str(calls)] for seed in row["seeds"].values())
    return [point[measure] for point in points]


def curve(seed: Mapping[str, Any], calls: int, measure: str) -> Iterator[tuple[int, float]]:
    """(steps, value) of a training where it was measured."""
    for steps, point in sorted(seed.items(), key=lambda item: int(item[0])):
        if (value := point["sampled"][str(calls)][measure]) is not None:
            yield int(steps), value


def flops_to_reach(
    row: Mapping[str, Any], seed: Mapping[str, Any], calls: int, measure: str, goal: float
) -> float | None:
    """The FLOPs of stage 2 after which a training is first as good as `goal`, interpolated between its points
    over the logarithm of the FLOPs; None where it never is. One that is as good at its first point needs at
    most the FLOPs of that."""
    better = HIGHER_IS_BETTER[measure]
    before: tuple[float, float] | None = None
    for steps, value in curve(seed, calls, measure):
        flops = float(training_flops(row, steps))
        if value >= goal if better else value <= goal:
            if before is None:
                return flops
            share = (goal - before[1]) / (value - before[1])
            return math.exp(math.log(before[0]) + share * (math.log(flops) - math.log(before[0])))
        before = flops, value
    return None


def value_at(
    row: Mapping[str, Any], seed: Mapping[str, Any], calls: int, measure: str, flops: float
) -> float | None:
    """The measure of a training when stage 2 has spent so many FLOPs, interpolated between its points over
    the logarithm of the FLOPs; that of its last point where it went no further, None before its first."""
    points = list(curve(seed, calls, measure))
    spent = [float(training_flops(row, steps)) for steps, _ in points]
    if not points or flops < spent[0]:
        return None
    return float(np.interp(np.log(flops), np.log(spent), [value for _, value in points]))


def times_the_flops(
    record: Mapping[str, Any], name: str, measure: str, *, with_stage_1: bool = False
) -> list[float | None]:
    """By seed, how many times the FLOPs of the base's training of stage 2, or of both stages, this row's
    latents need to come as far as the base does with the same seed."""
    study, rows = record["study"], record["rows"]
    base, row, calls = rows[study["base"]], rows[name], study["num_inference_steps"]
    end = base["ends"]["steps"]
    factors: list[float | None] = []
    for seed, points in row["seeds"].items():
        goal = base["seeds"][seed][str(end)]["sampled"][str(calls)][measure]
        needed = None if goal is None else flops_to_reach(row, points, calls, measure, goal)
        before = (row["stage_1_flops"], base["stage_1_flops"]) if with_stage_1 else (0, 0)
        spent = training_flops(base, end) + before[1]
        factors.append(None if needed is None else (needed + before[0]) / spent)
    return factors
