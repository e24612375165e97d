"""Stage 1: a training, and its PSNR as it goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import train_vae
from benchmarks.recipe.inputs import Inputs, Settings
from benchmarks.recipe.rows import TINY, Row
from eval.study.stages import do
from vidtwin_gen.demo import Stage
from vidtwin_gen.files import read_log
from vidtwin_gen.training.config import METRICS

NUM_CLIPS = 64  # held out, of a validation
VALIDATIONS = 3  # of a run; their LPIPS costs seconds
MEASURES = ("val_psnr", "val_ssim", "val_lpips")
main, PRESETS = train_vae.main, train_vae.PRESETS
SHORT: list[object] = ["--num_validation_videos", 1]  # of a training that is only timed


def training(settings: Settings, inputs: Inputs, row: Row, seed: int) -> list[object]:
    """The command of `train_vae.py`, without its steps and its folder. It reads its videos itself, so that
    its process's seconds have all of its work."""
    tiny = TINY[1].split() if settings.tiny else []
    own = [
        "--num_validation_videos",
        NUM_CLIPS,
        *tiny,
        *row.flags.split(),
    ]
    every = max(1, settings.max_train_steps // VALIDATIONS)
    own += ["--validation_steps", every, "--checkpoints_total_limit", 1, "--dataloader_num_workers", 0]
    return ["--preset", settings.size, *own, "--data", inputs.data, "--seed", seed]


def measure(
    settings: Settings, inputs: Inputs, row: Row, command: list[object], folder: Path, seconds: float
) -> dict[str, Any]:
    """Trains, and reads the log; `seconds` of the processor are a step's.

    Returns the last validation's values, and `curve`: each validation's with the `seconds` until then.
    """
    run = folder / "vae"
    do(Stage(str(run), run / "autoencoder", "train_vae", [*command, "--output_dir", run]))
    lines = [line for line in read_log(run / METRICS) if "val_psnr" in line]
    curve = [{name: line[name] for name in MEASURES if name in line} for line in lines]
    curve = [{"seconds": line["step"] * seconds} | values for line, values in zip(lines, curve, strict=True)]
    return {**{name: value for name, value in curve[-1].items() if name != "seconds"}, "curve": curve}
