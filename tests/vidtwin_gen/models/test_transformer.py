"""LatentTransformer: what it computes, and diffusers' contract."""

import pytest
import torch
from accelerate import PartialState
from diffusers import (
    AutoModel,
    ContextParallelConfig,
    FirstBlockCacheConfig,
    FlowMatchEulerDiscreteScheduler,
    LayerSkipConfig,
)
from diffusers.hooks import apply_first_block_cache, apply_layer_skip
from diffusers.models.attention_dispatch import attention_backend
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.training_utils import EMAModel
from torch._dynamo.testing import CompileCounter

from tests.builders.processes import run_in_processes
from vidtwin_gen.diffusion import grid_losses, sample_sigmas, total_loss
from vidtwin_gen.latents import LatentGrid, LatentLayout
from vidtwin_gen.models.parametrization import interpolate, timestep_of, velocity
from vidtwin_gen.models.positions import RotaryPositions, coordinates, patch_centres
from vidtwin_gen.models.transformer import LatentTransformer

VIDTWIN = LatentLayout(
    (
        LatentGrid("structure", ("query", "height", "width"), (4, 3, 3), 4),
        LatentGrid("dynamics_x", ("time", "width"), (5, 3), 2),
        LatentGrid("dynamics_y", ("time", "height"), (5, 3), 2),
    )
)
MAGVIT_V2 = LatentLayout((LatentGrid("video", ("time", "height", "width"), (4, 28, 28), 5),))
NUM_CLASSES = 6
BOTH_CONDITIONINGS = pytest.mark.parametrize("conditioning", ["adaln", "cross_attention"])


def build(layout=VIDTWIN, awake=True, **sizes):
    """A small model; `awake`: with random numbers where the initialisation has zeros."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_layers": 2, "num_heads": 2} | sizes
    model = LatentTransformer(layout.to_config(), NUM_CLASSES, **sizes).eval()
    if awake:
        for parameter in model.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.2)
    return model


def inputs(model, batch_size=3, seed=0):
    draw = torch.Generator().manual_seed(seed)
    latents = torch.randn(batch_size, model.layout.num_elements, generator=draw)
    timestep = 1000 * torch.rand(batch_size, generator=draw)
    return latents, timestep, torch.randint(NUM_CLASSES + 1, (batch_size,), generator=draw)


@torch.no_grad()
def run(model, *args, **options):
    return model(*args, return_dict=False, **options)[0]


def test_embeddings_start_small():
    """DiT's N(0, 0.02), also of the positions."""
    model = build(awake=False, hidden_size=128)
    for embedding in (model.positions, model.time_embed, model.class_embed):
        for name, parameter in embedding.named_parameters():
            assert not name.endswith("weight") or 0.015 < parameter.std() < 0.025
    assert model.proj_in["structure"].weight.std() > 0.1


def test_an_untrained_model_predicts_zero():
    model = build(awake=False)
    assert (run(model, *inputs(model)) == 0).all()


@pytest.mark.parametrize(
    "patch_size", [1, 2, {"structure": (2, 1, 3), "dynamics_y": 2}], ids=["1", "2", "by grid"]
)
def test_shape_and_every_input_matters(patch_size):
    model = build(patch_size=patch_size)
    latents, timestep, labels = inputs(model)
    sample = model(latents, timestep, labels).sample
    assert sample.shape == latents.shape
    assert model.layout.num_tokens(patch_size) == sum(model.proj_out.num_tokens)
    assert not torch.allclose(sample, run(model, latents.flip(1), timestep, labels))
    assert not torch.allclose(sample, run(model, latents, timestep / 2, labels))
    assert not torch.allclose(sample, run(model, latents, timestep, (labels + 1) % NUM_CLASSES))


def test_a_clip_does_not_see_its_batch():
    model = build()
    args = inputs(model, batch_size=4)
    order = torch.tensor([2, 0, 3, 1])
    expected = run(model, *args)
    torch.testing.assert_close(run(model, *(arg[order] for arg in args)), expected[order])
    torch.testing.assert_close(run(model, *(arg[:1] for arg in args)), expected[:1])


def test_every_token_sees_every_other():
    model = build()
    latents, timestep, labels = inputs(model, batch_size=1)
    latents.requires_grad_()
    model(latents, timestep, labels).sample[0, -1].backward()
    assert (latents.grad != 0).all()


@BOTH_CONDITIONINGS
def test_every_parameter_gets_a_gradient(conditioning):
    model = build(conditioning=conditioning)
    model(*inputs(model)).sample.square().mean().backward()
    # cross-attention to a single vector has nothing to choose
    idle = ("cross_attn.to_q", "cross_attn.to_k", "cross_attn.norm", "norm_cross")
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 1e-9 or any(part in name for part in idle), name


def test_a_network_that_predicts_x0_says_the_velocity():
    """One that says "all zeros" leads any flow scheduler there."""
    model = build(awake=False, predicts_x0=True)
    latents, _, labels = inputs(model)
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=[1.0, 0.6, 0.3, 0.05])
    for t in scheduler.timesteps:
        latents = scheduler.step(run(model, latents, t.expand(3), labels), t, latents, return_dict=False)[0]
    torch.testing.assert_close(latents, torch.zeros_like(latents), atol=1e-5, rtol=0)


def test_the_internal_head_guides_from_the_middle_to_the_end():
    model = build(internal_layer=1, predicts_x0=True)
    given = inputs(model)
    output = model(*given)
    plain, internal = output.sample.detach(), output.internal_sample.detach()
    assert not torch.allclose(plain, internal, atol=0.01)
    with torch.no_grad():
        assert torch.equal(model(*given).sample, plain) and model(*given).internal_sample is None
        for scale in (0.0, 1.3):
            guided = model(*given, internal_guidance_scale=scale).sample
            torch.testing.assert_close(guided, internal + scale * (plain - internal), atol=1e-4, rtol=1e-4)
    (output.sample.square().mean() + output.internal_sample.square().mean()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    with pytest.raises(ValueError, match="internal_guidance_scale 1.3 needs an internal_layer"):
        build()(*given, internal_guidance_scale=1.3)


def test_the_internal_head_reads_the_tokens_after_its_block():
    model = build(num_layers=3, internal_layer=2)
    model(*inputs(model)).internal_sample.sum().backward()
    reached = [any(p.grad is not None for p in block.parameters()) for block in model.transformer_blocks]
    assert reached == [True, True, False]


def test_the_internal_head_of_a_network_that_predicts_x0_says_the_velocity_too():
    model = build(awake=False, internal_layer=1, predicts_x0=True)  # both heads say "all zeros"
    output = model(*inputs(model))
    assert torch.equal(output.internal_sample, output.sample) and output.sample.abs().min() > 0


def test_the_tokens_after_a_block_are_given_where_they_are_asked_for():
    model, seen = build(), []
    for block in model.transformer_blocks:
        block.register_forward_hook(lambda _, inputs, output: seen.append(output))
    given = inputs(model)
    output = model(*given, hidden_layer=1)
    assert output.hidden is seen[0] and output.hidden.shape == (3, model.layout.num_tokens(1), 32)
    plain = model(*given)
    assert plain.hidden is None and torch.equal(plain.sample, output.sample)
    assert model(*given, hidden_layer=2).hidden is seen[-1]


def test_a_lightning_block_is_as_large_and_learns_as_a_whole(tmp_path):
    model = build(block_type="lightning")
    args = inputs(model)
    assert model.num_parameters() == pytest.approx(build().num_parameters(), rel=0.01)
    plain, recomputed = (model(*args).sample, model.enable_gradient_checkpointing() or model(*args).sample)
    plain.square().mean().backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    assert all(gradient.abs().max() > 1e-9 for gradient in gradients.values())
    model.zero_grad()
    recomputed.square().mean().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name])
    model.save_pretrained(tmp_path)
    assert torch.equal(run(LatentTransformer.from_pretrained(tmp_path), *args), run(model, *args))


def test_attention_turns_with_the_distance_along_the_axes_of_a_grid():
    cos, sin = RotaryPositions(VIDTWIN, VIDTWIN.patch_sizes(1), head_dim=18)()
    draw = torch.Generator().manual_seed(0)
    query, key = (torch.randn(18, generator=draw).expand(1, len(cos), 1, 18) for _ in range(2))
    query, key = (apply_rotary_emb(x, (cos, sin), sequence_dim=1)[0, :, 0] for x in (query, key))
    shapes = {grid.name: grid.shape for grid in VIDTWIN.grids}
    parts = [part.split([36, 15, 15], dim=1) for part in (query @ key.T).split([36, 15, 15])]
    structure = parts[0][0].view(*shapes["structure"], *shapes["structure"])
    torch.testing.assert_close(structure[0, 0, 0, 1, 1, 2], structure[2, 1, 0, 3, 2, 2])
    assert not torch.allclose(structure[0, 0, 0, 1, 1, 2], structure[0, 0, 0, 1, 2, 2], atol=1e-3)
    # the one is along time and width, the other along time and height: of both, only time has a distance
    dynamics = parts[1][2].view(*shapes["dynamics_x"], *shapes["dynamics_y"])
    torch.testing.assert_close(dynamics[0, 1, 2, 1], dynamics[2, 1, 4, 1])
    assert not torch.allclose(dynamics[0, 1, 2, 1], dynamics[0, 1, 3, 1], atol=1e-3)
    channels = dict(
        zip(("query", "height", "width", "time"), cos.split([4, 4, 4, 4, 2], dim=1), strict=False)
    )
    assert (channels["time"][:36] == 1).all() and (channels["query"][36:] == 1).all()
    assert (cos[:, 16:] == 1).all() and (sin[:, 16:] == 0).all()  # two channels are over
    with pytest.raises(ValueError, match="heads of an even width, got 19"):
        RotaryPositions(VIDTWIN, VIDTWIN.patch_sizes(1), head_dim=19)


def test_cross_attention_tells_the_class():
    """The same network but for its class gives another velocity; the timestep stays with adaLN."""
    model = build(conditioning="cross_attention", class_dim=5)
    assert model.class_embed.embedding_dim == 5
    assert model.transformer_blocks[0].cross_attn.to_k.in_features == 5
    latents, timestep, labels = inputs(model)
    sample = run(model, latents, timestep, labels)
    assert not torch.allclose(sample, run(model, latents, timestep, (labels + 1) % NUM_CLASSES))
    assert not torch.allclose(sample, run(model, latents, timestep / 2, labels))
    asleep = build(awake=False, conditioning="cross_attention")
    assert (run(asleep, *inputs(asleep)) == 0).all()
    assert all((block.cross_attn.to_out[0].weight == 0).all() for block in asleep.transformer_blocks)


@BOTH_CONDITIONINGS
def test_gradient_checkpointing_changes_no_gradient(conditioning):
    model = build(conditioning=conditioning)
    gradients = []
    for enable in (model.disable_gradient_checkpointing, model.enable_gradient_checkpointing):
        enable()
        model.zero_grad()
        model(*inputs(model)).sample.square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert model.is_gradient_checkpointing
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


def test_null_class_is_the_row_after_the_last():
    model = build()
    assert model.null_class == NUM_CLASSES
    assert model.class_embed.num_embeddings == NUM_CLASSES + 1


def test_positions_tell_every_token_from_every_other():
    model = build()
    positions = model.positions(torch.zeros(1, model.layout.num_tokens(), 32))[0]
    distances = torch.cdist(positions, positions) + torch.eye(len(positions))
    assert distances.min() > 1e-3


def test_grids_share_their_common_axes():
    """Along time, the two Dynamics grids differ by a constant: what their other axis and their kind add."""
    model = build()
    positions = model.positions(torch.zeros(1, model.layout.num_tokens(), 32))[0]
    _, x, y = positions.split([36, 15, 15])
    steps_x, steps_y = (part.view(5, 3, 32)[:, 0].diff(dim=0) for part in (x, y))
    torch.testing.assert_close(steps_x, steps_y)


def test_a_coarse_grid_has_places_between_those_of_the_fine_one():
    fine = LatentGrid("fine", ("height", "time"), (4, 3), 1)
    layout = LatentLayout((fine, LatentGrid("coarse", ("height",), (2,), 1)))
    places = coordinates(layout, {"fine": (1, 1), "coarse": (1,)})
    assert {axis: place.tolist() for axis, place in places["fine"].items()} == {
        "height": [0, 1, 2, 3],
        "time": [0, 1, 2],
    }
    assert {axis: place.tolist() for axis, place in places["coarse"].items()} == {"height": [0.5, 2.5]}


def test_patch_centres_agree_across_resolutions():
    assert patch_centres(5, 1, 5).tolist() == [0, 1, 2, 3, 4]
    assert patch_centres(4, 2, 4).tolist() == [0.5, 2.5]
    assert patch_centres(2, 1, 4).tolist() == patch_centres(4, 2, 4).tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@BOTH_CONDITIONINGS
def test_save_and_load(tmp_path, dtype, conditioning):
    model = build(patch_size={"structure": (1, 2, 2)}, conditioning=conditioning)
    model.to(dtype).save_pretrained(tmp_path)
    loaded = LatentTransformer.from_pretrained(tmp_path, dtype=dtype)
    assert {parameter.dtype for parameter in loaded.parameters()} == {dtype}
    assert loaded.layout == model.layout and loaded.patch_sizes == model.patch_sizes
    latents, timestep, labels = inputs(model)
    args = latents.to(dtype), timestep, labels
    sample = run(loaded, *args)
    assert sample.dtype == dtype
    assert torch.equal(sample, run(model, *args))


def test_auto_model_loads_a_folder_of_its_own(tmp_path):
    build().save_pretrained(tmp_path)
    assert type(AutoModel.from_pretrained(str(tmp_path))) is LatentTransformer


def test_bfloat16_stays_near_float32():
    model = build()
    latents, timestep, labels = inputs(model)
    expected = run(model, latents, timestep, labels)
    half = run(model.to(torch.bfloat16), latents.bfloat16(), timestep, labels)
    assert half.dtype == torch.bfloat16
    assert (half.float() - expected).norm() < 0.05 * expected.norm()


def test_autocast_and_layerwise_casting_run():
    model = build()
    args = inputs(model)
    expected = run(model, *args)
    with torch.autocast("cpu", torch.bfloat16):
        assert (run(model, *args).float() - expected).norm() < 0.05 * expected.norm()
    model.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32)
    assert model.transformer_blocks[0].ff.net[2].weight.dtype == torch.float8_e4m3fn
    assert model.proj_in["structure"].weight.dtype == torch.float32
    assert (run(model, *args) - expected).norm() < 0.5 * expected.norm()


def test_fused_projections_compute_the_same():
    model = build()
    args = inputs(model)
    expected = run(model, *args)
    model.fuse_qkv_projections()
    torch.testing.assert_close(run(model, *args), expected)


def test_the_size_of_queries_and_keys_does_not_matter():
    model = build(num_layers=1)
    args = inputs(model)
    expected = run(model, *args)
    attention = model.transformer_blocks[0].attn
    with torch.no_grad():
        for linear in (attention.to_q, attention.to_k):
            linear.weight.mul_(8)
            linear.bias.mul_(8)
    torch.testing.assert_close(run(model, *args), expected)
    with torch.no_grad():
        attention.to_v.weight.mul_(8)
    assert not torch.allclose(run(model, *args), expected)


def test_magvit_v2_is_a_layout_like_any_other():
    model = build(MAGVIT_V2, patch_size=2, hidden_size=16, num_layers=1)
    assert model.layout.num_tokens(2) == 392
    args = inputs(model, batch_size=1)
    assert run(model, *args).shape == (1, 4 * 28 * 28 * 5)


def test_the_repeated_block_compiles_as_one_graph():
    model = build(conditioning="cross_attention", num_layers=3)
    args = inputs(model, batch_size=2)
    expected = run(model, *args)
    torch.compiler.reset()
    compiled = CompileCounter()
    model.compile_repeated_blocks(fullgraph=True, backend=compiled)
    torch.testing.assert_close(run(model, *args), expected)
    assert compiled.frame_count == 1  # three blocks, one graph
    run(model, *(torch.cat([arg] * 2) for arg in args))
    assert compiled.frame_count == 2  # and one more that takes any batch
    run(model, *(torch.cat([arg] * 3) for arg in args))
    assert compiled.frame_count == 2
    torch.compiler.reset()


def test_it_can_be_exported_ahead_of_time():
    model = build()
    args = inputs(model, batch_size=2)
    batch = torch.export.Dim("batch", min=2, max=64)
    with torch.no_grad():
        program = torch.export.export(
            model, args, {"return_dict": False}, dynamic_shapes=({0: batch}, {0: batch}, {0: batch}, None)
        )
    more = tuple(torch.cat([arg] * 2) for arg in args)
    torch.testing.assert_close(program.module()(*more, return_dict=False)[0], run(model, *more))


@pytest.mark.parametrize("backend", ["native", "_native_math"])
def test_attention_backends_compute_the_same(backend):
    model = build(conditioning="cross_attention")
    args = inputs(model)
    expected = run(model, *args)
    with attention_backend("native"):  # diffusers also makes the choice the default: undone at the end
        model.set_attention_backend(backend)
        torch.testing.assert_close(run(model, *args), expected)
    model.reset_attention_backend()
    with attention_backend(backend):
        torch.testing.assert_close(run(model, *args), expected)


def test_a_large_model_is_saved_in_parts(tmp_path):
    model = build()
    model.save_pretrained(tmp_path, max_shard_size="20KB", variant="fp16")
    assert len(list(tmp_path.glob("*.fp16-*.safetensors"))) > 1
    loaded = LatentTransformer.from_pretrained(tmp_path, variant="fp16")
    args = inputs(model)
    assert torch.equal(run(loaded, *args), run(model, *args))


@pytest.mark.parametrize("offload_type", ["block_level", "leaf_level"])
def test_group_offload_computes_the_same(offload_type):
    model = build()
    args = inputs(model)
    expected = run(model, *args)
    kwargs = {"num_blocks_per_group": 1} if offload_type == "block_level" else {}
    model.enable_group_offload(torch.device("cpu"), offload_type=offload_type, **kwargs)
    assert torch.equal(run(model, *args), expected)


def test_lora_adapters_are_added_scaled_saved_and_loaded(tmp_path):
    peft = pytest.importorskip("peft")
    model = build()
    args = inputs(model)
    plain = run(model, *args)
    config = peft.LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
    model.add_adapter(config)
    adapted = run(model, *args)
    assert not torch.allclose(adapted, plain)
    silent = model(*args, attention_kwargs={"scale": 0.0}, return_dict=False)[0]
    torch.testing.assert_close(silent, plain)
    model.save_lora_adapter(tmp_path)
    other = build()
    other.load_lora_adapter(tmp_path, prefix=None, use_safetensors=True)
    torch.testing.assert_close(run(other, *args), adapted)


@pytest.mark.parametrize(
    "enable", [LatentTransformer.enable_cache, apply_first_block_cache], ids=["method", "function"]
)
def test_a_step_cache_skips_blocks(enable):
    model = build(num_layers=4)
    enable(model, FirstBlockCacheConfig(threshold=1e9))
    calls = []
    model.transformer_blocks[2].attn.register_forward_hook(lambda *_: calls.append(1))
    args = inputs(model)
    for _ in range(3):
        with model.cache_context("cond"):
            run(model, *args)
    assert len(calls) == 1


@pytest.mark.parametrize(
    "parts",
    [{}, {"skip_ff": False}, {"skip_ff": False, "skip_attention": False, "skip_attention_scores": True}],
)
def test_layers_are_skipped(parts):
    model = build(num_layers=3)
    args = inputs(model)
    whole = run(model, *args)
    apply_layer_skip(model, LayerSkipConfig(indices=[1], **parts))
    skipped = run(model, *args)
    assert not torch.allclose(skipped, whole)
    if not parts:
        del model.transformer_blocks[1]
        torch.testing.assert_close(skipped, run(model, *args))


def tokens_over_two_processes(rank, model, args, options, expected):
    PartialState(cpu=True)  # starts the process group
    torch.accelerator.device_count = lambda: 1  # diffusers divides by it, and a CPU has 0
    model.enable_parallelism(config=ContextParallelConfig(ulysses_degree=2))
    torch.testing.assert_close(run(model, *args, **options), expected)


@pytest.mark.parametrize(
    ("sizes", "options"),
    [
        ({"conditioning": "cross_attention"}, {}),
        ({"block_type": "lightning", "internal_layer": 1}, {}),
        ({"block_type": "lightning", "internal_layer": 1}, {"internal_guidance_scale": 1.5}),
    ],
)
def test_processes_share_the_tokens(sizes, options):
    model = build(MAGVIT_V2, patch_size=[2, 14, 14], **sizes)
    args = inputs(model)
    run_in_processes(2, tokens_over_two_processes, model, args, options, run(model, *args, **options))


def test_ema_follows_the_weights():
    model = build()
    ema = EMAModel(model.parameters(), decay=0.0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    ema.step(model.parameters())
    shadow = build()
    ema.copy_to(shadow.parameters())
    args = inputs(model)
    torch.testing.assert_close(run(shadow, *args), run(model, *args))


def test_it_learns_to_generate_one_clip():
    """A few steps of the real objective bring the loss down, and the sampler near the clip."""
    model = build(awake=False).train()
    draw = torch.Generator().manual_seed(0)
    x0 = torch.randn(1, VIDTWIN.num_elements, generator=draw).expand(8, -1)
    labels = torch.zeros(8, dtype=torch.long)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(120):
        noise, sigma = torch.randn(x0.shape, generator=draw), sample_sigmas(8, draw)
        prediction = model(interpolate(x0, noise, sigma), timestep_of(sigma), labels).sample
        loss = total_loss(grid_losses(prediction, velocity(x0, noise), VIDTWIN), VIDTWIN)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.25 * sum(losses[:10])

    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(20)
    latents = torch.randn(2, VIDTWIN.num_elements, generator=draw)
    before = (latents - x0[:2]).square().mean()
    for t in scheduler.timesteps:
        latents = scheduler.step(run(model, latents, t.expand(2), labels[:2]), t, latents, return_dict=False)[
            0
        ]
    assert (latents - x0[:2]).square().mean() < 0.1 * before


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"hidden_size": 33, "num_heads": 3}, "hidden_size must be even, .* got 33"),
        ({"hidden_size": 32, "num_heads": 5}, "a multiple of the number of heads, got 32 and 5"),
        ({"patch_size": (2, 2)}, r"grid 'structure' has axes .* got \(2, 2\)"),
        ({"conditioning": "text"}, "conditioning is one of .* got 'text'"),
        ({"prediction_type": "epsilon"}, "prediction_type is one of .* got 'epsilon'"),
        ({"prediction_type": "sample", "predicts_x0": True}, "predicts_x0 goes with .* got 'sample'"),
        ({"internal_layer": 2}, "internal_layer is .* from 1 to 1, got 2"),
        ({"internal_layer": 0}, "internal_layer is .* from 1 to 1, got 0"),
    ],
)
def test_sizes_that_do_not_fit_are_value_errors(sizes, message):
    with pytest.raises(ValueError, match=message):
        build(**sizes)


@pytest.mark.parametrize("hidden_layer", [-1, 0, 99])
def test_tokens_of_a_block_that_is_not_there_are_a_value_error(hidden_layer):
    model = build()
    with pytest.raises(ValueError, match=f"hidden_layer is from 1 to .*got {hidden_layer}"):
        model(*inputs(model), hidden_layer=hidden_layer)


def test_latents_of_another_layout_are_a_value_error():
    model = build()
    with pytest.raises(ValueError, match="flat latents"):
        model(torch.zeros(1, 7), torch.zeros(1), torch.zeros(1, dtype=torch.long))
