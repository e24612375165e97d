"""Guiders of diffusers: each gives the arithmetic that it promises, or is refused before the first step."""

import copy

import pytest
import torch
from diffusers import (
    FirstBlockCacheConfig,
    FlowMatchHeunDiscreteScheduler,
    LayerSkipConfig,
    guiders,
)
from diffusers.models.attention_dispatch import attention_backend

from pipelines.guidance import UNFIT_GUIDERS
from tests.builders.pipelines import build_pipeline, generate, steps_of

W = 3.0
LATENT = {"output_type": "latent"}
SKIPPED = LayerSkipConfig(indices=[1])
EVERYWHERE = {"skip_layer_guidance_start": 0.0, "skip_layer_guidance_stop": 1.0}


@pytest.fixture(scope="module")
def pipe():
    return build_pipeline(num_layers=3)


def skipping(scale=W, indices=(1,), **options):
    config = LayerSkipConfig(indices=list(indices))
    return guiders.SkipLayerGuidance(scale, 2.0, skip_layer_config=config, **EVERYWHERE | options)


@pytest.mark.parametrize(
    ("options", "own", "order"),
    [
        ({}, {}, 1),
        ({"start": 0.2, "stop": 0.7}, {"guidance_interval": (0.2, 0.7)}, 1),
        ({"guidance_rescale": 0.6}, {"guidance_rescale": 0.6}, 1),
        ({"stop": 0.5}, {"guidance_interval": (0.0, 0.5)}, 2),
    ],
)
def test_classifier_free_guidance_is_our_own(options, own, order):
    """Where a part of a clip is kept, too."""
    pipe = build_pipeline()
    if order == 2:
        pipe.scheduler = FlowMatchHeunDiscreteScheduler()
    shared = LATENT | {"num_inference_steps": 6}
    shared |= {"known_latents": torch.ones(1, pipe.transformer.layout.num_elements), "keep": "structure"}
    guider = guiders.ClassifierFreeGuidance(W, **options)
    ours = generate(pipe, guidance_scale=W, **shared | own)
    torch.testing.assert_close(generate(pipe, guider=guider, **shared), ours, atol=1e-4, rtol=1e-4)
    assert pipe.guider is guider and not pipe.do_classifier_free_guidance


@pytest.mark.parametrize(
    "guider",
    [
        guiders.ClassifierFreeGuidance(W, enabled=False),
        guiders.ClassifierFreeGuidance(1.0),
        guiders.AdaptiveProjectedGuidance(0.0, use_original_formulation=True),
        skipping(enabled=False),
        skipping(1.0, skip_layer_guidance_stop=0.0),
    ],
    ids=lambda guider: type(guider).__name__,
)
def test_a_guider_without_effect_is_the_conditional_prediction(pipe, guider):
    assert torch.equal(generate(pipe, guider=guider, **LATENT), generate(pipe, guidance_scale=1.0, **LATENT))


def along(x, direction):
    direction = direction / direction.norm(dim=1, keepdim=True)
    return (x * direction).sum(dim=1, keepdim=True) * direction


def cfg(cond, uncond, scale=W):
    return uncond + scale * (cond - uncond)


def projected(step, cond, uncond, weak):
    return uncond + W * (cond - uncond - along(cond - uncond, cond))


def tangential(step, cond, uncond, weak):
    directions = torch.linalg.svd(torch.stack([cond, uncond], dim=1), full_matrices=False)[2]  # (B, 2, L)
    return cfg(cond, uncond - along(uncond, directions[:, 1]))


def optimal_scale(step, cond, uncond, weak):
    return torch.zeros_like(cond) if step == 0 else cfg(cond, along(cond, uncond))


def magnitude_aware(step, cond, uncond, weak):
    ratio = (cond - uncond).norm(dim=1, keepdim=True) / uncond.norm(dim=1, keepdim=True)
    return cfg(cond, uncond, 1 + (W - 1) * torch.exp(-0.5 * ratio))


def without_block(transformer):
    weak = copy.deepcopy(transformer)
    del weak.transformer_blocks[1]
    return weak


def without_attention_scores(transformer):
    """Each token of block 1 attends to itself alone."""
    weak = copy.deepcopy(transformer)
    attn = weak.transformer_blocks[1].attn
    attn.forward = lambda hidden_states, **_: attn.to_out[0](attn.to_v(hidden_states))
    return weak


FORMULAS = {  # the guider, its prediction, and the transformer whose prediction is `weak`
    "adaptive projected": (
        guiders.AdaptiveProjectedGuidance(W, eta=0.0, adaptive_projected_guidance_rescale=0.0),
        projected,
        copy.copy,
    ),
    "adaptive projected, late": (
        guiders.AdaptiveProjectedMixGuidance(
            W,
            adaptive_projected_guidance_scale=W,
            adaptive_projected_guidance_momentum=None,
            adaptive_projected_guidance_rescale=0.0,
            adaptive_projected_guidance_start_step=1,
        ),
        lambda step, cond, uncond, _: projected(step, cond, uncond, _) if step > 1 else cfg(cond, uncond),
        copy.copy,
    ),
    "zero star": (guiders.ClassifierFreeZeroStarGuidance(W), optimal_scale, copy.copy),
    "tangential": (guiders.TangentialClassifierFreeGuidance(W), tangential, copy.copy),
    "magnitude aware": (guiders.MagnitudeAwareGuidance(W, alpha=0.5), magnitude_aware, copy.copy),
    "auto": (
        guiders.AutoGuidance(W, auto_guidance_config=SKIPPED),
        lambda step, cond, uncond, weak: cfg(cond, weak[0]),
        without_block,
    ),
    "skip layer": (
        skipping(),
        lambda step, cond, uncond, weak: cfg(cond, uncond) + (2.0 * (cond - weak[1]) if step else 0),
        without_block,
    ),
    "perturbed attention": (
        guiders.PerturbedAttentionGuidance(W, 2.0, 0.0, 1.0, perturbed_guidance_layers=[1]),
        lambda step, cond, uncond, weak: cfg(cond, uncond) + (2.0 * (cond - weak[1]) if step else 0),
        without_attention_scores,
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_a_guiders_prediction_is_its_formula(pipe, name):
    guider, formula, weaken = FORMULAS[name]
    labels = torch.tensor([1, 3])
    null = torch.full_like(labels, pipe.transformer.null_class)
    weak_transformer = weaken(pipe.transformer)
    steps = steps_of(pipe, labels, guider=guider, num_inference_steps=4)
    assert len(steps) == 4
    for step, (latents, timestep, prediction) in enumerate(steps):
        with torch.no_grad():
            uncond, cond = (pipe.transformer(latents, timestep, label).sample for label in (null, labels))
            weak = [weak_transformer(latents, timestep, label).sample for label in (null, labels)]
        expected = formula(step, cond, uncond, weak)
        torch.testing.assert_close(prediction, expected, atol=1e-3, rtol=1e-3)
        assert not torch.allclose(prediction, cond, atol=0.05)


def test_every_guider_of_diffusers_is_tried_or_refused():
    tried = {type(guider).__name__ for guider, _, _ in FORMULAS.values()} | {"ClassifierFreeGuidance"}
    assert tried | set(UNFIT_GUIDERS) | {"BaseGuidance"} == {
        name for name in dir(guiders) if name.endswith("Guidance")
    }


def test_a_guider_leaves_the_transformer_as_it_was(pipe):
    """Where the call fails, too."""
    plain = generate(pipe, **LATENT)
    generate(pipe, guider=skipping(), **LATENT)
    assert torch.equal(generate(pipe, **LATENT), plain)

    calls = []

    def fail(*_):
        calls.append(1)
        if len(calls) == 5:  # the one that skips a block
            raise RuntimeError("out of memory")

    hook = pipe.transformer.proj_out.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        generate(pipe, guider=skipping(), **LATENT)
    hook.remove()
    assert torch.equal(generate(pipe, **LATENT), plain)


GUIDER = guiders.ClassifierFreeGuidance(W)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guider": guiders.ClassifierFreeGuidance}, "guider is an object of diffusers.guiders, such as Cl"),
        ({"guider": "cfg"}, "got 'cfg'"),
        ({"guider": guiders.ClassifierFreeGuidance(float("nan"))}, "guidance_scale of .* must be finite"),
        ({"guider": GUIDER, "guidance_scale": 2.0}, "and guidance_scale=2.0 are guidance twice"),
        (
            {"guider": GUIDER, "guidance_interval": [0.2, 1.0]},
            "guidance_interval=.* start and stop as its own",
        ),
        ({"guider": GUIDER, "guidance_rescale": 0.5}, "guidance_rescale=0.5 are guidance twice"),
        (
            {"guider": GUIDER, "internal_guidance_scale": 1.5},
            "internal_guidance_scale=1.5 are guidance twice",
        ),
        ({"guider": guiders.LTX2Guidance()}, "LTX2Guidance is made for .* such as Adap"),
        ({"guider": guiders.SmoothedEnergyGuidance(seg_guidance_layers=[1])}, "SmoothedEnergyGuidance blurs"),
        ({"guider": skipping(indices=[9])}, r"from 0 to 2, got indices=\[9\]: .*LayerSkipConfig\(indices="),
        ({"guider": guiders.SkipLayerGuidance(skip_layer_guidance_layers=[1])}, "got indices=1"),
        ({"guider": skipping(1.0)}, "which it does not at step 1 of 3"),
        ({"guider": skipping(stop=0.4)}, "which it does not at step 1 of 3"),
        (
            {"guider": guiders.AutoGuidance(auto_guidance_config=LayerSkipConfig(indices=[1], fqn="layers"))},
            "the guider AutoGuidance does not fit the transformer: Could not find layers",
        ),
        ({"guider": guiders.ClassifierFreeZeroStarGuidance(W, 1, 0.5)}, "set one of them to 0"),
    ],
)
def test_a_guider_that_can_not_be_is_refused_before_the_first_step(options, message):
    pipe = build_pipeline(num_layers=3, internal_layer=1)
    pipe.transformer.register_forward_pre_hook(lambda *_: pytest.fail("a step was taken"))
    with pytest.raises(ValueError, match=message):
        generate(pipe, **options)


def test_a_guider_goes_with_neither_a_step_cache_nor_hidden_attention():
    pipe = build_pipeline()
    guider = guiders.PerturbedAttentionGuidance(perturbed_guidance_layers=[1])
    with (
        attention_backend("flex"),
        pytest.raises(ValueError, match=r"'flex': .*set_attention_backend\('nati"),
    ):
        generate(pipe, guider=guider)
    with pytest.raises(AttributeError, match="guider"):
        pipe.guider = guider  # an argument of the call; kept there it would do nothing
    pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
    with pytest.raises(ValueError, match=r"step cache: call pipe.transformer.disable_cache\(\)"):
        generate(pipe, guider=guider)
