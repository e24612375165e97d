"""Both stages on ten classes of UCF-101 at 64x64 by the project's own commands, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.gpu.commands import run_command
from benchmarks.gpu.rows import Rows
from benchmarks.gpu.smoke import TINY_DIT, TINY_VAE
from eval.autoencoder import MeasuredAutoencoder
from eval.real_clips import RealClips
from vidtwin_gen.data.ucf101 import build_index
from vidtwin_gen.files import write_json

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
    folder, device = work / "ucf101-10", rows.device.type
    results, pipeline = rows.path.parent, folder / "dit/pipeline"
    per_class, num_samples = (2, 8) if tiny else (32, 256)
    real: list[object] = ["--data", data, *STRIDE, "--device", device]

    def evaluation(verb: str, out: Path, *arguments: object) -> dict[str, Any]:
        run_command("eval", [verb, *real, *arguments, "--out", out], folder / "eval.log")
        return json.loads(out.read_text())

    def generated(name: str, guidance: float, steps: int, per_class: int, seed: int = 0) -> Path:
        clips = folder / name / "clips.safetensors"
        if not clips.exists():
            arguments = ["--pipeline", pipeline, "--out", clips.parent, "--guidance_scale", guidance]
            arguments += ["--num_inference_steps", steps, "--num_videos_per_class", per_class]
            arguments += ["--format", "gif", "--batch_size", 160, "--device", device, "--seed", seed]
            run_command("pipelines", ["generate", *arguments], folder / "generate.log")
        return clips

    def recon() -> dict[str, Any]:
        picture = ["--gif", folder / "recon.gif"]
        record = evaluation(
            "recon", results / "recon.json", "--vae", pipeline / "vae", "--fvd", "--batch_size", 16, *picture
        )
        values = {name: record["both"][name]["mean"] for name in record["both"]}
        return values | {"rfvd": record["rfvd"]["fvd"]}

    def accuracy(name: str, guidance: float, steps: int, per_class: int) -> dict[str, Any]:
        clips = generated(name, guidance, steps, per_class)
        arguments = ["--generated", clips, "--num_clips", 1000, "--horizontal_flip"]
        record = evaluation("accuracy", results / f"accuracy_{name}.json", *arguments)
        told = {side: record[side]["accuracy"] for side in ("generated", "real")}
        return told | {"num_clips": record["generated"]["num_clips"], "num_real": record["real"]["num_clips"]}

    def fvd(clips: Path, name: str, split: str, count: int, *arguments: object) -> dict[str, Any]:
        where = ["--split", split, "--num_samples", count, "--num_workers", 2 if tiny else 12]
        out = results / f"fvd_{name}.json"
        record = evaluation("fvd", out, "--generated", clips, *where, "--batch_size", 16, *arguments)
        return {"fvd": record["fvd"], **({"floors": record["floors"]} if "floors" in record else {})}

    def reconstructions() -> Path:
        """Test clips through the autoencoder, as a file of generated clips: FVD between them and real train
        clips is what a perfect generator of latents would have."""
        out = folder / "reconstructed"
        write_reconstructions(pipeline / "vae", data, out, rows.device)
        return out / "clips.safetensors"

    main = "generated"
    rows.run("reconstruction", recon)
    rows.run("accuracy", lambda: accuracy(main, GUIDANCE, NUM_STEPS, per_class))
    rows.run(
        "FVD, test split, with floors",
        lambda: fvd(
            generated(main, GUIDANCE, NUM_STEPS, per_class),
            "test",
            "test",
            num_samples,
            "--pipeline",
            pipeline,
        ),
    )
    unpaired = min(num_samples, len(build_index(data, split="test", fold=1)))  # a clip of each test video
    rows.run(
        f"FVD, {unpaired} generated against train",
        lambda: fvd(
            generated(main, GUIDANCE, NUM_STEPS, per_class), "train", "train", unpaired, "--no_floors"
        ),
    )
    rows.run(
        f"FVD, {unpaired} reconstructed test clips against train",
        lambda: fvd(reconstructions(), "reconstructed", "train", unpaired, "--no_floors"),
    )
    grid: Sequence[tuple[float, int]] = GRID[:1] if tiny else GRID
    for guidance, steps in grid:
        name = f"guidance_{guidance:g}_steps_{steps}"
        rows.run(name, partial(accuracy, name, guidance, steps, per_class))
    summary = folder / "vae/metrics.jsonl", folder / "dit/metrics.jsonl"
    rows.record["curves"] = {path.parent.name: validation_curve(path) for path in summary if path.exists()}


def write_reconstructions(vae_dir: Path, data: Path, out: Path, device: torch.device) -> None:
    """A clip of each test video, encoded and decoded, in the files that `pipelines generate` writes."""
    autoencoder = MeasuredAutoencoder.load(vae_dir, device)
    real = RealClips.of_split(data, autoencoder.shape, "test", stride=2)
    batches = real.labelled(real.even_names(None), 32)
    parts = [(autoencoder.reconstruct(clips), labels) for clips, labels in batches]
    decoded, labels = (torch.cat(part) for part in zip(*parts, strict=True))
    out.mkdir(parents=True, exist_ok=True)
    save_file({"frames": decoded, "labels": labels}, out / "clips.safetensors")
    names = {"class_labels": list(range(len(real.class_names))), "class_names": real.class_names}
    write_json(out / "generated.json", names | {"seed": 0})


def validation_curve(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that validated."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if any(name.startswith("val_") for name in line)]
