"""Numbers on pages that the code can count are what it counts. Cells of tables are read, no prose."""

from __future__ import annotations

import functools
import re

import pytest
import torch

from autoencoder.model.vidtwin import AutoencoderVidTwin
from eval.cost.dit import count_flops, dit_cost, dit_flops
from eval.cost.paper_counter import FIGURE_5_DIT
from eval.cost.tokenizers import find, magvit_v2
from tests.docs.pages import read
from vidtwin_gen.models.sizes import SIZES
from vidtwin_gen.models.transformer import LatentTransformer


def rows(page: str) -> list[list[str]]:
    """Cells of all tables of a page."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in read(page).splitlines()
        if "|" in line
    ]


@pytest.mark.slow
def test_figure_5s_rows() -> None:
    sizes = FIGURE_5_DIT | {"make_model": functools.partial(LatentTransformer, num_classes=101)}
    table = rows("docs/figure5.md")
    for patch_size in (1, 2):
        costs = [dit_cost(t, patch_size=patch_size, **sizes) for t in (*find(["vidtwin-1"]), magvit_v2())]
        for cost in costs:
            flops = [f"{count / 1e9:,.1f}" for count in (cost.forward_flops, cost.training_flops)]
            memory = f"{cost.training_memory_bytes['peak'] / 2**20:,.0f}"
            sizes_of_latent = [f"{cost.num_elements:,}", f"{cost.num_tokens:,}"]
            (found,) = [row for row in table if row[3:] == [*sizes_of_latent, *flops, memory]]
            assert found[1] == str(patch_size) and found[2].split(",")[0].split()[0] in cost.tokenizer
        ours, theirs = costs
        times = [
            f"{theirs.forward_flops / ours.forward_flops:.2f}",
            f"{theirs.training_memory_bytes['peak'] / ours.training_memory_bytes['peak']:.2f}",
            f"{theirs.num_tokens / ours.num_tokens:.1f}",
        ]
        assert [row for row in table if row[1:] == [str(patch_size), *times]]


def test_the_sizes_of_the_dit() -> None:
    """Parameters, and FLOPs of a forward pass, which the formula gives within 2 %."""
    layout = find(["vidtwin-1"])[0].layout

    def count(num_layers: int) -> tuple[int, int]:
        with torch.device("meta"), torch.no_grad():
            model = LatentTransformer(layout.to_config(), 101, **{**sizes, "num_layers": num_layers})
            model = model.to("meta")  # its tables are computed
            inputs = (torch.zeros(1, layout.num_elements), torch.zeros(1), torch.zeros(1, dtype=torch.long))
            return model.num_parameters(), count_flops(lambda: model(*inputs, return_dict=False)[0])

    table = rows("docs/performance.md")
    for name, sizes in SIZES.items():
        one, two = count(1), count(2)
        # one block is like another
        parameters, counted = (a + (b - a) * (sizes["num_layers"] - 1) for a, b in zip(one, two, strict=True))
        crossed = sizes.get("conditioning") == "cross_attention"
        plain = {key: sizes[key] for key in ("num_layers", "hidden_size")}
        formula = dit_flops(layout.num_tokens(), **plain, cross_attention=crossed)
        assert counted == pytest.approx(formula, rel=0.02)
        cells = [str(sizes[key]) for key in ("num_layers", "hidden_size", "num_heads")]
        cells += [f"{parameters / 1e6:.1f}", f"{counted / 1e9:,.1f}", f"{formula / 1e9:,.1f}"]
        assert [f"`{name}`", *cells] in table


def test_the_readmes_cost_is_the_formulas() -> None:
    table = [row for row in rows("README.md") if len(row) == 4 and re.fullmatch(r"\d\.\d\d", row[3])]
    assert len(table) == 6
    for latent, numbers, tokens, teraflops in table:
        count = int(tokens.replace(",", ""))
        assert (
            teraflops
            == f"{dit_flops(count, SIZES['XL']['num_layers'], SIZES['XL']['hidden_size']) / 1e12:.2f}"
        )
        if factors := re.search(r"(\d+)×(\d+)×(\d+), (\d+) channels(?:, patch 1×(\d)×\d)?", latent):
            t, h, _, channels, patch = (int(number or 1) for number in factors.groups())
            side, times = 224 // h, 4 if latent.startswith("MAGVIT") else 16 // t + 1
            assert int(numbers.replace(",", "")) == times * side**2 * channels
            assert count == times * (side // patch) ** 2
        else:
            layout = find(["vidtwin-1"])[0].layout
            assert (int(numbers.replace(",", "")), count) == (layout.num_elements, layout.num_tokens())


def test_the_table_of_costs_is_made_by_a_command_on_a_page() -> None:
    (command,) = re.findall(r"^Made by `(.+)`\.$", read("docs/cost.md"), re.MULTILINE)
    assert f"{command}\n" in read("docs/figure5.md").replace("\\\n    ", "")


def test_the_picture_shows_the_models_shapes() -> None:
    with torch.device("meta"):
        vae = AutoencoderVidTwin()
    config, layout = vae.config, vae.layout
    picture = read("docs/images/flow.svg")
    side = config.height // config.patch_size
    clip = (config.in_channels, config.num_frames, config.height, config.width)
    tokens = (config.hidden_size, config.num_frames, side, side)
    for shape in (clip, tokens, *((*grid.shape, grid.channels) for grid in layout.grids)):
        assert "×".join(map(str, shape)) in picture
    rate = layout.compression_rate(config.num_frames, config.height, config.width)
    assert f"{layout.num_elements} numbers, {rate * 100:.3f} %" in picture
    assert f"{layout.num_tokens()} tokens at patch 1" in picture
    assert f"{vae.num_parameters() / 1e6:.0f} M parameters" in read("docs/training.md")
