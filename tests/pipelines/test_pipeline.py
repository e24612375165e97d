"""VidTwinPipeline: class labels in, videos out, and every way to save and load it."""

import json
import logging
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import (
    AutoModel,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    UniPCMultistepScheduler,
)
from safetensors.torch import load_file

import vidtwin_gen
from autoencoder.model.vidtwin import AutoencoderVidTwin
from pipelines.__main__ import main
from pipelines.labels import label_ids
from pipelines.pipeline_vidtwin import VidTwinPipeline
from pipelines.sampling import clip_generator
from tests.builders.pipelines import NAMES, build_pipeline, generate, seeded
from vidtwin_gen.data.video import video_info
from vidtwin_gen.models.transformer import LatentTransformer

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def pipe():
    return build_pipeline()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "pipeline"
    build_pipeline().save_pretrained(path)
    return path


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
        {"num_videos_per_class": 1.5},
        {"guidance_scale": float("nan")},
        {"generator": seeded(0, 1)},
        {"generator": 5},
        {"latents": torch.zeros(2, 3)},
        {"callback_on_step_end_tensor_inputs": ["noise"]},
    ],
    ids=lambda arguments: next(iter(arguments)),
)
def test_bad_arguments_fail_before_the_first_step(pipe, arguments):
    pipe.transformer.register_forward_pre_hook(lambda *_: pytest.fail("a step was taken"))
    with pytest.raises(ValueError, match=next(iter(arguments))[:9]):
        generate(pipe, **arguments)


def test_components_must_belong_together(pipe):
    config = pipe.vae.layout.to_config()
    config[0]["channels"] += 1
    stranger = LatentTransformer(config, 4, hidden_size=32, num_layers=1, num_heads=2)
    with pytest.raises(ValueError, match="another latent"):
        VidTwinPipeline(pipe.vae, stranger, pipe.scheduler)
    for names in (NAMES[:3], [*NAMES[:3], "ARCHERY"]):
        with pytest.raises(ValueError, match="class names"):
            VidTwinPipeline(pipe.vae, pipe.transformer, pipe.scheduler, class_names=names)


def test_the_saved_format(folder):
    """Published pipelines depend on every line of this."""
    index = json.loads((folder / "model_index.json").read_text())
    index.pop("_diffusers_version")
    assert index == {
        "_class_name": "VidTwinPipeline",
        "class_names": {name: label for label, name in enumerate(NAMES)},
        "training": None,
        "fps": 8.0,
        "latents_mean": None,  # the autoencoder's
        "latents_std": None,
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "transformer": ["vidtwin_gen", "LatentTransformer"],
        "vae": ["vidtwin_gen", "AutoencoderVidTwin"],
    }
    for component in ("vae", "transformer"):
        assert {path.name for path in (folder / component).iterdir()} == {
            "config.json",
            "diffusion_pytorch_model.safetensors",
        }


NEW_PROCESS = """
import sys, torch
import vidtwin_gen
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained(sys.argv[1])
generator = torch.Generator().manual_seed(0)
frames = pipe("Archery", num_inference_steps=3, output_type="pt", generator=generator).frames
torch.save((type(pipe).__name__, frames), sys.argv[2])
"""


def test_a_new_process_generates_the_same_video(pipe, folder, tmp_path):
    subprocess.run(
        [sys.executable, "-c", NEW_PROCESS, str(folder), str(tmp_path / "frames.pt")],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    name, frames = torch.load(tmp_path / "frames.pt")
    assert name == "VidTwinPipeline"
    assert torch.equal(frames, generate(pipe))


@pytest.mark.parametrize("loader", [VidTwinPipeline, DiffusionPipeline])
def test_loading_says_nothing_and_changes_nothing(pipe, folder, loader, caplog):
    with caplog.at_level(logging.WARNING):
        logging.getLogger("diffusers").addHandler(caplog.handler)
        loaded = loader.from_pretrained(folder)
        logging.getLogger("diffusers").removeHandler(caplog.handler)
    assert caplog.messages == []
    assert type(loaded) is VidTwinPipeline
    assert list(loaded.config.class_names) == NAMES and loaded.config.fps == 8
    assert torch.equal(generate(loaded), generate(pipe))


def test_auto_model_loads_a_component(folder):
    assert type(AutoModel.from_pretrained(str(folder), subfolder="vae")) is AutoencoderVidTwin
    assert type(AutoModel.from_pretrained(str(folder), subfolder="transformer")) is LatentTransformer
    assert type(AutoModel.from_pretrained(str(folder / "vae"))) is AutoencoderVidTwin


def test_a_component_may_be_passed_or_shared(pipe, folder):
    loaded = VidTwinPipeline.from_pretrained(folder, transformer=pipe.transformer)
    assert loaded.transformer is pipe.transformer
    assert torch.equal(generate(VidTwinPipeline(**pipe.components, class_names=NAMES)), generate(pipe))


def test_a_loaded_pipeline_may_have_another_scheduler_saved(pipe, tmp_path):
    pipe.scheduler = FlowMatchHeunDiscreteScheduler()
    pipe.save_pretrained(tmp_path)
    assert type(DiffusionPipeline.from_pretrained(tmp_path).scheduler) is FlowMatchHeunDiscreteScheduler


def test_the_face(folder):
    import diffusers

    for name in vidtwin_gen.__all__:
        assert getattr(vidtwin_gen, name).__name__ == name
    assert set(vidtwin_gen.__all__) <= set(dir(vidtwin_gen))
    for cls in (VidTwinPipeline, AutoencoderVidTwin, LatentTransformer):
        assert pickle.loads(pickle.dumps(cls)) is cls
        assert getattr(diffusers, cls.__name__) is cls
    for module in (vidtwin_gen, diffusers):
        with pytest.raises(AttributeError, match="NoSuchClass"):
            _ = module.NoSuchClass


ANY_ORDER = """
import sys
from importlib import import_module
HOUSE = ("vidtwin_gen", "autoencoder", "pipelines")
MODULES = "vidtwin_gen.latents autoencoder.model.vidtwin pipelines.pipeline_vidtwin"
MODULES += " vidtwin_gen.models.transformer"
for first in MODULES.split():
    import_module(first)
    assert first.startswith("pipelines") == ("pipelines" in sys.modules), "more was imported than asked for"
    import_module("vidtwin_gen").VidTwinPipeline
    for name in [name for name in sys.modules if name.split(".")[0] in HOUSE]:
        del sys.modules[name]
"""


def test_any_module_may_be_imported_first():
    subprocess.run([sys.executable, "-c", ANY_ORDER], cwd=ROOT, check=True)


def command(folder, out, *options):
    steps = ["--num_inference_steps", "2", "--device", "cpu"]
    return ["generate", "--pipeline", str(folder), "--out", str(out), *steps, *options]


def test_generate_writes_videos_tensors_and_a_record(folder, tmp_path):
    out = tmp_path / "videos"
    main(
        command(
            folder, out, "--class_labels", "billiards", "1", "--num_videos_per_class", "2", "--format", "both"
        )
    )
    stems = {f"{name}/{name}_000{number}" for name in ("Billiards", "BabyCrawling") for number in (0, 1)}
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert files == {f"{stem}.{ext}" for stem in stems for ext in ("mp4", "gif")} | {
        "clips.safetensors",
        "generated.json",
    }
    info = video_info(out / "Billiards" / "Billiards_0000.mp4")
    assert (info.num_frames, info.height, info.width, info.fps) == (8, 16, 16, pytest.approx(8))
    clips = load_file(out / "clips.safetensors")
    assert clips["frames"].shape == (4, 8, 16, 16, 3) and clips["frames"].dtype == torch.uint8
    assert clips["labels"].tolist() == [3, 3, 1, 1] and clips["labels"].dtype == torch.int64
    record = json.loads((out / "generated.json").read_text())
    assert record["class_names"] == ["Billiards", "BabyCrawling"] and record["num_videos"] == 4
    assert record["pipeline"] == "pipeline" and record["seed"] == 0 and record["fps"] == 8


def test_as_many_videos_of_each_class_as_a_file_says(folder, tmp_path, capsys):
    counts = tmp_path / "counts.json"
    counts.write_text('{"Billiards": 1, "archery": 2}')
    main(command(folder, tmp_path / "out", "--labels_from", str(counts)))
    record = json.loads((tmp_path / "out" / "generated.json").read_text())
    assert load_file(tmp_path / "out" / "clips.safetensors")["labels"].tolist() == [3, 0, 0]
    assert record["class_names"] == ["Billiards", "Archery"] and record["labels_from"] == "counts.json"
    for text, word in (
        ('{"Archry": 1}', "'Archery'"),
        ('{"Archery": 0}', "from 1 on"),
        ("[]", "from 1 on"),
        ("{", "can't be read"),
    ):
        counts.write_text(text)
        with pytest.raises(SystemExit):
            main(command(folder, tmp_path / "other", "--labels_from", str(counts)))
        said = capsys.readouterr().err
        assert word in said and str(counts) in said
        assert not (tmp_path / "other").exists()


def test_an_interrupted_generation_starts_again(folder, tmp_path):
    left = tmp_path / "partial-out" / "Archery"
    left.mkdir(parents=True)
    (left / "Archery_0099.gif").write_bytes(b"half")
    main(command(folder, tmp_path / "out", "--class_labels", "2", "--num_videos_per_class", "1"))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not list(tmp_path.rglob("*_0099.gif"))


def test_the_tensors_are_the_videos_rounded(pipe, folder, tmp_path):
    main(command(folder, tmp_path, "--class_labels", "2", "--num_videos_per_class", "1", "--seed", "7"))
    expected = generate(pipe, 2, num_inference_steps=2, generator=[clip_generator(7, 2, 0)])
    frames = load_file(tmp_path / "clips.safetensors")["frames"].float() / 255
    assert (frames - expected.permute(0, 1, 3, 4, 2)).abs().max() <= 0.5 / 255 + 1e-5


def test_neither_batch_size_nor_other_classes_change_a_clip(folder, tmp_path):
    main(command(folder, tmp_path / "all", "--num_videos_per_class", "3", "--batch_size", "5"))
    main(command(folder, tmp_path / "one", "--class_labels", "Basketball", "--num_videos_per_class", "2"))
    clips, alone = (load_file(tmp_path / name / "clips.safetensors") for name in ("all", "one"))
    assert clips["labels"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert (clips["frames"][6:8].int() - alone["frames"].int()).abs().max() <= 1
    assert (clips["frames"][6].int() - clips["frames"][7].int()).abs().max() > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--class_labels", "Archry"], "'Archery'"),
        (["--class_labels", "9"], "from 0 to 3"),
        (["--batch_size", "0"], "must be positive"),
    ],
)
def test_generate_explains_what_is_wrong(folder, tmp_path, capsys, options, message):
    with pytest.raises(SystemExit):
        main(command(folder, tmp_path / "out", *options))
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_generate_needs_a_pipeline_and_a_new_folder(folder, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(command(tmp_path / "nowhere", tmp_path / "out"))
    assert "model_index.json" in capsys.readouterr().err
    (tmp_path / "old.mp4").touch()
    with pytest.raises(SystemExit):
        main(command(folder, tmp_path))
    assert "not empty" in capsys.readouterr().err
