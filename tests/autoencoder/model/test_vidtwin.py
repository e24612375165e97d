"""AutoencoderVidTwin: against the released code's numbers, its invariants, diffusers' contract."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from einops import rearrange
from safetensors.torch import load_file

from autoencoder.model.posterior import FlatGaussian
from autoencoder.model.vidtwin import AutoencoderVidTwin
from tests.builders.autoencoders import (
    ABLATIONS,
    TINY_AUTOENCODER,
    build_autoencoder,
    random_clips,
    random_latents,
)
from vidtwin_gen.models.layers import init_blend

SHARED = Path(__file__).parents[4] / "shared"
SIZES = {
    "square": {},
    "wide": {"width": 24},
    "tall, odd": {"height": 28, "width": 12, "patch_size": 4, "structure_down_blocks": 2},
    "odd twice": {"height": 28, "width": 28, "structure_down_blocks": 2, "dynamics_down_blocks": 2},
    "not halved": {"structure_down_blocks": 0, "dynamics_down_blocks": 0},
    "halved three times": {"width": 40, "structure_down_blocks": 3, "dynamics_down_blocks": 3},
    "without heads or queries to spare": {"num_heads": 1, "num_queries": 1, "qformer_heads": 1},
}


@pytest.fixture(scope="module")
def model():
    return build_autoencoder()


@pytest.fixture(scope="module")
def golden():
    path = SHARED / "golden" / "vidtwin_ref_a.safetensors"
    if not path.exists():
        pytest.skip("the released code's tensors (vidtwin_ref_a.safetensors) are not here")
    return load_file(path), json.loads(path.with_suffix(".json").read_text())["config"]


@torch.no_grad()
def test_the_released_codes_numbers(golden, tmp_path):
    tensors, config = golden
    prefix = "state_dict."
    released = {key.removeprefix(prefix): v for key, v in tensors.items() if key.startswith(prefix)}
    torch.save({"state_dict": released}, tmp_path / "released.ckpt")
    model = AutoencoderVidTwin.from_released(tmp_path / "released.ckpt", num_heads=config["num_heads"])
    num_frames, height, width = config["input_size"]
    expected = {
        "num_frames": num_frames,
        "height": height,
        "width": width,
        "patch_size": config["patch_size"][-1],
        "hidden_size": config["hidden_size"],
        "num_layers": config["depth"],
        "num_heads": config["num_heads"],
        "mlp_ratio": config["mlp_ratio"],
        "num_queries": config["num_query_tokens"],
        "query_hidden_size": config["query_hidden_size"],
        "qformer_layers": config["qf_layers"],
        "qformer_heads": config["qf_heads"],
        "qformer_intermediate_size": config["qf_intermediate"],
        "structure_channels": config["expect_ch"],
        "structure_down_blocks": config["cont_num_blocks"],
        "structure_base_channels": config["init_ch"],
        "dynamics_channels": config["d_dim"],
        "dynamics_down_blocks": config["motion_num_blocks"],
        "causal": config["temporal_casual"],
    }
    assert {name: model.config[name] for name in expected} == expected

    def check(actual, name, tolerance):
        torch.testing.assert_close(
            actual, tensors[name], atol=tolerance, rtol=0, msg=lambda m: f"{name}: {m}"
        )

    check(model.encoder(model.patch_embed(tensors["input"])), "z", 1e-4)
    posterior = model.encode(tensors["input"]).latent_dist
    names = {"structure": "structure", "dynamics_x": "dyn_x", "dynamics_y": "dyn_y"}
    means, logvars = model.layout.split(posterior.mean), model.layout.split(posterior.logvar)
    for grid, name in names.items():
        check(means[grid].movedim(-1, 1), f"{name}_mean", 1e-4)
        check(logvars[grid].movedim(-1, 1), f"{name}_logvar", 1e-4)
    check(means["structure"], "structure_latent", 1e-4)
    check(means["dynamics_x"].movedim(-1, 1), "dyn_x_latent", 1e-4)
    check(means["dynamics_y"].movedim(-1, 1), "dyn_y_latent", 1e-4)
    check(model.decode(posterior.mode()).sample, "recon", 5e-4)
    check(model.decode_structure(posterior.mode()).sample, "recon_structure_only", 5e-4)
    check(model.decode_dynamics(posterior.mode()).sample, "recon_dynamics_only", 5e-4)
    structure, dynamics_x, dynamics_y = (tensors[f"sample.eps_{name}"] for name in names.values())
    noise = model.layout.join(
        {
            "structure": rearrange(structure, "b c q h w -> b q h w c"),
            "dynamics_x": rearrange(dynamics_x, "b c f w -> b f w c"),
            "dynamics_y": rearrange(dynamics_y, "b c f h -> b f h c"),
        }
    )
    sample = model.layout.split(posterior.mean + posterior.std * noise)
    check(sample["structure"], "sample.structure_latent", 1e-4)
    check(sample["dynamics_x"].movedim(-1, 1), "sample.dyn_x_latent", 1e-4)
    check(sample["dynamics_y"].movedim(-1, 1), "sample.dyn_y_latent", 1e-4)


@pytest.mark.parametrize("sizes", [*SIZES.values(), *ABLATIONS.values()], ids=[*SIZES, *ABLATIONS])
@torch.no_grad()
def test_any_grid_goes_there_and_back(sizes):
    model = build_autoencoder(**sizes)
    x = random_clips(model)
    output = model(x)
    assert output.sample.shape == x.shape
    assert output.latent_dist.mean.shape == (2, model.layout.num_elements)
    # every row and column of the picture depends on the latent: cropping lost nothing
    moved = model.decode(output.latent_dist.mean + 1).sample
    assert ((moved - output.sample).abs() > 1e-6).all(dim=(0, 1, 2)).float().mean() > 0.99


@pytest.mark.parametrize("row", ABLATIONS)
@torch.no_grad()
def test_an_ablation_takes_frames_that_are_not_square(row):
    model = build_autoencoder(**ABLATIONS[row], width=24)
    x = random_clips(model)
    assert model(x).sample.shape == x.shape


def test_what_rounding_up_added_is_cropped_around_the_centre():
    """6 x 10 tokens are halved to 3 x 5 and 2 x 3, which come back as 8 x 12."""
    decoder = build_autoencoder(height=24, width=40, structure_down_blocks=2).structure_decoder
    images = torch.arange(8 * 12).view(1, 1, 8, 12)
    assert torch.equal(decoder.crop(images), images[..., 1:7, 1:11])


def test_the_ablations_have_latents_of_their_own_and_no_more_numbers():
    """At the paper's size; setting 1 has 4928."""
    rows = {
        "a": {"dynamics_type": "none", "structure_channels": 6},
        "b": {"dynamics_type": "qformer", "dynamics_queries": 14, "dynamics_channels": 8},
        "c": {"structure_type": "convolution"},
        "d": {"structure_type": "frame_qformer", "num_queries": 49, "structure_channels": 64},
    }
    with torch.device("meta"):
        layouts = {name: AutoencoderVidTwin(num_layers=1, **row).layout for name, row in rows.items()}
    described = {
        name: [(grid.name, *grid.shape, grid.channels) for grid in layout.grids]
        for name, layout in layouts.items()
    }
    dynamics = [("dynamics_x", 16, 7, 8), ("dynamics_y", 16, 7, 8)]
    assert described == {
        "a": [("structure", 16, 7, 7, 6)],
        "b": [("structure", 16, 7, 7, 4), ("dynamics", 16, 14, 8)],
        "c": [("structure", 16, 7, 7, 4), *dynamics],
        "d": [("structure", 49, 64), *dynamics],
    }
    assert {name: layout.num_elements for name, layout in layouts.items()} == {
        "a": 4704,
        "b": 4928,
        "c": 4928,
        "d": 4928,
    }


@torch.no_grad()
def test_without_dynamics_there_is_none_to_decode():
    model = build_autoencoder(**ABLATIONS["a"])
    latents = random_latents(model)
    assert torch.equal(model.decode_structure(latents).sample, model.decode(latents).sample)
    with pytest.raises(ValueError, match="has no Dynamics latent"):
        model.decode_dynamics(latents)


@torch.no_grad()
def test_the_dynamics_are_columns_and_rows():
    model = build_autoencoder(height=16, width=24)
    parts = model.layout.split(random_latents(model))
    decoder = model.dynamics_decoder
    u = decoder(parts["dynamics_x"], parts["dynamics_y"])  # (B, D, F, h, w)
    assert u.shape == (2, 16, 4, 4, 6)
    by_column = decoder(parts["dynamics_x"] + 1, parts["dynamics_y"]) - u
    by_row = decoder(parts["dynamics_x"], parts["dynamics_y"] + 1) - u
    for change, constant_axis, varying_axis in ((by_column, -2, -1), (by_row, -1, -2)):
        assert change.abs().amax() > 1e-3
        assert change.std(dim=constant_axis).amax() < 1e-5 < change.std(dim=varying_axis).amax()


@torch.no_grad()
def test_the_averages_run_over_the_right_axis():
    model = build_autoencoder(height=16, width=24, dynamics_down_blocks=0)
    z = torch.randn(1, 16, 4, 4, 6, generator=torch.Generator().manual_seed(0))
    dynamics_x, dynamics_y = model.dynamics_encoder(z)
    assert dynamics_x.shape == (1, 4, 6, 4) and dynamics_y.shape == (1, 4, 4, 4)
    rolled_x, rolled_y = model.dynamics_encoder(z.roll(1, dims=-2))  # rows change places
    torch.testing.assert_close(rolled_x, dynamics_x, atol=1e-5, rtol=0)
    assert (rolled_y - dynamics_y).abs().amax() > 1e-2


@pytest.mark.parametrize("causal", [True, False])
@torch.no_grad()
def test_a_late_frame_reaches_earlier_ones_only_without_the_mask(causal):
    trunk = build_autoencoder(causal=causal).encoder
    z = torch.randn(1, 16, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    late = z.clone()
    late[:, :, 2] += 1
    change = (trunk(late) - trunk(z)).abs().amax(dim=(0, 1, 3, 4))  # (F,)
    assert (change[2:] > 1e-3).all()
    assert (change[:2] < 1e-6).all() if causal else (change[:2] > 1e-4).all()


@pytest.mark.parametrize("seed", range(4))
@torch.no_grad()
def test_no_frame_row_or_column_is_dead_at_the_start(seed):
    torch.manual_seed(seed)
    model = AutoencoderVidTwin(**TINY_AUTOENCODER | {"height": 24, "width": 40})
    structure, *dynamics = model.layout.split(random_latents(model)).values()
    shares = {
        "structure": model.structure_decoder(structure),
        "dynamics": model.dynamics_decoder(*dynamics),
    }
    for name, share in shares.items():  # (B, D, F, h, w)
        for axis in (2, 3, 4):
            others = tuple(dim for dim in range(5) if dim != axis)
            assert (share > 0).any(dim=others).all(), f"{name}, axis {axis}"


@torch.no_grad()
def test_time_is_mixed_only_as_training_asks_for_it():
    torch.manual_seed(0)
    trunk = AutoencoderVidTwin(**TINY_AUTOENCODER).encoder
    z = torch.randn(1, 16, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    late = z.clone()
    late[:, :, 2] += 1
    change = (trunk(late) - trunk(z)).abs().amax(dim=(0, 1, 3, 4))  # (F,)
    assert (change > 1e-4).tolist() == [False, False, True, False]


def test_the_q_formers_dropout_is_the_arguments():
    """Of its attention, too, which has no module for it."""
    qformer = build_autoencoder(qformer_dropout=0.25).structure_encoder.qformer
    assert {module.p for module in qformer.modules() if isinstance(module, torch.nn.Dropout)} == {0.25}
    config = qformer.config
    assert config.hidden_dropout_prob == config.attention_probs_dropout_prob == 0.25


def test_queries_keys_and_values_start_within_the_bound_of_a_fused_layer():
    """Xavier's of D inputs and 3 D outputs."""
    attention = AutoencoderVidTwin(**TINY_AUTOENCODER | {"hidden_size": 64}).encoder.blocks[0].attn
    for linear in (attention.to_q, attention.to_k, attention.to_v):
        assert linear.weight.abs().max().item() == pytest.approx((6 / (4 * 64)) ** 0.5, rel=0.02)


@pytest.mark.parametrize("row", ["paper", *ABLATIONS])
@torch.no_grad()
def test_what_a_relu_follows_starts_at_hes_scale_or_as_a_blend(row):
    """In the branches; a blend is along an axis, and of non-negative weights."""
    torch.manual_seed(0)
    model = AutoencoderVidTwin(**TINY_AUTOENCODER | {"hidden_size": 64} | ABLATIONS.get(row, {}))
    layers = [
        (stack_name, layer)
        for stack_name, stack in model.named_modules()
        if isinstance(stack, torch.nn.Sequential) and stack_name.startswith(("structure", "dynamics"))
        for layer, after in itertools.pairwise(stack)
        if isinstance(after, torch.nn.ReLU)
    ]
    assert layers
    for name, layer in layers:
        weights = layer.weight.flatten(1)  # (outputs, inputs)
        if name.endswith(("decoder.to_frames", "decoder.to_positions")) or "decoder.up." in name:
            assert weights.min() >= 0
        else:
            assert weights.square().mean() * weights.shape[1] == pytest.approx(2, rel=0.3)
        assert not layer.bias.any()


@torch.no_grad()
def test_a_blend_starts_near_the_mean_of_what_it_blends():
    torch.manual_seed(0)
    layer = torch.nn.Linear(400, 300)
    init_blend(layer)
    assert layer.weight.min() >= 0
    torch.testing.assert_close(layer(torch.full((400,), 3.0)), torch.full((300,), 3.0), atol=0.4, rtol=0)


@torch.no_grad()
def test_upsampling_starts_as_interpolation():
    decoder = AutoencoderVidTwin(**TINY_AUTOENCODER | {"width": 32}).dynamics_decoder
    ramp = torch.arange(4.0)
    torch.testing.assert_close(
        decoder.up[0](ramp), torch.nn.functional.interpolate(ramp[None, None], size=8, mode="linear")[0, 0]
    )


@torch.no_grad()
def test_either_latent_decodes_alone(model):
    latents = random_latents(model)
    parts = model.layout.split(latents)
    other = {name: torch.randn_like(part) for name, part in parts.items()}
    other_dynamics = model.layout.join({**other, "structure": parts["structure"]})
    other_structure = model.layout.join({**parts, "structure": other["structure"]})
    structure = model.decode_structure(latents).sample
    dynamics = model.decode_dynamics(latents).sample
    assert torch.equal(model.decode_structure(other_dynamics).sample, structure)
    assert torch.equal(model.decode_dynamics(other_structure).sample, dynamics)
    assert not torch.allclose(model.decode_structure(other_structure).sample, structure)
    assert not torch.allclose(model.decode_dynamics(other_dynamics).sample, dynamics)
    assert not torch.allclose(model.decode(other_dynamics).sample, model.decode(latents).sample)
    assert not torch.allclose(model.decode(other_structure).sample, model.decode(latents).sample)


@torch.no_grad()
def test_sampling_is_the_generators_and_the_mode_is_nobodys(model):
    x = random_clips(model)

    def sampled(seed):
        return model(x, sample_posterior=True, generator=torch.Generator().manual_seed(seed)).sample

    torch.manual_seed(1)
    mode = model(x).sample
    torch.manual_seed(2)
    assert torch.equal(model(x).sample, mode)
    assert torch.equal(sampled(0), sampled(0))
    assert not torch.allclose(sampled(0), sampled(1))
    assert torch.equal(model.decode(model.encode(x).latent_dist.mode()).sample, mode)
    assert torch.equal(model(x, return_dict=False)[0], mode)
    assert torch.equal(model.decode(*(d.mode() for d in model.encode(x, return_dict=False)))[0], mode)


def test_the_divergence_is_that_of_torch():
    posterior = FlatGaussian(torch.randn(3, 20, generator=torch.Generator().manual_seed(0)))
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(posterior.mean, posterior.std), normal(0.0, 1.0))
    torch.testing.assert_close(posterior.kl(), expected.sum(1))
    assert (FlatGaussian(torch.zeros(2, 8)).kl() == 0).all()


def test_the_divergence_is_in_float32_whatever_the_models_type():
    parameters = torch.randn(3, 4000, generator=torch.Generator().manual_seed(0)).bfloat16()
    half, exact = FlatGaussian(parameters).kl(), FlatGaussian(parameters.float()).kl()
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact, rtol=1e-5, atol=0)


@pytest.mark.parametrize("row", ["paper", *ABLATIONS])
@torch.no_grad()
def test_the_posterior_starts_with_a_little_noise_everywhere(row):
    torch.manual_seed(0)
    model = AutoencoderVidTwin(**TINY_AUTOENCODER | ABLATIONS.get(row, {})).eval()
    posterior = model.encode(random_clips(model)).latent_dist
    assert (posterior.logvar == -4).all() and posterior.mean.mean().abs() < 1


@torch.no_grad()
def test_saved_and_loaded_to_the_bit(model, tmp_path):
    num_channels = model.layout.num_channels
    saved = build_autoencoder()
    mean, std = [0.1 * i for i in range(num_channels)], [1 + 0.3 * i for i in range(num_channels)]
    saved.register_to_config(latents_mean=mean, latents_std=std)
    saved.save_pretrained(tmp_path)
    loaded = AutoencoderVidTwin.from_pretrained(tmp_path)
    assert not loaded.training
    assert (loaded.config.latents_mean, loaded.config.latents_std) == (mean, std)
    for name, value in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    x = random_clips(saved)
    assert torch.equal(loaded(x).sample, saved(x).sample)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"height": 18}, "multiples of patch_size=4, got 18x16"),
        ({"width": 30}, "multiples of patch_size=4, got 16x30"),
        ({"hidden_size": 18}, "hidden_size=18 must be a multiple of 4"),
        ({"num_heads": 3}, "num_heads=3"),
        ({"qformer_heads": 3}, "query_hidden_size=8 must be a multiple of qformer_heads=3"),
        ({"dynamics_channels": 0}, "dynamics_channels must be a whole number"),
        (
            {"structure_type": "conv"},
            "structure_type is one of qformer, convolution, frame_qformer; got 'conv'",
        ),
        ({"dynamics_type": "mean"}, "dynamics_type is one of average, qformer, none; got 'mean'"),
    ],
)
def test_sizes_that_cannot_be(sizes, message):
    with pytest.raises(ValueError, match=message):
        build_autoencoder(**sizes)


@pytest.mark.parametrize(
    "shape", [(2, 3, 4, 16, 24), (3, 4, 16, 16), (1, 3, 5, 16, 16), (1, 1, 4, 16, 16), (0, 3, 4, 16, 16)]
)
def test_clips_of_another_size(model, shape):
    with pytest.raises(ValueError, match=r"takes clips \(B, 3, 4, 16, 16\), got"):
        model.encode(torch.zeros(shape))


def test_latents_of_another_size(model):
    with pytest.raises(ValueError, match=f"expected flat latents \\(B, {model.layout.num_elements}\\)"):
        model.decode(torch.zeros(2, 7))
    with pytest.raises(ValueError, match="of at least one clip"):
        model.decode(torch.zeros(0, model.layout.num_elements))
