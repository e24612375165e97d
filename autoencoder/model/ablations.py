"""The alternatives to VidTwin's two latents that its paper compares them with (arXiv 2412.17726, Table 3).

Of these the paper gives a sentence each and no code; the sizes here are chosen so that the latents have about
as many numbers as at setting 1.
"""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import nn

from autoencoder.model.layout import token_grid
from autoencoder.model.posterior import init_posterior_head
from autoencoder.model.structure import QFormerEncoder, SpatialBottleneck
from vidtwin_gen.models.layers import init_blend, init_relu_stack


class ConvolutionalStructureEncoder(SpatialBottleneck):
    """Row (c): time is reduced by a convolution and an MLP in place of the Q-Former.

    (B, D, F, h, w) -> (B, n_q, h_S, w_S, 2 d_S).
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        d = config.hidden_size
        self.to_queries = nn.Sequential(nn.Conv1d(config.num_frames, config.num_queries, 1), nn.ReLU())
        self.project = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, config.query_hidden_size))
        init_relu_stack(self)
        self.add_bottleneck(config)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        frames = rearrange(z, "b d f h w -> (b h w) f d")
        queries = self.project(self.to_queries(frames))  # (B h w, n_q, d_q)
        return self.squeeze(queries, *z.shape[-2:])


class FrameStructureEncoder(QFormerEncoder):
    """Row (d): positions are moved into the width, so that a Q-Former sees one token a frame.

    (B, D, F, h, w) -> (B, n_q, 2 c): means, then log-variances.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        d, channels, grid = config.hidden_size, config.structure_position_channels, token_grid(config)
        self.narrow = nn.Linear(d, channels)
        self.to_frame = nn.Sequential(nn.Linear(channels * grid[0] * grid[1], d), nn.ReLU())
        init_relu_stack(self)
        self.add_qformer(config, config.num_queries)
        self.head = nn.Linear(config.query_hidden_size, 2 * config.structure_channels)
        init_posterior_head(self.head)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        positions = self.narrow(rearrange(z, "b d f h w -> b f h w d"))
        frames = self.to_frame(rearrange(positions, "b f h w d -> b f (h w d)"))  # (B, F, D)
        return self.head(self.queries(frames, z.dtype))


class FrameStructureDecoder(nn.Module):
    """Row (d), the way back: (B, n_q, c) -> (B, D, F, h, w)."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        d, channels = config.hidden_size, config.structure_position_channels
        self.grid = token_grid(config)
        self.expand = nn.Sequential(
            nn.Linear(config.structure_channels, d),
            nn.ReLU(),
            nn.Linear(d, channels * self.grid[0] * self.grid[1]),
            nn.ReLU(),
        )
        self.to_frames = nn.Sequential(nn.Conv1d(config.num_queries, config.num_frames, 1), nn.ReLU())
        self.widen = nn.Linear(channels, d)
        init_relu_stack(self)
        init_blend(self.to_frames)

    def forward(self, structure: torch.Tensor) -> torch.Tensor:
        frames = self.to_frames(self.expand(structure))  # (B, F, h w c)
        h, w = self.grid
        positions = self.widen(rearrange(frames, "b f (h w c) -> b f h w c", h=h, w=w))
        return rearrange(positions, "b f h w d -> b d f h w")


class QueryDynamicsEncoder(QFormerEncoder):
    """Row (b): a spatial Q-Former within each frame in place of the averages over an axis.

    (B, D, F, h, w) -> a tuple of one, (B, F, n, 2 d_D): means, then log-variances.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.add_qformer(config, config.dynamics_queries)
        self.head = nn.Linear(config.query_hidden_size, 2 * config.dynamics_channels)
        init_posterior_head(self.head)

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor]:
        positions = rearrange(z, "b d f h w -> (b f) (h w) d")
        return (rearrange(self.head(self.queries(positions, z.dtype)), "(b f) n c -> b f n c", b=len(z)),)


class QueryDynamicsDecoder(nn.Module):
    """Row (b), the way back: (B, F, n, d_D) -> (B, D, F, h, w), non-negative."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.grid = token_grid(config)
        num_positions = self.grid[0] * self.grid[1]
        self.expand = nn.Sequential(nn.Linear(config.dynamics_channels, config.hidden_size), nn.ReLU())
        self.to_positions = nn.Sequential(nn.Conv1d(config.dynamics_queries, num_positions, 1), nn.ReLU())
        init_relu_stack(self)
        init_blend(self.to_positions)

    def forward(self, dynamics: torch.Tensor) -> torch.Tensor:
        frames = rearrange(self.expand(dynamics), "b f n d -> (b f) n d")
        positions = self.to_positions(frames)  # (B F, h w, D)
        return rearrange(positions, "(b f) (h w) d -> b d f h w", b=len(dynamics), h=self.grid[0])
