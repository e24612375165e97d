"""What both training loops need around their step: one run, its passes, its log, its checkpoints, its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers import DiffusionPipeline
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from vidtwin_gen.draws import BatchDraws, seed_pass, seed_step
from vidtwin_gen.training.checkpoints import (
    Progress,
    check_sharding,
    find_checkpoint,
    remove_later_checkpoints,
    replace_folder,
    save_checkpoint,
)
from vidtwin_gen.training.config import TrainingConfig, save_or_check_config
from vidtwin_gen.training.ema import Average, ema_weights
from vidtwin_gen.training.fsdp import autocast_forward, fsdp_plugin, is_sharded, whole_copy
from vidtwin_gen.training.hub import repo_id
from vidtwin_gen.training.metrics_log import MetricsLog, RunningMean
from vidtwin_gen.training.optimizer import Learner
from vidtwin_gen.training.trackers import check_tracker, start_trackers


def make_accelerator(config: TrainingConfig, *, shardable: bool = False) -> Accelerator:
    """An Accelerator as the flags say, with every generator seeded (the weights are drawn next).

    Raises:
        ValueError: accelerate was told to shard with FSDP, and the script's training is not `shardable`, or
            not with these settings; or there is no such tracker, or no such name on the hub.
    """
    check_tracker(config.report_to)
    if config.push_to_hub:
        repo_id(config)  # refused now, not after the run
    plugin = fsdp_plugin(config.mixed_precision)
    if plugin is not None and not shardable:
        raise ValueError(
            "FSDP shards one network with one optimiser whose only use is its forward pass, and this script "
            "has more: launch it without FSDP, `accelerate launch --multi_gpu`"
        )
    accelerator = Accelerator(
        fsdp_plugin=plugin,
        mixed_precision=config.mixed_precision,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        log_with=None if config.report_to == "none" else config.report_to,
        project_dir=config.output_dir,
    )
    if plugin is not None and not is_sharded(accelerator):
        accelerator.print("accelerate shards nothing on this device: training without FSDP")
    if config.allow_tf32:
        allow_tf32(accelerator.device)
    set_seed(config.seed)
    return accelerator


def allow_tf32(device: torch.device) -> None:
    """Lets float32 matrix products on a GPU round their factors to 10 bits of mantissa."""
    if device.type == "cuda":  # the setting would reach a CPU's products, too
        torch.set_float32_matmul_precision("high")


class Run:
    """One model in training, as one process sees it: its optimiser, its schedule and the average of its
    weights, all of them where the last checkpoint was, the progress bar, the log and the next checkpoints.

    `wrapped` is what a forward pass calls (DDP's wrapper, where there are several processes), `model` the
    model inside it. FSDP shards the model itself: there a forward pass needs all processes.

    Args:
        inputs: digests of what the run learns from, by the flag that names it; a resumed run needs the same.
        beside: a small module of the loss, trained with the model by its optimiser.
        adversary: a discriminator, with an optimiser of its own, whose schedule begins at `adversary_start`,
            the step from which on `adversary_plays`. What a forward pass calls for these two are the only
            elements of the lists `wrapped_beside` and `wrapped_adversary`.

    Raises:
        ValueError: the folder holds another run, or not the checkpoint that is asked for; or there is no
            such attention backend.
    """

    def __init__(
        self,
        model: ModelMixin,
        config: TrainingConfig,
        accelerator: Accelerator,
        name: str,
        *,
        inputs: Mapping[str, str] | None = None,
        beside: nn.Module | None = None,
        adversary: nn.Module | None = None,
        adversary_learning_rate: float = 0.0,
        adversary_start: int = 0,
    ) -> None:
        self.model, self.config, self.accelerator = model, config, accelerator
        self.output_dir = Path(config.output_dir)
        self.model_class, self.sharded = type(model), is_sharded(accelerator)
        prepare_model(model, config)
        if self.sharded:
            autocast_forward(model, accelerator)
        modules = [model] if beside is None else [model, beside]
        num_steps = config.max_train_steps
        self.learner = Learner(modules, config, accelerator, config.learning_rate, num_steps)
        self.wrapped, *self.wrapped_beside = self.learner.modules
        self.wrapped_adversary: list[nn.Module] = []
        if adversary is not None:
            num_steps = max(1, num_steps - adversary_start)
            self.opponent = Learner([adversary], config, accelerator, adversary_learning_rate, num_steps)
            self.wrapped_adversary = self.opponent.modules
        self.adversary_start = adversary_start
        self.adversary_moved: bool | None = None
        self.skipped_in_a_row = 0
        self.ema = Average(model.parameters(), decay=config.ema_decay) if config.use_ema else None
        if self.ema is not None:
            accelerator.register_for_checkpointing(self.ema)
        if accelerator.is_main_process:
            save_or_check_config(config, self.output_dir, inputs)
        self.progress = Progress(accelerator.num_processes)
        accelerator.register_for_checkpointing(self.progress)
        checkpoint = find_checkpoint(self.output_dir, config.resume_from_checkpoint)
        if checkpoint is not None:
            check_sharding(checkpoint, self.sharded)
            accelerator.load_state(str(checkpoint))
            accelerator.print(f"resuming from {checkpoint}")
            if accelerator.is_main_process:
                remove_later_checkpoints(checkpoint)
        if self.ema is not None:
            self.ema.to(accelerator.device)  # load_state leaves it on the CPU
        start_trackers(accelerator, name, config)
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
    def adversary_plays(self) -> bool:
        return bool(self.wrapped_adversary) and self.step >= self.adversary_start

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
            pin_memory=self.accelerator.device.type == "cuda",
        )
        return self.accelerator.prepare(loader)

    @contextmanager
    def forward_pass(self) -> Iterator[BatchDraws]:
        """One of the passes whose gradients a step accumulates, with all that is drawn for its samples: the
        same as if one process took the step's whole batch in one pass."""
        rank, device = self.accelerator.process_index, self.accelerator.device
        own = seed_pass(self.config.seed, self.micro_step, rank, device)
        step, index = divmod(self.micro_step, self.config.gradient_accumulation_steps)
        shared = seed_step(self.config.seed, step, device)
        # accelerate deals the loader's batches in turn, as many to a pass as there are processes
        first = (index * self.accelerator.num_processes + rank) * self.config.train_batch_size
        rows = slice(first, first + self.config.train_batch_size)
        self.micro_step += 1
        with self.accelerator.accumulate(self.wrapped, *self.wrapped_beside, *self.wrapped_adversary):
            yield BatchDraws(own, shared, self.batch_size, rows)

    def optimize_adversary(self, losses: Mapping[str, torch.Tensor]) -> None:
        """As `optimize`, for the adversary's `losses["discriminator_loss"]`; to be called before it, since
        that one ends the step."""
        self.adversary_moved = self.opponent.step(losses["discriminator_loss"])
        self.means.add(losses)
        if self.adversary_moved is not None:
            self.means.add({"discriminator_grad_norm": self.opponent.grad_norm})

    def optimize(self, losses: Mapping[str, torch.Tensor]) -> None:
        """Backward from `losses["loss"]`, and with the last of its passes a step, and a log line if due.

        NaN or infinity in a loss or a gradient leaves the weights as they are. Such a step counts, as what it
        drew is gone, and what it would have logged is left out of the means.

        Raises:
            FloatingPointError: that was so for `max_skipped_steps` in a row; a checkpoint has been saved.
        """
        learning_rate = self.learner.lr_scheduler.get_last_lr()[0]
        moved = self.learner.step(losses["loss"])
        self.means.add(losses)
        if moved is None:
            return
        self.means.add({"grad_norm": self.learner.grad_norm})
        self.progress.step += 1
        if moved and self.ema is not None:
            self.ema.step(self.model.parameters())
        if moved and self.adversary_moved is not False:
            self.means.keep()
            self.skipped_in_a_row = 0
        else:
            self.means.forget()
            self._skip()
        self.bar.update()
        if self.is_due(self.config.logging_steps) or self.is_due(self.config.checkpointing_steps):
            values = self.means.pop(self.accelerator)  # no mean spans a checkpoint
            self.bar.set_postfix({key: f"{value:.4g}" for key, value in values.items()})
            skipped = self.progress.skipped_steps
            self.write({**values, "lr": learning_rate, **({"skipped_steps": skipped} if skipped else {})})

    def _skip(self) -> None:
        """Counts and tells a step without effect; the one too many ends the run."""
        self.progress.skipped_steps += 1
        self.skipped_in_a_row += 1
        self._tell(
            f"step {self.step}: NaN or infinity in the loss or its gradient, skipped "
            f"({self.skipped_in_a_row} in a row, {self.progress.skipped_steps} in all)"
        )
        if self.skipped_in_a_row < self.config.max_skipped_steps:
            return
        save_checkpoint(self.accelerator, self.output_dir, self.step, self.config.checkpoints_total_limit)
        raise FloatingPointError(
            f"{self.skipped_in_a_row} steps in a row had NaN or infinity in the loss or its gradient; "
            f"checkpoint-{self.step} in {self.output_dir} holds the state, from which the same command goes "
            "on. Try a lower --learning_rate or --max_grad_norm, or --mixed_precision no, in another "
            "--output_dir"
        )

    def _tell(self, line: str) -> None:
        if self.accelerator.is_main_process:
            self.bar.write(line)

    def is_due(self, every: int) -> bool:
        """Whether this was the last pass of a step after which something happens that happens `every` steps,
        and after the last."""
        last = self.step == self.config.max_train_steps
        return self.accelerator.sync_gradients and (self.step % every == 0 or last)

    def write(self, values: Mapping[str, float]) -> None:
        self.log.write(self.step, self.step * self.batch_size, values)

    def report_validation(self, values: Mapping[str, float]) -> None:
        self.write(values)
        self._tell(f"step {self.step}: " + ", ".join(f"{k} {v:.4g}" for k, v in values.items()))

    def save_checkpoint_if_due(self) -> None:
        if self.is_due(self.config.checkpointing_steps):
            limit = self.config.checkpoints_total_limit
            save_checkpoint(self.accelerator, self.output_dir, self.step, limit)

    def export(self, name: str, result: Callable[[ModelMixin], ModelMixin | DiffusionPipeline]) -> None:
        """Ends the run and saves what it made, `result(model)` with averaged weights, in its folder. One that
        stands there from an earlier end is left alone: the whitening may have been written to it by now."""
        self.bar.close()
        folder = self.output_dir / name
        if self._is_wanted(folder):
            with ema_weights(self.ema, self.model):
                model = self.model
                if self.sharded:
                    model = whole_copy(self.model, self.model_class, self.accelerator)
                if model is not None and self.accelerator.is_main_process:
                    with replace_folder(folder) as partial:
                        result(model).save_pretrained(partial)
                    print(f"wrote {folder}")
        self.accelerator.end_training()

    def _is_wanted(self, folder: Path) -> bool:
        """Whether the folder is to be written, as the first process sees it: all have to agree."""
        wanted = self.accelerator.is_main_process and (self.advanced or not folder.exists())
        flag = torch.tensor(float(wanted), device=self.accelerator.device)
        return self.accelerator.reduce(flag, "sum").item() > 0


def prepare_model(model: ModelMixin, config: TrainingConfig) -> None:
    """Gradient checkpointing, attention backend and compilation, as the flags say.

    Raises:
        ValueError: there is no such attention backend, or it is not installed.
    """
    if config.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    if config.attention_backend:
        try:
            model.set_attention_backend(config.attention_backend)
        except (ValueError, RuntimeError, ImportError) as error:
            raise ValueError(f"--attention_backend {config.attention_backend}: {error}") from None
    if config.compile:
        model.compile_repeated_blocks()
