"""Wall-clock times that mean something on a machine that others use too: medians, ratios within a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch


@dataclass(frozen=True)
class Spread:
    """Of several measurements: the median, and the quartiles around it."""

    median: float
    lower_quartile: float
    upper_quartile: float
    count: int

    def scaled(self, factor: float) -> Spread:
        return Spread(
            self.median * factor, self.lower_quartile * factor, self.upper_quartile * factor, self.count
        )

    def to_json(self) -> dict[str, float]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.lower_quartile:.3g} to {self.upper_quartile:.3g})"


def spread(values: Sequence[float]) -> Spread:
    lower, median, upper = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return Spread(median, lower, upper, len(values))


def interleaved(
    functions: Mapping[str, Callable[[], object]], repeats: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of each function in each of `repeats` rounds, after one call of each that is not timed.

    A round calls every function once, so that a machine that slows down slows all of them down; the order
    turns from round to round, so that none always follows the same one.
    """
    for function in functions.values():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    names = list(functions)
    for _ in range(repeats):
        for name in names:
            _wait(device)
            start = time.perf_counter()
            functions[name]()
            _wait(device)
            seconds[name].append(time.perf_counter() - start)
        names.append(names.pop(0))
    return seconds


def ratios(numerator: Sequence[float], denominator: Sequence[float]) -> Spread:
    """Of what was timed in the same rounds."""
    return spread([a / b for a, b in zip(numerator, denominator, strict=True)])


def square_product(device: torch.device, dtype: torch.dtype) -> tuple[Callable[[], object], int]:
    """The product of two square matrices large enough to keep the device busy, and its FLOPs. Timed, it gives
    the highest rate that the device reaches."""

    def product(size: int) -> Callable[[], object]:
        a, b = torch.rand(2, size, size, device=device).to(dtype)
        return partial(torch.mm, a, b, out=torch.empty_like(a))

    size = 256 if device.type == "cpu" else 8192
    # at most 2048: there a CPU without bfloat16 instructions takes minutes, and 512 keeps it as busy
    while size < 2048 and min(interleaved({"square": product(size)}, 1, device)["square"]) < 0.1:
        size *= 2
    return product(size), 2 * size**3


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
