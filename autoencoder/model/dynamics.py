"""The Dynamics latent: averages over an axis of each frame (arXiv 2412.17726, section 3.3)."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import nn

from autoencoder.model.posterior import init_posterior_head
from vidtwin_gen.models.layers import init_interpolation, init_relu_stack


class DynamicsEncoder(nn.Module):
    """(B, D, F, h, w) -> x (B, F, w_D, 2 d_D) and y (B, F, h_D, 2 d_D): means, then log-variances.

    The head is a 3x3 convolution over (time, space) that both streams share, so a frame's latent sees its
    neighbours' frames.
    """

    def __init__(self, hidden_size: int, num_down_blocks: int, latent_channels: int) -> None:
        super().__init__()
        self.down = nn.Sequential()
        for _ in range(num_down_blocks):
            self.down.extend([nn.Conv2d(hidden_size, hidden_size, 3, stride=2, padding=1), nn.ReLU()])
        self.head = nn.Conv2d(hidden_size, 2 * latent_channels, 3, padding=1)
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

    def __init__(
        self,
        hidden_size: int,
        grid: tuple[int, int],
        latent_grid: tuple[int, int],
        num_up_blocks: int,
        latent_channels: int,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.expand = nn.Sequential(
            nn.Linear(latent_channels, hidden_size), nn.ReLU(), nn.Linear(hidden_size, hidden_size), nn.ReLU()
        )
        # (columns, rows); the release knows squares only, where one module serves both
        sides = [(latent_grid[1], grid[1]), (latent_grid[0], grid[0])]
        if sides[0] == sides[1]:
            sides.pop()
        self.up = nn.ModuleList([_upsample(small, large) for small, large in sides] if num_up_blocks else [])
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
