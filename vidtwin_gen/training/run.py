"""What both training loops need around their step: a run, its passes, its EMA, its log, its checkpoints."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import DiffusionPipeline
from diffusers.models.modeling_utils import ModelMixin
from torch.utils.data import DataLoader, Dataset

from vidtwin_gen.devices import by_the_first, worker_context
from vidtwin_gen.draws import BatchDraw, seed_pass, seed_step
from vidtwin_gen.files import owned_folder, replacing_folder, write_json
from vidtwin_gen.models.checks import check_finite
from vidtwin_gen.program.signals import handled_by, status_of
from vidtwin_gen.training.checkpoints import Progress, resume, save_checkpoint
from vidtwin_gen.training.config import (
    END,
    EXPORTED,
    RESUME,
    RUN_RECORD,
    TrainingConfig,
    batch_size,
    checked_record,
    recorded_run,
)
from vidtwin_gen.training.ema import ModelFolders, ema_weights, make_ema
from vidtwin_gen.training.fsdp import whole_copy
from vidtwin_gen.training.metrics_log import MetricsLog, StepTrace
from vidtwin_gen.training.optimizer import SkippingOptimizer
from vidtwin_gen.training.stopping import DataWorkers, StopSignal

GENTLER = "Try a lower --learning_rate or --max_grad_norm, or --mixed_precision no, in another --output_dir"


@contextmanager
def training_run(
    model: ModelMixin,
    optimizers: Sequence[SkippingOptimizer],
    config: TrainingConfig,
    accelerator: Accelerator,
    name: str,
    *,
    inputs: Mapping[str, str] | None = None,
    class_names: Sequence[str] = (),
) -> Iterator[Run]:
    """A `Run`, with the same arguments, that owns its folder as long as the context lasts. SIGTERM, SIGUSR1
    and Ctrl-C end it after the step at hand, with a checkpoint and the status that says so.

    Raises:
        ValueError: another process owns the folder, or as `Run`.
        SystemExit: a signal came.
    """
    stop, workers = StopSignal(), DataWorkers()
    owned = owned_folder(config.output_dir, "name another --output_dir")
    with ExitStack() as stack, handled_by(stop):
        by_the_first(lambda: stack.enter_context(owned))
        try:
            args = model, optimizers, config, accelerator, name, stop, workers
            yield Run(*args, inputs=inputs, class_names=class_names)
        finally:
            workers.may_end()
        if stop.number:  # after the last step
            raise SystemExit(status_of(stop.number))


class Run:
    """A model in training, as one process sees it, where its last checkpoint was.

    The loop makes the forward passes and steps the optimizers; the run numbers the passes, seeds what they
    draw, counts the steps, and keeps the EMA of the model's weights, the log and the checkpoints.

    Args:
        model: the one that is exported, prepared by its optimizer.
        name: of the model's kind, as a pipeline or a checkpoint has it.
        optimizers: all that the loop steps, that of `model` first.
        stop: what tells that a signal came. workers: what each data worker starts with.
        inputs: digests of what the run learns from, by the flag that names it; a resumed run needs the same.
        class_names: where what it learns has any, in order.

    Raises:
        ValueError: the folder holds another run, or not the checkpoint that is asked for.
    """

    def __init__(
        self,
        model: ModelMixin,
        optimizers: Sequence[SkippingOptimizer],
        config: TrainingConfig,
        accelerator: Accelerator,
        name: str,
        stop: StopSignal,
        workers: DataWorkers,
        *,
        inputs: Mapping[str, str] | None = None,
        class_names: Sequence[str] = (),
    ) -> None:
        self.stop, self.workers, self.stopped_by = stop, workers, 0
        self.model, self.optimizers, self.config, self.accelerator = model, optimizers, config, accelerator
        self.output_dir = Path(config.output_dir)
        record, is_changed = by_the_first(
            lambda: checked_record(config, self.output_dir, inputs, class_names)
        )
        self.ema = make_ema(model, config, accelerator) if config.use_ema else None
        if self.ema is not None:
            accelerator.register_for_checkpointing(self.ema)
        ModelFolders(model, self.ema, accelerator, name)
        before = by_the_first(lambda: recorded_run(self.output_dir))
        at_once = batch_size(vars(config) | before, accelerator.num_processes)
        self.progress = Progress(accelerator.num_processes, at_once)
        accelerator.register_for_checkpointing(self.progress)
        wanted = config.resume_from_checkpoint if is_changed else self._wanted_checkpoint(before)
        resume(
            accelerator,
            self.output_dir,
            wanted,
            max_train_steps=config.max_train_steps,
            limit=config.checkpoints_total_limit,
            is_changed=is_changed,
        )
        if self.ema is not None:
            self.ema.to(accelerator.device)  # load_state leaves it on the CPU
        for optimizer in optimizers:
            optimizer.apply_flags()
        self.had_steps_left = self.step < config.max_train_steps
        if self.had_steps_left:  # an export in the folder is of an earlier end
            record[EXPORTED] = None
        self.is_to_export = EXPORTED in record and record[EXPORTED] != self.step  # 0.1.0 did not record it
        self.record = record | {RESUME: config.resume_from_checkpoint}
        if accelerator.is_main_process:
            self._write_record(before)
        self.num_passes = self.step * config.gradient_accumulation_steps
        self.log = MetricsLog(accelerator, config, self.step)
        self.trace = StepTrace(config.profile if accelerator.is_main_process else 0, self.output_dir)

    def _wanted_checkpoint(self, before: Mapping[str, Any]) -> str:
        """As the flag says; but a run that went back to a checkpoint by its name goes on when the command is
        repeated with the same flags, from where it was stopped."""
        wanted = self.config.resume_from_checkpoint
        if wanted in ("latest", "none") or before.get(RESUME) != wanted:
            return wanted
        self.accelerator.print(
            f"{self.output_dir} went back to {wanted} already and goes on: to go back once more, remove the "
            "checkpoints after it"
        )
        return "latest"

    def _write_record(self, before: Mapping[str, Any]) -> None:
        """`run.json`; says what becomes of the schedule where the run has another end than before."""
        end = self.config.max_train_steps
        if self.step and before.get(END, end) != end:
            self.is_to_export = True
            print(
                f"--{END} was {before[END]}, is {end}: from step {self.step} on the learning rate is that of "
                f"--lr_scheduler {self.config.lr_scheduler} over the new number"
            )
        write_json(self.output_dir / RUN_RECORD, self.record)

    @property
    def step(self) -> int:
        """Optimizer steps done, by this run and by those that it resumes."""
        return self.progress.step

    @property
    def batch_size(self) -> int:
        """Clips per optimizer step over all processes and accumulated passes."""
        return batch_size(vars(self.config), self.accelerator.num_processes)

    def loader(self, dataset: Dataset[Any], collate_fn: Callable[..., Any]) -> DataLoader[Any]:
        """This process's batches of the steps that are left; the dataset is an endless stream."""
        first, steps_left = self.progress.samples, self.config.max_train_steps - self.step
        loader = DataLoader(
            dataset,
            batch_size=self.config.train_batch_size,
            sampler=range(first, first + steps_left * self.batch_size),
            num_workers=self.config.dataloader_num_workers,
            collate_fn=collate_fn,
            worker_init_fn=self.workers,
            multiprocessing_context=worker_context(self.config.dataloader_num_workers),
            pin_memory=self.accelerator.device.type == "cuda",
        )
        return self.accelerator.prepare(loader)

    @contextmanager
    def forward_pass(self) -> Iterator[BatchDraw]:
        """One of the passes whose gradients a step accumulates, with what draws random numbers for its
        samples: the same as if one process took the step's whole batch in one pass."""
        rank, device = self.accelerator.process_index, self.accelerator.device
        generator = seed_pass(self.config.seed, self.num_passes, rank, device)
        step, index = divmod(self.num_passes, self.config.gradient_accumulation_steps)
        shared = seed_step(self.config.seed, step, device)
        # accelerate deals the loader's batches in turn, as many to a pass as there are processes
        first = (index * self.accelerator.num_processes + rank) * self.config.train_batch_size
        rows = slice(first, first + self.config.train_batch_size)
        self.num_passes += 1
        with self.accelerator.accumulate(*(m for optimizer in self.optimizers for m in optimizer.modules)):
            yield BatchDraw(generator, shared, self.batch_size, rows)

    def end_step(self) -> None:
        """After the last pass of a step: counts it, updates the EMA, and logs where that is due.

        A step in which an optimizer met NaN or infinity counts, as what it drew is gone, and what it would
        have logged is left out of the means.

        Raises:
            FloatingPointError: that was so for `max_skipped_steps` in a row; a checkpoint has been saved.
        """
        if not self.accelerator.sync_gradients:
            return
        skipped = not all(optimizer.moved for optimizer in self.optimizers)
        self.progress.count(self.batch_size, skipped=skipped)
        if self.optimizers[0].moved and self.ema is not None:
            self.ema.step(self.model.parameters())
        self.log.end_step(counts=not skipped)
        self.trace.end_step()
        if skipped:
            self._report_skipped_step()
        self.stopped_by = self._agreed_signal()
        saved = self.is_due(self.config.checkpointing_steps) or self.stopped_by
        if self.is_due(self.config.logging_steps) or saved:
            values = self.log.pop_means()  # no mean spans a checkpoint
            values["lr"] = self.optimizers[0].learning_rate
            if self.progress.skipped_steps:
                values["skipped_steps"] = self.progress.skipped_steps
            self.log.write(self.step, self.progress.samples, values)

    def _report_skipped_step(self) -> None:
        """Prints what was skipped; the one too many ends the run."""
        in_a_row, in_all = self.progress.skipped_in_a_row, self.progress.skipped_steps
        self.log.print(
            f"step {self.step}: NaN or infinity in the loss or its gradient, skipped "
            f"({in_a_row} in a row, {in_all} in all)"
        )
        if in_a_row >= self.config.max_skipped_steps:
            self._save_checkpoint()
            raise FloatingPointError(
                f"{in_a_row} steps in a row had NaN or infinity in the loss or its gradient; "
                f"checkpoint-{self.step} in {self.output_dir} holds the state, from which the same command "
                f"goes on. {GENTLER}"
            )

    def is_due(self, every: int) -> bool:
        """Whether this was the last pass of a step after which something happens that happens `every` steps,
        and after the last."""
        last = self.step == self.config.max_train_steps
        return self.accelerator.sync_gradients and (self.step % every == 0 or last)

    @contextmanager
    def validation(self) -> Iterator[None]:
        """Inside, the model has the EMA's weights, where there is one; the bar says why it stands still."""
        title = self.config.tracker_project_name
        self.log.bar.set_description(f"{title}, validating")
        with ema_weights(self.ema, self.model):
            yield
        self.log.bar.set_description(title)

    def report_validation(self, values: Mapping[str, float]) -> None:
        """Logs and prints what was measured on held-out clips.

        Raises:
            FloatingPointError: NaN or infinity is among it. Such weights are not saved.
        """
        measured = f"step {self.step}: " + ", ".join(f"{k} {v:.4g}" for k, v in values.items())
        if not all(map(math.isfinite, values.values())):
            raise FloatingPointError(
                f"{measured} on held-out clips: the training has diverged, and is not saved. Checkpoints "
                f"since the validation before may have diverged, too. {GENTLER}"
            )
        self.log.write(self.step, self.progress.samples, values)
        self.log.print(measured)

    def _agreed_signal(self) -> int:
        """The number of the signal that came to any process: all stop at the same step."""
        if self.accelerator.num_processes == 1:
            return self.stop.number
        number = torch.tensor(self.stop.number, device=self.accelerator.device)
        return int(self.accelerator.gather(number).max().item())

    def save_checkpoint_if_due(self) -> None:
        """Every `checkpointing_steps`, and where a signal ends the run.

        Raises:
            SystemExit: a signal ends it.
        """
        stops = self.accelerator.sync_gradients and self.stopped_by
        if not (self.is_due(self.config.checkpointing_steps) or stops):
            return
        checkpoint = self._save_checkpoint()
        if stops:
            self.log.close()
            self.trace.close()
            self.accelerator.print(
                f"{signal.Signals(self.stopped_by).name} after step {self.step} of "
                f"{self.config.max_train_steps}: {checkpoint} holds the state, the same command goes on"
            )
            self.accelerator.end_training()
            raise SystemExit(status_of(self.stopped_by))

    def _save_checkpoint(self) -> Path:
        limit = self.config.checkpoints_total_limit
        return save_checkpoint(self.accelerator, self.output_dir, self.step, limit, self.record)

    def export(self, name: str, result: Callable[[ModelMixin], ModelMixin | DiffusionPipeline]) -> None:
        """Ends the run and saves what it made, `result(model)` with the EMA's weights, in the folder `name`.
        One that is there from an earlier end is left alone. Raises ValueError where they are not finite.
        """
        self.log.close()
        self.trace.close()
        folder = self.output_dir / name
        if not by_the_first(lambda: self.is_to_export or not folder.exists()):
            self.accelerator.print(f"{folder} is there already and stays: to have it anew, remove it")
        else:
            with ema_weights(self.ema, self.model):
                model = whole_copy(self.model, self.accelerator)
                if model is not None and self.accelerator.is_main_process:
                    check_finite(model.state_dict().items(), f"{folder} is not written")
                    with replacing_folder(folder) as partial:
                        result(model).save_pretrained(partial)
                    write_json(self.output_dir / RUN_RECORD, self.record | {EXPORTED: self.step})
                    print(f"wrote {folder}")
        self.accelerator.end_training()
