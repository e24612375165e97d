"""The numbers of a run as it goes: a file of them, the tracker, the progress bar; a trace of a few steps."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.profiler import ProfilerActivity
from tqdm.auto import tqdm

from vidtwin_gen.devices import by_the_first
from vidtwin_gen.files import read_log, replacing_file, write_text, writing
from vidtwin_gen.training.config import METRICS, TrainingConfig
from vidtwin_gen.training.trackers import start_trackers

TRACE = "trace.json"
STEPS_BEFORE = 3  # which compile, choose kernels and allocate


class MetricsLog:
    """`metrics.jsonl`, one JSON object a line, the tracker, if there is one, and the progress bar.

    What the passes of a step add is averaged over the steps since the last line and over the processes. On
    resuming, lines past the checkpoint are dropped: the run writes them anew.
    """

    def __init__(self, accelerator: Accelerator, config: TrainingConfig, step: int) -> None:
        self.accelerator = accelerator
        self.path = Path(config.output_dir) / METRICS
        self.sums: dict[str, torch.Tensor] = {}  # on the device
        self.counts: dict[str, int] = {}
        self.of_this_step: list[tuple[str, torch.Tensor]] = []
        if config.report_to != "none":
            by_the_first(lambda: start_trackers(accelerator, config, step))
        by_the_first(lambda: self._drop_lines_after(step))
        self.bar = tqdm(
            total=config.max_train_steps,
            initial=step,
            desc=config.tracker_project_name,
            unit="step",
            disable=not accelerator.is_main_process,
        )

    def _drop_lines_after(self, step: int) -> None:
        if self.path.exists():
            lines = [json.dumps(line) for line in read_log(self.path) if line["step"] <= step]
            write_text(self.path, "".join(f"{line}\n" for line in lines))

    def add(self, values: Mapping[str, torch.Tensor]) -> None:
        """Scalars of one pass."""
        self.of_this_step += [(name, value.detach()) for name, value in values.items()]

    def end_step(self, *, counts: bool) -> None:
        """What was added since the last step goes into the means, where the step counts."""
        for name, value in self.of_this_step if counts else []:
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1
        self.of_this_step = []
        self.bar.update()

    def pop_means(self) -> dict[str, float]:
        """The means over all processes since they were last asked for, which the bar shows, too."""
        means = [total / self.counts[name] for name, total in self.sums.items()]
        # of all at once, as a device is asked once
        numbers = self.accelerator.reduce(torch.stack(means), "mean").tolist() if means else []
        values = dict(zip(self.sums, numbers, strict=True))
        self.sums, self.counts = {}, {}
        self.bar.set_postfix({name: f"{value:.4g}" for name, value in values.items()})
        return values

    def write(self, step: int, samples: int, values: Mapping[str, float]) -> None:
        if not self.accelerator.is_main_process:
            return
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "samples": samples, **values}) + "\n")
        self.accelerator.log(dict(values), step=step)

    def print(self, line: str) -> None:
        """Above the bar, and at once."""
        if self.accelerator.is_main_process:
            self.bar.write(line)
            sys.stdout.flush()

    def close(self) -> None:
        self.bar.close()


class StepTrace:
    """Of `num_steps` steps after the first ones, `<output_dir>/trace.json`, which Perfetto and chrome://tracing
    show. Nothing where `num_steps` is 0. Of a run that ends before that, the steps that there were; of none a
    line that says so."""

    def __init__(self, num_steps: int, output_dir: Path) -> None:
        self.path = output_dir / TRACE
        self.profiler: torch.profiler.profile | None = None
        if not num_steps:
            return
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        schedule = torch.profiler.schedule(
            skip_first=STEPS_BEFORE - 1, wait=0, warmup=1, active=num_steps, repeat=1
        )
        self.profiler = torch.profiler.profile(
            activities=activities, schedule=schedule, on_trace_ready=self._write
        )
        self.profiler.start()

    def end_step(self) -> None:
        if self.profiler is not None:
            self.profiler.step()

    def close(self) -> None:
        if self.profiler is not None:
            self.profiler.stop()
            if self.profiler.step_num <= STEPS_BEFORE:
                print(f"{self.path} is not written: --profile is of the steps after the first {STEPS_BEFORE}")
            self.profiler = None

    def _write(self, profiler: torch.profiler.profile) -> None:
        if profiler.step_num <= STEPS_BEFORE:  # stopped before the first that is to be traced
            return
        with replacing_file(self.path) as partial:
            profiler.export_chrome_trace(str(partial))
