"""The latents that a configuration of `AutoencoderVidTwin` asks for: layout, encoders, decoders.

`config` is the model's: its constructor's arguments as attributes.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import Blip2QFormerConfig

from autoencoder.model.ablations import (
    ConvolutionalStructureEncoder,
    FrameStructureDecoder,
    FrameStructureEncoder,
    QueryDynamicsDecoder,
    QueryDynamicsEncoder,
)
from autoencoder.model.dynamics import DynamicsDecoder, DynamicsEncoder
from autoencoder.model.structure import StructureDecoder, StructureEncoder
from vidtwin_gen.latents import LatentGrid, LatentLayout

STRUCTURE_TYPES = ("qformer", "convolution", "frame_qformer")
DYNAMICS_TYPES = ("average", "qformer", "none")


def check_config(config: Any) -> None:
    """Raises ValueError for sizes that the architecture cannot take and for types that there are not."""
    if config.height % config.patch_size or config.width % config.patch_size:
        raise ValueError(
            f"height and width must be multiples of patch_size={config.patch_size}, got "
            f"{config.height}x{config.width}"
        )
    if config.hidden_size % 4 or config.hidden_size % config.num_heads:
        raise ValueError(
            f"hidden_size={config.hidden_size} must be a multiple of 4 and of num_heads={config.num_heads}"
        )
    if config.query_hidden_size % config.qformer_heads:
        raise ValueError(
            f"query_hidden_size={config.query_hidden_size} must be a multiple of "
            f"qformer_heads={config.qformer_heads}"
        )
    for name, choices in (("structure_type", STRUCTURE_TYPES), ("dynamics_type", DYNAMICS_TYPES)):
        if config[name] not in choices:
            raise ValueError(f"{name} is one of {', '.join(choices)}; got {config[name]!r}")


def token_grid(config: Any) -> tuple[int, int]:
    """Rows and columns of tokens in a frame."""
    return config.height // config.patch_size, config.width // config.patch_size


def latent_layout(config: Any) -> LatentLayout:
    """Structure's grid first, then those of Dynamics."""
    structure = _halve(token_grid(config), config.structure_down_blocks)
    rows, columns = _halve(token_grid(config), config.dynamics_down_blocks)
    frames, channels = config.num_frames, config.dynamics_channels
    if config.structure_type == "frame_qformer":
        grids = [LatentGrid("structure", ("query",), (config.num_queries,), config.structure_channels)]
    else:
        axes, shape = ("query", "height", "width"), (config.num_queries, *structure)
        grids = [LatentGrid("structure", axes, shape, config.structure_channels)]
    if config.dynamics_type == "average":
        grids.append(LatentGrid("dynamics_x", ("time", "width"), (frames, columns), channels))
        grids.append(LatentGrid("dynamics_y", ("time", "height"), (frames, rows), channels))
    elif config.dynamics_type == "qformer":
        grids.append(LatentGrid("dynamics", ("time", "query"), (frames, config.dynamics_queries), channels))
    return LatentLayout(tuple(grids))


def structure_encoder(config: Any) -> nn.Module:
    """(B, D, F, h, w) -> means and log-variances of the Structure grid, along its last axis."""
    if config.structure_type == "convolution":
        return ConvolutionalStructureEncoder(
            config.hidden_size,
            config.num_frames,
            config.num_queries,
            config.query_hidden_size,
            *_bottleneck(config),
        )
    if config.structure_type == "frame_qformer":
        rows, columns = token_grid(config)
        return FrameStructureEncoder(
            config.hidden_size,
            rows * columns,
            config.structure_position_channels,
            config.num_queries,
            _qformer(config),
            config.structure_channels,
        )
    return StructureEncoder(config.num_queries, _qformer(config), *_bottleneck(config))


def dynamics_encoder(config: Any) -> nn.Module | None:
    """(B, D, F, h, w) -> a tuple of the same for the grids of Dynamics."""
    if config.dynamics_type == "none":
        return None
    if config.dynamics_type == "qformer":
        return QueryDynamicsEncoder(config.dynamics_queries, _qformer(config), config.dynamics_channels)
    return DynamicsEncoder(config.hidden_size, config.dynamics_down_blocks, config.dynamics_channels)


def structure_decoder(config: Any) -> nn.Module:
    """The Structure grid -> its share of the tokens, (B, D, F, h, w)."""
    if config.structure_type == "frame_qformer":
        return FrameStructureDecoder(
            config.hidden_size,
            config.num_frames,
            token_grid(config),
            config.structure_position_channels,
            config.num_queries,
            config.structure_channels,
        )
    return StructureDecoder(
        config.hidden_size,
        config.num_frames,
        *token_grid(config),
        config.num_queries,
        config.query_hidden_size,
        *_bottleneck(config),
    )


def dynamics_decoder(config: Any) -> nn.Module | None:
    """The grids of Dynamics -> their share of the tokens, (B, D, F, h, w)."""
    grid = token_grid(config)
    if config.dynamics_type == "none":
        return None
    if config.dynamics_type == "qformer":
        return QueryDynamicsDecoder(
            config.hidden_size, grid, config.dynamics_queries, config.dynamics_channels
        )
    blocks = config.dynamics_down_blocks
    return DynamicsDecoder(config.hidden_size, grid, _halve(grid, blocks), blocks, config.dynamics_channels)


def _qformer(config: Any) -> Blip2QFormerConfig:
    """With the sizes given and otherwise its own defaults, as in the released model."""
    return Blip2QFormerConfig(
        hidden_size=config.query_hidden_size,
        encoder_hidden_size=config.hidden_size,
        num_hidden_layers=config.qformer_layers,
        num_attention_heads=config.qformer_heads,
        intermediate_size=config.qformer_intermediate_size,
        hidden_dropout_prob=config.qformer_dropout,
        attention_probs_dropout_prob=config.qformer_dropout,
    )


def _bottleneck(config: Any) -> tuple[int, int, int]:
    return config.structure_base_channels, config.structure_down_blocks, config.structure_channels


def _halve(grid: tuple[int, int], times: int) -> tuple[int, int]:
    for _ in range(times):
        grid = ((grid[0] + 1) // 2, (grid[1] + 1) // 2)
    return grid
