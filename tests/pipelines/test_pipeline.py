"""VidTwinPipeline: class labels in, videos out."""

import unicodedata
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler, UniPCMultistepScheduler

from autoencoder.model.vidtwin import AutoencoderVidTwin
from pipelines.labels import label_ids
from pipelines.pipeline_vidtwin import VidTwinPipeline
from tests.builders.pipelines import NAMES, generate, seeded
from vidtwin_gen.models.transformer import LatentTransformer

ROOT = Path(__file__).resolve().parents[2]


def test_output_types(pipe):
    tensor = generate(pipe, ["archery", 2])
    assert tensor.shape == (2, 8, 3, 16, 16) and tensor.min() >= 0 and tensor.max() <= 1
    array = generate(pipe, ["archery", 2], output_type="np")
    np.testing.assert_allclose(array, tensor.permute(0, 1, 3, 4, 2).numpy(), atol=1e-6)
    images = generate(pipe, ["archery", 2], output_type="pil")
    assert [len(video) for video in images] == [8, 8] and isinstance(images[0][0], PIL.Image.Image)
    assert np.abs(np.asarray(images[1][3]) / 255 - array[1, 3]).max() < 1 / 255
    latents = generate(pipe, ["archery", 2], output_type="latent")
    assert latents.shape == (2, pipe.transformer.layout.num_elements) and latents.dtype == torch.float32
    frames = pipe("archery", num_inference_steps=1, output_type="pt", return_dict=False)
    assert isinstance(frames, tuple) and frames[0].shape == (1, 8, 3, 16, 16)


def test_latents_are_brought_back_to_the_autoencoders_scale(pipe):
    white = generate(pipe, output_type="latent")
    config = pipe.vae.config
    raw = white * pipe.vae.layout.expand_channels(config.latents_std) + 0.5
    with torch.no_grad():
        video = pipe.vae.decode(raw).sample  # (B, 3, F, H, W)
    torch.testing.assert_close(generate(pipe), (video.transpose(1, 2) / 2 + 0.5).clamp(0, 1))


def test_guidance_of_one_is_no_guidance_at_half_the_cost(pipe):
    batches = []
    hook = pipe.transformer.register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))
    one, none = generate(pipe, guidance_scale=1.0), generate(pipe, guidance_scale=0.0)
    assert torch.equal(one, none)
    assert batches == [1] * 6
    batches.clear()
    barely = generate(pipe, guidance_scale=1 + 1e-6)
    assert batches == [2] * 3
    hook.remove()
    torch.testing.assert_close(barely, one, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(generate(pipe, guidance_scale=6.0), one, atol=1e-3)


def test_guidance_moves_away_from_the_null_class(pipe):
    """One Euler step: guidance extrapolates the two unguided results."""
    options = {"num_inference_steps": 1, "output_type": "latent"}
    conditional = generate(pipe, 2, guidance_scale=1.0, **options)
    guided = generate(pipe, 2, guidance_scale=3.0, **options)
    with torch.no_grad():  # make class 2 the null class
        pipe.transformer.class_embed.weight[2] = pipe.transformer.class_embed.weight[
            pipe.transformer.null_class
        ]
    unconditional = generate(pipe, 2, guidance_scale=1.0, **options)
    torch.testing.assert_close(
        guided, unconditional + 3 * (conditional - unconditional), atol=1e-4, rtol=1e-4
    )


def test_a_generator_of_its_own_gives_the_same_clip_in_any_batch(pipe):
    together = generate(pipe, ["archery", 1, 2], generator=seeded(5, 6, 7))
    for label, seed in ((0, 5), (1, 6), (2, 7)):
        alone = generate(pipe, label, generator=seeded(seed))
        torch.testing.assert_close(together[label], alone[0], atol=1e-5, rtol=1e-5)
    assert torch.equal(generate(pipe), generate(pipe))
    assert not torch.allclose(generate(pipe), generate(pipe, generator=seeded(1)[0]), atol=1e-3)


def test_several_videos_of_a_class_stand_side_by_side(pipe):
    several = generate(pipe, [3, 1], num_videos_per_class=2, generator=seeded(0, 1, 2, 3))
    torch.testing.assert_close(several, generate(pipe, [3, 3, 1, 1], generator=seeded(0, 1, 2, 3)))


def test_given_latents_take_the_place_of_noise(pipe):
    latents = torch.randn(1, pipe.transformer.layout.num_elements, generator=seeded(0)[0])
    untouched = latents.clone()
    assert torch.equal(generate(pipe, latents=latents, generator=None), generate(pipe))
    assert torch.equal(latents, untouched)


def test_bfloat16_keeps_the_loop_in_float32(pipe):
    full = generate(pipe, output_type="latent")
    pipe.to(dtype=torch.bfloat16)
    half = generate(pipe, output_type="latent")
    assert half.dtype == torch.float32
    assert (half - full).norm() < 0.1 * full.norm()
    assert generate(pipe).shape == (1, 8, 3, 16, 16)


@pytest.mark.parametrize(
    "scheduler",
    [
        lambda config: FlowMatchHeunDiscreteScheduler(),
        lambda config: UniPCMultistepScheduler.from_config(
            config, use_flow_sigmas=True, prediction_type="flow_prediction"
        ),
        lambda config: FlowMatchEulerDiscreteScheduler.from_config(config, shift=3.0),
    ],
    ids=["heun", "unipc", "shifted euler"],
)
def test_another_scheduler_reaches_the_same_place(pipe, scheduler):
    fine = generate(pipe, guidance_scale=1.0, num_inference_steps=100, output_type="latent")
    pipe.scheduler = scheduler(pipe.scheduler.config)
    other = generate(pipe, guidance_scale=1.0, num_inference_steps=50, output_type="latent")
    assert (other - fine).norm() < 0.05 * fine.norm()


def test_a_callback_sees_every_step_and_replaces_the_latents(pipe):
    seen = []

    def callback(pipe, step, timestep, tensors):
        assert list(tensors) == ["latents"] and pipe.current_timestep == timestep
        seen.append((step, float(timestep), pipe.num_timesteps))
        return {"latents": torch.zeros_like(tensors["latents"])} if step == 2 else {}

    assert (generate(pipe, output_type="latent", callback_on_step_end=callback) == 0).all()
    assert [step for step, _, _ in seen] == [0, 1, 2] and seen[0][1] == 1000 and seen[0][2] == 3
    assert pipe.current_timestep is None


def test_a_subclass_may_offer_more_to_callbacks(pipe):
    class WithLabels(VidTwinPipeline):
        _callback_tensor_inputs = [*VidTwinPipeline._callback_tensor_inputs, "labels"]

    seen = []
    WithLabels.from_pipe(pipe)(
        [1, 0],
        num_inference_steps=1,
        output_type="latent",
        callback_on_step_end=lambda pipe, step, timestep, tensors: (
            seen.append(tensors["labels"].tolist()) or {}
        ),
        callback_on_step_end_tensor_inputs=["labels"],
    )
    assert seen == [[1, 0]]


def test_a_callback_may_stop_or_switch_guidance_off(pipe):
    batches = []
    pipe.transformer.register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))

    def unguided_then_stop(pipe, step, timestep, tensors):
        pipe._guidance_scale = 1.0
        pipe._interrupt = step == 1
        return tensors

    generate(pipe, num_inference_steps=5, callback_on_step_end=unguided_then_stop)
    assert batches == [2, 1]


@pytest.mark.parametrize(
    ("labels", "ids"),
    [
        ("Archery", [0]),
        ("bABYcrawling", [1]),
        (3, [3]),
        (np.int64(2), [2]),
        (torch.tensor(2), [2]),
        (torch.tensor([2, 1]), [2, 1]),
        (["billiards", 0, "Archery"], [3, 0, 0]),
        (("Archery", np.int32(1)), [0, 1]),
    ],
)
def test_labels_are_names_or_ids(pipe, labels, ids):
    assert pipe.get_label_ids(labels) == ids


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("Basketbal", "nearest .* 'Basketball'"),
        ("ab", "no class is called 'ab'"),
        (["Archery", ""], "no class is called ''"),
        (4, "from 0 to 3, got 4"),
        (-1, "from 0 to 3, got -1"),
        (True, "True of type bool"),
        ([0, False], "False of type bool"),
        (1.0, "1.0 of type float"),
        (None, "None of type NoneType"),
        ([], "empty"),
    ],
)
def test_other_labels_are_value_errors(pipe, labels, message):
    with pytest.raises(ValueError, match=message):
        generate(pipe, labels)


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_an_umlaut_is_one_however_unicode_writes_it(forms):
    """A Mac names files with it as two characters, keyboards type one."""
    known, typed = (unicodedata.normalize(form, "Trömmeln") for form in forms)
    assert known != typed and label_ids(typed.upper(), 2, ["Archery", known]) == [1]


def test_names_that_are_one_to_whoever_asks_are_refused(pipe):
    for name in ("archery", "Archery"):
        with pytest.raises(ValueError, match="class names must differ"):
            VidTwinPipeline(pipe.vae, pipe.transformer, pipe.scheduler, ["Archery", name, "C", "D"])


def test_without_names_only_ids_pass():
    assert label_ids([1, 0], 2, None) == [1, 0]
    with pytest.raises(ValueError, match="has no class names; pass an id from 0 to 1"):
        label_ids("Archery", 2, None)


@pytest.mark.parametrize(
    "arguments",
    [
        {"output_type": "mp4"},
        {"num_inference_steps": 0},
        {"num_inference_steps": 2.5},
        {"num_videos_per_class": 0},
        {"num_videos_per_class": True},
        {"num_videos_per_class": 1.5},
        {"guidance_scale": float("nan")},
        {"generator": seeded(0, 1)},
        {"generator": 5},
        {"generator": [None]},
        {"attention_kwargs": "scale"},
        {"attention_kwargs": {"gain": 2.0}},
        {"attention_kwargs": {"scale": float("nan")}},
        {"callback_on_step_end": 3},
        {"latents": torch.zeros(2, 3)},
        {"latents": [[0.0]]},
        {"latents": torch.zeros(2, 192)},
        {"latents": torch.zeros(1, 192, dtype=torch.int64)},
        {"latents": torch.zeros(1, 192, dtype=torch.complex64)},
        {"latents": torch.zeros(1, 192).index_fill(1, torch.tensor(7), float("nan"))},
        {"callback_on_step_end_tensor_inputs": ["noise"]},
    ],
    ids=lambda arguments: next(iter(arguments)),
)
def test_bad_arguments_fail_before_the_first_step(pipe, arguments):
    pipe.transformer.register_forward_pre_hook(lambda *_: pytest.fail("a step was taken"))
    with pytest.raises(ValueError, match=next(iter(arguments))[:9]):
        generate(pipe, **arguments)


def test_a_pipeline_without_autoencoder_makes_latents_only(pipe):
    alone = VidTwinPipeline(None, pipe.transformer, pipe.scheduler)
    latents = generate(alone, 0, output_type="latent")
    assert latents.shape == (1, pipe.transformer.layout.num_elements)
    pipe.transformer.register_forward_pre_hook(lambda *_: pytest.fail("a step was taken"))
    with pytest.raises(ValueError, match="output_type 'pt' needs a vae"):
        generate(alone, 0, output_type="pt")
    video = torch.zeros(1, 8, 3, 16, 16)
    for what in (
        lambda: alone.decode(latents),
        lambda: alone.decode_latents(latents),
        lambda: alone.encode_video(video),
        lambda: generate(alone, 0, output_type="latent", video=video, keep="structure"),
    ):
        with pytest.raises(ValueError, match="needs a vae and this pipeline's is None"):
            what()


def test_components_must_belong_together(pipe):
    config = pipe.vae.layout.to_config()
    config[0]["channels"] += 1
    stranger = LatentTransformer(config, 4, hidden_size=32, num_layers=1, num_heads=2)
    with pytest.raises(ValueError, match="another latent"):
        VidTwinPipeline(pipe.vae, stranger, pipe.scheduler)
    for names in (NAMES[:3], [*NAMES[:3], "ARCHERY"]):
        with pytest.raises(ValueError, match="class names"):
            VidTwinPipeline(pipe.vae, pipe.transformer, pipe.scheduler, class_names=names)


@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_a_transformer_of_other_classes_is_refused_when_called(pipe, num_classes):
    """The id of the fourth name would be no class, or the one that means none."""
    layout = pipe.vae.layout.to_config()
    pipe.transformer = LatentTransformer(
        layout=layout, num_classes=num_classes, hidden_size=32, num_layers=1, num_heads=2
    )
    pipe.transformer.register_forward_pre_hook(lambda *_: pytest.fail("a step was taken"))
    with pytest.raises(ValueError, match=f"knows {num_classes} classes, got 4 class names"):
        generate(pipe, "Billiards")


def test_an_autoencoder_of_another_latent_is_refused_when_called(pipe):
    pipe.transformer.register_forward_pre_hook(lambda *_: pytest.fail("a step was taken"))
    config = {**pipe.vae.config, "latents_mean": None, "latents_std": None}
    as_long = {"num_queries": 2, "structure_channels": 8}
    length = pipe.vae.layout.num_elements
    for changes, is_as_long in (({"num_queries": 8}, False), (as_long, True)):
        pipe.vae = AutoencoderVidTwin.from_config({**config, **changes})
        assert (pipe.vae.layout.num_elements == length) == is_as_long
        with pytest.raises(ValueError, match="another latent than this autoencoder's"):
            generate(pipe)
