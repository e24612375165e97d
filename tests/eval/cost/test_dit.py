"""FLOPs and memory, predicted and measured, and what the command makes of them."""

from __future__ import annotations

import functools
import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from eval.cost.command import SMALL_DIT
from eval.cost.dit import count_flops, count_step, dit_cost, dit_flops, example
from eval.cost.measured_step import measure_step
from eval.cost.memory import predict_training_memory
from eval.cost.paper_counter import FIGURE_5_DIT, MLP_WIDTH, counted_macs, counted_parameters
from eval.cost.tokenizers import find, magvit_v2
from vidtwin_gen.latents import LatentGrid, LatentLayout
from vidtwin_gen.models.transformer import LatentTransformer

SIZES: dict[str, Any] = {"hidden_size": 64, "num_layers": 1, "num_heads": 2}


make_model = functools.partial(LatentTransformer, num_classes=8)


def test_gradients_are_there_as_activations_go() -> None:
    """At the peak of a step hardly any: none is left of the step before."""
    layout = LatentLayout((LatentGrid("video", ("time",), (64,), 4),))
    with FakeTensorMode():
        model, inputs = example(layout, make_model, batch_size=2, **SIZES)
        amounts = predict_training_memory(model, inputs)
    assert amounts["gradients"] < 0.2 * amounts["parameters"]


def test_cross_attention_to_one_vector_adds_two_projections_and_the_scores() -> None:
    added = dit_flops(10, 3, 64, cross_attention=True) - dit_flops(10, 3, 64)
    assert added == 3 * (2 * 10 * 2 * 64**2 + 4 * 10 * 64)


def test_attention_is_counted_whichever_kernel_runs_it() -> None:
    # q k^T and its product with v: 2 x 2 b h n^2 d; the CPU's fused kernel has no formula in torch
    q = torch.randn(2, 3, 16, 8, requires_grad=True)
    expected = 4 * 2 * 3 * 16**2 * 8
    assert count_flops(lambda: F.scaled_dot_product_attention(q, q, q)) == expected
    # backward: four products, and the forward's scores again
    fused = count_step(lambda: F.scaled_dot_product_attention(q, q, q))[1]
    assert fused == expected + expected * 5 // 2
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        assert count_flops(lambda: F.scaled_dot_product_attention(q, q, q)) == expected


def test_a_dit_is_counted_as_the_formula_says_and_needs_no_memory_to_be() -> None:
    ours, theirs = (
        dit_cost(tokenizer, make_model=make_model, batch_size=batch_size, **SIZES)
        for tokenizer, batch_size in ((find(["vidtwin-3"])[0], 1), (magvit_v2(), 2))
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


def test_a_whole_dit_with_its_attention_counted_and_its_scores_kept_or_not() -> None:
    tokenizer = magvit_v2(16, 128, 128)  # 1,024 tokens
    fused, math, checkpointed = (
        dit_cost(tokenizer, make_model=make_model, **SIZES, **options)
        for options in ({}, {"attention": "math"}, {"gradient_checkpointing": True})
    )
    attention = 4 * 1_024**2 * 64
    for cost in (fused, math, checkpointed):
        assert cost.forward_flops == fused.forward_flops
        assert cost.forward_flops > attention + 2 * 1_024 * 12 * 64**2  # without it, these alone
    # the kernel computes the scores again in its backward pass: half of the forward's attention
    assert fused.training_flops - math.training_flops == attention // 2
    assert checkpointed.training_flops > fused.training_flops + attention
    in_fused, in_math, in_checkpointed = (
        cost.training_memory_bytes["activations"] for cost in (fused, math, checkpointed)
    )
    scores = 4 * 2 * 1_024**2
    assert in_math > in_fused + 2 * scores
    assert in_checkpointed < in_fused
    with pytest.raises(ValueError, match="attention is one of fused, math, got 'flash'"):
        dit_cost(tokenizer, make_model=make_model, attention="flash", **SIZES)


def test_the_prediction_is_what_a_process_has_resident() -> None:
    """Within 10 %; bigger models are in docs/figure5.md."""
    latents, few = magvit_v2(16, 128, 128), magvit_v2(16, 32, 32)
    sizes = {"hidden_size": 128, "num_layers": 2, "num_heads": 2, "batch_size": 2}
    predicted = dit_cost(latents, make_model=make_model, **sizes).training_memory_bytes["peak"]
    assert predicted > 2**25
    make = functools.partial(example, latents.layout, make_model, **sizes)
    make_small = functools.partial(example, few.layout, make_model, batch_size=1, **SMALL_DIT)
    measured = measure_step(make, make_small, repeats=1)
    assert measured["peak_bytes"] == pytest.approx(predicted, rel=0.1)
    assert measured["seconds"]["training_step"]["median"] > measured["seconds"]["forward"]["median"] > 0


def figure_5_network() -> nn.Module:
    """The network itself: tokens (B, N, 512) -> (B, N, 512)."""
    width, heads = FIGURE_5_DIT["hidden_size"], FIGURE_5_DIT["num_heads"]
    layers = (
        nn.TransformerEncoderLayer(width, heads, MLP_WIDTH, 0.0, batch_first=True)
        for _ in range(FIGURE_5_DIT["num_layers"])
    )
    return nn.Sequential(*layers)  # and not nn.TransformerEncoder: it copies, which fake tensors cannot do


def test_the_counter_of_figure_5_is_an_encoder_without_its_attention() -> None:
    network = figure_5_network()
    attention = sum(p.numel() for name, p in network.named_parameters() if "self_attn" in name)
    everything = sum(p.numel() for p in network.parameters())
    assert counted_parameters() == everything - attention == 12_610_560 and everything == 18_914_304
    macs = {92: 1.16, 128: 1.61, 184: 2.32, 308: 3.88, 392: 4.94, 512: 6.45, 588: 7.41, 1_008: 12.7}
    for num_tokens, expected in macs.items():
        assert counted_macs(num_tokens) / 1e9 == pytest.approx(expected, rel=5e-3)
    assert counted_macs(128) == 1_613_758_464  # what thop 0.1.1 prints
    with FakeTensorMode():
        network, tokens = figure_5_network(), torch.zeros(1, 392, 512)
        assert count_flops(lambda: network(tokens)) == dit_flops(392, 6, 512)
        assert dit_flops(392, 6, 512) / 1e9 == pytest.approx(16.686, abs=5e-4)


def test_the_formula_reproduces_a_published_column() -> None:
    # LightningDiT-XL, 28 layers of width 1152: 0.12, 0.49, 1.05, 5.82 TFLOPs (TivTok's table)
    published = {128: 0.12, 512: 0.49, 1024: 1.05, 4096: 5.82}
    for num_tokens, teraflops in published.items():
        assert dit_flops(num_tokens, 28, 1152) / 1e12 == pytest.approx(teraflops, abs=0.005)
    assert dit_flops(10, 1, 64, mlp_ratio=2) == dit_flops(10, 1, 64) - 2 * 10 * 4 * 64**2
