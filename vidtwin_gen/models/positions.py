"""Where the tokens of a latent layout are: positions that grids with the same axis share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from diffusers.models.embeddings import get_1d_sincos_pos_embed_from_grid
from torch import nn

from vidtwin_gen.latents import LatentGrid, LatentLayout

INDEX_AXIS = "query"  # the one axis that counts and does not measure


def patch_centres(size: int, patch: int, reference: int) -> torch.Tensor:
    """(ceil(size / patch),) where along an axis its patches are centred.

    The unit is one position of an axis of length `reference` that spans the same extent, so that grids of
    different resolution agree on what is where; for size = reference and patch = 1 it is 0, 1, 2, ...
    """
    index = torch.arange(math.ceil(size / patch), dtype=torch.float64)
    return (index + 0.5) * patch * reference / size - 0.5


class LatentPositions(nn.Module):
    """Adds to every token where it is: the sum over its axes of one embedding each, plus one for its grid.

    A coordinate (time, height, width) is a sine-cosine table followed by a linear map that belongs to the
    axis; grids that have the axis share it, which is how they learn to agree. The query axis is a mere index
    and has an embedding per index.

    Shape: (B, N, dim) -> (B, N, dim), the tokens of all grids in layout order.
    """

    def __init__(self, layout: LatentLayout, patch_sizes: Mapping[str, Sequence[int]], dim: int) -> None:
        super().__init__()
        self.layout_grids = layout.grids
        self.grids = nn.Embedding(len(layout.grids), dim)
        self.axes = nn.ModuleDict()
        axes = [
            (grid, i, axis, size, patch_sizes[grid.name][i])
            for grid in layout.grids
            for i, (axis, size) in enumerate(zip(grid.axes, grid.shape, strict=True))
        ]
        for axis in dict.fromkeys(axis for _, _, axis, _, _ in axes):
            same = [(size, patch) for _, _, other, size, patch in axes if other == axis]
            if axis == INDEX_AXIS:
                self.axes[axis] = nn.Embedding(max(math.ceil(size / patch) for size, patch in same), dim)
            else:
                self.axes[axis] = nn.Linear(dim, dim, bias=False)
        for grid, i, axis, size, patch in axes:
            if axis == INDEX_AXIS:
                table = torch.arange(math.ceil(size / patch))
            else:
                longest = max(other_size for _, _, other, other_size, _ in axes if other == axis)
                table = get_1d_sincos_pos_embed_from_grid(dim, patch_centres(size, patch, longest)).float()
            self.register_buffer(_table_name(grid, i), table, persistent=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        kinds = self.grids(torch.arange(len(self.layout_grids), device=tokens.device))  # (grids, D)
        positions = []
        for total, grid in zip(kinds, self.layout_grids, strict=True):
            for i, axis in enumerate(grid.axes):
                table = getattr(self, _table_name(grid, i))
                table = table.to(tokens.dtype) if table.is_floating_point() else table
                along = self.axes[axis](table)  # (n_i, D)
                total = total.unsqueeze(-2) + along if i else total + along  # (n_0, ..., n_i, D)
            positions.append(total.flatten(0, -2))  # (n, D)
        return tokens + torch.cat(positions).to(tokens.dtype)  # (B, N, D)


def _table_name(grid: LatentGrid, axis: int) -> str:
    return f"{grid.name}_{axis}"
