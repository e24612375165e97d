"""Every command and every block of Python on every page runs: a test each, named by page and line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan
from diffusers.utils import dynamic_modules_utils

from autoencoder.model.vidtwin import AutoencoderVidTwin
from autoencoder.released import to_released_state_dict
from eval.cost.flags import DIT_SIZES
from eval.fvd.protocols import PROTOCOLS, ClipProtocol
from pipelines.pipeline_vidtwin import VidTwinPipeline
from tests.builders.autoencoders import TRAINED_AUTOENCODER, WAN_CONFIG
from tests.builders.extractors import FilterResponses, install
from tests.builders.hub import running_hub
from tests.builders.pipelines import build_pipeline
from tests.builders.video_encoders import save_video_encoder
from tests.builders.videos import write_shard
from tests.docs.pages import ROOT, STEPS, Step
from tests.docs.reader import Reader
from vidtwin_gen.models.sizes import SIZES

REAL_NAMES = {"BouncingBall": "Archery", "SlidingDoor": "Biking"}
RELEASED = TRAINED_AUTOENCODER | {"hidden_size": 64, "num_heads": 1, "qformer_heads": 8}


def link_ucf101(synthetic_root: Path, folder: Path) -> None:
    """Two classes of the embedded data under real names."""
    for drawn, real in REAL_NAMES.items():
        (folder / real).mkdir(parents=True)
        for path in (synthetic_root / drawn).iterdir():
            (folder / real / path.name.replace(drawn, real)).symlink_to(path)
    (folder / "ucfTrainTestlist").mkdir()
    for path in (synthetic_root / "ucfTrainTestlist").iterdir():
        text = path.read_text()
        for drawn, real in REAL_NAMES.items():
            text = text.replace(drawn, real)
        lines = [line for line in text.splitlines() if any(real in line for real in REAL_NAMES.values())]
        (folder / "ucfTrainTestlist" / path.name).write_text("\n".join(lines))


@pytest.fixture(scope="module")
def reader(synthetic_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """In a folder with what the pages take for granted: UCF-101, a checkpoint as if released, the config of a
    small autoencoder, a Wan autoencoder, a video encoder, the pipelines of the demo and of docs/api.md, and
    what the repository ships."""
    folder = tmp_path_factory.mktemp("reader")
    link_ucf101(synthetic_root, folder / "UCF-101")
    released = AutoencoderVidTwin(**RELEASED).state_dict()
    positions = torch.zeros(1, 16, RELEASED["hidden_size"])
    released = {"encoder.pos_embed": positions, **to_released_state_dict(released)}
    torch.save({"state_dict": released}, folder / "vidtwin_structure_7_7_8_dynamics_7_8.ckpt")
    AutoencoderVidTwin(**RELEASED).save_config(folder / "tiny")
    save_video_encoder(folder / "facebook/vjepa2-vitl-fpc64-256")
    AutoencoderKLWan(**WAN_CONFIG).save_pretrained(folder / "wan" / "vae")
    write_shard(folder / "shards" / "train-000.tar", [(b"a video", str(k % 2)) for k in range(12)])
    pipe = build_pipeline()
    pipe.save_pretrained(folder / "path/to/pipeline")
    names = ["BouncingBall", *pipe.config.class_names][: pipe.transformer.config.num_classes]
    demo = VidTwinPipeline(**pipe.components, class_names=names, fps=8)
    for preset in ("demo", "long"):
        demo.save_pretrained(folder / "runs" / preset / "dit/pipeline")
    for shipped in ("pretrained", "autoencoder"):
        (folder / shipped).symlink_to(ROOT / shipped)
    return Reader(folder)


@pytest.fixture(autouse=True)
def small_world(reader: Reader, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The reader's folder, a hub of our own, a small size and a small protocol by their usual names, and a
    small network in place of I3D, which takes no clips as short as these."""
    monkeypatch.chdir(reader.folder)
    install(monkeypatch, FilterResponses())
    for sizes in (SIZES, DIT_SIZES):
        monkeypatch.setitem(sizes, "S", {"hidden_size": 16, "num_layers": 2, "num_heads": 2})
    small = ClipProtocol("magvit-10k", 8, 4, 16, 16, "train", 1, "videos", num_seeds=4)
    monkeypatch.setitem(PROTOCOLS, "magvit-10k", small)
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    monkeypatch.setattr(dynamic_modules_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    with running_hub() as hub:
        hub.take_the_place_of_the_real_one(monkeypatch, tmp_path / "cache")
        yield


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_a_step_runs(step: Step, reader: Reader) -> None:
    reader.run(step)
