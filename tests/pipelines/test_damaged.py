"""A saved pipeline that is damaged, or was changed by hand, is refused in one line, and nothing is made."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipelines.__main__ import main
from tests.builders.pipelines import NAMES, build_pipeline
from vidtwin_gen import AutoencoderVidTwin, LatentTransformer, VidTwinPipeline

TENSOR = "proj_in.structure.weight"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "pipeline"
    build_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "pipeline")


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def refusal(folder, capsys):
    """The line that `generate` ends with."""
    words = ["generate", "--pipeline", str(folder), "--out", str(folder.parent / "out")]
    with pytest.raises(SystemExit) as stopped:
        main([*words, "--num_inference_steps", "2", "--class_labels", "0"])
    error = capsys.readouterr().err
    line = error.strip().splitlines()[-1]
    assert stopped.value.code == 2 and line.startswith("python -m pipelines generate: error: ")
    assert "Traceback" not in error and not (folder.parent / "out").exists()
    return line


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda tensor: {TENSOR: tensor * float("nan")}, f"{TENSOR} holds NaN or infinity"),
        (lambda tensor: {TENSOR: tensor.int()}, f"whole numbers: {TENSOR}"),
        (lambda tensor: {"stranger": tensor.clone()}, "unknown: stranger"),
        (lambda tensor: {TENSOR: tensor[:2]}, f"of another shape: {TENSOR} [2,"),
    ],
    ids=["not finite", "whole numbers", "left over", "another shape"],
)
def test_weights(folder, capsys, damage, message):
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    save_file(tensors | damage(tensors[TENSOR]), path, metadata={"format": "pt"})
    line = refusal(folder, capsys)
    assert message in line and str(folder) in line


def test_a_missing_tensor_and_a_truncated_file(folder, capsys):
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    save_file({k: v for k, v in tensors.items() if k != TENSOR}, path, metadata={"format": "pt"})
    assert f"missing: {TENSOR}" in refusal(folder, capsys)
    LatentTransformer.from_pretrained(folder / "transformer", ignore_mismatched_sizes=True)
    path.write_bytes(path.read_bytes()[:-100])
    assert "copy again" in refusal(folder, capsys)


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("transformer/config.json", {"num_layers": 0}, "num_layers must be a whole number from 1"),
        ("transformer/config.json", {"num_layers": 10**9}, "num_layers must be a whole number from 1"),
        ("transformer/config.json", {"hidden_size": "32"}, "hidden_size must be a whole number"),
        ("transformer/config.json", {"mlp_ratio": float("nan")}, "mlp_ratio must be a finite number"),
        ("transformer/config.json", {"patch_size": 1.5}, "patch_size must be a whole number"),
        ("transformer/config.json", {"patch_size": 10**9}, "patch_size must be a number from"),
        ("transformer/config.json", {"layout": None}, "layout must be a list"),
        ("vae/config.json", {"num_heads": 0}, "num_heads must be a whole number from 1"),
        ("vae/config.json", {"causal": 1}, "causal must be true or false"),
        ("vae/config.json", {"height": 2**16, "width": 2**16, "patch_size": 1}, "no machine computes"),
        ("vae/config.json", {"latents_mean": [0.0]}, "latents_mean: expected 12 finite values"),
        ("vae/config.json", {"latents_std": [0.0] * 12}, "latents_std must be above 0"),
        ("vae/config.json", {"latents_mean": "none"}, "latents_mean must be a list"),
        ("model_index.json", {"class_names": "abcd"}, "class names are a list of words"),
        ("model_index.json", {"class_names": {"a": 0, "b": 1, "c": 2, "d": "3"}}, "class labels run from 0"),
        ("model_index.json", {"fps": -3.0}, "fps is a number"),
        ("model_index.json", {"fps": 10**400}, "fps is a number"),
        ("model_index.json", {"latents_mean": [1.0] * 12}, "latents_mean and latents_std go together"),
        ("vae/config.json", {"latents_std": [2.0**63] * 12}, "latents_std must be at most"),
        ("scheduler/scheduler_config.json", {"shift": 0}, "shift=0"),
        ("scheduler/scheduler_config.json", {"shift": "high"}, "shift must be a finite number"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**9}, "must be 1000, got 1000000000"),
        ("scheduler/scheduler_config.json", {"_class_name": "DDIMScheduler"}, "its scheduler is DDIMSch"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_configurations(folder, capsys, file, values, message):
    change(folder / file, **values)
    line = refusal(folder, capsys)
    assert message in line and ("scheduler" in file or str((folder / file).parent) in line)


@pytest.mark.parametrize("text", ["null", "", "{}"])
@pytest.mark.parametrize("file", ["model_index.json", "transformer/config.json"])
def test_a_file_that_is_no_configuration(folder, capsys, file, text):
    (folder / file).write_text(text)
    assert str(folder) in refusal(folder, capsys)


def test_frames_that_are_not_finite_are_not_written(folder, capsys):
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["proj_out.structure.weight"].fill_(3e38)  # finite, and whose products are not
    save_file(tensors, path, metadata={"format": "pt"})
    assert "generates NaN or infinity" in refusal(folder, capsys)


def test_whole_files_still_load(folder):
    pipe = VidTwinPipeline.from_pretrained(folder)
    assert list(pipe.config.class_names) == NAMES
    AutoencoderVidTwin.from_pretrained(folder / "vae", dtype=torch.float16)
