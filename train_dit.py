"""Stage 2: train a DiT over cached VidTwin latents and export the class-conditional pipeline.

    python -m vidtwin_gen encode --vae runs/vae/autoencoder --data UCF-101 --out runs/latents --stride 2
    python train_dit.py --preset cpu --vae runs/vae/autoencoder --latents runs/latents --output_dir runs/dit

The same command on the same folder continues from its last checkpoint; more processes: `accelerate launch`.
Writes checkpoints, metrics.jsonl, samples/ and, at the end, <output_dir>/pipeline.
"""

from __future__ import annotations

import signal

from vidtwin_gen.program.signals import end_at_once

if __name__ == "__main__":
    signal.signal(signal.SIGINT, end_at_once)  # an import would make a traceback of Ctrl-C

from vidtwin_gen.training.config import parse_config
from vidtwin_gen.training.dit_config import PRESETS, DiTConfig

if __name__ == "__main__":
    parse_config(DiTConfig, PRESETS)  # help and refusals come at once, before torch is imported

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import datasets
import torch
from accelerate import Accelerator
from torch._subclasses.fake_tensor import FakeTensorMode

from autoencoder.model.posterior import FlatGaussian
from eval.cost.dit import example
from eval.cost.memory import predict_training_memory
from pipelines.pipeline_vidtwin import VidTwinPipeline
from pipelines.trained import load_inputs, make_pipeline
from vidtwin_gen import diffusion
from vidtwin_gen.data.latent_dataset import LatentDataset, latents_sha256
from vidtwin_gen.data.pixels import from_diffusers
from vidtwin_gen.draws import Draw, SampleDraw, normal, seeded_generator, uniform
from vidtwin_gen.latents import LatentLayout
from vidtwin_gen.models.alignment import AlignmentHead
from vidtwin_gen.models.parametrization import (
    PREDICTION_TYPES,
    interpolate,
    noise_shift,
    timestep_of,
    velocity,
    velocity_from_x0,
)
from vidtwin_gen.models.transformer import LatentTransformer
from vidtwin_gen.program.errors import user_errors
from vidtwin_gen.training.accelerator import load_initial_weights, make_accelerator, prepare_model
from vidtwin_gen.training.hub import push_if_asked
from vidtwin_gen.training.optimizer import SkippingOptimizer, optimizer_bytes
from vidtwin_gen.training.pictures import save_samples
from vidtwin_gen.training.run import training_run


def main(argv: Sequence[str] | None = None) -> None:
    config = parse_config(DiTConfig, PRESETS, argv)
    config.check_guidance()
    accelerator = make_accelerator(config, shardable=not config.repa_weight)
    vae, rows, metadata = load_inputs(config)
    config.count_epochs(len(rows["train"]), accelerator.num_processes)
    transformer = make_transformer(config, metadata)
    heads = [alignment_head(transformer, metadata, config)] if config.repa_weight else []
    if config.dry_run:
        num_tokens = transformer.layout.num_tokens(json.loads(config.patch_size))
        accelerator.print(json.dumps(config.public(), indent=2))
        accelerator.print(f"{transformer.num_parameters():,} parameters, {num_tokens} tokens per clip")
        peak = predicted_peak(transformer, config, accelerator) / 2**30
        kernels = (
            "" if accelerator.device.type == "cuda" else "; a GPU's kernels keep up to 1.4 times as much"
        )
        accelerator.print(
            f"predicted peak {peak:.1f} GiB with {config.train_batch_size} clips a pass{kernels}"
        )
        return
    vae.to(accelerator.device)

    inputs = {"latents": latents_sha256(config.latents), "vae": metadata["autoencoder_sha256"]}
    names = metadata["class_names"]
    if config.init_from:
        inputs["init_from"] = load_initial_weights(transformer, config, "transformer", names)
    dataset = LatentDataset(rows["train"], seed=config.seed, features=bool(heads))
    prepare_model(transformer, config, accelerator)
    optimizer = SkippingOptimizer(
        [transformer, *heads], config, accelerator, config.learning_rate, config.max_train_steps
    )
    wrapped, *wrapped_heads = optimizer.modules
    whitening = Whitening.of(metadata, accelerator.device)
    pipeline_of = partial(
        make_pipeline,
        vae=vae,
        metadata=metadata,
        config=config,
        num_processes=accelerator.num_processes,
    )
    with training_run(
        transformer, [optimizer], config, accelerator, "transformer", inputs=inputs, class_names=names
    ) as run:
        for batch in run.loader(dataset, collate_fn=dict):
            with run.forward_pass() as draw:
                losses = diffusion_losses(
                    wrapped, batch, whitening, config, draw, transformer.null_class, *wrapped_heads
                )
                run.log.add(losses | optimizer.step(losses["loss"]))
            run.end_step()
            if run.is_due(config.validation_steps):
                with run.validation():
                    values = validate(transformer, rows["test"], whitening, config, accelerator)
                    sample_classes(pipeline_of(transformer), config, run.step, accelerator)
                run.report_validation(values)
            run.save_checkpoint_if_due()
        run.export("pipeline", pipeline_of)
    push_if_asked(run.output_dir / "pipeline", config, accelerator)


def make_transformer(config: DiTConfig, metadata: Mapping[str, Any]) -> LatentTransformer:
    """The DiT that the flags ask for, over latents of this metadata."""
    return LatentTransformer(
        layout=metadata["layout"],
        num_classes=len(metadata["class_names"]),
        patch_size=json.loads(config.patch_size),
        hidden_size=config.hidden_size,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        conditioning=config.conditioning,
        prediction_type=PREDICTION_TYPES[config.objective],
        block_type=config.block_type,
        predicts_x0=config.prediction == "x0",
        internal_layer=config.early_layer if config.internal_guidance else None,
    )


def predicted_peak(transformer: LatentTransformer, config: DiTConfig, accelerator: Accelerator) -> int:
    """Bytes that a process needs for the DiT at the peak of a step; nothing is allocated to find out."""
    with FakeTensorMode(), accelerator.device:
        model, inputs = example(
            transformer.layout,
            lambda **_: LatentTransformer.from_config(transformer.config),
            batch_size=config.train_batch_size,
            gradient_checkpointing=config.gradient_checkpointing,
        )
        model.forward = accelerator.autocast()(model.forward)  # type: ignore[method-assign]
        amounts = predict_training_memory(model, inputs)
    moments = optimizer_bytes(transformer, config) - amounts["optimizer"]
    return amounts["peak"] + moments + config.use_ema * amounts["parameters"]


def alignment_head(
    transformer: LatentTransformer, metadata: Mapping[str, Any], config: DiTConfig
) -> AlignmentHead:
    """Trained with the transformer. Raises ValueError where the latents have no features, or one of a clip to
    be normalised."""
    if "features" not in metadata:
        raise ValueError(
            f"--repa_weight {config.repa_weight} aligns with features, and --latents {config.latents} has "
            "none: encode again with --features, a V-JEPA 2 or VideoMAE of transformers, or leave it out"
        )
    grid = metadata["features"]["grid"]
    if config.repa_normalise and math.prod(grid) == 1:
        raise ValueError(
            f"--repa_normalise standardises over the features' grid, and those of --latents {config.latents} "
            "are one for a clip: leave it out"
        )
    return AlignmentHead(
        transformer.layout,
        transformer.patch_sizes,
        config.hidden_size,
        grid,
        metadata["features"]["dim"],
        config.repa_dim,
        config.repa_normalise,
    )


@dataclass(frozen=True)
class Whitening:
    """The layout of the latents, and `LatentLayout.statistics` on the device that trains."""

    layout: LatentLayout
    shift: torch.Tensor
    scale: torch.Tensor

    @classmethod
    def of(cls, metadata: Mapping[str, Any], device: torch.device) -> Whitening:
        layout = LatentLayout.from_config(metadata["layout"])
        shift, scale = layout.statistics(metadata["latents_mean"], metadata["latents_std"])
        return cls(layout, shift.to(device), scale.to(device))


def diffusion_losses(
    transformer: torch.nn.Module,
    batch: Mapping[str, torch.Tensor],
    whitening: Whitening,
    config: DiTConfig,
    draw: Draw,
    null_class: int,
    head: torch.nn.Module | None = None,
) -> dict[str, torch.Tensor]:
    """`loss`, and one loss per grid, of the objective on a batch of posteriors, with random numbers of
    `draw`; with an alignment `head` also `loss_repa`, which `loss` then has in it."""
    layout = whitening.layout
    posterior = FlatGaussian(torch.cat([batch["mean"], batch["logvar"]], dim=1))
    latents = posterior.mode()
    if config.sample_posterior:
        latents = latents + posterior.std * draw(normal(layout.num_elements))
    latents = (latents - whitening.shift) / whitening.scale
    noisy, timestep, target = training_example(latents, config, draw)
    labels = diffusion.drop_labels(batch["label"], null_class, config.class_dropout, draw(uniform))
    hidden_layer = (config.repa_layer or config.early_layer) if head is not None else None
    output = transformer(noisy, timestep, labels, hidden_layer=hidden_layer)
    prediction, internal = output.sample, output.internal_sample
    losses = diffusion.grid_losses(prediction, target, layout)
    loss = diffusion.total_loss(losses, layout, config.loss_weighting)
    if internal is not None:
        others = diffusion.grid_losses(internal, target, layout)
        loss = loss + diffusion.total_loss(others, layout, config.loss_weighting)
    if config.contrastive_weight and torch.is_grad_enabled():  # validation compares with other runs
        other = diffusion.contrastive_loss(
            prediction, target, labels, null_class, layout, config.loss_weighting
        )
        loss = loss - config.contrastive_weight * other
    if head is not None:
        losses["repa"] = head(output.hidden, batch["features"])
        loss = loss + config.repa_weight * losses["repa"]
    return {"loss": loss, **{f"loss_{name}": value for name, value in losses.items()}}


def training_example(
    latents: torch.Tensor, config: DiTConfig, draw: Draw
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Whitened latents (B, L) -> noisy ones (B, L), their timesteps (B,), and what is to be predicted from
    them (B, L)."""
    noise = draw(normal(latents.shape[1]))
    if config.objective == "paper":
        timestep = draw(diffusion.sample_timesteps)
        alpha_bar = diffusion.alphas_bar(latents.device)[timestep]
        return diffusion.diffuse(latents, noise, alpha_bar), timestep, latents
    mean, std = config.logit_mean, config.logit_std
    shift = noise_shift(config.shift, latents.shape[1])
    sigma = draw(partial(diffusion.sample_sigmas, logit_mean=mean, logit_std=std, shift=shift))
    noisy = interpolate(latents, noise, sigma)
    if config.prediction == "x0":
        return noisy, timestep_of(sigma), velocity_from_x0(noisy, latents, sigma)
    return noisy, timestep_of(sigma), velocity(latents, noise)


@torch.no_grad()
def validate(
    transformer: LatentTransformer,
    rows: datasets.Dataset,
    whitening: Whitening,
    config: DiTConfig,
    accelerator: Accelerator,
) -> dict[str, float]:
    """The losses on the test split, with the same noise for a clip at every validation and whatever the
    number of processes; each of them takes a share, in as many passes as the others."""
    dataset, device = LatentDataset(rows, shuffle=False), accelerator.device
    names = ["loss", *(f"loss_{name}" for name in whitening.layout.names)]
    sums = {name: torch.zeros((), device=device) for name in names}
    at_once = config.train_batch_size * accelerator.num_processes
    for first in range(0, len(dataset), at_once):
        part = range(first, min(first + at_once, len(dataset)))
        share = part[accelerator.process_index :: accelerator.num_processes]
        positions = share or part[:1]  # FSDP needs all processes in a pass
        batch = {name: value.to(device) for name, value in dataset.__getitems__(positions).items()}
        draw = SampleDraw((seeded_generator(config.seed, "validation", i) for i in positions), device)
        with accelerator.autocast():
            losses = diffusion_losses(transformer, batch, whitening, config, draw, transformer.null_class)
        for name, value in losses.items():
            sums[name] += value * len(share)
    return {
        f"val_{name}": (accelerator.reduce(total, "sum") / len(dataset)).item()
        for name, total in sums.items()
    }


def sample_classes(pipeline: VidTwinPipeline, config: DiTConfig, step: int, accelerator: Accelerator) -> None:
    """One clip per class, of the same noise at every validation: a picture of frames and an animation. All
    processes make them, since sharded weights need all, and the first one saves them."""
    if not config.num_sample_classes:
        return
    pipeline.set_progress_bar_config(disable=True)
    labels = list(range(min(config.num_sample_classes, pipeline.transformer.config.num_classes)))
    output = pipeline(
        labels,
        guidance_scale=config.guidance_scale,
        internal_guidance_scale=config.internal_guidance_scale,
        num_inference_steps=config.num_inference_steps,
        generator=[torch.Generator().manual_seed(config.seed + label) for label in labels],
        output_type="pt",
        return_dict=False,
    )
    if not accelerator.is_main_process:
        return
    clips = from_diffusers(torch.as_tensor(output[0]).cpu())
    names = [pipeline.config.class_names[label] for label in labels]
    save_samples(config.output_dir, step, accelerator, clips, names, clips, pipeline.config.fps)


if __name__ == "__main__":
    with user_errors():
        main()
