"""Does every command run on the GPU? Each of them once, with a model as small as may be."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from benchmarks.gpu.commands import run_command
from benchmarks.gpu.rows import Rows

TINY_VAE = ["--preset", "ucf101-10", "--hidden_size", 48, "--num_layers", 1, "--patch_size", 16]
TINY_VAE += ["--structure_base_channels", 16, "--discriminator_channels", 8, "--train_batch_size", 2]
TINY_VAE += ["--num_queries", 8, "--structure_channels", 2, "--dynamics_channels", 2]
TINY_VAE += ["--max_train_steps", 4, "--gan_start", 2, "--validation_steps", 4, "--checkpointing_steps", 2]
TINY_VAE += ["--num_validation_videos", 4, "--dataloader_num_workers", 2]
TINY_VAE += ["--compile", "false"]
TINY_DIT = ["--preset", "ucf101-10", "--hidden_size", 48, "--num_layers", 2, "--num_heads", 3]
TINY_DIT += ["--train_batch_size", 4, "--patch_size", 1, "--num_inference_steps", 3]
TINY_DIT += ["--max_train_steps", 4, "--validation_steps", 4, "--checkpointing_steps", 2]
TINY_DIT += ["--dataloader_num_workers", 2, "--compile", "false"]
CHECKPOINTING = ["--gradient_checkpointing", "true"]
COMPILE = ["--compile", "true"]


def smoke(rows: Rows, data: Path, work: Path, *, tiny: bool) -> None:
    """A row for each command; one that fails says so, and those that need its result fail after it. A
    rehearsal leaves out what a CPU has no compiler or no time for."""
    device = rows.device.type
    folder = work / "smoke"
    if not rows.rows:
        shutil.rmtree(folder, ignore_errors=True)
    vae, dit, clips = folder / "vae/autoencoder", folder / "dit/pipeline", folder / "clips"
    source = ["--data", data, "--stride", 2]
    precision = ["--mixed_precision", "no"] if tiny else []  # bf16 is slow on an old CPU
    stage_1 = [*TINY_VAE, *precision, "--data", data, "--output_dir"]
    stage_2 = [*TINY_DIT, *precision, "--vae", vae, "--latents", folder / "latents", "--output_dir"]
    generate = ["--pipeline", dit, "--num_videos_per_class", 2, "--num_inference_steps", 3]
    generate += ["--format", "gif", "--device", device]
    generated = ["--generated", clips / "clips.safetensors"]
    here = [*source, "--device", device]

    def command(name: str, program: str, *arguments: object) -> None:
        log = folder / "logs" / f"{name.replace(' ', '_')}.log"
        rows.run(name, partial(run_command, program, arguments, log))

    command("train_vae, whole loss, bf16", "train_vae", *stage_1, folder / "vae")
    command(
        "encode", "vidtwin_gen", "encode", "--vae", vae, *source, "--out", folder / "latents",
        "--flip", "--dtype", "float16", "--num_workers", 4, "--device", device,
    )  # fmt: skip
    command("train_dit, bf16", "train_dit", *stage_2, folder / "dit")
    command("generate", "pipelines", "generate", *generate, "--out", clips)
    command("eval recon --fvd", "eval", "recon", "--vae", vae, *here, "--num_clips", 6, "--fvd",
            "--gif", folder / "recon.gif", "--out", folder / "recon.json")  # fmt: skip
    command("eval fvd", "eval", "fvd", *generated, "--num_samples", 8, *here, "--pipeline", dit,
            "--out", folder / "fvd.json")  # fmt: skip
    command("eval accuracy", "eval", "accuracy", *generated, "--num_steps", 5, "--num_clips", 20, *here,
            "--out", folder / "accuracy.json")  # fmt: skip
    command("eval diagnose", "eval", "diagnose", "--vae", vae, "--num_clips", 4, "--num_pairs", 2, *here,
            "--out", folder / "diagnose.json")  # fmt: skip
    if tiny:
        return
    command("eval cost --autoencoder", "eval", "cost", "--autoencoder", vae, "--dtype", "bfloat16",
            "--device", device, "--repeats", 3, "--out", folder / "cost.json")  # fmt: skip
    command("eval cost --measure", "eval", "cost", "--size", "S", "--measure", "--batch_size", 8,
            "--device", device, "--repeats", 3, "--out", folder / "measure.json")  # fmt: skip
    command("train_vae, compiled", "train_vae", *stage_1, folder / "vae_compiled", *COMPILE)
    command("train_dit, compiled", "train_dit", *stage_2, folder / "dit_compiled", *COMPILE)
    command("train_vae, checkpointing", "train_vae", *stage_1, folder / "vae_ckpt", *CHECKPOINTING)
    command("train_dit, checkpointing", "train_dit", *stage_2, folder / "dit_ckpt", *CHECKPOINTING)
