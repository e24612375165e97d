"""Latents changed on purpose, to see what the decoder makes of them: pure functions on flat latents."""

from __future__ import annotations

import torch

from autoencoder.parts import join_parts
from vidtwin_gen.latents import LatentGrid, LatentLayout

TIME = "time"


def with_midpoints(latents: torch.Tensor, layout: LatentLayout) -> torch.Tensor:
    """(B, L) -> (B, L): every interior step in time replaced by the mean of its two neighbours, both as they
    were, which is what V-RAE's tFVD (arXiv 2608.13556) decodes.

    In each grid with a `time` axis: z_i <- (z_(i-1) + z_(i+1)) / 2 for 0 < i < T - 1. A grid without that
    axis stays, as do the first and the last step: of VidTwin's latent the Dynamics changes, and the
    Structure, whose axis is of queries that have no order, does not.
    """
    parts = layout.split(latents)
    for grid in layout.grids:
        if TIME not in grid.axes:
            continue
        axis = 1 + grid.axes.index(TIME)
        steps = parts[grid.name].movedim(axis, 1)  # (B, T, ..., c)
        middle = (steps[:, :-2] + steps[:, 2:]) / 2
        parts[grid.name] = torch.cat([steps[:, :1], middle, steps[:, 1:][:, -1:]], dim=1).movedim(1, axis)
    return layout.join(parts)


def num_interior_steps(layout: LatentLayout) -> dict[str, int]:
    """How many steps of each grid `with_midpoints` replaces."""
    return {grid.name: max(_num_steps(grid) - 2, 0) for grid in layout.grids}


def swaps(latents: torch.Tensor, partners: torch.Tensor, layout: LatentLayout) -> dict[str, torch.Tensor]:
    """Latents (B, L) with one part of those of other clips (B, L) -> what was taken: (B, L).

    The part is `structure` or `dynamics`. Where there is one grid alone, it is `second half`, the later half
    of its steps in time; where it has less than two steps, there is no part to take.
    """
    if len(layout.grids) > 1:
        return {
            "structure": join_parts(layout, structure_of=partners, dynamics_of=latents),
            "dynamics": join_parts(layout, structure_of=latents, dynamics_of=partners),
        }
    (grid,) = layout.grids
    steps = _num_steps(grid)
    if steps < 2:
        return {}
    own, other = (layout.split(x)[grid.name] for x in (latents, partners))
    axis, half = 1 + grid.axes.index(TIME), (steps + 1) // 2
    mixed = torch.cat([own.narrow(axis, 0, half), other.narrow(axis, half, steps - half)], dim=axis)
    return {"second half": layout.join({grid.name: mixed})}


def with_noise(
    latents: torch.Tensor, layout: LatentLayout, std: torch.Tensor, level: float, generator: torch.Generator
) -> torch.Tensor:
    """(B, L) -> (B, L): Gaussian noise of `level` times the standard deviation of each channel, `std`
    (num_channels,), is added, as to a whitened latent. `generator` lives on the CPU."""
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    return latents + level * layout.expand_channels(std).to(latents) * noise


def _num_steps(grid: LatentGrid) -> int:
    """In time; 1 without that axis."""
    return grid.shape[grid.axes.index(TIME)] if TIME in grid.axes else 1
