"""A tiny pipeline, and calls of it with few steps."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from autoencoder.model.vidtwin import AutoencoderVidTwin
from pipelines.pipeline_vidtwin import VidTwinPipeline
from tests.builders.autoencoders import fill_zeros
from vidtwin_gen.models.transformer import LatentTransformer

NAMES = ["Archery", "BabyCrawling", "Basketball", "Billiards"]
NUM_FRAMES, HEIGHT, WIDTH = 8, 16, 16


def build_pipeline(**sizes: Any) -> VidTwinPipeline:
    """Of four classes and 8 frames of 16 x 16, its latents whitened with statistics that are not 0 and 1;
    `sizes` are the transformer's."""
    torch.manual_seed(0)
    vae = AutoencoderVidTwin(
        num_frames=NUM_FRAMES,
        height=HEIGHT,
        width=WIDTH,
        patch_size=4,
        hidden_size=32,
        num_layers=1,
        num_heads=2,
        num_queries=4,
        query_hidden_size=16,
        qformer_layers=2,
        qformer_heads=2,
        qformer_intermediate_size=32,
        structure_channels=4,
        structure_base_channels=8,
        dynamics_channels=4,
    ).eval()
    channels = vae.layout.num_channels
    vae.register_to_config(latents_mean=[0.5] * channels, latents_std=[1 + i / 8 for i in range(channels)])
    sizes = {"hidden_size": 32, "num_layers": 2, "num_heads": 2} | sizes
    transformer = LatentTransformer(layout=vae.layout.to_config(), num_classes=len(NAMES), **sizes).eval()
    fill_zeros(transformer)  # they would ignore the class
    pipe = VidTwinPipeline(vae, transformer, FlowMatchEulerDiscreteScheduler(), class_names=NAMES, fps=8)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def generate(pipe: VidTwinPipeline, class_labels: Any = "Archery", **options: Any) -> Any:
    """Frames in three steps, (B, F, C, H, W) in [0, 1] unless the options say otherwise."""
    defaults: dict[str, Any] = {"num_inference_steps": 3, "output_type": "pt", "generator": seeded(0)[0]}
    return pipe(class_labels, **defaults | options).frames  # type: ignore[union-attr]


def steps_of(
    pipe: VidTwinPipeline, labels: torch.Tensor, **options: Any
) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Of each step of a call: the latents that it began with (B, L), their timestep (B,), the prediction."""
    shape = len(labels), pipe.transformer.layout.num_elements
    latents, steps = torch.randn(shape, generator=seeded(0)[0]), []
    began = [latents]

    def record(pipe: VidTwinPipeline, step: int, t: torch.Tensor, tensors: dict[str, torch.Tensor]) -> dict:
        steps.append((began[-1], t.expand(len(labels)), tensors["prediction"]))
        began.append(tensors["latents"])
        return {}

    options |= {"callback_on_step_end": record, "output_type": "latent", "latents": latents}
    names = ["latents", "prediction"]
    generate(pipe, labels.tolist(), callback_on_step_end_tensor_inputs=names, **options)
    return steps
