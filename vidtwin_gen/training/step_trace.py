"""A trace of a few steps of a training, by torch's profiler."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.profiler import ProfilerActivity

from vidtwin_gen.files import replacing_file

TRACE = "trace.json"
STEPS_BEFORE = 3  # which compile, choose kernels and allocate


class StepTrace:
    """Of `num_steps` steps after the first ones, `<output_dir>/trace.json`, which Perfetto and chrome://tracing
    show. Nothing where `num_steps` is 0. Of a run that ends before that, the steps that there were."""

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
            self.profiler = None

    def _write(self, profiler: torch.profiler.profile) -> None:
        with replacing_file(self.path) as partial:
            profiler.export_chrome_trace(str(partial))
