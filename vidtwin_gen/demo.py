"""The demo: every command in turn, on the embedded data or on yours."""

from __future__ import annotations

import importlib
import math
import os
import platform
import shlex
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from vidtwin_gen.files import owned_folder, read_json, write_json
from vidtwin_gen.flags import flag
from vidtwin_gen.program.children import run_child
from vidtwin_gen.program.signals import status_of
from vidtwin_gen.records import AccuracyResult, FVDResult, kvd_text

NUM_INFERENCE_STEPS = 25
PRETRAINED = Path(__file__).parents[1] / "pretrained" / "moving-shapes"  # of a checkout
FIRST_CLASS = "BouncingBall"
# OpenMP threads spin briefly while idle. Unlimited spinning takes the data worker's core; none makes a step
# of small operations take 1.5 times as long.
TRAINING_ENVIRONMENT = {"GOMP_SPINCOUNT": "10000"}
# Rough seconds of each stage of the preset `demo` on two cores; only their ratios matter, for the time left.
SECONDS = {
    "a first clip": 15,
    "data": 12,
    "stage 1, the autoencoder": 409,
    "latents": 27,
    "stage 2, the DiT": 400,
    "generation": 20,
    "reconstruction": 13,
    "class accuracy": 14,
    "generation, another seed": 6,
    "FVD": 55,
    "cost": 6,
}


@dataclass(frozen=True)
class DemoSize:
    """What the demo does beside training: the stride of its clips, random windows encoded per training video,
    clips generated per class, and per class with a second seed for the FVD, and clips on each side of the FVD
    and of its floors. `guidance_scale`: of generated clips; the less it was trained, the more a DiT needs.
    `longer`: about how many times longer its trainings take than those of the preset `demo`."""

    stride: int
    windows_per_video: int
    videos_per_class: int
    more_videos_per_class: int
    fvd_clips: int
    guidance_scale: float = 4.0
    longer: float = 1.0


DEMO_SIZES = {
    "demo": DemoSize(
        stride=1,
        windows_per_video=5,
        videos_per_class=32,
        more_videos_per_class=8,
        fvd_clips=32,
        guidance_scale=2.5,
    ),
    "long": DemoSize(
        stride=1,
        windows_per_video=8,
        videos_per_class=32,
        more_videos_per_class=16,
        fvd_clips=64,
        guidance_scale=2.0,
        longer=2.8,
    ),
    "cpu": DemoSize(
        stride=2, windows_per_video=2, videos_per_class=8, more_videos_per_class=8, fvd_clips=64, longer=3.1
    ),
}


@dataclass(kw_only=True)
class DemoFlags:
    """Where the demo goes, its size and its videos."""

    out: str = flag("folder of everything the demo makes", "runs/demo")
    preset: str | None = flag(
        "demo: minutes, long: about an hour, cpu: real clips; left out: demo, or cpu with --data",
        choices=sorted(DEMO_SIZES),
    )
    data: str | None = flag("your own videos in UCF-101's layout instead of the embedded data")


@dataclass(frozen=True)
class Stage:
    """One command of the demo, the file or folder that is there when it is done, and what is said then."""

    name: str
    result: Path
    program: str
    arguments: Sequence[object]
    remark: str = ""

    @property
    def title(self) -> str:
        """Its name; of the two trainings without their own "stage 1" and "stage 2"."""
        return self.name.split(", ")[-1] if self.name.startswith("stage ") else self.name

    @property
    def is_done(self) -> bool:
        """An FVD that was left out for want of weights is measured later."""
        if not self.result.exists():
            return False
        return self.result.name != "fvd.json" or read_json(self.result, "remove it")["fvd"] is not None


def demo_stages(out: Path, preset: str, own_data: str | None) -> list[Stage]:
    """The commands that a user would type, from the data to the results. `own_data`: your videos, or None.
    Raises ValueError as `fitted`."""
    size = DEMO_SIZES[preset]
    if own_data:
        size = fitted(size, own_data)
    data = own_data or out / "data"
    vae, dit, latents = out / "vae" / "autoencoder", out / "dit", out / "latents"
    pipeline, results = dit / "pipeline", out / "eval"
    generated = out / "generated", out / "generated_seed_1"
    clips, more_clips = (folder / "clips.safetensors" for folder in generated)
    real: list[object] = ["--data", data, "--stride", size.stride]

    train_vae = ["--preset", preset, "--data", data, "--output_dir", out / "vae"]
    encode = ["--vae", vae, *real, "--out", latents, "--windows_per_video", size.windows_per_video]
    train_dit = ["--preset", preset, "--vae", vae, "--latents", latents, "--output_dir", dit]
    recon = ["--vae", vae, *real, "--num_clips", 64, "--gif", results / "recon.gif"]
    accuracy = [*real, "--generated", clips, "--num_clips", 1000, "--real_gifs", results / "real"]
    fvd = [*real, "--generated", clips, more_clips, "--num_samples", size.fvd_clips, "--pipeline", pipeline]
    cost = ["--pipeline", pipeline, "--patch_size", 1, "--paper_size"]

    def generation(name: str, seed: int, videos_per_class: int) -> Stage:
        arguments = ["generate", "--pipeline", pipeline, "--out", generated[seed], "--format", "gif"]
        arguments += ["--num_videos_per_class", videos_per_class, "--seed", seed]
        arguments += ["--guidance_scale", size.guidance_scale, "--num_inference_steps", NUM_INFERENCE_STEPS]
        return Stage(name, generated[seed] / "generated.json", "pipelines", arguments)

    def evaluation(name: str, verb: str, arguments: Sequence[object]) -> Stage:
        result = results / f"{verb}.json"
        return Stage(name, result, "eval", [verb, *arguments, "--out", result])

    first = [first_clip(out / "first_clip")] if PRETRAINED.is_dir() else []  # an installed package has none
    embedded = [] if own_data else [Stage("data", out / "data", "vidtwin_gen", ["data", "--out", data])]
    return [
        *first,
        *embedded,
        Stage("stage 1, the autoencoder", vae, "train_vae", train_vae),
        Stage("latents", latents, "vidtwin_gen", ["encode", *encode]),
        Stage("stage 2, the DiT", pipeline, "train_dit", train_dit),
        generation("generation", 0, size.videos_per_class),
        evaluation("reconstruction", "recon", recon),
        evaluation("class accuracy", "accuracy", accuracy),
        generation("generation, another seed", 1, size.more_videos_per_class),
        evaluation("FVD", "fvd", fvd),
        evaluation("cost", "cost", cost),
    ]


def fitted(size: DemoSize, data: str) -> DemoSize:
    """With clips enough of each class for the FVD, where there are few classes; and no more for it than there
    are real ones, two of a video. Raises ValueError as `video_folder` and `build_index`, and for one class,
    whose accuracy could not be measured."""
    from vidtwin_gen.data.ucf101 import build_index
    from vidtwin_gen.unpack.cached import video_folder

    videos = Counter(build_index(video_folder(data), split="train")["label"])
    if len(videos) < 2:
        raise ValueError(
            f"--data {data} has one class, and the demo measures class accuracy: name two or more"
        )
    fvd_clips = max(2, min(size.fvd_clips, 2 * min(videos.values()) * len(videos)))
    least = math.ceil(fvd_clips / len(videos))
    return replace(
        size,
        fvd_clips=fvd_clips,
        videos_per_class=max(least, size.videos_per_class),
        more_videos_per_class=max(least, size.more_videos_per_class),
    )


def first_clip(out: Path) -> Stage:
    """A clip of the weights that the repository carries, seconds after the installation."""
    arguments = ["generate", "--pipeline", PRETRAINED, "--class_labels", FIRST_CLASS, "--out", out]
    arguments += ["--num_videos_per_class", 1, "--format", "gif"]
    guidance_scale = DEMO_SIZES["long"].guidance_scale  # whose weights they are
    arguments += ["--guidance_scale", guidance_scale, "--num_inference_steps", NUM_INFERENCE_STEPS]
    call = f"{FIRST_CLASS!r}, guidance_scale={guidance_scale}, num_inference_steps={NUM_INFERENCE_STEPS}"
    clip = out / FIRST_CLASS / f"{FIRST_CLASS}_0000.gif"
    remark = f"""look at {clip}, made by trained weights of this repository; in Python:
    from vidtwin_gen import VidTwinPipeline
    pipe = VidTwinPipeline.from_pretrained({str(PRETRAINED)!r})
    frames = pipe({call}).frames[0]
What follows trains such weights from nothing."""
    return Stage("a first clip", out / "generated.json", "pipelines", arguments, remark)


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
    stages = demo_stages(out, preset, own_data)
    for stage in stages:
        words = [str(word).replace(str(out), "OUT") for word in stage.arguments]
        before = record.setdefault("commands", {}).setdefault(stage.name, words)
        if before != words and not all(stage.is_done for stage in stages):
            raise ValueError(
                f"--out {out} holds a demo of another version, whose {stage.name} is another command: finish "
                "it with that version, or name another --out"
            )
    for number, stage in enumerate(stages, 1):
        title = f"== stage {number} of {len(stages)}: {stage.title}"
        if stage.is_done:
            print(f"{title}: {stage.result} is there already", flush=True)
            continue
        print(f"{title}, {time_left(stages[number - 1 :], record['stages'], preset)}", flush=True)
        start = time.monotonic()
        run_stage(stage)
        if stage.remark:
            print(stage.remark, flush=True)
        record["stages"][stage.name] = round(time.monotonic() - start, 1)
        record["peak_memory_mb"] = max(record["peak_memory_mb"], round(memory.peak))
        write_json(record_path, record)
    importlib.import_module("eval.__main__").main(["report", str(out)])
    print(numbers(out / "eval"))
    print(f"total {sum(record['stages'].values()) / 60:.1f} minutes; look at {out / 'report.html'}")


def time_left(stages: Sequence[Stage], seconds: Mapping[str, float], preset: str) -> str:
    """Of the stages to come, by the pace of those that were done on this machine, whose `seconds` these are;
    by that of another machine where there are none yet."""

    def usual(name: str) -> float:
        return SECONDS[name] * (DEMO_SIZES[preset].longer if name.startswith("stage ") else 1)

    expected = sum(map(usual, seconds))
    pace = sum(seconds.values()) / expected if expected else 1.0
    minutes = pace * sum(usual(stage.name) for stage in stages if not stage.is_done) / 60
    return f"~{max(minutes, 1):.0f} minutes left" + ("" if expected else ", judged by another machine")


def numbers(results: Path) -> str:
    """The class accuracy and the FVD with their spread, and what the spread does not cover."""
    accuracy, fvd = AccuracyResult.read(results / "accuracy.json"), FVDResult.read(results / "fvd.json")
    text = f"class accuracy {accuracy.text('generated')} of {accuracy.generated['num_clips']} generated clips"
    if fvd.fvd is not None:
        spread = f" ± {fvd.std:.0f}" if fvd.std is not None else ""
        seeds = f" over {fvd.num_seeds} seeds" if fvd.std is not None else ", one seed"
        kvd = f", KVD {kvd_text(fvd.kvd, fvd.kvd_std)}" if fvd.kvd is not None else ""
        text += f"; FVD {fvd.fvd:.0f}{spread}{kvd}{seeds}"
    return (
        f"{text}\nanother machine rounds otherwise, trains another model and gives other numbers: at the "
        "preset demo 97.3 % of 256 clips were seen"
    )


def run_stage(stage: Stage) -> None:
    """Training in a process of its own, whose memory goes with it; the rest in this one.

    Raises:
        SystemExit: the training failed or was ended, with its status.
    """
    argv = list(map(str, stage.arguments))
    print(f"$ {shlex.join(['python', '-m', stage.program, *argv])}", flush=True)
    if not stage.program.startswith("train_"):
        importlib.import_module(f"{stage.program}.__main__").main(argv)
        return
    command = [sys.executable, "-m", stage.program, *argv]
    code, came = run_child(command, env={**TRAINING_ENVIRONMENT, **os.environ})
    if code or came:  # it may have been past its last step
        status = code if code > 0 else status_of(-code or came)
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
                with suppress(psutil.NoSuchProcess):
                    total += process.memory_info().rss
            self.peak = max(self.peak, total / 2**20)
            time.sleep(0.5)
