"""At which sizes of clips VidTwin's latents are the cheaper ones."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

from torch._subclasses.fake_tensor import FakeTensorMode

from autoencoder.model.layout import vidtwin_layout
from eval.cost.crossover import PRESETS, crossovers, published_configs
from eval.cost.dit import count_flops, example
from eval.cost.tokenizers import find, magvit_v2
from vidtwin_gen.latents import LatentLayout
from vidtwin_gen.models.transformer import LatentTransformer

CONFIGS = dict(published_configs(list(PRESETS)))
SETTING_1 = "VidTwin (setting 1)"


def flops(layout: LatentLayout, patch_size: int, **sizes: Any) -> int:
    with FakeTensorMode():
        make_model = partial(LatentTransformer, num_classes=8)
        model, inputs = example(layout, make_model, batch_size=1, patch_size=patch_size, **sizes)
        return count_flops(lambda: model(**inputs))


def test_a_preset_has_the_published_latents() -> None:
    for name in PRESETS:
        (tokenizer,) = find([name])
        assert vidtwin_layout(SimpleNamespace(**CONFIGS[tokenizer.name])) == tokenizer.layout


def test_the_crossover_is_where_the_counted_flops_cross() -> None:
    """Of a narrow DiT and of a wide one."""
    (found,) = crossovers({SETTING_1: CONFIGS[SETTING_1]}, [2])
    assert (found.cheaper_from, found.num_tokens) == (96, [64, 72])
    for width in (32, 512):
        sizes = {"hidden_size": width, "num_layers": 1, "num_heads": 2}
        for side in (80, 96):
            config = SimpleNamespace(**CONFIGS[SETTING_1] | {"height": side, "width": side})
            ours = flops(vidtwin_layout(config), 2, **sizes)
            assert (ours < flops(magvit_v2(16, side, side).layout, 2, **sizes)) == (side == 96)


def test_latents_that_are_not_down_sampled_are_never_the_cheaper_ones() -> None:
    """As the demo's: eight queries at every token of a frame, where MAGVIT-v2 has four positions in time."""
    small = {"patch_size": 8, "num_queries": 8, "structure_down_blocks": 0, "dynamics_down_blocks": 0}
    by_patch = crossovers({"small": CONFIGS[SETTING_1] | small}, [1, 2])
    assert [found.cheaper_from for found in by_patch] == [None, None]
    assert by_patch[0].num_tokens == [8 * 128**2 + 2 * 16 * 128, 4 * 128**2]
    for words in ("small", "at no size of clip up to 1024×1024", "135,168 and 65,536 tokens"):
        assert words in str(by_patch[0])
    # with sixteen times the pixels to a token it has fewer, from a size on
    (coarse,) = crossovers({"coarse": CONFIGS[SETTING_1] | small | {"patch_size": 16}}, [1])
    assert coarse.cheaper_from == 80 and coarse.num_tokens == [8 * 25 + 2 * 16 * 5, 400]
