"""python -m vidtwin_gen demo | data | encode"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import platform
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

GUIDANCE = 4.0  # of the demo's generated clips


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


@dataclass(frozen=True)
class Stage:
    """One command of the demo, and the file or folder that stands when it is done."""

    name: str
    done: Path
    program: str
    arguments: Sequence[object]

    @property
    def stands(self) -> bool:
        """Whether there is nothing to do. An FVD that was left out for want of weights is measured later."""
        if not self.done.exists():
            return False
        return self.done.name != "fvd.json" or json.loads(self.done.read_text())["fvd"] is not None


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


def demo_stages(args: argparse.Namespace) -> list[Stage]:
    """The whole road as the commands that a user would type."""
    out, size = Path(args.out), DEMO_SIZES[args.preset]
    data = args.data or out / "data"
    vae, dit, latents = out / "vae" / "autoencoder", out / "dit", out / "latents"
    generated, results = out / "generated", out / "eval"
    clips = generated / "clips.safetensors"
    real: list[object] = ["--data", data, "--stride", size.stride]
    preset: list[object] = ["--preset", args.preset]
    train_vae = [*preset, "--data", data, "--output_dir", out / "vae"]
    encode = ["--vae", vae, *real, "--out", latents, "--windows_per_video", size.windows_per_video]
    train_dit = [*preset, "--vae", vae, "--latents", latents, "--output_dir", dit]
    generate = ["--pipeline", dit / "pipeline", "--out", generated, "--format", "gif"]
    generate += [
        "--num_videos_per_class",
        size.videos_per_class,
        "--guidance_scale",
        GUIDANCE,
        "--num_inference_steps",
        25,
    ]
    recon = ["--vae", vae, *real, "--num_clips", 64, "--gif", results / "recon.gif"]
    accuracy = [*real, "--generated", clips, "--num_clips", 1000, "--real_gifs", results / "real"]
    fvd = [
        *real,
        "--generated",
        clips,
        "--num_samples",
        size.fvd_clips,
        "--pipeline",
        dit / "pipeline",
    ]
    cost = ["--pipeline", dit / "pipeline", "--patch_size", 1, "--paper_size"]

    def evaluation(name: str, verb: str, arguments: Sequence[object]) -> Stage:
        result = results / f"{verb}.json"
        return Stage(name, result, "eval", [verb, *arguments, "--out", result])

    stages = [] if args.data else [Stage("data", out / "data", "vidtwin_gen", ["data", "--out", data])]
    return [
        *stages,
        Stage("stage 1, the autoencoder", vae, "train_vae", train_vae),
        Stage("latents", latents, "vidtwin_gen", ["encode", *encode]),
        Stage("stage 2, the DiT", dit / "pipeline", "train_dit", train_dit),
        Stage("generation", generated / "generated.json", "pipelines", ["generate", *generate]),
        evaluation("reconstruction", "recon", recon),
        evaluation("class accuracy", "accuracy", accuracy),
        evaluation("FVD", "fvd", fvd),
        evaluation("cost", "cost", cost),
    ]


def demo(args: argparse.Namespace) -> None:
    """Runs the stages whose result does not stand yet, so that the same command resumes, and reports.

    Raises:
        ValueError: `--out` holds a demo of another preset or other data.
    """
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    record_path = out / "demo.json"
    source = str(Path(args.data).absolute()) if args.data else None
    record: dict[str, Any] = {"preset": args.preset, "data": source, "stages": {}, "peak_memory_mb": 0}
    if record_path.exists():
        before = json.loads(record_path.read_text())
        for name in ("preset", "data"):
            if before[name] != record[name]:
                raise ValueError(f"--out {out} holds a demo with {name} {before[name]}, not {record[name]}")
        record = before
    record["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    memory = PeakMemory()
    memory.start()
    for stage in demo_stages(args):
        if stage.stands:
            print(f"== {stage.name}: {stage.done} is there already", flush=True)
            continue
        argv = list(map(str, stage.arguments))
        print(f"== {stage.name}\n$ {shlex.join(['python', '-m', stage.program, *argv])}", flush=True)
        start = time.monotonic()
        if stage.program.startswith("train_"):  # a process of its own, whose memory goes with it
            # threads that wait spin for microseconds: for ever costs a data worker its core, not at all costs
            # a step of small operations half its time again
            env = {"GOMP_SPINCOUNT": "10000", **os.environ}
            command = [sys.executable, "-m", stage.program, *argv]
            if code := subprocess.run(command, env=env, check=False).returncode:
                sys.exit(f"{stage.program} ended with status {code}; the same command resumes the demo")
        else:
            importlib.import_module(f"{stage.program}.__main__").main(argv)
        record["stages"][stage.name] = round(time.monotonic() - start, 1)
        record["peak_memory_mb"] = max(record["peak_memory_mb"], round(memory.peak))
        partial = record_path.with_suffix(".partial")
        partial.write_text(json.dumps(record, indent=2) + "\n")
        partial.rename(record_path)
    importlib.import_module("eval.__main__").main(["report", str(out)])
    print(f"total {sum(record['stages'].values()) / 60:.1f} minutes; look at {out / 'report.html'}")


def data(args: argparse.Namespace) -> None:
    """The embedded data set."""
    from vidtwin_gen.data.synthetic import write_dataset

    root = write_dataset(args.out, seed=args.seed, clips_per_group=args.clips_per_group)
    print(f"wrote {root}")


def encode(args: argparse.Namespace) -> None:
    """Videos to latents, once; a killed command goes on when it is repeated."""
    from autoencoder.encode.command import encode
    from autoencoder.encode.flags import EncodeFlags

    encode(EncodeFlags(**{field.name: getattr(args, field.name) for field in dataclasses.fields(EncodeFlags)}))


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m vidtwin_gen", description="Two-stage latent video diffusion."
    )
    verbs = top.add_subparsers(dest="verb", required=True)

    verb = verbs.add_parser("demo", help="data, both stages, generation, evaluation, report")
    verb.add_argument("--out", default="runs/demo", help="folder of everything the demo makes")
    verb.add_argument(
        "--preset",
        choices=sorted(DEMO_SIZES),
        help="demo: minutes, long: about an hour, cpu: real clips; left out: demo, or cpu with --data",
    )
    verb.add_argument("--data", help="your own UCF-101 instead of the embedded data")
    verb.set_defaults(run=demo)

    verb = verbs.add_parser("data", help="write the embedded data set, in UCF-101's layout")
    verb.add_argument("--out", required=True, help="folder for it, new or empty")
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--clips_per_group", type=int, default=4, help="25 groups of these make a class")
    verb.set_defaults(run=data)

    verb = verbs.add_parser("encode", help="encode a data set into latents, once; repeated, it continues")
    verb.add_argument(
        "--vae",
        required=True,
        help="folder of the autoencoder, ours (the whitening goes into its config) or diffusers'",
    )
    verb.add_argument("--data", required=True, help="folder of videos")
    verb.add_argument("--out", required=True, help="folder for the latents, new or empty")
    verb.add_argument("--fold", type=int, default=1, help="official split, 1 to 3")
    rate = verb.add_mutually_exclusive_group(required=True)
    rate.add_argument("--stride", type=int, help="take every stride-th frame, as the autoencoder was trained")
    rate.add_argument("--fps", type=float, help="or sample this many frames per second")
    verb.add_argument(
        "--windows_per_video", type=int, default=1, help="random windows of each training video"
    )
    for name in ("num_frames", "height", "width"):
        verb.add_argument(f"--{name}", type=int, help="of the clips, where the autoencoder is not ours")
    verb.add_argument(
        "--flip", action="store_true", help="store every training window as it is and mirrored, two rows"
    )
    verb.add_argument(
        "--dtype",
        choices=["float32", "float16"],
        default="float32",
        help="of the stored means and log-variances; float16 halves the folder and rounds to 11 bits",
    )
    verb.add_argument(
        "--windows_per_file", type=int, default=512, help="what an interruption costs at most, in clips"
    )
    verb.add_argument(
        "--max_bad_fraction", type=float, default=0.05, help="share of unreadable files at which it stops"
    )
    verb.add_argument("--batch_size", type=int, default=16, help="clips per forward pass")
    verb.add_argument("--num_workers", type=int, default=1, help="processes that read videos")
    verb.add_argument("--seed", type=int, default=0, help="of the random windows")
    verb.add_argument("--device", help="left out: cuda where there is one, else cpu")
    verb.set_defaults(run=encode)
    return top


def main(argv: Sequence[str] | None = None) -> None:
    top = parser()
    args = top.parse_args(argv)
    if args.verb == "demo" and args.preset is None:
        args.preset = "cpu" if args.data else "demo"
    try:
        args.run(args)
    except ValueError as error:
        top.error(str(error))


if __name__ == "__main__":
    main()
