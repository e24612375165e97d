"""The weights that the repository carries: they load, they are small, and a clip of them is as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from vidtwin_gen import VidTwinPipeline

PRETRAINED = Path(__file__).parents[1] / "pretrained"
NAMES = sorted(path.name for path in PRETRAINED.iterdir() if path.is_dir())
LIMIT = 25e6  # bytes of all weights

# A clip of seed 0 in five steps: the mean of its first, middle and last frame, by channel, in [0, 1]
CLIPS = {
    "moving-shapes": (
        "BouncingBall",
        [[0.21122, 0.25410, 0.26847], [0.20149, 0.25500, 0.27800], [0.20264, 0.24678, 0.28120]],
    ),
    "ucf101-10": (
        "HandstandWalking",
        [[0.29492, 0.30864, 0.37044], [0.29696, 0.31134, 0.36806], [0.30416, 0.31788, 0.37563]],
    ),
}


def test_they_are_named_here() -> None:
    assert set(CLIPS) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_clip_is_as_it_was(name: str) -> None:
    label, means = CLIPS[name]
    pipe = VidTwinPipeline.from_pretrained(PRETRAINED / name)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    (clip,) = pipe(label, num_inference_steps=5, generator=generator, output_type="pt").frames
    assert clip.dtype == torch.float32 and clip.std(0).mean() > 0.01  # it moves
    found = clip[[0, len(clip) // 2, -1]].mean((2, 3))  # (F, C, H, W)
    torch.testing.assert_close(found, torch.tensor(means), atol=2e-3, rtol=0)


def test_their_weights_are_halves_and_small() -> None:
    files = list(PRETRAINED.rglob("*.safetensors"))
    assert len(files) == 2 * len(NAMES) and sum(path.stat().st_size for path in files) < LIMIT
    for path in files:
        with safe_open(path, "pt") as weights:
            assert {weights.get_slice(key).get_dtype() for key in weights.keys()} == {"F16"}  # noqa: SIM118


@pytest.mark.parametrize("name", NAMES)
def test_they_say_where_they_come_from(name: str) -> None:
    """Commands, metrics with their protocol, loss curves, and no place of the machine that trained them."""
    card = (PRETRAINED / name / "README.md").read_text(encoding="utf-8")
    scripts, curves = ("train_vae.py", "train_dit.py"), ("stage_1.png", "stage_2.png")
    for words in (*scripts, *curves, "PSNR", "FVD", "KVD", "class accuracy"):
        assert words in card
    for path in (PRETRAINED / name).rglob("*.json"):
        config = json.loads(path.read_text(encoding="utf-8"))
        assert not str(config.get("_name_or_path", "")).startswith("/")
