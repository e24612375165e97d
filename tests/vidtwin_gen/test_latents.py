"""Latent layouts: every way in has its way out."""

import json

import pytest
import torch

from vidtwin_gen.latents import LatentGrid, LatentLayout

VIDTWIN = LatentLayout(
    (
        LatentGrid("structure", ("query", "height", "width"), (16, 7, 7), 4),
        LatentGrid("dynamics_x", ("time", "width"), (16, 7), 8),
        LatentGrid("dynamics_y", ("time", "height"), (16, 7), 8),
    )
)
ONE_GRID = LatentLayout((LatentGrid("video", ("time", "height", "width"), (4, 5, 3), 5),))
LAYOUTS = [VIDTWIN, ONE_GRID]


@pytest.fixture(params=LAYOUTS, ids=["vidtwin", "one grid"])
def layout(request):
    return request.param


@pytest.fixture
def latents(layout):
    return torch.randn(3, layout.num_elements, generator=torch.Generator().manual_seed(0))


def test_the_papers_sizes():
    assert VIDTWIN.num_elements == 16 * 7 * 7 * 4 + 2 * 16 * 7 * 8
    assert VIDTWIN.num_tokens() == 1008
    assert VIDTWIN.num_tokens(2) == 8 * 4 * 4 + 2 * 8 * 4  # odd axes are padded: 192, not a floor of 128
    assert VIDTWIN.compression_rate(16, 224, 224) == pytest.approx(0.0020, abs=1e-4)


def test_split_and_join_are_inverses(layout, latents):
    parts = layout.split(latents)
    for grid in layout.grids:
        assert parts[grid.name].shape == (3, *grid.shape, grid.channels)
    assert torch.equal(layout.join(parts), latents)


def test_split_returns_views(layout, latents):
    layout.split(latents)[layout.names[-1]].zero_()
    assert (latents[:, -layout.grids[-1].num_elements :] == 0).all()
    assert layout.split(latents)[layout.names[0]].data_ptr() == latents.data_ptr()


@pytest.mark.parametrize("patch_size", [1, 2, 3])
def test_tokens_and_untokens_are_inverses(layout, latents, patch_size):
    tokens = layout.tokens(latents, patch_size)
    assert sum(part.shape[1] for part in tokens.values()) == layout.num_tokens(patch_size)
    assert {name: part.shape[2] for name, part in tokens.items()} == layout.token_channels(patch_size)
    assert torch.equal(layout.untokens(tokens, patch_size), latents)


def test_patch_size_by_axis_and_by_grid():
    latents = torch.randn(2, VIDTWIN.num_elements)
    patch_size = {"structure": (4, 2, 7), "dynamics_x": 3}
    assert VIDTWIN.num_tokens(patch_size) == 4 * 4 * 1 + 6 * 3 + 16 * 7
    assert torch.equal(VIDTWIN.untokens(VIDTWIN.tokens(latents, patch_size), patch_size), latents)


def test_padding_is_zero_and_what_it_holds_is_dropped():
    latents = torch.ones(1, ONE_GRID.num_elements)
    tokens = ONE_GRID.tokens(latents, 2)
    assert tokens["video"].sum() == ONE_GRID.num_elements
    tokens["video"][tokens["video"] == 0] = 9.0
    assert torch.equal(ONE_GRID.untokens(tokens, 2), latents)


def test_a_patch_holds_neighbours():
    layout = LatentLayout((LatentGrid("video", ("height", "width"), (2, 4), 1),))
    tokens = layout.tokens(torch.arange(8.0)[None], 2)["video"]
    assert tokens.tolist() == [[[0, 1, 4, 5], [2, 3, 6, 7]]]


def test_expand_channels_follows_the_layout(layout):
    values = torch.arange(float(layout.num_channels))
    expanded = layout.split(layout.expand_channels(values)[None])
    first = 0
    for grid in layout.grids:
        last = first + grid.channels
        assert (expanded[grid.name] == values[first:last]).all()
        first = last


def test_whitening_gives_unit_moments_and_can_be_undone(layout):
    latents = 3 + 2 * torch.randn(256, layout.num_elements, generator=torch.Generator().manual_seed(1))
    mean, std = [3.0] * layout.num_channels, [2.0] * layout.num_channels
    white = layout.whiten(latents, mean, std)
    assert white.mean().abs() < 1e-2 and (white.std() - 1).abs() < 1e-2
    torch.testing.assert_close(layout.unwhiten(white, mean, std), latents)
    assert torch.equal(layout.whiten(latents, None, None), latents)


def test_config_survives_json(layout):
    assert LatentLayout.from_config(json.loads(json.dumps(layout.to_config()))) == layout


def unequal_parts():
    """Of two clips, but for the last grid, which is of one."""
    parts = VIDTWIN.split(torch.zeros(2, VIDTWIN.num_elements))
    return parts | {"dynamics_y": parts["dynamics_y"][:1]}


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda: LatentGrid("a", ("time",), (2, 3), 1), "'a': axes .* of one length"),
        (lambda: LatentGrid("a", (), (), 1), "'a': axes .* of one length"),
        (lambda: LatentGrid("a", ("time",), (0,), 1), r"'a': shape \(0,\) .* from 1 on"),
        (lambda: LatentGrid("a", ("time",), (2,), 0), "'a': shape .* channels 0 .* from 1 on"),
        (lambda: LatentLayout(()), "at least one grid"),
        (lambda: LatentLayout((ONE_GRID.grids[0], ONE_GRID.grids[0])), "distinct names, got .*video.*video"),
        (lambda: VIDTWIN.patch_sizes((2, 2)), "'structure' has axes .* for each, got .2, 2"),
        (lambda: VIDTWIN.patch_sizes(0), "'structure' has axes .* from 1 on for each, got .0, 0, 0"),
        (lambda: VIDTWIN.patch_sizes({"nowhere": 2}), "unknown grids .'nowhere'"),
        (lambda: VIDTWIN.split(torch.zeros(2, 5)), "flat latents .B, 4928., got .2, 5"),
        (lambda: VIDTWIN.split(torch.zeros(VIDTWIN.num_elements)), "flat latents .B, 4928., got .4928,"),
        (lambda: VIDTWIN.expand_channels([0.0] * 3), "expected 20 finite values"),
        (lambda: VIDTWIN.check_whitening([10**400] * 20, [1.0] * 20), "expected 20 numbers, got"),
        (lambda: VIDTWIN.check_whitening([0.0] * 20, None), "go together, and one is missing"),
        (lambda: VIDTWIN.check_whitening([0.0] * 20, [1.0] * 19 + [0.0]), "latents_std must be above 0"),
        (lambda: VIDTWIN.check_whitening([0.0] * 19 + [-1e7], [1.0] * 20), "latents_mean must be at most"),
        (lambda: ONE_GRID.join({"video": torch.zeros(1, 4, 3, 5, 5)}), "'video' is .*, got .1, 4, 3, 5, 5"),
        (lambda: VIDTWIN.join(unequal_parts()), "'dynamics_y' is .2, 16, 7, 8., got .1, 16, 7, 8"),
        (lambda: ONE_GRID.join({"sound": torch.zeros(1, 4, 5, 3, 5)}), "exactly the grids .*, got .'sound'"),
        (lambda: VIDTWIN.untokens({}), r"exactly the grids .*, got \[\]"),
        (
            lambda: ONE_GRID.untokens({"video": torch.zeros(2, 60, 5)}, 2),
            "'video' .* .2, 12, 40., got .2, 60, 5",
        ),
        (lambda: ONE_GRID.untokens({"video": torch.zeros(60, 5)}), "'video' .* .60, 60, 5., got .60, 5"),
    ],
)
def test_what_does_not_fit_is_a_value_error(broken, message):
    with pytest.raises(ValueError, match=message):
        broken()
