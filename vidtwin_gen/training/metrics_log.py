"""The numbers of a run as it goes: means since the last line, and the file that the lines are in."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate import Accelerator

from vidtwin_gen.training.config import METRICS


class MetricsLog:
    """`metrics.jsonl`, one JSON object a line, and the tracker, if there is one.

    On resuming, lines past the checkpoint are dropped: the run writes them anew.
    """

    def __init__(self, accelerator: Accelerator, output_dir: Path, step: int) -> None:
        self.accelerator = accelerator
        self.path = output_dir / METRICS
        if accelerator.is_main_process and self.path.exists():
            kept = [line for line in self.path.read_text().splitlines() if _step_of(line) <= step]
            partial = self.path.with_suffix(".partial")
            partial.write_text("".join(f"{line}\n" for line in kept))
            partial.rename(self.path)

    def write(self, step: int, samples: int, values: Mapping[str, float]) -> None:
        if not self.accelerator.is_main_process:
            return
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, "samples": samples, **values}) + "\n")
        self.accelerator.log(dict(values), step=step)


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except json.JSONDecodeError:  # the line that was being written when the run was killed
        return math.inf


class RunningMean:
    """Means of scalars since the last log, summed on the device. What the passes of one step add counts only
    when the step is kept."""

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.counts: dict[str, int] = {}
        self.pending: list[tuple[str, torch.Tensor]] = []

    def add(self, values: Mapping[str, torch.Tensor]) -> None:
        self.pending += [(name, value.detach()) for name, value in values.items()]

    def keep(self) -> None:
        for name, value in self.pending:
            self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value
            self.counts[name] = self.counts.get(name, 0) + 1
        self.pending = []

    def forget(self) -> None:
        self.pending = []

    def pop(self, accelerator: Accelerator) -> dict[str, float]:
        """The means over all processes; starts anew."""
        means = {
            name: accelerator.reduce(total / self.counts[name], "mean").item()
            for name, total in self.sums.items()
        }
        self.sums, self.counts = {}, {}
        return means
