"""What both training loops need around their step: seeds, checkpoints, resuming, EMA, a log."""

from __future__ import annotations

import json
import logging
import math
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers.training_utils import EMAModel
from torch import nn

from vidtwin_gen.config import METRICS, TrainingConfig

logger = logging.getLogger(__name__)
CHECKPOINT = re.compile(r"checkpoint-(\d+)")


class Progress:
    """Optimiser steps done; saved with every checkpoint."""

    def __init__(self) -> None:
        self.step = 0

    def state_dict(self) -> dict[str, int]:
        return {"step": self.step}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.step = state["step"]


def make_accelerator(config: TrainingConfig) -> Accelerator:
    """An Accelerator as the flags say, with every generator seeded (the weights are drawn next)."""
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        log_with=None if config.report_to == "none" else config.report_to,
        project_dir=config.output_dir,
    )
    set_seed(config.seed)
    return accelerator


def total_batch_size(config: TrainingConfig, accelerator: Accelerator) -> int:
    """Clips per optimiser step over all processes and accumulated passes."""
    return config.train_batch_size * config.gradient_accumulation_steps * accelerator.num_processes


def seed_pass(seed: int, micro_step: int, rank: int, device: torch.device) -> torch.Generator:
    """The generator for one forward pass: a function of where the run is, not of how it got there.

    The global generators (dropout) are seeded the same way. So a resumed run draws what an uninterrupted one
    would have drawn.
    """
    state = int(np.random.SeedSequence([seed, micro_step, rank]).generate_state(1)[0])
    torch.manual_seed(state)
    return torch.Generator(device).manual_seed(state)


def find_checkpoint(output_dir: Path, wanted: str) -> Path | None:
    """The checkpoint to resume from: by name, the latest complete one, or None to start afresh.

    Raises:
        ValueError: `wanted` names a checkpoint that is not there.
    """
    found = _checkpoints(output_dir)
    if wanted == "none":
        if found:
            raise ValueError(
                f"{output_dir} holds {found[-1][1].name}; to start afresh name another --output_dir"
            )
        return None
    if wanted == "latest":
        return found[-1][1] if found else None
    for _, path in found:
        if path.name == Path(wanted).name:
            return path
    names = [path.name for _, path in found]
    raise ValueError(f"--resume_from_checkpoint {wanted}: not in {output_dir}, which has {names or 'none'}")


def _checkpoints(output_dir: Path) -> list[tuple[int, Path]]:
    """Step and folder of every complete checkpoint, in order."""
    return sorted(
        (int(match[1]), path)
        for path in output_dir.glob("checkpoint-*")
        if (match := CHECKPOINT.fullmatch(path.name))
    )


def save_checkpoint(accelerator: Accelerator, output_dir: Path, step: int, limit: int) -> Path:
    """Saves the state of every process as `checkpoint-<step>`, then removes what exceeds the limit.

    The folder gets its name only when it is complete, so a killed run never leaves half a checkpoint.
    """
    partial = output_dir / f"partial-checkpoint-{step}"
    final = output_dir / f"checkpoint-{step}"
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        for _, old in _checkpoints(output_dir)[:-limit]:
            old.rename(old.with_name(f"partial-{old.name}"))
        for path in output_dir.glob("partial-checkpoint-*"):  # those just renamed, and a killed run's
            shutil.rmtree(path)
    return final


@contextmanager
def replace_folder(final: Path) -> Iterator[Path]:
    """A new folder to write to, which takes the place of `final` only when all went well."""
    partial = final.with_name(f"partial-{final.name}")
    shutil.rmtree(partial, ignore_errors=True)
    yield partial
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)


def make_ema(model: nn.Module, decay: float) -> EMAModel:
    """Exponential moving average of the weights; the decay rises to `decay` as (1 + step) / (10 + step)."""
    return EMAModel(model.parameters(), decay=decay)


@contextmanager
def ema_weights(ema: EMAModel | None, model: nn.Module) -> Iterator[nn.Module]:
    """The model in evaluation mode, with its averaged weights where there is an average."""
    parameters = list(model.parameters())
    if ema is not None:
        ema.store(parameters)
        ema.copy_to(parameters)
    model.eval()
    try:
        with torch.no_grad():
            yield model
    finally:
        model.train()
        if ema is not None:
            ema.restore(parameters)


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
    """Means of scalars since the last log, summed on the device so that no step waits for them."""

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.count = 0

    def update(self, values: Mapping[str, torch.Tensor]) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value.detach()
        self.count += 1

    def pop(self, accelerator: Accelerator) -> dict[str, float]:
        """The means over all processes; starts anew.

        Raises:
            FloatingPointError: one of them is not finite.
        """
        means: dict[str, Any] = {
            name: accelerator.reduce(total / self.count, "mean").item() for name, total in self.sums.items()
        }
        self.sums, self.count = {}, 0
        broken = [name for name, value in means.items() if not math.isfinite(value)]
        if broken:
            raise FloatingPointError(
                f"{', '.join(broken)} became NaN or infinite: lower --learning_rate or --max_grad_norm; "
                "the same command resumes from the last checkpoint"
            )
        return means
