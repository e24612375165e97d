"""The demo: every command in turn, on the embedded data or on yours."""

from __future__ import annotations

import importlib
import os
import platform
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from vidtwin_gen.files import owned_folder, read_json, write_json
from vidtwin_gen.flags import flag
from vidtwin_gen.training.stopping import end_with_parent, handled_by, status_of

GUIDANCE_SCALE = 4.0  # of the generated clips
NUM_INFERENCE_STEPS = 25
# Threads that wait spin for microseconds: for ever costs a data worker its core, and not at all costs a step
# of small operations half its time again.
TRAINING_ENVIRONMENT = {"GOMP_SPINCOUNT": "10000"}


@dataclass(frozen=True)
class DemoSize:
    """What the demo does beside training: the stride of its clips, random windows encoded per training video,
    clips generated per class, and clips on each side of the FVD and of its floors."""

    stride: int
    windows_per_video: int
    videos_per_class: int
    fvd_clips: int


DEMO_SIZES = {
    "demo": DemoSize(stride=1, windows_per_video=3, videos_per_class=8, fvd_clips=32),
    "long": DemoSize(stride=1, windows_per_video=8, videos_per_class=32, fvd_clips=64),
    "cpu": DemoSize(stride=2, windows_per_video=2, videos_per_class=8, fvd_clips=64),
}


@dataclass(kw_only=True)
class DemoFlags:
    """Where the demo goes, its size and its videos."""

    out: str = flag("folder of everything the demo makes", "runs/demo")
    preset: str | None = flag(
        "demo: minutes, long: about an hour, cpu: real clips; left out: demo, or cpu with --data",
        choices=sorted(DEMO_SIZES),
    )
    data: str | None = flag("your own UCF-101 instead of the embedded data")


@dataclass(frozen=True)
class Stage:
    """One command of the demo, and the file or folder that is there when it is done."""

    name: str
    result: Path
    program: str
    arguments: Sequence[object]

    @property
    def is_done(self) -> bool:
        """An FVD that was left out for want of weights is measured later."""
        if not self.result.exists():
            return False
        return self.result.name != "fvd.json" or read_json(self.result, "remove it")["fvd"] is not None


def demo_stages(out: Path, preset: str, own_data: str | None) -> list[Stage]:
    """The commands that a user would type, from the data to the results. `own_data`: your videos, or None."""
    size = DEMO_SIZES[preset]
    data = own_data or out / "data"
    vae, dit, latents = out / "vae" / "autoencoder", out / "dit", out / "latents"
    pipeline, generated, results = dit / "pipeline", out / "generated", out / "eval"
    clips = generated / "clips.safetensors"
    real: list[object] = ["--data", data, "--stride", size.stride]

    train_vae = ["--preset", preset, "--data", data, "--output_dir", out / "vae"]
    encode = ["--vae", vae, *real, "--out", latents, "--windows_per_video", size.windows_per_video]
    train_dit = ["--preset", preset, "--vae", vae, "--latents", latents, "--output_dir", dit]
    generate = ["--pipeline", pipeline, "--out", generated, "--format", "gif"]
    generate += ["--num_videos_per_class", size.videos_per_class]
    generate += ["--guidance_scale", GUIDANCE_SCALE, "--num_inference_steps", NUM_INFERENCE_STEPS]
    recon = ["--vae", vae, *real, "--num_clips", 64, "--gif", results / "recon.gif"]
    accuracy = [*real, "--generated", clips, "--num_clips", 1000, "--real_gifs", results / "real"]
    fvd = [*real, "--generated", clips, "--num_samples", size.fvd_clips, "--pipeline", pipeline]
    cost = ["--pipeline", pipeline, "--patch_size", 1, "--paper_size"]

    def evaluation(name: str, verb: str, arguments: Sequence[object]) -> Stage:
        result = results / f"{verb}.json"
        return Stage(name, result, "eval", [verb, *arguments, "--out", result])

    stages = [] if own_data else [Stage("data", out / "data", "vidtwin_gen", ["data", "--out", data])]
    return [
        *stages,
        Stage("stage 1, the autoencoder", vae, "train_vae", train_vae),
        Stage("latents", latents, "vidtwin_gen", ["encode", *encode]),
        Stage("stage 2, the DiT", pipeline, "train_dit", train_dit),
        Stage("generation", generated / "generated.json", "pipelines", ["generate", *generate]),
        evaluation("reconstruction", "recon", recon),
        evaluation("class accuracy", "accuracy", accuracy),
        evaluation("FVD", "fvd", fvd),
        evaluation("cost", "cost", cost),
    ]


def demo(flags: DemoFlags) -> None:
    """Runs the stages whose result is not there yet, so that the same command resumes, and reports.

    Raises:
        ValueError: `--out` holds a demo of another preset or other data, or another process runs it.
    """
    out = Path(flags.out)
    preset = flags.preset or ("cpu" if flags.data else "demo")
    with owned_folder(out, "name another --out"):
        run_stages(out, preset, flags.data)


def run_stages(out: Path, preset: str, own_data: str | None) -> None:
    """As `demo`, in a folder that is this process's alone."""
    record_path = out / "demo.json"
    source = str(Path(own_data).resolve()) if own_data else None
    record: dict[str, Any] = {"preset": preset, "data": source, "stages": {}, "peak_memory_mb": 0}
    if record_path.exists():
        earlier = read_json(record_path, "remove it, or name another --out")
        moved = {"data": str(Path(earlier["data"]).resolve())} if earlier["data"] else {}
        for name in ("preset", "data"):
            if (earlier | moved)[name] != record[name]:
                raise ValueError(f"--out {out} holds a demo with {name} {earlier[name]}, not {record[name]}")
        record = earlier
    record["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    memory = PeakMemory()
    memory.start()
    for stage in demo_stages(out, preset, own_data):
        if stage.is_done:
            print(f"== {stage.name}: {stage.result} is there already", flush=True)
            continue
        start = time.monotonic()
        run_stage(stage)
        record["stages"][stage.name] = round(time.monotonic() - start, 1)
        record["peak_memory_mb"] = max(record["peak_memory_mb"], round(memory.peak))
        write_json(record_path, record)
    importlib.import_module("eval.__main__").main(["report", str(out)])
    print(f"total {sum(record['stages'].values()) / 60:.1f} minutes; look at {out / 'report.html'}")


def run_stage(stage: Stage) -> None:
    """Training in a process of its own, whose memory goes with it; the rest in this one. Signals go on to the
    training, once each, as its session is its own; it ends when this process dies.

    Raises:
        SystemExit: the training failed or was ended, with its status.
    """
    argv = list(map(str, stage.arguments))
    print(f"== {stage.name}\n$ {shlex.join(['python', '-m', stage.program, *argv])}", flush=True)
    if not stage.program.startswith("train_"):
        importlib.import_module(f"{stage.program}.__main__").main(argv)
        return
    command = [sys.executable, "-m", stage.program, *argv]
    child = subprocess.Popen(
        command,
        env={**TRAINING_ENVIRONMENT, **os.environ},
        start_new_session=True,
        preexec_fn=partial(end_with_parent, signal.SIGTERM),
    )
    with handled_by(lambda number, frame: child.send_signal(number)):
        code = child.wait()
    if code:
        status = code if code > 0 else status_of(-code)
        print(
            f"{stage.program} ended with status {status}; the same command resumes the demo", file=sys.stderr
        )
        sys.exit(status)


class PeakMemory(threading.Thread):
    """Samples the resident memory of this process and all its children, in MB; the highest sum is `peak`.

    Pages that processes share are counted once for each, so this is an upper bound.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0.0

    def run(self) -> None:
        this = psutil.Process()
        while True:
            total = 0
            for process in [this, *this.children(recursive=True)]:
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.peak = max(self.peak, total / 2**20)
            time.sleep(0.5)
