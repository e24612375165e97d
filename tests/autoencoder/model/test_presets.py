"""The paper's models: their latents' shapes, their sizes, and their names."""

import pytest
import torch

from autoencoder.model.presets import PRESETS, preset
from autoencoder.model.vidtwin import AutoencoderVidTwin
from eval.cost import tokenizers

# What the released code has at 16 x 224 x 224: the shapes of the latents, the count of all parameters and of
# the two layers among them that it never calls (we have none of these).
SETTING_1 = ((16, 7, 7, 4), (16, 7, 8), 4928)


SETTING_2 = ((16, 7, 7, 4), (16, 4, 16), 5184)
SETTING_3 = ((12, 7, 7, 4), (16, 7, 8), 4144)
PAPERS_MODELS = {
    "small-1": (*SETTING_1, 0.205, 106_894_378, 788_736),
    "small-2": (*SETTING_2, 0.215, 109_331_984, 788_736),
    "small-3": (*SETTING_3, 0.172, 106_894_058, 788_736),
    "base-1": (*SETTING_1, 0.205, 312_673_834, 1_182_720),
    "base-2": (*SETTING_2, 0.215, 318_099_728, 1_182_720),
    "base-3": (*SETTING_3, 0.172, 312_673_514, 1_182_720),
    "large-1": (*SETTING_1, 0.205, 1_239_632_938, 2_364_672),
    "large-2": (*SETTING_2, 0.215, 1_261_101_584, 2_364_672),
    "large-3": (*SETTING_3, 0.172, 1_239_632_618, 2_364_672),
    "released": ((16, 7, 7, 8), (16, 7, 8), 8064, 0.335, 312_701_490, 1_182_720),
}


def test_every_preset_is_in_the_table():
    assert PRESETS.keys() == PAPERS_MODELS.keys()


@pytest.mark.parametrize(
    ("name", "structure", "dynamics", "num_elements", "percent", "released_parameters", "dead"),
    [(name, *row) for name, row in PAPERS_MODELS.items()],
    ids=PAPERS_MODELS,
)
def test_the_papers_models(name, structure, dynamics, num_elements, percent, released_parameters, dead):
    with torch.device("meta"):
        model = AutoencoderVidTwin(**preset(name))
    shapes = {grid.name: (*grid.shape, grid.channels) for grid in model.layout.grids}
    assert shapes == {"structure": structure, "dynamics_x": dynamics, "dynamics_y": dynamics}
    assert model.layout.num_elements == num_elements
    assert round(100 * model.layout.compression_rate(16, 224, 224), 3) == percent
    assert model.num_parameters() == released_parameters - dead
    setting = "released" if name == "released" else name[-1]
    assert tokenizers.find([f"vidtwin-{setting}"])[0].layout == model.layout


def test_presets_by_their_size_alone_and_unknown_ones():
    assert preset("base") == preset("base-1")
    with torch.device("meta"):
        default, base = AutoencoderVidTwin(), AutoencoderVidTwin(**preset("base"))
    assert all(base.config[name] == value for name, value in default.config.items() if name[0] != "_")
    with pytest.raises(ValueError, match="no preset 'huge' of the autoencoder; there are small-1, "):
        preset("huge")


def test_the_default_is_the_papers_headline():
    with torch.device("meta"):
        layout = AutoencoderVidTwin(num_layers=1).layout
    assert [(grid.name, grid.shape, grid.channels) for grid in layout.grids] == [
        ("structure", (16, 7, 7), 4),
        ("dynamics_x", (16, 7), 8),
        ("dynamics_y", (16, 7), 8),
    ]
    assert round(100 * layout.compression_rate(16, 224, 224), 2) == 0.20
