"""Our speed beside others': the plain computation is the same function, the products are all of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from autoencoder.model.vidtwin import AutoencoderVidTwin
from benchmarks import eager_vidtwin
from benchmarks.matrix_products import record_products, replay
from benchmarks.speed import difference_between, main
from eval.cost.dit import count_flops
from tests.builders.autoencoders import TINY_AUTOENCODER, build_autoencoder, random_clips, random_latents

TINY = TINY_AUTOENCODER | {"qformer_layers": 3}  # the first and the last see the video
SIZES: dict[str, dict[str, Any]] = {
    "square": {},
    "wide": {"width": 24},
    "tall, halved twice": {"height": 28, "width": 12, "structure_down_blocks": 2, "dynamics_down_blocks": 2},
    "not halved, both directions of time": {
        "structure_down_blocks": 0,
        "dynamics_down_blocks": 0,
        "causal": False,
    },
}


def build(**sizes: Any) -> AutoencoderVidTwin:
    return build_autoencoder(**TINY | sizes).requires_grad_(False)


def inputs(model: AutoencoderVidTwin, batch_size: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips (B, C, F, H, W) and latents (B, L)."""
    return random_clips(model, batch_size), random_latents(model, batch_size, seed=1)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_the_baseline_is_the_same_function(sizes: dict[str, Any]) -> None:
    model = build(**sizes)
    clips, latents = inputs(model)
    weights = model.state_dict()
    encoded = eager_vidtwin.encode(weights, model.config, clips)
    torch.testing.assert_close(encoded, model.encode(clips).latent_dist.parameters, atol=2e-5, rtol=1e-4)
    decoded = eager_vidtwin.decode(weights, model.config, latents)
    torch.testing.assert_close(decoded, model.decode(latents).sample, atol=2e-5, rtol=1e-4)


def test_the_baseline_reads_every_weight() -> None:
    model = build()
    clips, latents = inputs(model, batch_size=1)
    weights, config = model.state_dict(), model.config
    encoded = eager_vidtwin.encode(weights, config, clips)
    decoded = eager_vidtwin.decode(weights, config, latents)
    for name in weights:
        if name.endswith((".to_k.bias", ".key.bias")):
            continue  # the softmax does not see what all keys share
        moved = weights | {name: weights[name] + torch.randn_like(weights[name])}
        if name.startswith(("patch_embed", "encoder", "structure_encoder", "dynamics_encoder")):
            assert not torch.equal(eager_vidtwin.encode(moved, config, clips), encoded), name
        else:
            assert not torch.equal(eager_vidtwin.decode(moved, config, latents), decoded), name


def test_a_difference_is_seen() -> None:
    x = torch.tensor([3.0, 4.0])
    measured = difference_between(x + torch.tensor([0.0, 0.5]), x)
    assert measured == pytest.approx({"max_abs": 0.5, "relative_rms": 0.1})


@pytest.mark.parametrize("part", ["encode", "decode"])
def test_the_floor_holds_every_product(part: str) -> None:
    model = build()
    clips, latents = inputs(model)
    passes = {"encode": lambda: model.encode(clips), "decode": lambda: model.decode(latents)}
    products = record_products(passes[part])
    assert count_flops(passes[part]) == count_flops(replay(products))
    assert any(product.convolution for product in products)


def test_products_keep_their_strides() -> None:
    weight, image, kernel = torch.randn(5, 3), torch.randn(1, 2, 6, 6), torch.randn(4, 2, 3, 3)
    query = torch.randn(2, 7, 3, 8).transpose(1, 2)  # (B, heads, n, d)

    def compute() -> None:
        F.linear(torch.randn(7, 3), weight, torch.randn(5))
        F.conv2d(image, kernel, torch.randn(4), stride=2, padding=1)
        F.scaled_dot_product_attention(query, query, query)

    linear, convolution, scores, mixed = record_products(compute)
    assert (linear.first.shape, linear.second.shape, linear.second.stride) == ((7, 3), (3, 5), (1, 3))
    assert linear.second.draw().stride() == (1, 3)
    assert convolution.convolution is not None and convolution.convolution[0] == (2, 2)
    assert (scores.first.shape, scores.second.shape) == ((6, 7, 8), (6, 8, 7))
    assert (mixed.first.shape, mixed.second.shape) == ((6, 7, 7), (6, 7, 8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("autoencoder")
    build().save_pretrained(path)
    return path


@pytest.mark.parametrize(("dtype", "largest"), [("float32", 1e-5), ("bfloat16", 0.05)])
def test_the_autoencoder_is_timed_beside_the_plain_computation(
    dtype: str, largest: float, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "speed.json"
    main(["--autoencoder", str(folder), "--dtype", dtype, "--repeats", "2", "--out", str(out)])
    record = json.loads(out.read_text())
    assert record["clip_shape"] == [4, 16, 16] and record["dtype"] == dtype
    for name in ("encode", "decode"):
        measured = record[name]
        assert measured["baseline_difference"]["relative_rms"] < largest
        assert ("float32_ratio" in measured) == (dtype == "bfloat16")
        for key in ("seconds", "baseline_ratio", "floor_ratio", "of_matmul_rate"):
            assert measured[key]["count"] == 2
            assert 0 < measured[key]["lower_quartile"] <= measured[key]["median"]
    assert "over the eager baseline" in capsys.readouterr().out


def test_an_ablation_has_no_plain_computation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(dynamics_type="none").save_pretrained(tmp_path / "model")
    with pytest.raises(SystemExit) as ended:
        main(["--autoencoder", str(tmp_path / "model"), "--out", str(tmp_path / "speed.json")])
    assert ended.value.code == 2
    assert "the dynamics_type none" in capsys.readouterr().err
    assert not (tmp_path / "speed.json").exists()
