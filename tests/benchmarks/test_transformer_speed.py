"""Our DiT and diffusers' are timed at the same width, depth and number of tokens."""

from __future__ import annotations

import pytest
import torch

from benchmarks.transformer_speed import describe, guidance_speed, reference_dit, transformer_speed
from vidtwin_gen.latents import LatentGrid, LatentLayout
from vidtwin_gen.models.transformer import LatentTransformer


def test_diffusers_dit_is_timed_at_equal_size() -> None:
    sizes = {"hidden_size": 16, "num_layers": 1, "num_heads": 2}
    layout = LatentLayout((LatentGrid("video", ("time", "height"), (4, 4), 4),))
    ours = LatentTransformer(layout.to_config(), num_classes=1000, **sizes)
    reference = reference_dit(layout.num_tokens(), **sizes)
    latents = torch.randn(2, layout.num_elements), torch.randn(2, 4, 4, 4)
    assert ours(latents[0], torch.zeros(2), torch.zeros(2, dtype=torch.long)).sample.shape == (2, 64)
    record = transformer_speed(ours, reference, *latents, dtype=torch.bfloat16, repeats=2)
    forward, training = record["sampling_step"]["flops"], record["training_step"]["flops"]
    assert 1.2 < training / forward < 1.7  # three forward passes of one half over one of both
    for name in ("training_step", "sampling_step"):
        row = record[name]
        assert row["reference_ratio"]["median"] > 0 and row["seconds"]["count"] == 2
        assert "DiTTransformer2DModel" in describe(record)
    with_head = LatentTransformer(layout.to_config(), 10, **sizes | {"num_layers": 2}, internal_layer=1)
    record["guidance"] = guidance_speed(with_head, latents[0], repeats=1)
    assert "over an unguided step, internal" in describe(record)
    with pytest.raises(ValueError, match="squares of tokens, 15 is none"):
        reference_dit(15, **sizes)


def test_what_guidance_costs() -> None:
    sizes = {"hidden_size": 32, "num_layers": 6, "num_heads": 2, "internal_layer": 2}
    layout = LatentLayout((LatentGrid("video", ("time", "height"), (4, 4), 4),))
    model = LatentTransformer(layout.to_config(), num_classes=10, **sizes)
    record = guidance_speed(model, torch.randn(2, layout.num_elements), repeats=2)
    internal, free = record["internal"], record["classifier_free"]
    assert 1 < internal["flops_ratio"] < 1.05 and free["flops_ratio"] == pytest.approx(2, rel=0.01)
    assert internal["ratio"]["median"] > 0 and free["ratio"]["count"] == 2
