"""Pipelines on the hub: pushed, and loaded again by their names there (without this package: test_export)."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipelines.labels import names_in_order
from pipelines.pipeline_vidtwin import VidTwinPipeline
from tests.builders.hub import running_hub
from tests.builders.pipelines import build_pipeline

ROOT = Path(__file__).parents[3]

# In a process of its own, as huggingface_hub reads where the hub is when it is imported.
PUSH_AND_LOAD = """
import sys
import torch
import vidtwin_gen
from huggingface_hub import HfApi
from diffusers import AutoModel, DiffusionPipeline
from safetensors.torch import save_file

def frames_of(pipe):
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    return pipe(["archery", 2], num_inference_steps=3, output_type="pt", generator=generator).frames

local, out = sys.argv[1:]
pipe = vidtwin_gen.VidTwinPipeline.from_pretrained(local)
commit = pipe.push_to_hub("user/whole", commit_message="The first")
assert commit.commit_message == "The first"
pipe.push_to_hub("user/whole", variant="fp16")
HfApi().create_repo("user/mine")
HfApi().upload_file(path_or_fileobj=b"# Mine", path_in_repo="README.md", repo_id="user/mine")
pipe.push_to_hub("user/mine")
pipe.save_pretrained(out + "/sharded", max_shard_size="100KB", push_to_hub=True, repo_id="user/sharded")

classes = {"ours": vidtwin_gen.VidTwinPipeline, "any": DiffusionPipeline}
loaded = {f"{name} {repo}": cls.from_pretrained(f"user/{repo}")
          for name, cls in classes.items() for repo in ("whole", "sharded")}
loaded["variant"] = DiffusionPipeline.from_pretrained("user/whole", variant="fp16")
for name, pipe in loaded.items():
    assert type(pipe) is vidtwin_gen.VidTwinPipeline and pipe.config.class_names[1] == "BabyCrawling", name
    assert pipe.config.training == {"flags": {"seed": 3}}, pipe.config.training
videos = {name: frames_of(pipe) for name, pipe in loaded.items()}
vae = AutoModel.from_pretrained("user/whole", subfolder="vae")
assert type(vae) is vidtwin_gen.AutoencoderVidTwin
videos["with vae"] = frames_of(vidtwin_gen.VidTwinPipeline.from_pretrained("user/sharded", vae=vae))
save_file(videos, out + "/videos.safetensors")
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A pipeline's folder, and the video that it generates."""
    pipe = build_pipeline()
    pipe.register_to_config(training={"flags": {"seed": 3}})
    folder = tmp_path_factory.mktemp("saved") / "pipeline"
    pipe.save_pretrained(folder)
    generator = torch.Generator().manual_seed(0)
    options = {"num_inference_steps": 3, "output_type": "pt", "generator": generator}
    return folder, pipe(["archery", 2], **options).frames


@pytest.mark.slow
def test_what_is_pushed_comes_back(saved, tmp_path):
    folder, frames = saved
    settings = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_TOKEN": "hf_none"}
    with running_hub() as hub:
        result = subprocess.run(
            [sys.executable, "-W", "error::FutureWarning", "-c", PUSH_AND_LOAD, str(folder), str(tmp_path)],
            cwd=ROOT,
            env={**os.environ, **settings, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")},
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert result.returncode == 0, result.stderr
        assert [request for request in hub.unknown if not request.startswith("GET /api/agent")] == []
        output = result.stderr.replace("\r", "\n").splitlines()
        assert [line for line in output if re.search("Expected types|not expected", line)] == []

        whole, sharded = hub.files("user/whole"), hub.files("user/sharded")
        weights = "diffusion_pytorch_model"
        assert {f"vae/{weights}.safetensors", f"transformer/{weights}.fp16.safetensors"} <= set(whole)
        assert len([path for path in sharded if path.startswith(f"vae/{weights}-0000")]) > 1
        for call, files in (('"user/whole", variant="fp16"', whole), ('"user/sharded"', sharded)):
            card = files["README.md"].decode()
            assert "library_name: diffusers" in card and f"from_pretrained({call})" in card
            assert json.loads(files["model_index.json"])["vae"] == ["vidtwin_gen", "AutoencoderVidTwin"]

        mine = hub.files("user/mine")  # where somebody had written a card
        assert mine["README.md"] == b"# Mine" and f"vae/{weights}.safetensors" in mine

    videos = load_file(tmp_path / "videos.safetensors")
    assert len(videos) == 6
    for name, video in videos.items():
        assert torch.equal(video, frames), name


def test_the_index_has_no_list_but_components(saved):
    """A list in a hub's index is a component to diffusers, whose code it then misses."""
    folder, _ = saved
    index = json.loads((folder / "model_index.json").read_text())
    lists = [name for name, value in index.items() if isinstance(value, list)]
    assert sorted(lists) == ["scheduler", "transformer", "vae"]
    names = list(index["class_names"])
    assert index["class_names"] == {name: label for label, name in enumerate(names)}

    index["class_names"] = names  # as it was saved before
    (folder / "model_index.json").write_text(json.dumps(index))
    assert VidTwinPipeline.from_pretrained(folder).config.class_names == names
    assert names_in_order({"b": 0, "a": 1}) == ["b", "a"]
    with pytest.raises(ValueError, match="class labels run from 0 without gaps, got"):
        names_in_order({"b": 0, "a": 2})
