"""Guidance: its formula, the steps at which it acts, and what it costs there."""

import pytest
import torch
from diffusers import FirstBlockCacheConfig, FlowMatchHeunDiscreteScheduler
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.guiders.guider_utils import rescale_noise_cfg

from pipelines.guidance import guide, inside_interval
from tests.builders.pipelines import build_pipeline, generate, seeded, steps_of


def batches_of(pipe, **options):
    """How large a batch each call of the transformer is for one clip."""
    batches = []
    hook = pipe.transformer.register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))
    generate(pipe, **options)
    hook.remove()
    return batches


@pytest.mark.parametrize(
    ("interval", "guided"),
    [((0.0, 1.0), range(10)), ((0.3, 0.7), range(3, 7)), ((0.0, 0.25), range(2)), ((0.5, 0.5), ())],
)
def test_guidance_acts_inside_its_interval_and_costs_half_outside(pipe, interval, guided):
    batches = batches_of(pipe, num_inference_steps=10, guidance_interval=interval)
    assert batches == [2 if step in guided else 1 for step in range(10)]
    assert pipe.guidance_interval == interval


def test_the_interval_counts_steps_and_not_calls(pipe):
    """Heun calls the model twice a step, but for the last."""
    pipe.scheduler = FlowMatchHeunDiscreteScheduler()
    batches = batches_of(pipe, num_inference_steps=4, guidance_interval=(0.0, 0.5))
    assert batches == [2, 2, 2, 2, 1, 1, 1]


def test_an_empty_interval_is_no_guidance(pipe):
    options = {"num_inference_steps": 4, "output_type": "latent"}
    unguided = generate(pipe, guidance_scale=1.0, **options)
    assert torch.equal(generate(pipe, guidance_interval=(0.5, 0.5), **options), unguided)
    halfway = generate(pipe, guidance_interval=(0.0, 0.5), **options)
    assert not torch.allclose(halfway, unguided, atol=1e-3)
    assert not torch.allclose(halfway, generate(pipe, **options), atol=1e-3)


def test_intervals_that_touch_share_no_step():
    for num_steps in (7, 10, 50):
        for middle in (0.1, 0.33, 0.5):
            parts = [
                [inside_interval(step, num_steps, interval) for step in range(num_steps)]
                for interval in ((0.0, middle), (middle, 1.0))
            ]
            assert [sum(both) for both in zip(*parts, strict=True)] == [1] * num_steps


def test_rescaling_is_diffusers_own():
    unconditional, conditional = torch.randn(2, 3, 50, generator=seeded(0)[0])
    guided = guide(unconditional, conditional, 5.0)
    torch.testing.assert_close(
        guide(unconditional, conditional, 5.0, rescale=0.7), rescale_noise_cfg(guided, conditional, 0.7)
    )
    whole = guide(unconditional, conditional, 5.0, rescale=1.0)
    torch.testing.assert_close(whole.std(dim=1), conditional.std(dim=1))


def test_rescaling_changes_the_clip(pipe):
    plain = generate(pipe, output_type="latent", guidance_scale=6.0)
    rescaled = generate(pipe, output_type="latent", guidance_scale=6.0, guidance_rescale=0.7)
    assert not torch.allclose(rescaled, plain, atol=1e-3) and pipe.guidance_rescale == 0.7


def test_internal_guidance_goes_with_the_other():
    """Inside the interval it acts on both halves of the other, outside it acts alone."""
    pipe = build_pipeline(internal_layer=1)
    labels = torch.tensor([1, 3])
    null = torch.full_like(labels, pipe.transformer.null_class)
    options = {"guidance_scale": 3.0, "guidance_interval": (0.5, 1.0), "internal_guidance_scale": 1.4}
    steps = steps_of(pipe, labels, num_inference_steps=4, **options)
    for step, (latents, timestep, prediction) in enumerate(steps):
        outputs = [pipe.transformer(latents, timestep, label) for label in (null, labels)]
        parts = [out.internal_sample + 1.4 * (out.sample - out.internal_sample) for out in outputs]
        expected = parts[0] + 3.0 * (parts[1] - parts[0]) if step >= 2 else parts[1]
        torch.testing.assert_close(prediction, expected.detach(), atol=1e-4, rtol=1e-4)
    assert len(steps) == 4 and pipe.internal_guidance_scale == 1.4


def test_internal_guidance_acts_where_a_part_is_kept():
    pipe = build_pipeline(internal_layer=1)
    known = torch.ones(1, pipe.transformer.layout.num_elements)
    options = {"known_latents": known, "keep": "structure", "output_type": "latent", "guidance_scale": 1.0}
    plain, guided = (generate(pipe, internal_guidance_scale=scale, **options) for scale in (1.0, 1.5))
    kept = pipe.transformer.layout.grids[0].num_elements
    assert torch.equal(guided[:, :kept], known[:, :kept])
    assert not torch.allclose(guided[:, kept:], plain[:, kept:], atol=1e-3)


def test_internal_guidance_costs_no_call(pipe):
    pipe.transformer = build_pipeline(internal_layer=1).transformer
    batches = batches_of(pipe, guidance_scale=1.0, internal_guidance_scale=1.5)
    assert batches == [1, 1, 1]
    plain = generate(pipe, guidance_scale=1.0, output_type="latent")
    guided = generate(pipe, guidance_scale=1.0, internal_guidance_scale=1.5, output_type="latent")
    assert not torch.allclose(guided, plain, atol=1e-3)
    pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
    with pytest.raises(ValueError, match="internal_guidance_scale 1.5 needs the blocks that a step cache"):
        generate(pipe, internal_guidance_scale=1.5)


@pytest.mark.parametrize(
    "options",
    [
        {"guidance_interval": (0.6, 0.4)},
        {"guidance_interval": (0.0, 1.1)},
        {"guidance_interval": (0.5,)},
        {"guidance_interval": 0.5},
        {"guidance_interval": None},
        {"guidance_interval": (None, 1.0)},
        {"guidance_interval": "01"},
        {"guidance_scale": None},
        {"guidance_scale": "2"},
        {"guidance_rescale": None},
        {"guidance_rescale": 1.5},
        {"internal_guidance_scale": 1.5},
        {"internal_guidance_scale": float("nan")},
    ],
)
def test_guidance_that_cannot_be_is_refused(pipe, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        generate(pipe, **options)


class Cutoff(PipelineCallback):
    tensor_inputs = ["latents"]

    def callback_fn(self, pipeline, step_index, timestep, callback_kwargs):
        if step_index == self.config.cutoff_step_index:
            pipeline._guidance_scale = 0.0
        return callback_kwargs


class Record(PipelineCallback):
    tensor_inputs = ["prediction"]
    seen = None

    def callback_fn(self, pipeline, step_index, timestep, callback_kwargs):
        self.seen = {name: tensor.shape for name, tensor in callback_kwargs.items()}
        return callback_kwargs


def test_diffusers_callbacks(pipe):
    cutoff = Cutoff(cutoff_step_ratio=None, cutoff_step_index=1)
    assert batches_of(pipe, num_inference_steps=4, callback_on_step_end=cutoff) == [2, 2, 1, 1]
    record = Record()
    both = MultiPipelineCallbacks([cutoff, record])
    assert batches_of(pipe, num_inference_steps=4, callback_on_step_end=both) == [2, 2, 1, 1]
    length = pipe.transformer.layout.num_elements
    assert record.seen == {"latents": (1, length), "prediction": (1, length)}
