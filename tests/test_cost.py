"""FLOPs, memory and the published geometries."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eval.cost import count_flops, dit_cost, dit_flops
from eval.tokenizers import magvit_v2, vidtwin
from vidtwin_gen.latents import LatentLayout
from vidtwin_gen.transformer import LatentTransformer

SIZES: dict[str, Any] = {"hidden_size": 64, "num_layers": 1, "num_heads": 2}


def make_model(layout: LatentLayout, **sizes: Any) -> nn.Module:
    return LatentTransformer(layout=layout.to_config(), num_classes=8, **sizes)


def test_attention_is_counted_whichever_kernel_runs_it() -> None:
    # q k^T and its product with v: 2 x 2 b h n^2 d; the CPU's fused kernel has no formula in torch
    q = torch.randn(2, 3, 16, 8, requires_grad=True)
    expected = 4 * 2 * 3 * 16**2 * 8
    assert count_flops(lambda: F.scaled_dot_product_attention(q, q, q)) == expected
    # backward: four products, and the forward's scores again
    fused = count_flops(lambda: F.scaled_dot_product_attention(q, q, q), backward=True)
    assert fused == expected + expected * 5 // 2
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        assert count_flops(lambda: F.scaled_dot_product_attention(q, q, q)) == expected


@pytest.mark.parametrize(
    ("setting", "elements", "positions"),
    [(1, 4_928, 1_008), (2, 5_184, 912), (3, 4_144, 812), ("released", 8_064, 1_008)],
)
def test_vidtwin_has_the_sizes_of_the_paper(setting: int | str, elements: int, positions: int) -> None:
    tokenizer = vidtwin(setting)
    assert tokenizer.layout.num_elements == elements
    assert tokenizer.layout.num_tokens(1) == positions


def test_rates_are_those_of_the_papers_table_1() -> None:
    assert vidtwin(1).compression_rate == pytest.approx(0.0020, abs=5e-5)
    assert magvit_v2().compression_rate == pytest.approx(0.0065, abs=5e-5)
    # each of the 7-long axes is padded to 8 on its own; joining x and y first, as the paper does, gives 184
    assert vidtwin(1).layout.num_tokens(2) == 192 and magvit_v2().layout.num_tokens(2) == 392


def test_magvit_scales_with_the_clip_and_refuses_what_it_cannot_divide() -> None:
    small = magvit_v2(16, 64, 64)
    assert small.layout.grids[0].shape == (4, 8, 8)
    assert small.compression_rate == magvit_v2().compression_rate
    with pytest.raises(ValueError, match="4 x 8 x 8"):
        magvit_v2(10, 64, 64)
    with pytest.raises(ValueError, match="settings"):
        vidtwin(4)


def test_a_dit_is_counted_as_the_formula_says_and_needs_no_memory_to_be() -> None:
    ours, theirs = (
        dit_cost(tokenizer, make_model=make_model, batch_size=batch_size, **SIZES)
        for tokenizer, batch_size in ((vidtwin(3), 1), (magvit_v2(), 2))
    )
    for cost in (ours, theirs):
        assert cost.forward_flops == pytest.approx(cost.formula_flops, rel=0.03)
        assert 2.8 < cost.training_flops / cost.forward_flops < 3.5
        memory = cost.training_memory_bytes
        assert memory["optimizer"] == pytest.approx(2 * 4 * cost.num_parameters, rel=0.01)
        assert memory["parameters"] >= 4 * cost.num_parameters
        parts = ("parameters", "gradients", "optimizer", "activations", "inputs")
        assert memory["peak"] == sum(memory[part] for part in parts)
        assert json.loads(json.dumps(cost.to_json()))["num_tokens"] == cost.num_tokens
    assert (ours.num_tokens, theirs.num_tokens) == (812, 3_136)
    assert theirs.formula_flops == 2 * dit_flops(3_136, 1, 64)
    # activations are linear in tokens and in clips: 7.7 times the tokens in all
    ratio = theirs.training_memory_bytes["activations"] / ours.training_memory_bytes["activations"]
    assert 6 < ratio < 9


def test_the_formula_reproduces_a_published_column() -> None:
    # LightningDiT-XL, 28 layers of width 1152: 0.12, 0.49, 1.05, 5.82 TFLOPs (TivTok's table)
    published = {128: 0.12, 512: 0.49, 1024: 1.05, 4096: 5.82}
    for num_tokens, teraflops in published.items():
        assert dit_flops(num_tokens, 28, 1152) / 1e12 == pytest.approx(teraflops, abs=0.005)
