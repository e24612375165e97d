"""The modules that a configuration of `AutoencoderVidTwin` asks for: encoders and decoders of its latents."""

from __future__ import annotations

from typing import Any

from torch import nn

from autoencoder.model.ablations import (
    ConvolutionalStructureEncoder,
    FrameStructureDecoder,
    FrameStructureEncoder,
    QueryDynamicsDecoder,
    QueryDynamicsEncoder,
)
from autoencoder.model.dynamics import DynamicsDecoder, DynamicsEncoder
from autoencoder.model.structure import StructureDecoder, StructureEncoder


def structure_encoder(config: Any) -> nn.Module:
    """(B, D, F, h, w) -> means and log-variances of the Structure grid, along its last axis."""
    if config.structure_type == "convolution":
        return ConvolutionalStructureEncoder(config)
    if config.structure_type == "frame_qformer":
        return FrameStructureEncoder(config)
    return StructureEncoder(config)


def dynamics_encoder(config: Any) -> nn.Module | None:
    """(B, D, F, h, w) -> a tuple of the same for the grids of Dynamics."""
    if config.dynamics_type == "none":
        return None
    return QueryDynamicsEncoder(config) if config.dynamics_type == "qformer" else DynamicsEncoder(config)


def structure_decoder(config: Any) -> nn.Module:
    """The Structure grid -> its share of the tokens, (B, D, F, h, w)."""
    if config.structure_type == "frame_qformer":
        return FrameStructureDecoder(config)
    return StructureDecoder(config)


def dynamics_decoder(config: Any) -> nn.Module | None:
    """The grids of Dynamics -> their share of the tokens, (B, D, F, h, w)."""
    if config.dynamics_type == "none":
        return None
    return QueryDynamicsDecoder(config) if config.dynamics_type == "qformer" else DynamicsDecoder(config)
