"""A DiT's tokens aligned with features of a frozen video encoder (REPA, arXiv 2410.06940)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from vidtwin_gen.latents import LatentLayout
from vidtwin_gen.models.positions import patch_centres

FEATURE_AXES = ("time", "height", "width")  # of the grids of video encoders


def patch_overlaps(size: int, patch: int, cells: int) -> torch.Tensor:
    """(ceil(size / patch), cells) float64 weights, each row of sum 1: of the cells that divide an axis, those
    that a patch of it covers. A patch smaller than a cell counts as one cell wide, which is linear
    interpolation between the two cells about its centre."""
    # in cells: the j-th is from j - 0.5 to j + 0.5
    centre = patch_centres(size, patch, cells)[:, None]
    half = max(1.0, patch * cells / size) / 2
    cell = torch.arange(cells, dtype=torch.float64)
    overlaps = torch.minimum(centre + half, cell + 0.5) - torch.maximum(centre - half, cell - 0.5)
    return F.normalize(overlaps.clamp(min=0), p=1.0, dim=1)


def token_overlaps(
    layout: LatentLayout, patch_sizes: Mapping[str, Sequence[int]], grid: Sequence[int]
) -> torch.Tensor:
    """(N, P) float32 weights of the P features of a grid (time, height, width) for each token, in layout
    order: along an axis that a token's grid has, as `patch_overlaps`; along one that it lacks, all alike."""
    overlaps = []
    for latent in layout.grids:
        shape = latent.token_shape(patch_sizes[latent.name])
        of_grid = torch.ones(*shape, 1, dtype=torch.float64)
        for axis, cells in zip(FEATURE_AXES, grid, strict=True):
            along = torch.full((cells,), 1 / cells, dtype=torch.float64)
            if axis in latent.axes:
                i = latent.axes.index(axis)
                along = patch_overlaps(latent.shape[i], patch_sizes[latent.name][i], cells)
                along = along.view(-1, *[1] * (len(shape) - 1 - i), cells)
            of_grid = (of_grid.unsqueeze(-1) * along.unsqueeze(-2)).flatten(-2)  # (*shape, cells so far)
        overlaps.append(of_grid.flatten(0, -2))
    return torch.cat(overlaps).float()


def alignment_loss(projected: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Scalar in [0, 2], the mean of 1 - cosine similarity over tokens (B, N, E) (REPA, Equation 8)."""
    return (1 - F.cosine_similarity(projected, target, dim=-1)).mean()


def spatially_normalised(features: torch.Tensor) -> torch.Tensor:
    """(B, P, E) features, each channel with mean 0 and deviation 1 over a clip's grid: what is the same
    everywhere in it no longer hides how its parts differ (iREPA, arXiv 2512.10794)."""
    return (features - features.mean(1, keepdim=True)) / (features.std(1, keepdim=True) + 1e-6)


class AlignmentHead(nn.Module):
    """The projection of a block's tokens to features, and their loss; trained with the DiT, not sampled with.

    Shapes: tokens (B, N, hidden_size), features (B, P E), flat in the order (time, height, width, E) ->
    scalar. It computes in float32, whatever the precision around it.

    Args:
        layout, patch_sizes, hidden_size: the transformer's. grid: of the features, (time, height, width).
        feature_dim: E. dim: width of the projection's two hidden layers.
        normalise: the features by `spatially_normalised`.
    """

    def __init__(
        self,
        layout: LatentLayout,
        patch_sizes: Mapping[str, Sequence[int]],
        hidden_size: int,
        grid: Sequence[int],
        feature_dim: int,
        dim: int = 2048,
        normalise: bool = False,
    ) -> None:
        super().__init__()
        self.feature_dim, self.normalise = feature_dim, normalise
        self.projection = nn.Sequential(
            nn.Linear(hidden_size, dim),
            nn.SiLU(),
            nn.Linear(dim, dim),
            nn.SiLU(),
            nn.Linear(dim, feature_dim),
        )
        self.overlaps: torch.Tensor
        self.register_buffer("overlaps", token_overlaps(layout, patch_sizes, grid), persistent=False)

    def forward(self, tokens: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        with torch.autocast(tokens.device.type, enabled=False):
            features = features.float().unflatten(1, (-1, self.feature_dim))  # (B, P, E)
            if self.normalise:
                features = spatially_normalised(features)
            return alignment_loss(self.projection(tokens.float()), self.overlaps @ features)
