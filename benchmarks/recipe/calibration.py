"""What a step costs: the processor's seconds, not the clock's, on a machine that others use too."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

Main = Callable[[Sequence[str]], None]
NOT_COUNTED = 5  # first steps, in which torch finds its kernels and its memory
NEVER = 10**9
BETWEEN = ["--validation_steps", NEVER, "--checkpointing_steps", NEVER]


def seconds_per_step(
    train: Main, commands: Mapping[str, Sequence[object]], *, num_steps: int, rounds: int
) -> dict[str, list[float]]:
    """The processor seconds, of all threads of this process, that a step of each command of a training script
    takes: its data, loss and optimizer, without checkpoints and validations.

    A round trains every command once, for `num_steps` steps that leave nothing; of each it gives the median.
    The least of them is the step's cost: processes beside this one take of its caches and its core, and only
    ever lengthen a step.
    """
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    marks: list[float] = []

    def mark(optimizer: torch.optim.Optimizer, *_: object) -> None:
        if isinstance(optimizer, torch.optim.AdamW):  # each step has one, Muon's too
            marks.append(time.process_time())

    hook = register_optimizer_step_post_hook(mark)
    try:
        for _ in range(rounds):
            for name, command in commands.items():
                marks.clear()
                with TemporaryDirectory() as folder:
                    end = ["--max_train_steps", num_steps + NOT_COUNTED, "--output_dir", folder]
                    train(list(map(str, [*command, *BETWEEN, *end])))
                of_steps = [after - before for before, after in pairwise(marks[NOT_COUNTED - 1 :])]
                seconds[name].append(median(of_steps))
    finally:
        hook.remove()
    return seconds


def costs(base_steps: int, base: Sequence[float], row: Sequence[float]) -> dict[str, Any]:
    """What a step of a row costs, by the seconds of its rounds and of the base's, and how many of its steps
    cost as much as `base_steps` of the base."""
    equal = max(1, round(base_steps * min(base) / min(row)))
    return {
        "steps": {"steps": base_steps, "seconds": equal},
        "seconds_per_step": min(row),
        "base_seconds_per_step": min(base),
        "seconds_per_step_by_round": list(row),
    }
