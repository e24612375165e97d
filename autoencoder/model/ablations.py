"""The alternatives to VidTwin's two latents that its paper compares them with (arXiv 2412.17726, Table 3).

Of these the paper gives a sentence each and no code; the sizes here are chosen so that the latents have about
as many numbers as at setting 1.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import nn
from transformers import Blip2QFormerConfig

from autoencoder.model.posterior import init_posterior_head
from autoencoder.model.structure import QFormerEncoder, SpatialBottleneck
from vidtwin_gen.models.layers import init_blend, init_relu_stack


class ConvolutionalStructureEncoder(SpatialBottleneck):
    """Row (c): time is reduced by a convolution and an MLP in place of the Q-Former.

    (B, D, F, h, w) -> (B, n_q, h_S, w_S, 2 d_S).
    """

    def __init__(
        self,
        hidden_size: int,
        num_frames: int,
        num_queries: int,
        query_hidden_size: int,
        base_channels: int,
        num_down_blocks: int,
        latent_channels: int,
    ) -> None:
        super().__init__()
        self.to_queries = nn.Sequential(nn.Conv1d(num_frames, num_queries, 1), nn.ReLU())
        self.project = nn.Sequential(
            nn.Linear(hidden_size, hidden_size), nn.ReLU(), nn.Linear(hidden_size, query_hidden_size)
        )
        init_relu_stack(self)
        self.add_bottleneck(query_hidden_size, base_channels, num_down_blocks, latent_channels)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        frames = rearrange(z, "b d f h w -> (b h w) f d")
        queries = self.project(self.to_queries(frames))  # (B h w, n_q, d_q)
        return self.squeeze(queries, *z.shape[-2:])


class FrameStructureEncoder(QFormerEncoder):
    """Row (d): positions are moved into the width, so that a Q-Former sees one token a frame.

    (B, D, F, h, w) -> (B, n_q, 2 c): means, then log-variances.
    """

    def __init__(
        self,
        hidden_size: int,
        num_positions: int,
        position_channels: int,
        num_queries: int,
        qformer: Blip2QFormerConfig,
        latent_channels: int,
    ) -> None:
        super().__init__()
        self.narrow = nn.Linear(hidden_size, position_channels)
        self.to_frame = nn.Sequential(nn.Linear(position_channels * num_positions, hidden_size), nn.ReLU())
        init_relu_stack(self)
        self.add_qformer(num_queries, qformer)
        self.head = nn.Linear(qformer.hidden_size, 2 * latent_channels)
        init_posterior_head(self.head)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        positions = self.narrow(rearrange(z, "b d f h w -> b f h w d"))
        frames = self.to_frame(rearrange(positions, "b f h w d -> b f (h w d)"))  # (B, F, D)
        return self.head(self.queries(frames, z.dtype))


class FrameStructureDecoder(nn.Module):
    """Row (d), the way back: (B, n_q, c) -> (B, D, F, h, w)."""

    def __init__(
        self,
        hidden_size: int,
        num_frames: int,
        grid: tuple[int, int],
        position_channels: int,
        num_queries: int,
        latent_channels: int,
    ) -> None:
        super().__init__()
        self.grid = grid
        num_positions = grid[0] * grid[1]
        self.expand = nn.Sequential(
            nn.Linear(latent_channels, hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, position_channels * num_positions),
            nn.ReLU(),
        )
        self.to_frames = nn.Sequential(nn.Conv1d(num_queries, num_frames, 1), nn.ReLU())
        self.widen = nn.Linear(position_channels, hidden_size)
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

    def __init__(self, num_queries: int, qformer: Blip2QFormerConfig, latent_channels: int) -> None:
        super().__init__()
        self.add_qformer(num_queries, qformer)
        self.head = nn.Linear(qformer.hidden_size, 2 * latent_channels)
        init_posterior_head(self.head)

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor]:
        positions = rearrange(z, "b d f h w -> (b f) (h w) d")
        return (rearrange(self.head(self.queries(positions, z.dtype)), "(b f) n c -> b f n c", b=len(z)),)


class QueryDynamicsDecoder(nn.Module):
    """Row (b), the way back: (B, F, n, d_D) -> (B, D, F, h, w), non-negative."""

    def __init__(
        self, hidden_size: int, grid: tuple[int, int], num_queries: int, latent_channels: int
    ) -> None:
        super().__init__()
        self.grid = grid
        self.expand = nn.Sequential(nn.Linear(latent_channels, hidden_size), nn.ReLU())
        self.to_positions = nn.Sequential(nn.Conv1d(num_queries, grid[0] * grid[1], 1), nn.ReLU())
        init_relu_stack(self)
        init_blend(self.to_positions)

    def forward(self, dynamics: torch.Tensor) -> torch.Tensor:
        frames = rearrange(self.expand(dynamics), "b f n d -> (b f) n d")
        positions = self.to_positions(frames)  # (B F, h w, D)
        return rearrange(positions, "(b f) (h w) d -> b d f h w", b=len(dynamics), h=self.grid[0])
