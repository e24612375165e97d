"""Where the tokens of a latent layout are: positions that grids with the same axis share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from diffusers.models.embeddings import get_1d_rotary_pos_embed, get_1d_sincos_pos_embed_from_grid
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


def coordinates(
    layout: LatentLayout, patch_sizes: Mapping[str, Sequence[int]]
) -> dict[str, dict[str, torch.Tensor]]:
    """Of every grid, of each of its axes: where its patches are, an index along the query axis."""
    sizes = {
        grid.name: dict(zip(grid.axes, zip(grid.shape, patch_sizes[grid.name], strict=True), strict=True))
        for grid in layout.grids
    }

    def along(axis: str, size: int, patch: int) -> torch.Tensor:
        if axis == INDEX_AXIS:
            return torch.arange(math.ceil(size / patch))
        longest = max(axes[axis][0] for axes in sizes.values() if axis in axes)
        return patch_centres(size, patch, longest)

    return {
        name: {axis: along(axis, *of_axis) for axis, of_axis in axes.items()} for name, axes in sizes.items()
    }


def layout_axes(layout: LatentLayout) -> list[str]:
    """The axes that the grids have, each once."""
    return list(dict.fromkeys(axis for grid in layout.grids for axis in grid.axes))


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
        places = coordinates(layout, patch_sizes)
        for axis in layout_axes(layout):
            if axis == INDEX_AXIS:
                longest = max(len(axes[axis]) for axes in places.values() if axis in axes)
                self.axes[axis] = nn.Embedding(longest, dim)
            else:
                self.axes[axis] = nn.Linear(dim, dim, bias=False)
        for grid in layout.grids:
            for i, (axis, place) in enumerate(places[grid.name].items()):
                table = place
                if axis != INDEX_AXIS:
                    table = get_1d_sincos_pos_embed_from_grid(dim, place).float()
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


class RotaryPositions(nn.Module):
    """By which angles queries and keys turn with the place of their token (RoFormer, arXiv 2104.09864): the
    pairs of channels of a head are dealt to the layout's axes, and a grid is not turned along one it lacks.

    Shapes: () -> cosines and sines, (N, head_dim) each, of the tokens of all grids in layout order.
    """

    def __init__(self, layout: LatentLayout, patch_sizes: Mapping[str, Sequence[int]], head_dim: int) -> None:
        super().__init__()
        if head_dim % 2:
            raise ValueError(
                f"rotary positions turn pairs of channels: heads of an even width, got {head_dim}"
            )
        axes = layout_axes(layout)
        dim = head_dim // 2 // len(axes) * 2  # channels of an axis
        if not dim:
            raise ValueError(
                f"rotary positions along {len(axes)} axes need heads of {2 * len(axes)} channels or more, "
                f"got {head_dim}"
            )
        places, tables = coordinates(layout, patch_sizes), []
        for grid in layout.grids:
            shape = grid.token_shape(patch_sizes[grid.name])
            grids = torch.meshgrid(*(place.double() for place in places[grid.name].values()), indexing="ij")
            of_axes = dict(zip(grid.axes, grids, strict=True))
            turned = [
                get_1d_rotary_pos_embed(dim, of_axes.get(axis, torch.zeros(shape)).flatten(), use_real=True)
                for axis in axes
            ]
            tables.append([torch.cat(parts, dim=1) for parts in zip(*turned, strict=True)])  # (n, axes dim)
        rest = (0, head_dim - dim * len(axes))  # channels that stay
        cos, sin = (torch.cat(parts) for parts in zip(*tables, strict=True))
        self.cos: torch.Tensor
        self.sin: torch.Tensor
        self.register_buffer("cos", nn.functional.pad(cos, rest, value=1.0), persistent=False)
        self.register_buffer("sin", nn.functional.pad(sin, rest), persistent=False)

    def forward(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.cos, self.sin
