"""Where the parts of a pipeline live, in which precision, what steps cache, and what a call leaves."""

import doctest
import os

import accelerate
import pytest
import torch
from diffusers import (
    FasterCacheConfig,
    FirstBlockCacheConfig,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    MagCacheConfig,
    PyramidAttentionBroadcastConfig,
    SeaCacheConfig,
    TaylorSeerCacheConfig,
    TextKVCacheConfig,
    UniPCMultistepScheduler,
)

from pipelines.pipeline_vidtwin import VidTwinPipeline
from tests.builders.pipelines import NAMES, build_pipeline, generate, seeded
from vidtwin_gen.models.transformer import LatentTransformer


@pytest.fixture(scope="module")
def expected():
    return generate(build_pipeline())


def load(folder, **options):
    pipe = VidTwinPipeline.from_pretrained(folder, **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def model_offload(pipe):
    pipe.enable_model_cpu_offload(device="cpu")


def sequential_offload(pipe):  # the pipeline's own method asks for an accelerator and then does this
    for model in (pipe.transformer, pipe.vae):
        accelerate.cpu_offload(model, "cpu")


def group_offload_of_leaves(pipe):
    pipe.enable_group_offload(onload_device=torch.device("cpu"), offload_type="leaf_level")


BLOCKS = {"offload_type": "block_level", "num_blocks_per_group": 1}


def group_offload_of_blocks(pipe):
    pipe.enable_group_offload(onload_device=torch.device("cpu"), **BLOCKS)


@pytest.mark.parametrize(
    "offload", [model_offload, sequential_offload, group_offload_of_leaves, group_offload_of_blocks]
)
def test_offloading_changes_no_clip(pipe, expected, offload):
    video = torch.rand(1, 8, 3, 16, 16, generator=seeded(1)[0])
    edited = generate(pipe, video=video, keep="structure")
    offload(pipe)
    assert torch.equal(generate(pipe), expected)
    assert torch.equal(generate(pipe), expected)
    assert torch.equal(generate(pipe, video=video, keep="structure"), edited)


@pytest.mark.parametrize(
    ("level", "tolerance"),
    [({"offload_type": "leaf_level"}, 0.0), (BLOCKS, 1e-5)],  # mapped from a file they may lie otherwise
    ids=["leaves", "blocks"],
)
def test_weights_that_wait_on_disk_change_no_clip(level, tolerance, folder, expected, tmp_path):
    pipe = load(folder)
    video = torch.rand(1, 8, 3, 16, 16, generator=seeded(1)[0])
    edited = generate(pipe, video=video, keep="structure")
    for name, model in (("transformer", pipe.transformer), ("vae", pipe.vae)):
        model.enable_group_offload(torch.device("cpu"), offload_to_disk_path=str(tmp_path / name), **level)
        assert list((tmp_path / name).iterdir())
    for found, clip in ((generate(pipe), expected), (generate(pipe, video=video, keep="structure"), edited)):
        torch.testing.assert_close(found, clip, atol=tolerance, rtol=0)


def test_weights_mapped_to_disk_change_no_clip(pipe, folder, expected, tmp_path):
    places = {name: "cpu" for name, _ in pipe.transformer.named_children()} | {"transformer_blocks": "disk"}
    options = {"subfolder": "transformer", "device_map": places, "offload_folder": str(tmp_path / "map")}
    transformer = LatentTransformer.from_pretrained(folder, **options)
    assert next(transformer.transformer_blocks.parameters()).is_meta
    assert torch.equal(generate(load(folder, transformer=transformer)), expected)


@pytest.mark.parametrize("device_map", ["balanced", "cpu"])
def test_a_device_map_changes_no_clip(folder, expected, device_map):
    assert torch.equal(generate(load(folder, device_map=device_map)), expected)


def test_a_precision_for_each_component(folder, expected):
    pipe = load(folder, dtype={"transformer": torch.bfloat16, "default": torch.float32})
    assert (pipe.transformer.dtype, pipe.vae.dtype) == (torch.bfloat16, torch.float32)
    assert 0 < (generate(pipe) - expected).abs().max() < 0.15


def test_weights_stored_in_eight_bits(pipe, expected):
    pipe.transformer.enable_layerwise_casting(torch.float8_e4m3fn, compute_dtype=torch.float32)
    assert 0 < (generate(pipe) - expected).abs().max() < 0.15


def test_a_variant_is_saved_and_loaded(pipe, expected, tmp_path):
    pipe.save_pretrained(tmp_path, variant="full")
    assert (tmp_path / "vae" / "diffusion_pytorch_model.full.safetensors").is_file()
    assert torch.equal(generate(load(tmp_path, variant="full")), expected)


def test_a_pipeline_made_from_another_shares_its_components(pipe, expected):
    other = VidTwinPipeline.from_pipe(pipe)
    other.set_progress_bar_config(disable=True)
    assert other.transformer is pipe.transformer and list(other.config.class_names) == NAMES
    assert torch.equal(generate(other), expected)
    heun = VidTwinPipeline.from_pipe(pipe, scheduler=FlowMatchHeunDiscreteScheduler())
    assert type(heun.scheduler) is FlowMatchHeunDiscreteScheduler


def test_a_subclass_of_the_transformer_is_shared(pipe):
    class Finetuned(LatentTransformer):
        pass

    transformer = Finetuned(pipe.vae.layout.to_config(), 4, hidden_size=32, num_layers=1, num_heads=2)
    pipe = VidTwinPipeline(pipe.vae, transformer, pipe.scheduler)
    assert VidTwinPipeline.from_pipe(pipe).transformer is pipe.transformer
    assert type(pipe.scheduler) is FlowMatchEulerDiscreteScheduler


def test_decoding_in_slices_gives_the_same_videos(pipe):
    options = {"class_labels": [0, 1, 2], "generator": seeded(1, 2, 3)}
    whole = generate(pipe, **options)
    batches = []
    pipe.vae.decoder.register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))
    pipe.vae.enable_slicing()
    sliced = generate(pipe, **options | {"generator": seeded(1, 2, 3)})
    torch.testing.assert_close(sliced, whole, atol=1e-5, rtol=0)
    assert batches == [1, 1, 1]
    assert pipe.vae.use_slicing


def test_lora_adapters_are_saved_loaded_and_scaled(pipe, expected, tmp_path):
    peft = pytest.importorskip("peft")
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    pipe.transformer.add_adapter(
        peft.LoraConfig(r=2, lora_alpha=2, target_modules=targets, init_lora_weights=False)
    )
    adapted = generate(pipe)
    assert not torch.allclose(adapted, expected, atol=1e-3)
    VidTwinPipeline.save_lora_weights(tmp_path, peft.get_peft_model_state_dict(pipe.transformer))
    other = build_pipeline()
    other.load_lora_weights(tmp_path)
    torch.testing.assert_close(generate(other), adapted)
    off = generate(other, attention_kwargs={"scale": 0.0})
    torch.testing.assert_close(off, expected)
    assert other.attention_kwargs == {"scale": 0.0}
    other.save_pretrained(tmp_path / "wrapped")
    with pytest.raises(ValueError, match="tensors are missing.*with a LoRA, fuse_lora"):
        VidTwinPipeline.from_pretrained(tmp_path / "wrapped")
    other.unload_lora_weights()
    assert torch.equal(generate(other), expected)
    other.load_lora_weights(tmp_path)
    other.fuse_lora()
    other.unload_lora_weights()
    other.save_pretrained(tmp_path / "fused")
    torch.testing.assert_close(
        generate(VidTwinPipeline.from_pretrained(tmp_path / "fused")), adapted, atol=1e-5, rtol=1e-5
    )


STEP_CACHES = {
    "first block": lambda pipe: FirstBlockCacheConfig(threshold=0.3),
    "pyramid attention broadcast": lambda pipe: PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2,
        spatial_attention_timestep_skip_range=(100, 800),
        spatial_attention_block_identifiers=("transformer_blocks",),
        current_timestep_callback=lambda: float(pipe.current_timestep),
    ),
    "taylor": lambda pipe: TaylorSeerCacheConfig(cache_interval=3, disable_cache_before_step=3, max_order=1),
    "taylor, lite": lambda pipe: TaylorSeerCacheConfig(
        cache_interval=2, disable_cache_before_step=2, max_order=1, use_lite_mode=True
    ),
    "magnitude": lambda pipe: MagCacheConfig(
        threshold=0.2, retention_ratio=0.2, num_inference_steps=12, mag_ratios=torch.full((12,), 0.97)
    ),
}


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (FasterCacheConfig(), "FasterCacheConfig: its cache fails"),
        (FasterCacheConfig(is_guidance_distilled=True), "FasterCacheConfig: its cache fails"),
        (SeaCacheConfig(), "SeaCacheConfig: its cache .* nothing"),
        (TextKVCacheConfig(), "TextKVCacheConfig: its cache .* no text"),
    ],
)
def test_a_cache_that_would_fail_or_save_nothing_is_refused(pipe, config, reason):
    with pytest.raises(ValueError, match=reason):
        pipe.transformer.enable_cache(config)
    assert not pipe.transformer.is_cache_enabled


@pytest.mark.parametrize("interval", [(0.0, 1.0), (0.25, 0.75)], ids=["guided", "in an interval"])
@pytest.mark.parametrize("name", STEP_CACHES)
def test_a_step_cache_saves_work_and_is_forgotten_after_the_call(pipe, name, interval):
    options = {"num_inference_steps": 12, "output_type": "latent", "guidance_interval": interval}
    exact = generate(pipe, [0, 1], **options)
    calls = []
    last = pipe.transformer.transformer_blocks[-1].attn.to_out[0]
    last.register_forward_hook(lambda *_: calls.append(1))
    pipe.transformer.enable_cache(STEP_CACHES[name](pipe))
    near = generate(pipe, [0, 1], **options)
    assert len(calls) < 12
    assert 0 < (near - exact).norm() < 0.1 * exact.norm()
    assert torch.equal(generate(pipe, [0, 1], **options), near)
    pipe.transformer.disable_cache()
    assert torch.equal(generate(pipe, [0, 1], **options), exact)


def test_a_cache_is_told_where_the_loop_is(pipe):
    contexts = []
    inner = pipe.transformer.cache_context

    def cache_context(name, **where):
        contexts.append((name, where))
        return inner(name, **where)

    pipe.transformer.cache_context = cache_context
    generate(pipe)
    assert {where["sigma"] for _, where in contexts} == {None}  # nobody asks, and it costs a read from a GPU
    contexts.clear()
    pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.3))
    generate(pipe, num_inference_steps=4, guidance_interval=(0.5, 1.0))
    assert [name for name, _ in contexts] == ["cond"] * 2 + ["cond_uncond"] * 2
    assert [where["step_index"] for _, where in contexts] == [0, 1, 2, 3]
    assert {where["num_inference_steps"] for _, where in contexts} == {4}
    assert [where["sigma"] for _, where in contexts] == pytest.approx(pipe.scheduler.sigmas[:-1].tolist())


@pytest.mark.parametrize(
    "scheduler",
    [
        FlowMatchEulerDiscreteScheduler(),
        UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction"),
    ],
    ids=["euler", "unipc"],
)
def test_a_call_leaves_the_components_as_they_were(pipe, scheduler):
    pipe.scheduler = scheduler
    pipe.transformer.train()
    config = dict(scheduler.config)
    before = {name: value.clone() for name, value in pipe.transformer.state_dict().items()}
    first = generate(pipe)
    assert torch.equal(generate(pipe, num_inference_steps=3), first)
    generate(pipe, num_inference_steps=2, video=first, keep="structure")
    assert torch.equal(generate(pipe), first)
    assert pipe.transformer.training and not pipe.vae.training
    assert dict(pipe.scheduler.config) == config and pipe.scheduler is scheduler
    assert not pipe.vae.use_slicing and not first.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in pipe.transformer.state_dict().items())


@pytest.mark.parametrize("scheduler", [FlowMatchEulerDiscreteScheduler(), FlowMatchHeunDiscreteScheduler()])
def test_the_progress_bar_counts_steps(pipe, scheduler, capsys):
    pipe.scheduler = scheduler
    pipe.set_progress_bar_config(disable=False)
    generate(pipe, num_inference_steps=4)
    assert "4/4" in capsys.readouterr().err


def test_the_example_of_the_class_runs(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = VidTwinPipeline.__doc__.replace("path/to/pipeline", str(folder)).replace("cuda", "cpu")
    names = {}
    for example in doctest.DocTestParser().get_examples(text):
        exec(example.source, names)
    assert os.listdir() == ["archery.mp4"]
    assert len(names["frames"]) == 6 and len(names["moved"]) == 3 and len(names["mixed"]) == 1
