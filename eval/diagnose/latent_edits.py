"""Latents changed on purpose, to see what the decoder makes of them: pure functions on flat latents."""

from __future__ import annotations

import torch

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


def grid_groups(layout: LatentLayout) -> dict[str, tuple[str, ...]]:
    """The grids that belong together, by what stands before an underscore in their names: of VidTwin
    `structure`, and `dynamics` for `dynamics_x` and `dynamics_y`."""
    groups: dict[str, tuple[str, ...]] = {}
    for name in layout.names:
        group = name.split("_")[0]
        groups[group] = (*groups.get(group, ()), name)
    return groups


def swaps(latents: torch.Tensor, partners: torch.Tensor, layout: LatentLayout) -> dict[str, torch.Tensor]:
    """Latents (B, L) with one part of those of other clips (B, L) -> what was taken: (B, L).

    The part is a group of grids, `structure` or `dynamics`. Where there is one group alone, it is `second
    half`, the later half of its steps in time; where it has less than two steps, there is no part to take.
    """
    own, other = layout.split(latents), layout.split(partners)
    groups = grid_groups(layout)
    if len(groups) > 1:
        return {
            group: layout.join(own | {name: other[name] for name in names}) for group, names in groups.items()
        }
    if all(_num_steps(grid) < 2 for grid in layout.grids):
        return {}
    halves = {grid.name: _halves(own[grid.name], other[grid.name], grid) for grid in layout.grids}
    return {"second half": layout.join(halves)}


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


def _halves(own: torch.Tensor, other: torch.Tensor, grid: LatentGrid) -> torch.Tensor:
    """(B, *shape, c) twice: the earlier half of the steps of the first, the later of the second."""
    steps = _num_steps(grid)
    if steps == 1:
        return own
    axis, half = 1 + grid.axes.index(TIME), (steps + 1) // 2
    return torch.cat([own.narrow(axis, 0, half), other.narrow(axis, half, steps - half)], dim=axis)
