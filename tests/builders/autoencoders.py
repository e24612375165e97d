"""Tiny autoencoders, and random clips and latents of their sizes."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from diffusers.models.modeling_utils import ModelMixin

from autoencoder.model.vidtwin import AutoencoderVidTwin

TINY_AUTOENCODER: dict[str, Any] = {
    "num_frames": 4,
    "height": 16,
    "width": 16,
    "patch_size": 4,
    "hidden_size": 16,
    "num_layers": 2,
    "num_heads": 2,
    "num_queries": 3,
    "query_hidden_size": 8,
    "qformer_layers": 2,
    "qformer_heads": 2,
    "qformer_intermediate_size": 16,
    "qformer_dropout": 0.0,
    "structure_channels": 2,
    "structure_base_channels": 8,
    "dynamics_channels": 2,
}
# that of the training runs, whose dropout must be found again after a resume
TRAINED_AUTOENCODER = TINY_AUTOENCODER | {"num_layers": 1, "qformer_dropout": 0.2}
# a to d: the rows of the paper's Table 3
ABLATIONS: dict[str, dict[str, Any]] = {
    "a": {"dynamics_type": "none", "structure_channels": 3, "num_queries": 12},
    "b": {"dynamics_type": "qformer", "dynamics_queries": 5},
    "c": {"structure_type": "convolution"},
    "d": {"structure_type": "frame_qformer", "structure_position_channels": 2, "num_queries": 7},
}
# A Wan autoencoder: 4k + 1 frames, a quarter of each side. Its statistics are its own convention, not ours.
WAN_CONFIG: dict[str, Any] = {
    "base_dim": 4,
    "z_dim": 4,
    "dim_mult": [1, 1, 1],
    "num_res_blocks": 1,
    "temperal_downsample": [False, True],
    "latents_mean": [5.0] * 4,
    "latents_std": [7.0] * 4,
}

LTX: dict[str, Any] = {
    "latent_channels": 4,
    "block_out_channels": (8,) * 4,
    "decoder_block_out_channels": (8,) * 4,
    "layers_per_block": (1,) * 5,
    "decoder_layers_per_block": (1,) * 5,
    "spatio_temporal_scaling": (True, True, False, False),
    "decoder_spatio_temporal_scaling": (True, True, False, False),
    "patch_size": 1,
}
# class: its config, frames of a clip that works and of one that does not, and the latent of 16x16 pixels
AUTOENCODERS: dict[str, tuple[dict[str, Any], int, int, tuple[int, int, int]]] = {
    "AutoencoderVidTok": ({"ch": 8, "ch_mult": [1, 1, 1], "num_res_blocks": 1}, 5, 6, (2, 4, 4)),
    "AutoencoderKLMagvit": (
        {
            "latent_channels": 4,
            "block_out_channels": (8, 8, 8),
            "down_block_types": ("SpatialDownBlock3D", *("SpatialTemporalDownBlock3D",) * 2),
            "up_block_types": ("SpatialUpBlock3D", *("SpatialTemporalUpBlock3D",) * 2),
            "layers_per_block": 1,
            "norm_num_groups": 4,
        },
        5,
        4,
        (3, 4, 4),
    ),
    "AutoencoderKLCogVideoX": (
        {
            "latent_channels": 4,
            "block_out_channels": (8, 8, 8),
            "down_block_types": ("CogVideoXDownBlock3D",) * 3,
            "up_block_types": ("CogVideoXUpBlock3D",) * 3,
            "layers_per_block": 1,
            "norm_num_groups": 2,
        },
        9,
        6,
        (3, 4, 4),
    ),
    "AutoencoderKLWan": (WAN_CONFIG, 5, 6, (3, 4, 4)),
    "AutoencoderKLLTXVideo": (LTX, 5, 6, (2, 4, 4)),
    "AutoencoderKLHunyuanVideo": (
        {"latent_channels": 4, "block_out_channels": (8,) * 4, "layers_per_block": 1, "norm_num_groups": 4},
        5,
        6,
        (2, 2, 2),
    ),
    "AutoencoderKLHunyuanVideo15": (
        {"latent_channels": 4, "block_out_channels": (8,) * 5, "layers_per_block": 1},
        5,
        6,
        (2, 1, 1),
    ),
    "AutoencoderKLMochi": (
        {
            "latent_channels": 4,
            "encoder_block_out_channels": (32,) * 4,
            "decoder_block_out_channels": (32,) * 4,
            "layers_per_block": (1,) * 5,
            "latents_mean": [0.0] * 4,
            "latents_std": [1.0] * 4,
        },
        7,
        6,
        (2, 2, 2),
    ),
}


def build_autoencoder(**changes: Any) -> AutoencoderVidTwin:
    """`TINY_AUTOENCODER` with changes, and random numbers where the initialisation has zeros, so that nothing
    hides."""
    torch.manual_seed(0)
    model = AutoencoderVidTwin(**{**TINY_AUTOENCODER, **changes}).eval()
    fill_zeros(model)
    return model


def build_of(name: str, seed: int = 0, **changes: Any) -> ModelMixin:
    """Diffusers' class of this name as `AUTOENCODERS` has it, with changes."""
    torch.manual_seed(seed)
    return getattr(diffusers, name)(**AUTOENCODERS[name][0] | changes).eval()


def fill_zeros(model: torch.nn.Module, std: float = 0.2) -> None:
    """Parameters that begin as zeros, of which a network would be blind to its inputs, become random."""
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=std)


def random_clips(model: AutoencoderVidTwin, batch_size: int = 2, seed: int = 0) -> torch.Tensor:
    """(B, C, F, H, W) in [-1, 1]."""
    config = model.config
    shape = (batch_size, config.in_channels, config.num_frames, config.height, config.width)
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def random_latents(model: AutoencoderVidTwin, batch_size: int = 2, seed: int = 0) -> torch.Tensor:
    """(B, L)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch_size, model.layout.num_elements, generator=generator)
