"""The two training scripts, and what to look at in a run's folder."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import train_dit
import train_vae

SCRIPTS: dict[str, ModuleType] = {"train_vae": train_vae, "train_dit": train_dit}
WEIGHTS = {
    "train_vae": "autoencoder/diffusion_pytorch_model.safetensors",
    "train_dit": "pipeline/transformer/diffusion_pytorch_model.safetensors",
}


def metrics(output_dir: Path) -> list[dict[str, Any]]:
    """The lines of its log."""
    return [json.loads(line) for line in (output_dir / "metrics.jsonl").read_text().splitlines()]


def checkpoints(output_dir: Path) -> list[str]:
    """Their names in the order of their steps, unfinished ones too."""
    names = [path.name for path in output_dir.glob("*checkpoint-*")]
    return sorted(names, key=lambda name: int(name.split("-")[-1]))
