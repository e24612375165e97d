"""The Dynamics latent: averages over an axis of each frame (arXiv 2412.17726, section 3.3)."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import nn

from autoencoder.model.layout import halve, token_grid
from autoencoder.model.posterior import init_posterior_head
from vidtwin_gen.models.layers import init_interpolation, init_relu_stack


class DynamicsEncoder(nn.Module):
    """(B, D, F, h, w) -> x (B, F, w_D, 2 d_D) and y (B, F, h_D, 2 d_D): means, then log-variances.

    The head is a 3x3 convolution over (time, space) that both streams share, so a frame's latent sees its
    neighbours' frames.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        d = config.hidden_size
        self.down = nn.Sequential()
        for _ in range(config.dynamics_down_blocks):
            self.down.extend([nn.Conv2d(d, d, 3, stride=2, padding=1), nn.ReLU()])
        self.head = nn.Conv2d(d, 2 * config.dynamics_channels, 3, padding=1)
        init_relu_stack(self)
        init_posterior_head(self.head)

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        b = z.shape[0]
        frames = self.down(rearrange(z, "b d f h w -> (f b) d h w"))  # (F B, D, h_D, w_D)
        frames = rearrange(frames, "(f b) d h w -> b d f h w", b=b)
        dynamics_x = self.head(frames.mean(dim=-2))  # (B, 2 d_D, F, w_D)
        dynamics_y = self.head(frames.mean(dim=-1))  # (B, 2 d_D, F, h_D)
        return rearrange(dynamics_x, "b c f w -> b f w c"), rearrange(dynamics_y, "b c f h -> b f h c")


class DynamicsDecoder(nn.Module):
    """x (B, F, w_D, d_D) and y (B, F, h_D, d_D) -> u_x + u_y (B, D, F, h, w), non-negative."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        d, (rows, columns) = config.hidden_size, token_grid(config)
        small_rows, small_columns = halve((rows, columns), config.dynamics_down_blocks)
        self.expand = nn.Sequential(
            nn.Linear(config.dynamics_channels, d), nn.ReLU(), nn.Linear(d, d), nn.ReLU()
        )
        self.up = nn.ModuleList()
        if config.dynamics_down_blocks:
            self.up.append(_upsample(small_columns, columns))
            if rows != columns:  # the release knows squares only, where one module serves both
                self.up.append(_upsample(small_rows, rows))
        init_relu_stack(self)
        for side in self.up:
            init_interpolation(side)

    def forward(self, dynamics_x: torch.Tensor, dynamics_y: torch.Tensor) -> torch.Tensor:
        columns = rearrange(self.expand(dynamics_x), "b f w d -> b d f w")
        rows = rearrange(self.expand(dynamics_y), "b f h d -> b d f h")
        if self.up:
            columns, rows = self.up[0](columns), self.up[-1](rows)  # (B, D, F, w), (B, D, F, h)
        columns, rows = rearrange(columns, "b d f w -> f b 1 w d"), rearrange(rows, "b d f h -> f b h 1 d")
        return rearrange(columns.contiguous() + rows.contiguous(), "f b h w d -> b d f h w")


def _upsample(small: int, large: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(small, large), nn.ReLU(), nn.Linear(large, large), nn.ReLU())
