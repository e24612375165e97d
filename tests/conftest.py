"""A small data set and one short run of each stage, made once and shared. Tests never write into them."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import train_dit
import train_vae
from autoencoder.encode.dataset import encode_dataset
from autoencoder.encode.flags import EncodeFlags
from autoencoder.model.vidtwin import AutoencoderVidTwin
from vidtwin_gen.data.synthetic import write_dataset

torch.set_num_threads(1)  # of the few cores, so that times and numbers do not depend on their count

NUM_STEPS = 12
TRAINING_FLAGS = {
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
VAE_FLAGS = TRAINING_FLAGS | {
    "train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "stride": 2,
    "num_validation_videos": 5,
    "lpips_weight": 0,
    "gan_start": 4,
    "discriminator_channels": 4,
    "discriminator_layers": 2,
    "num_frames": 4,
    "height": 16,
    "width": 16,
    "patch_size": 4,
    "hidden_size": 16,
    "num_layers": 1,
    "num_heads": 2,
    "num_queries": 3,
    "query_hidden_size": 8,
    "qformer_layers": 2,
    "qformer_heads": 2,
    "qformer_intermediate_size": 16,
    "qformer_dropout": 0.2,
    "structure_channels": 2,
    "structure_base_channels": 8,
    "dynamics_channels": 2,
}
DIT_FLAGS = TRAINING_FLAGS | {
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


# A Wan autoencoder: 4k + 1 frames, a quarter of each side. Its statistics are its own convention, not ours.
WAN_CONFIG = {
    "base_dim": 4,
    "z_dim": 4,
    "dim_mult": [1, 1, 1],
    "num_res_blocks": 1,
    "temperal_downsample": [False, True],
    "latents_mean": [5.0] * 4,
    "latents_std": [7.0] * 4,
}


def command_line(flags, **changes):
    """Flags as `main` takes them. A change to None leaves the flag out."""
    flags = {name: value for name, value in {**flags, **changes}.items() if value is not None}
    return [word for name, value in flags.items() for word in (f"--{name}", str(value))]


@dataclass(frozen=True)
class Run:
    """A finished training run: its flags, --output_dir left out, and its folder."""

    flags: dict
    output_dir: Path

    def argv(self, output_dir, **changes):
        """The command line of the same run, elsewhere."""
        return command_line(self.flags, output_dir=output_dir, **changes)


@dataclass(frozen=True)
class Latents:
    """An encoded data set, the autoencoder that made it (a copy, whitened for it), and its metadata."""

    vae_dir: Path
    latents_dir: Path
    metadata: dict


@pytest.fixture(scope="session")
def synthetic_root(tmp_path_factory):
    """The embedded data set with one clip per group: 200 videos of 16 frames."""
    root = tmp_path_factory.mktemp("synthetic") / "videos"
    return write_dataset(root, clips_per_group=1, num_frames=16)


@pytest.fixture(scope="session")
def tiny_vae_run(synthetic_root, tmp_path_factory):
    """A `Run` of train_vae."""
    run = Run(VAE_FLAGS | {"data": synthetic_root}, tmp_path_factory.mktemp("vae") / "run")
    train_vae.main(run.argv(run.output_dir))
    return run


@pytest.fixture(scope="session")
def tiny_latents(tiny_vae_run, synthetic_root, tmp_path_factory):
    """`Latents` of the run's autoencoder over the whole data set."""
    folder = tmp_path_factory.mktemp("latents")
    vae_dir = Path(shutil.copytree(tiny_vae_run.output_dir / "autoencoder", folder / "autoencoder"))
    vae = AutoencoderVidTwin.from_pretrained(vae_dir)
    places = {"vae": str(vae_dir), "data": str(synthetic_root), "out": str(folder / "latents")}
    metadata = encode_dataset(vae, EncodeFlags(**places, stride=2, num_workers=0))
    return Latents(vae_dir, folder / "latents", metadata)


@pytest.fixture(scope="session")
def tiny_dit_run(tiny_latents, tmp_path_factory):
    """A `Run` of train_dit over those latents."""
    flags = DIT_FLAGS | {"vae": tiny_latents.vae_dir, "latents": tiny_latents.latents_dir}
    run = Run(flags, tmp_path_factory.mktemp("dit") / "run")
    train_dit.main(run.argv(run.output_dir))
    return run
