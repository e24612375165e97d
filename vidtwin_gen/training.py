"""What both training loops need around their step: seeds, checkpoints, resuming, EMA, a log."""

from __future__ import annotations

import json
import logging
import math
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers import DiffusionPipeline
from diffusers.models.modeling_utils import ModelMixin
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from vidtwin_gen.config import METRICS, TrainingConfig, save_or_check_config

logger = logging.getLogger(__name__)
CHECKPOINT = re.compile(r"checkpoint-(\d+)")


class Progress:
    """Optimiser steps done; saved with every checkpoint. The number of processes goes with it, since the
    schedule counts in it and the draws of a step follow from it."""

    def __init__(self, num_processes: int) -> None:
        self.step = 0
        self.num_processes = num_processes

    def state_dict(self) -> dict[str, int]:
        return {"step": self.step, "num_processes": self.num_processes}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        if state["num_processes"] != self.num_processes:
            raise ValueError(
                f"the checkpoint is of a run with {state['num_processes']} processes, this one has "
                f"{self.num_processes}: resume with as many, or start another --output_dir"
            )
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


class Run:
    """One model in training, as one process sees it: AdamW, its schedule and the average of the weights, all
    of them where the last checkpoint was, the progress bar, the log and the next checkpoints.

    `wrapped` is what a forward pass calls (DDP's wrapper, where there are several processes), `model` the
    model inside it.

    Raises:
        ValueError: the folder holds another run, or not the checkpoint that is asked for.
    """

    def __init__(
        self, model: ModelMixin, config: TrainingConfig, accelerator: Accelerator, name: str
    ) -> None:
        self.model, self.config, self.accelerator = model, config, accelerator
        self.output_dir = Path(config.output_dir)
        if config.gradient_checkpointing:
            model.enable_gradient_checkpointing()
        optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=config.learning_rate,
            betas=(config.adam_beta1, config.adam_beta2),
            weight_decay=config.adam_weight_decay,
            eps=config.adam_epsilon,
            fused=True,
        )
        # accelerate steps a schedule once per process
        lr_scheduler = get_scheduler(
            config.lr_scheduler,
            optimizer,
            num_warmup_steps=config.lr_warmup_steps * accelerator.num_processes,
            num_training_steps=config.max_train_steps * accelerator.num_processes,
        )
        self.wrapped, self.optimizer, self.lr_scheduler = accelerator.prepare(model, optimizer, lr_scheduler)
        self.ema = EMAModel(model.parameters(), decay=config.ema_decay) if config.use_ema else None
        if self.ema is not None:
            accelerator.register_for_checkpointing(self.ema)
        if accelerator.is_main_process:
            save_or_check_config(config, self.output_dir)
        self.progress = Progress(accelerator.num_processes)
        accelerator.register_for_checkpointing(self.progress)
        checkpoint = find_checkpoint(self.output_dir, config.resume_from_checkpoint)
        if checkpoint is not None:
            accelerator.load_state(str(checkpoint))
            accelerator.print(f"resuming from {checkpoint}")
            if accelerator.is_main_process:
                remove_later_checkpoints(checkpoint)
        if self.ema is not None:
            self.ema.to(accelerator.device)  # load_state leaves it on the CPU
        if config.report_to != "none":
            accelerator.init_trackers(name)
        self.advanced = self.step < config.max_train_steps  # else there is nothing left to do
        self.micro_step = self.step * config.gradient_accumulation_steps
        self.log = MetricsLog(accelerator, self.output_dir, self.step)
        self.means = RunningMean()
        self.bar = tqdm(
            total=config.max_train_steps,
            initial=self.step,
            desc=name,
            unit="step",
            disable=not accelerator.is_main_process,
        )

    @property
    def step(self) -> int:
        """Optimiser steps done, by this run and by those that it resumes."""
        return self.progress.step

    @property
    def batch_size(self) -> int:
        """Clips per optimiser step over all processes and accumulated passes."""
        passes = self.config.gradient_accumulation_steps * self.accelerator.num_processes
        return self.config.train_batch_size * passes

    def loader(self, dataset: Dataset[Any], collate_fn: Callable[..., Any]) -> DataLoader[Any]:
        """This process's batches of the draws that are left; the dataset is addressed by a draw's number."""
        loader = DataLoader(
            dataset,
            batch_size=self.config.train_batch_size,
            sampler=range(self.step * self.batch_size, self.config.max_train_steps * self.batch_size),
            num_workers=self.config.dataloader_num_workers,
            collate_fn=collate_fn,
        )
        return self.accelerator.prepare(loader)

    @contextmanager
    def forward_pass(self) -> Iterator[torch.Generator]:
        """One of the passes whose gradients a step accumulates, with the generator of all that it draws."""
        rank, device = self.accelerator.process_index, self.accelerator.device
        generator = seed_pass(self.config.seed, self.micro_step, rank, device)
        self.micro_step += 1
        with self.accelerator.accumulate(self.wrapped):
            yield generator

    def optimize(self, losses: Mapping[str, torch.Tensor]) -> None:
        """Backward from `losses["loss"]`, and with the last of its passes a step, and a log line if due."""
        self.accelerator.backward(losses["loss"])
        if self.accelerator.sync_gradients:
            self.accelerator.clip_grad_norm_(self.wrapped.parameters(), self.config.max_grad_norm)
        self.optimizer.step()
        learning_rate = self.lr_scheduler.get_last_lr()[0]
        self.lr_scheduler.step()
        self.optimizer.zero_grad()
        self.means.update(losses)
        if not self.accelerator.sync_gradients:
            return
        self.progress.step += 1
        if self.ema is not None:
            self.ema.step(self.model.parameters())
        self.bar.update()
        if self.is_due(self.config.logging_steps) or self.is_due(self.config.checkpointing_steps):
            values = self.means.pop(self.accelerator)  # no mean spans a checkpoint
            self.bar.set_postfix({key: f"{value:.4g}" for key, value in values.items()})
            self.write({**values, "lr": learning_rate})

    def is_due(self, every: int) -> bool:
        """Whether this was the last pass of a step after which something happens that happens `every` steps,
        and after the last."""
        last = self.step == self.config.max_train_steps
        return self.accelerator.sync_gradients and (self.step % every == 0 or last)

    def write(self, values: Mapping[str, float]) -> None:
        self.log.write(self.step, self.step * self.batch_size, values)

    def report_validation(self, values: Mapping[str, float]) -> None:
        self.write(values)
        self.bar.write(f"step {self.step}: " + ", ".join(f"{k} {v:.4g}" for k, v in values.items()))

    def save_checkpoint_if_due(self) -> None:
        if self.is_due(self.config.checkpointing_steps):
            limit = self.config.checkpoints_total_limit
            save_checkpoint(self.accelerator, self.output_dir, self.step, limit)

    def export(self, name: str, result: Callable[[], ModelMixin | DiffusionPipeline]) -> None:
        """Ends the run and saves what it made, `result()` with averaged weights, in its folder. One that
        stands there from an earlier end is left alone: the whitening may have been written to it by now."""
        self.bar.close()
        folder = self.output_dir / name
        if self.accelerator.is_main_process and (self.advanced or not folder.exists()):
            with ema_weights(self.ema, self.model), replace_folder(folder) as partial:
                result().save_pretrained(partial)
            print(f"wrote {folder}")
        self.accelerator.end_training()


def seed_pass(seed: int, micro_step: int, rank: int, device: torch.device) -> torch.Generator:
    """The generator for one forward pass: a function of where the run is, not of how it got there.

    The global generators (dropout) are seeded the same way. So a resumed run draws what an uninterrupted one
    would have drawn.
    """
    own, everyones = np.random.SeedSequence([seed, micro_step, rank]).generate_state(2).tolist()
    torch.manual_seed(everyones)
    return torch.Generator(device).manual_seed(own)


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


def remove_later_checkpoints(checkpoint: Path) -> None:
    """What lies past the one that is resumed from would else be taken for the latest of the new branch."""
    found = _checkpoints(checkpoint.parent)
    names = [path.name for _, path in found]
    for _, later in found[names.index(checkpoint.name) + 1 :]:
        print(f"removing {later}: the run goes on from {checkpoint.name}")
        later.rename(later.with_name(f"partial-{later.name}"))
        shutil.rmtree(later.with_name(f"partial-{later.name}"))


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
                f"{', '.join(broken)} became NaN or infinite: try a lower --learning_rate or "
                "--max_grad_norm in another --output_dir (the same command would come to the same point)"
            )
        return means
