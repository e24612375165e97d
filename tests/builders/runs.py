"""Flags of short trainings and encodings, and what they leave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoencoder.encode.dataset import encode_dataset
from autoencoder.encode.flags import EncodeFlags
from autoencoder.model.vidtwin import AutoencoderVidTwin
from tests.builders.autoencoders import TRAINED_AUTOENCODER

NUM_STEPS = 12
TRAINING_FLAGS: dict[str, Any] = {
    "max_train_steps": NUM_STEPS,
    "lr_warmup_steps": 2,
    "learning_rate": 1e-3,
    "ema_decay": 0.9,
    "checkpointing_steps": 2,
    "validation_steps": NUM_STEPS,
    "dataloader_num_workers": 0,
    "logging_steps": 1,
    "report_to": "none",
}
VAE_FLAGS: dict[str, Any] = (
    TRAINING_FLAGS
    | {
        "train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "stride": 2,
        "num_validation_videos": 5,
        "lpips_weight": 0,
        "gan_start": 4,
        "discriminator_channels": 4,
        "discriminator_layers": 2,
    }
    | TRAINED_AUTOENCODER
)
DIT_FLAGS: dict[str, Any] = TRAINING_FLAGS | {
    "train_batch_size": 4,
    "sample_posterior": True,
    "class_dropout": 0.5,
    "patch_size": '{"structure": [1, 2, 2]}',
    "hidden_size": 16,
    "num_layers": 1,
    "num_heads": 2,
    "num_inference_steps": 2,
    "num_sample_classes": 2,
}


def command_line(flags: Mapping[str, Any], **changes: Any) -> list[str]:
    """Flags as `main` takes them. A change to None leaves the flag out."""
    flags = {name: value for name, value in {**flags, **changes}.items() if value is not None}
    return [word for name, value in flags.items() for word in (f"--{name}", str(value))]


@dataclass(frozen=True)
class Run:
    """A finished training run: its flags, --output_dir left out, and its folder."""

    flags: dict[str, Any]
    output_dir: Path

    def argv(self, output_dir: Path, **changes: Any) -> list[str]:
        """The command line of the same run, elsewhere."""
        return command_line(self.flags, output_dir=output_dir, **changes)


@dataclass(frozen=True)
class Latents:
    """An encoded data set, the autoencoder that made it (a copy), and its metadata."""

    vae_dir: Path
    latents_dir: Path
    metadata: dict[str, Any]


def encode_flags(vae_dir: Path, data: Path, out: Path, **options: Any) -> EncodeFlags:
    flags: dict[str, Any] = {"vae": str(vae_dir), "data": str(data), "out": str(out)}
    return EncodeFlags(**flags | {"stride": 2, "num_workers": 0} | options)


def encode(vae_dir: Path, data: Path, out: Path, **options: Any) -> dict[str, Any]:
    """With an autoencoder of ours; the metadata."""
    vae = AutoencoderVidTwin.from_pretrained(vae_dir)
    return encode_dataset(vae, encode_flags(vae_dir, data, out, **options))


def encode_command(vae_dir: Path, videos: Path, out: Path, **changes: Any) -> list[str]:
    """Of many files: each window as it is and mirrored, three windows a file."""
    flags = {"vae": vae_dir, "data": videos, "out": out, "stride": 2, "num_workers": 0, "batch_size": 1}
    flags |= {"windows_per_video": 3, "windows_per_file": 3}
    return ["encode", *command_line(flags, **changes), "--flip"]
