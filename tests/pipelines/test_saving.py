"""Every way to save a pipeline and to load it again."""

import json
import logging
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import AutoModel, DiffusionPipeline, FlowMatchHeunDiscreteScheduler

import vidtwin_gen
from autoencoder.model.vidtwin import AutoencoderVidTwin
from pipelines.pipeline_vidtwin import VidTwinPipeline
from tests.builders.pipelines import NAMES, generate
from vidtwin_gen.models.transformer import LatentTransformer

ROOT = Path(__file__).resolve().parents[2]


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


def test_a_pipeline_of_before_the_recipe_loads(pipe, folder, tmp_path):
    old = shutil.copytree(folder, tmp_path / "old")
    config = json.loads((old / "transformer" / "config.json").read_text())
    for name in ("predicts_x0", "internal_layer", "block_type"):
        del config[name]
    (old / "transformer" / "config.json").write_text(json.dumps(config))
    assert torch.equal(generate(VidTwinPipeline.from_pretrained(old)), generate(pipe))


NEW_PROCESS = """
import sys, torch
from importlib import import_module
import vidtwin_gen.latents
assert "diffusers" not in sys.modules and "pipelines" not in sys.modules, "more was imported than asked for"
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained(sys.argv[1])
generator = torch.Generator().manual_seed(0)
frames = pipe("Archery", num_inference_steps=3, output_type="pt", generator=generator).frames
torch.save((type(pipe).__name__, frames), sys.argv[2])

HOUSE = ("vidtwin_gen", "autoencoder", "pipelines")
MODULES = "vidtwin_gen.latents autoencoder.model.vidtwin pipelines.pipeline_vidtwin"
MODULES += " vidtwin_gen.models.transformer"
for first in MODULES.split():
    for name in [name for name in sys.modules if name.split(".")[0] in HOUSE]:
        del sys.modules[name]
    import_module(first)
    assert first.startswith("pipelines") == ("pipelines" in sys.modules), "more was imported than asked for"
    import_module("vidtwin_gen").VidTwinPipeline
"""


def test_a_new_process_generates_the_same_video_and_imports_any_module_first(pipe, folder, tmp_path):
    subprocess.run(
        [sys.executable, "-c", NEW_PROCESS, str(folder), str(tmp_path / "frames.pt")],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=240,
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


def test_a_pipeline_without_its_autoencoder_is_saved_and_loaded(pipe, folder, tmp_path):
    expected = generate(pipe, output_type="latent")
    VidTwinPipeline.from_pretrained(folder, vae=None).save_pretrained(tmp_path)
    assert not (tmp_path / "README.md").exists()
    loaded = VidTwinPipeline.from_pretrained(tmp_path)
    assert loaded.vae is None
    assert torch.equal(generate(loaded, output_type="latent"), expected)
    assert torch.equal(generate(VidTwinPipeline.from_pretrained(tmp_path, vae=pipe.vae)), generate(pipe))


def test_a_whitening_of_tensors_is_saved_and_loaded(pipe, tmp_path):
    mean, std = [0.25] * pipe.vae.layout.num_channels, [2.0] * pipe.vae.layout.num_channels
    whitened = VidTwinPipeline.from_pipe(pipe, latents_mean=torch.tensor(mean), latents_std=torch.tensor(std))
    whitened.save_pretrained(tmp_path)
    loaded = VidTwinPipeline.from_pretrained(tmp_path)
    assert (loaded.config.latents_mean, loaded.config.latents_std) == (mean, std)
    assert torch.equal(generate(loaded), generate(whitened))


SHARDS, PICKLES = {"max_shard_size": "50KB"}, {"safe_serialization": False}


@pytest.mark.parametrize(
    ("before", "form"),
    [({}, PICKLES), ({}, SHARDS), (SHARDS, {}), (SHARDS, {"max_shard_size": "100KB"}), (SHARDS, PICKLES)],
)
def test_a_folder_that_is_saved_again_in_another_form_has_the_new_weights(pipe, before, form, tmp_path):
    pipe.save_pretrained(tmp_path, **before)
    pipe.save_pretrained(tmp_path, variant="fp16")
    old = generate(pipe)
    for model in (pipe.vae, pipe.transformer):
        with torch.no_grad():
            next(model.parameters()).mul_(2)
    pipe.save_pretrained(tmp_path, **form)
    assert torch.equal(generate(VidTwinPipeline.from_pretrained(tmp_path)), generate(pipe))
    assert torch.equal(generate(VidTwinPipeline.from_pretrained(tmp_path, variant="fp16")), old)


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
