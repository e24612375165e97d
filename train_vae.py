"""Stage 1: train the VidTwin autoencoder, or another one, on videos.

    python train_vae.py --preset cpu --data UCF-101 --output_dir runs/vae

The same command on the same folder continues from its last checkpoint; more processes: `accelerate launch`.
Writes checkpoints, metrics.jsonl, samples/ and, at the end, the averaged model as <output_dir>/autoencoder.
"""

from __future__ import annotations

import signal

from vidtwin_gen.program.signals import end_at_once

if __name__ == "__main__":
    signal.signal(signal.SIGINT, end_at_once)  # an import would make a traceback of Ctrl-C

from autoencoder.training_config import PRESETS, VAEConfig
from vidtwin_gen.training.config import parse_config

if __name__ == "__main__":
    parse_config(VAEConfig, PRESETS)  # help and refusals come at once, before torch is imported

import json
from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.models.modeling_utils import ModelMixin
from torch.utils.data import DataLoader

from autoencoder.adapter import decode, encode, last_layer, latent_layout, whitening
from autoencoder.losses.discriminator import PatchDiscriminator
from autoencoder.losses.perceptual import LPIPS, LPIPS_SIDE, load_lpips
from autoencoder.losses.terms import (
    LogVariance,
    adversarial_losses,
    discriminator_losses,
    frames_of,
    hide_later_frames,
    noise_for_decoding,
    vidtwin_loss,
)
from autoencoder.model.vidtwin import AutoencoderVidTwin
from autoencoder.parts import decode_parts
from autoencoder.trainable import autoencoder_to_train, freeze_encoder, return_posterior, source_sha256
from vidtwin_gen.data.ucf101 import build_indices, index_sha256
from vidtwin_gen.data.video import common_frame_rate
from vidtwin_gen.data.video_dataset import BadVideos, VideoDataset, collate
from vidtwin_gen.draws import BatchDraw
from vidtwin_gen.latents import LatentLayout
from vidtwin_gen.program.errors import user_errors
from vidtwin_gen.quality import psnr, ssim
from vidtwin_gen.training.accelerator import load_initial_weights, make_accelerator, prepare_model
from vidtwin_gen.training.config import model_arguments
from vidtwin_gen.training.hub import push_if_asked
from vidtwin_gen.training.optimizer import SkippingOptimizer, block_matrices
from vidtwin_gen.training.pictures import save_samples
from vidtwin_gen.training.run import training_run
from vidtwin_gen.unpack.cached import video_folder
from vidtwin_gen.weights import MissingWeightsError


def main(argv: Sequence[str] | None = None) -> None:
    config = parse_config(VAEConfig, PRESETS, argv)
    accelerator = make_accelerator(config)
    vae = make_autoencoder(config)
    layout = latent_layout(vae, config.num_frames, config.height, config.width)
    if config.decoder_only:
        freeze_encoder(vae, layout)
    if config.dry_run:
        unknown = {"max_train_steps": None} if config.num_train_epochs else {}
        accelerator.print(json.dumps(config.public() | unknown, indent=2))
        if unknown:
            accelerator.print("max_train_steps depends on the clips, which a dry run does not count")
        parameters = f"{vae.num_parameters():,} parameters"
        if config.decoder_only:
            parameters += f", of which {vae.num_parameters(only_trainable=True):,} are trained"
        accelerator.print(f"{parameters}; latent: {layout.to_config()}")
        return

    indices = build_indices(video_folder(config.data), ("train", "test"), fold=config.fold)
    index, test_index = indices["train"], indices["test"].shuffle(seed=0)
    reading = {**clip_geometry(config), "decoder": config.decoder}
    dataset = VideoDataset(index, flip=config.flip, seed=config.seed, **reading)
    validation = VideoDataset(test_index, shuffle=False, start="center", **reading)
    bad_videos = BadVideos(len(dataset), config.max_bad_fraction)
    bad_held_out = BadVideos(len(validation), config.max_bad_fraction)

    inputs = {"data": index_sha256(index, test_index)}
    if config.autoencoder:
        inputs["autoencoder"] = source_sha256(config.autoencoder)
    if config.init_from:
        inputs["init_from"] = load_initial_weights(vae, config, "autoencoder")
    config.count_epochs(len(dataset), accelerator.num_processes)
    lpips = load_perceptual(config, accelerator)
    return_posterior(vae, layout)
    prepare_model(vae, config, accelerator)
    latents_std = latent_scale(vae, layout, config, accelerator)
    last_weight = last_layer(vae, layout) if config.gan_weight else None
    networks = [vae, LogVariance()] if config.learn_logvar else [vae]
    optimizer = SkippingOptimizer(networks, config, accelerator, config.learning_rate, config.max_train_steps)
    discriminator_optimizer = make_discriminator_optimizer(config, accelerator)
    optimizers = [found for found in (optimizer, discriminator_optimizer) if found is not None]

    with training_run(vae, optimizers, config, accelerator, "autoencoder", inputs=inputs) as run:
        for batch in run.loader(dataset, collate_fn=collate):
            bad_videos.update(batch)
            adversary = discriminator_optimizer if run.step >= config.gan_start else None
            with run.forward_pass() as draw:
                run.log.add(
                    training_step(
                        batch["video"], config, draw, optimizer, adversary, lpips, last_weight, latents_std
                    )
                )
            run.end_step()
            if run.is_due(config.validation_steps):
                with run.validation():
                    values = validate(
                        vae, layout, validation, bad_held_out, lpips, config, accelerator, run.step
                    )
                run.report_validation(values)
            run.save_checkpoint_if_due()
        bad_videos.gather()
        bad_held_out.gather()
        run.export("autoencoder", lambda model: model)
        if run.had_steps_left:
            accelerator.print(f"train: {bad_videos.summary()}; held out: {bad_held_out.summary()}")
    push_if_asked(run.output_dir / "autoencoder", config, accelerator)


def training_step(
    clips: torch.Tensor,
    config: VAEConfig,
    draw: BatchDraw,
    optimizer: SkippingOptimizer,
    discriminator_optimizer: SkippingOptimizer | None,
    lpips: LPIPS | None,
    last_weight: torch.Tensor | None,
    latents_std: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """One pass over clips (B, C, F, H, W): losses, backward pass and, with the last of the passes that a step
    accumulates, the optimizers' steps. Returns what is to be logged.

    Args:
        optimizer: of the autoencoder and, where it is learned, the log-variance.
        discriminator_optimizer: None before `gan_start`, and without a discriminator.
        last_weight: of the autoencoder's last layer, for the adaptive weight of the adversarial term.
        latents_std: (L,) deviations of the latents, where noise is added to them.
    """
    accelerator = optimizer.accelerator
    wrapped_vae, *wrapped_logvar = optimizer.modules
    one_backward = discriminator_optimizer is not None and accelerator.scaler is None
    seen = hide_later_frames(clips, config.predicted_share, draw)
    noise = None if latents_std is None else noise_for_decoding(latents_std, config.latent_noise, draw)
    output = wrapped_vae(seen, sample_posterior=True, generator=draw.generator, latent_noise=noise)
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
            one_backward=one_backward,
        )
    logged: dict[str, torch.Tensor] = {}
    if discriminator_optimizer is not None:
        assert last_weight is not None
        (wrapped_discriminator,) = discriminator_optimizer.modules
        logged = discriminator_losses(wrapped_discriminator, clips, output.sample)
        logged |= discriminator_optimizer.step(logged["discriminator_loss"])
        discriminator = accelerator.unwrap_model(wrapped_discriminator)
        losses |= adversarial_losses(
            discriminator, output.sample, losses["nll"], last_weight, one_backward=one_backward
        )
        factor = config.gan_weight * losses["gan_adaptive_weight"]
        losses["loss"] = losses["loss"] + factor * losses["gan"]
    return logged | losses | optimizer.step(losses["loss"])


def make_autoencoder(config: VAEConfig) -> ModelMixin:
    """The one that `--autoencoder` names, else VidTwin of the flags' sizes. Raises ValueError for one that
    cannot be trained so."""
    if not config.autoencoder:
        return AutoencoderVidTwin(**model_arguments(config, AutoencoderVidTwin))
    vae = autoencoder_to_train(config.autoencoder)
    if config.optimizer == "muon" and not block_matrices(vae):
        raise ValueError(
            f"--optimizer muon is of the matrices of repeated blocks, and {type(vae).__name__} has none: "
            "say --optimizer adamw, as a preset may have muon"
        )
    return vae


def latent_scale(
    vae: ModelMixin, layout: LatentLayout, config: VAEConfig, accelerator: Accelerator
) -> torch.Tensor | None:
    """(L,) standard deviations of the latents, for the noise on them; None without. Raises ValueError where
    the autoencoder doesn't have them."""
    if not config.latent_noise:
        return None
    mean, std = whitening(vae, None, None)
    if std is None:
        raise ValueError(
            f"--latent_noise {config.latent_noise} is in standard deviations of the latents, which "
            f"--autoencoder {config.autoencoder} does not have in its config, as latents_std: name the vae/ "
            "of a VidTwinPipeline"
        )
    return layout.statistics(mean, std)[1].to(accelerator.device)


def make_discriminator_optimizer(config: VAEConfig, accelerator: Accelerator) -> SkippingOptimizer | None:
    """The discriminator with its AdamW and its schedule, which starts with `gan_start`; None without one."""
    if not config.gan_weight:
        return None
    discriminator = PatchDiscriminator(
        base_channels=config.discriminator_channels, num_layers=config.discriminator_layers
    )
    return SkippingOptimizer(
        [discriminator],
        config,
        accelerator,
        config.discriminator_learning_rate or config.learning_rate,
        max(1, config.max_train_steps - config.gan_start),
        log_prefix="discriminator_",
    )


def load_perceptual(config: VAEConfig, accelerator: Accelerator) -> LPIPS | None:
    """The network of the perceptual term and of its validation; None where it is not at hand and not trained
    with, or frames are too small for it. ValueError, with the way out, where it is trained with."""
    if min(config.height, config.width) < LPIPS_SIDE:
        accelerator.print(f"validation leaves LPIPS out: it takes {LPIPS_SIDE} pixels a side or more")
        return None
    try:
        return load_lpips(config.lpips_weights or None, accelerator.device)
    except MissingWeightsError as error:
        if config.lpips_weight:
            raise ValueError(f"{error}; or train without it: --lpips_weight 0") from None
        if config.lpips_weights:
            raise ValueError(str(error)) from None
        accelerator.print(f"validation leaves LPIPS out: {error}")
        return None


def clip_geometry(config: VAEConfig) -> dict[str, Any]:
    """What a clip is: frames, size and their rate, as VideoDataset takes them."""
    rate: dict[str, Any] = {"stride": config.stride} if config.stride else {"fps": config.fps}
    return {"num_frames": config.num_frames, "size": (config.height, config.width), **rate}


def validate(
    vae: ModelMixin,
    layout: LatentLayout,
    dataset: VideoDataset,
    bad_videos: BadVideos,
    lpips: LPIPS | None,
    config: VAEConfig,
    accelerator: Accelerator,
    step: int,
) -> dict[str, float]:
    """PSNR in dB, SSIM and, with its network, LPIPS over held-out clips, each process a share; bad files are
    left out. Up to four clips of the first process are shown, see `show_parts`."""
    num_videos = min(config.num_validation_videos, len(dataset))
    share = range(accelerator.process_index, num_videos, accelerator.num_processes)
    loader = DataLoader(dataset, batch_size=config.train_batch_size, sampler=share, collate_fn=collate)
    names = ("val_psnr", "val_ssim", *(["val_lpips"] if lpips else []), "count")
    sums = {name: torch.zeros((), device=accelerator.device) for name in names}
    to_show = accelerator.is_main_process
    for batch in loader:
        bad_videos.update(batch)
        clips = batch["video"][~batch["substitute"]].to(accelerator.device)
        if not len(clips):
            continue
        with accelerator.autocast():
            latents = encode(vae, clips).mode()
            decoded = decode(vae, latents, layout).float()
            if to_show:
                to_show = False
                fps = config.fps or common_frame_rate(list(dataset.paths())) / config.stride
                show_parts(vae, layout, clips[:4], latents[:4], fps, config, accelerator, step)
        sums["val_psnr"] += psnr(decoded, clips).sum()
        sums["val_ssim"] += ssim(decoded, clips).sum()
        if lpips:
            distance = lpips(frames_of(decoded.clamp(-1, 1)), frames_of(clips)).mean()
            sums["val_lpips"] += distance * len(clips)
        sums["count"] += len(clips)
    totals = {name: total.item() for name, total in accelerator.reduce(sums, "sum").items()}
    count = totals.pop("count")
    if not count:
        raise ValueError(f"none of {num_videos} held-out videos can be read: {bad_videos.summary()}")
    return {name: total / count for name, total in totals.items()}


def show_parts(
    vae: ModelMixin,
    layout: LatentLayout,
    clips: torch.Tensor,
    latents: torch.Tensor,
    fps: float,
    config: VAEConfig,
    accelerator: Accelerator,
    step: int,
) -> None:
    """Clips (B, C, F, H, W) and their latents (B, L) into samples/: of each the original, both parts of the
    latent, and each part alone."""
    parts = decode_parts(vae, latents, layout)
    rows = torch.stack([clips, *(part.float() for part in parts.values())])
    rows = rows.clamp(-1, 1).cpu()  # (rows of a clip, clips, C, F, H, W)
    save_samples(
        config.output_dir,
        step,
        accelerator,
        rows.transpose(0, 1).flatten(0, 1),
        ["original", *parts] * rows.shape[1],
        rows.flatten(0, 1),
        fps,
        columns=rows.shape[1],
    )


if __name__ == "__main__":
    with user_errors():
        main()
