"""What a step costs: the processor's seconds, which other processes on the machine do not lengthen."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from tempfile import TemporaryDirectory

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from eval.cost.timing import Spread, spread

Main = Callable[[Sequence[str]], None]
NOT_COUNTED = 5  # first steps, in which torch finds its kernels and its memory
NEVER = 10**9
BETWEEN = ["--validation_steps", NEVER, "--checkpointing_steps", NEVER]


def seconds_per_step(
    train: Main, commands: Mapping[str, Sequence[object]], *, num_steps: int, rounds: int
) -> dict[str, Spread]:
    """Of each command of a training script, in processor seconds of all threads of this process: from one
    step to the next, data, loss and optimizer; checkpoints and validations stay out.

    A round trains every command once, for `num_steps` steps that leave nothing, so that a machine that slows
    down slows all of them down.
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
                seconds[name] += [after - before for before, after in pairwise(marks[NOT_COUNTED - 1 :])]
    finally:
        hook.remove()
    return {name: spread(values) for name, values in seconds.items()}


def steps_of(base_steps: int, base: Spread, row: Spread) -> int:
    """As many steps of a row as cost what `base_steps` of the base cost."""
    return max(1, round(base_steps * base.median / row.median))
