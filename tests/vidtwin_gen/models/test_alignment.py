"""Alignment with a video encoder: which features a token is compared with, and how."""

import pytest
import torch
import torch.nn.functional as F

from vidtwin_gen.latents import LatentGrid, LatentLayout
from vidtwin_gen.models.alignment import (
    AlignmentHead,
    alignment_loss,
    patch_overlaps,
    spatially_normalised,
    token_overlaps,
)

VIDTWIN = LatentLayout(
    (
        LatentGrid("structure", ("query", "height", "width"), (2, 3, 4), 4),
        LatentGrid("dynamics_x", ("time", "width"), (5, 4), 2),
        LatentGrid("dynamics_y", ("time", "height"), (5, 3), 2),
    )
)
VIDEO = LatentLayout((LatentGrid("video", ("time", "height", "width"), (5, 6, 8), 3),))


def random_features(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def targets(layout, patch_size, features):
    """Features (B, t, h, w, E) -> by grid (B, *token shape, E)."""
    patches = layout.patch_sizes(patch_size)
    target = token_overlaps(layout, patches, features.shape[1:4]) @ features.flatten(1, 3)
    shapes = [grid.token_shape(patches[grid.name]) for grid in layout.grids]
    parts = target.split([torch.Size(shape).numel() for shape in shapes], dim=1)
    return {
        grid.name: part.unflatten(1, shape)
        for grid, part, shape in zip(layout.grids, parts, shapes, strict=True)
    }


def test_a_token_gets_the_mean_over_the_axes_that_its_grid_lacks():
    features = random_features(2, 5, 3, 4, 6)
    found = targets(VIDTWIN, 1, features)
    torch.testing.assert_close(found["structure"], features.mean(1)[:, None].expand(-1, 2, -1, -1, -1))
    torch.testing.assert_close(found["dynamics_x"], features.mean(2))
    torch.testing.assert_close(found["dynamics_y"], features.mean(3))
    torch.testing.assert_close(targets(VIDEO, [1, 2, 2], features)["video"], features)


@pytest.mark.parametrize("cells", [1, 2, 3, 8])
def test_finer_tokens_interpolate_and_coarser_ones_average(cells):
    features = random_features(1, 6, cells)
    finer = F.interpolate(features, 4 * cells, mode="linear")
    torch.testing.assert_close(features @ patch_overlaps(4 * cells, 1, cells).float().T, finer)
    wide = random_features(1, 6, 2 * cells)
    for size, patch in ((2 * cells, 2), (cells, 1)):
        coarser = wide @ patch_overlaps(size, patch, 2 * cells).float().T
        torch.testing.assert_close(coarser, F.adaptive_avg_pool1d(wide, cells))


@pytest.mark.parametrize("grid", [(1, 1, 1), (2, 3, 2), (7, 2, 9)])
@pytest.mark.parametrize(
    ("layout", "patch_size"),
    [(VIDTWIN, 1), (VIDTWIN, {"structure": [2, 2, 3], "dynamics_x": [5, 3]}), (VIDEO, [4, 4, 3])],
)
def test_weights_are_shares_and_cells_count_as_the_tokens_reach(layout, patch_size, grid):
    """Patches that protrude from their grid, too."""
    overlaps = token_overlaps(layout, layout.patch_sizes(patch_size), grid)
    assert overlaps.shape == (layout.num_tokens(patch_size), torch.Size(grid).numel())
    assert (overlaps >= 0).all()
    torch.testing.assert_close(overlaps.sum(1), torch.ones(len(overlaps)))
    assert (overlaps.sum(0) > 0).all()  # none is left out


def test_the_loss_is_of_directions():
    tokens, other = random_features(2, 3, 5), random_features(4, 3, 5)[2:]
    assert alignment_loss(tokens, 3 * tokens).item() == pytest.approx(0, abs=1e-6)
    assert alignment_loss(tokens, -tokens).item() == pytest.approx(2)
    angles = [
        torch.dot(a, b) / a.norm() / b.norm()
        for a, b in zip(tokens.flatten(0, 1), other.flatten(0, 1), strict=True)
    ]
    assert alignment_loss(tokens, other).item() == pytest.approx(1 - torch.stack(angles).mean().item())


def test_normalised_features_have_no_common_part():
    features = random_features(2, 7, 5)
    white = spatially_normalised(features)
    torch.testing.assert_close(white.mean(1), torch.zeros(2, 5), atol=1e-6, rtol=0)
    torch.testing.assert_close(spatially_normalised(3 * features + torch.arange(5)), white)


@pytest.mark.parametrize("normalise", [False, True])
def test_the_head_computes_in_float32_and_learns(normalise):
    torch.manual_seed(0)
    patches = VIDTWIN.patch_sizes(1)
    head = AlignmentHead(VIDTWIN, patches, 8, (2, 2, 2), 6, dim=64, normalise=normalise)
    tokens = random_features(2, VIDTWIN.num_tokens(1), 8)
    features = random_features(2, 2 * 2 * 2 * 6)
    with torch.autocast("cpu", torch.bfloat16):
        loss = head(tokens, features)
    assert loss.dtype == torch.float32 and torch.equal(loss, head(tokens, features))
    by_hand = features.unflatten(1, (8, 6))
    by_hand = spatially_normalised(by_hand) if normalise else by_hand
    by_hand = targets(VIDTWIN, 1, by_hand.unflatten(1, (2, 2, 2)))
    by_hand = torch.cat([part.flatten(1, -2) for part in by_hand.values()], dim=1)
    assert loss.item() == pytest.approx(alignment_loss(head.projection(tokens), by_hand).item())
    assert head.state_dict().keys() == {f"projection.{i}.{n}" for i in (0, 2, 4) for n in ("weight", "bias")}
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        head(tokens, features).backward()
        optimizer.step()
    assert head(tokens, features) < 0.5 * loss
