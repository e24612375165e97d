"""Both stages on ten classes of UCF-101 at 64x64 by the project's own commands, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.commands import run_command
from benchmarks.gpu.rows import Rows
from benchmarks.gpu.smoke import TINY_DIT, TINY_VAE
from eval.autoencoder import MeasuredAutoencoder
from eval.flags import CLIPS_FILE
from eval.real_clips import RealClips
from eval.study.distances import write_real
from vidtwin_gen.data.ucf101 import build_index

PRESET = ["--preset", "ucf101-10"]
STRIDE = ["--stride", 2]
FLOAT32 = ["--mixed_precision", "no"]  # of a rehearsal
GUIDANCE, NUM_STEPS = 2.0, 50  # of the clips that are measured most
GRID = [(guidance, steps) for steps in (50, 25, 10) for guidance in (1.0, 2.0, 3.0, 4.0)]


def train(rows: Rows, data: Path, work: Path, *, tiny: bool) -> None:
    """Stage 1, latents, stage 2. Killed, the same command goes on from the last checkpoint."""
    folder, vae = work / "ucf101-10", work / "ucf101-10/vae/autoencoder"
    latents, device = folder / "latents", rows.device.type
    windows = ["--windows_per_video", 1] if tiny else ["--windows_per_video", 16, "--flip"]
    workers = 2 if tiny else 14
    stage_1, stage_2 = ([*TINY_VAE, *FLOAT32], [*TINY_DIT, *FLOAT32]) if tiny else (PRESET, PRESET)

    def command(name: str, program: str, *arguments: object) -> None:
        log = folder / f"{name.replace(' ', '_')}.log"
        rows.run(name, partial(run_command, program, arguments, log))

    command("stage 1", "train_vae", *stage_1, "--data", data, "--output_dir", folder / "vae")
    command("encode", "vidtwin_gen", "encode", "--vae", vae, "--data", data, *STRIDE, *windows,
            "--out", latents, "--dtype", "float16", "--num_workers", workers, "--batch_size", 64,
            "--device", device)  # fmt: skip
    command("stage 2", "train_dit", *stage_2, "--vae", vae, "--latents", latents,
            "--output_dir", folder / "dit")  # fmt: skip


def measure(rows: Rows, data: Path, work: Path, *, tiny: bool) -> None:
    """Reconstruction, class accuracy and FVD of what `train` made, the most wanted first."""
    trained = Trained(work / "ucf101-10", data, rows.path.parent, rows.device, tiny)
    num_samples = 8 if tiny else 256
    floors = ["--pipeline", trained.pipeline]
    rows.run("reconstruction", trained.reconstruction)
    rows.run("accuracy", lambda: trained.accuracy("generated", GUIDANCE, NUM_STEPS))
    rows.run(
        "FVD, test split, with floors",
        lambda: trained.fvd(trained.generated(), "test", "test", num_samples, *floors),
    )
    unpaired = min(num_samples, len(build_index(data, split="test", fold=1)))  # a clip of each test video
    rows.run(
        f"FVD, {unpaired} generated against train",
        lambda: trained.fvd(trained.generated(), "train", "train", unpaired, "--no_floors"),
    )
    rows.run(
        f"FVD, {unpaired} reconstructed test clips against train",
        lambda: trained.fvd(trained.reconstructed(), "reconstructed", "train", unpaired, "--no_floors"),
    )
    grid: Sequence[tuple[float, int]] = GRID[:1] if tiny else GRID
    for guidance, steps in grid:
        name = f"guidance_{guidance:g}_steps_{steps}"
        rows.run(name, partial(trained.accuracy, name, guidance, steps))
    summary = trained.folder / "vae/metrics.jsonl", trained.folder / "dit/metrics.jsonl"
    rows.record["curves"] = {path.parent.name: validation_curve(path) for path in summary if path.exists()}


@dataclass(frozen=True)
class Trained:
    """What `train` left in `folder`, measured on the videos of `data`; each result is a file of `results`."""

    folder: Path
    data: Path
    results: Path
    device: torch.device
    tiny: bool

    @property
    def pipeline(self) -> Path:
        return self.folder / "dit/pipeline"

    def reconstruction(self) -> dict[str, Any]:
        arguments = ["--fvd", "--batch_size", 16, "--gif", self.folder / "recon.gif"]
        record = self._eval("recon", "recon.json", "--vae", self.pipeline / "vae", *arguments)
        values = {name: record["both"][name]["mean"] for name in record["both"]}
        return values | {"rfvd": record["rfvd"]["fvd"]}

    def accuracy(self, name: str, guidance: float, steps: int) -> dict[str, Any]:
        clips = self.generated(name, guidance, steps)
        arguments = ["--generated", clips, "--num_clips", 1000, "--horizontal_flip"]
        record = self._eval("accuracy", f"accuracy_{name}.json", *arguments)
        shares = {side: record[side]["accuracy"] for side in ("generated", "real")}
        return shares | {
            "num_clips": record["generated"]["num_clips"],
            "num_real": record["real"]["num_clips"],
        }

    def fvd(self, clips: Path, name: str, split: str, count: int, *arguments: object) -> dict[str, Any]:
        where = ["--split", split, "--num_samples", count, "--num_workers", 2 if self.tiny else 12]
        where += ["--batch_size", 16]
        record = self._eval("fvd", f"fvd_{name}.json", "--generated", clips, *where, *arguments)
        return {"fvd": record["fvd"], **({"floors": record["floors"]} if "floors" in record else {})}

    def generated(self, name: str = "generated", guidance: float = GUIDANCE, steps: int = NUM_STEPS) -> Path:
        """The clips of this name, generated where they are not there."""
        clips = self.folder / name / CLIPS_FILE
        if not clips.exists():
            arguments = ["--pipeline", self.pipeline, "--out", clips.parent, "--guidance_scale", guidance]
            arguments += ["--num_inference_steps", steps, "--num_videos_per_class", 2 if self.tiny else 32]
            arguments += ["--format", "gif", "--batch_size", 160, "--device", self.device.type, "--seed", 0]
            run_command("pipelines", ["generate", *arguments], self.folder / "generate.log")
        return clips

    def reconstructed(self) -> Path:
        """A clip of each test video through the autoencoder: FVD between them and real train clips is what a
        perfect generator of latents would have."""
        out = self.folder / "reconstructed"
        if not out.exists():
            autoencoder = MeasuredAutoencoder.load(self.pipeline / "vae", self.device)
            real = RealClips.of_split(self.data, autoencoder.shape, "test", stride=2)
            write_real(out, real, real.even_names(None), autoencoder)
        return out / CLIPS_FILE

    def _eval(self, verb: str, result: str, *arguments: object) -> dict[str, Any]:
        real = ["--data", self.data, *STRIDE, "--device", self.device.type]
        out = self.results / result
        run_command("eval", [verb, *real, *arguments, "--out", out], self.folder / "eval.log")
        return json.loads(out.read_text())


def validation_curve(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that validated."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if any(name.startswith("val_") for name in line)]
