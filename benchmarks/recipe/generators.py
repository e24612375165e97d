"""Stage 2: a training, its validation loss, and what it generates by class accuracy, FVD and KVD."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import train_dit
from benchmarks.recipe.inputs import Inputs, Settings, per_class
from benchmarks.recipe.rows import TINY, Row, Sampling
from eval.study.stages import do, generated, once
from vidtwin_gen.demo import NUM_INFERENCE_STEPS, Stage
from vidtwin_gen.files import read_log
from vidtwin_gen.latents import LatentLayout
from vidtwin_gen.training.config import METRICS

main, PRESETS = train_dit.main, train_dit.PRESETS
SHORT: list[object] = ["--num_inference_steps", 1, "--num_sample_classes", 1]  # of what is only timed


def training(settings: Settings, inputs: Inputs, row: Row, seed: int) -> list[object]:
    """The command of `train_dit.py`, without its steps and its folder."""
    own = [*(TINY[2].split() if settings.tiny else []), *row.flags.split(), "--checkpoints_total_limit", 1]
    places = ["--vae", inputs.vae, "--latents", inputs.latents, "--dataloader_num_workers", 0]
    return ["--preset", settings.size, *own, *places, "--seed", seed]


def measure(
    settings: Settings, inputs: Inputs, row: Row, command: list[object], folder: Path, seconds: float
) -> dict[str, Any]:
    """Trains, samples with the training's seed, and measures.

    Returns `val_loss`, and by the name of each sampling `accuracy`, `fvd` and `kvd`.
    """
    run = folder / "dit"
    do(Stage(str(run), run / "pipeline", "train_dit", [*command, "--output_dir", run]))
    seed = command[command.index("--seed") + 1]
    samplings = row.samplings[-1:] if settings.tiny else row.samplings  # the last has an FVD
    return {
        "val_loss": validation_loss(run / METRICS, inputs),
        "samplings": {
            sampling.name: sampled(settings, inputs, sampling, run / "pipeline", folder, seed)
            for sampling in samplings
        },
    }


def validation_loss(log: Path, inputs: Inputs) -> float:
    """The squared error of the last head at the last validation, averaged over all latent numbers. `val_loss`
    would not do: with internal guidance it includes the other head's error."""
    last = [line for line in read_log(log) if "val_loss" in line][-1]
    layout = LatentLayout.from_config(inputs.about["layout"])
    total = sum(grid.num_elements * last[f"val_loss_{grid.name}"] for grid in layout.grids)
    return total / layout.num_elements


def sampled(
    settings: Settings, inputs: Inputs, sampling: Sampling, pipeline: Path, folder: Path, seed: object
) -> dict[str, Any]:
    """Clips of a pipeline, and what is measured of them."""
    out = folder / sampling.name.replace(", ", "_").replace(" ", "_")
    steps, judge = 2 if settings.tiny else NUM_INFERENCE_STEPS, inputs.judge
    clips = generated(
        pipeline,
        out,
        per_class=per_class(inputs, settings.num_clips),
        seed=seed,
        guidance_scale=sampling.guidance_scale,
        num_inference_steps=steps,
        internal_guidance_scale=sampling.internal_guidance_scale,
    )
    assert judge is not None
    values = once(out / "accuracy.json", lambda: {"accuracy": judge.of_generated(clips)})
    if sampling.fvd and settings.num_fvd_clips:
        values |= inputs.comparison(settings).of(clips, out / "fvd.json")
    return values | {"passes": steps * sampling.passes}
