"""Small clips that drift, as real and as generated ones, and the commands of the FVD that read them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from eval.fvd import protocols
from eval.fvd.protocols import ClipProtocol
from tests.builders import commands
from tests.builders.autoencoders import build_autoencoder

CLASS_NAMES = ("Left", "Right", "Up")
SHAPE = (4, 16, 16)  # frames, height, width

words_of = partial(commands.words_of, num_workers=0)
run = partial(commands.run, num_workers=0)
refused = partial(commands.refused, num_workers=0)


def drifting_clips(count: int, seed: int, shape: tuple[int, int, int] = SHAPE) -> torch.Tensor:
    """Smooth blobs that drift, (N, F, H, W, 3) uint8."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 3, 5, 5, generator=generator)
    clips = torch.nn.functional.interpolate(coarse, shape, mode="trilinear", align_corners=True)
    return (clips * 255).round().to(torch.uint8).permute(0, 2, 3, 4, 1).contiguous()


def write_generated(
    folder: Path, counts: Sequence[int] = (4, 4, 4), seed: int = 0, shape: tuple[int, int, int] = SHAPE
) -> Path:
    """The tensors of a new folder of generated clips, so many of each class."""
    folder.mkdir(parents=True)
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    frames = drifting_clips(len(labels), 100 + seed, shape)
    save_file({"frames": frames, "labels": torch.tensor(labels)}, folder / "clips.safetensors")
    record = {"class_names": CLASS_NAMES, "class_labels": list(range(len(CLASS_NAMES))), "seed": seed}
    (folder / "generated.json").write_text(json.dumps(record))
    return folder / "clips.safetensors"


def save_autoencoder(folder: Path) -> Path:
    """Of clips as long as these and higher, so that they are resized for it."""
    build_autoencoder(num_frames=SHAPE[0], height=24).save_pretrained(folder)
    return folder


def add_protocol(monkeypatch: pytest.MonkeyPatch, name: str, num_clips: int, **changes: Any) -> None:
    """One more by name, of small clips."""
    settings: dict[str, Any] = {"split": "all", "stride": 1, "selection": "videos"} | changes
    monkeypatch.setitem(protocols.PROTOCOLS, name, ClipProtocol(name, num_clips, *SHAPE, **settings))
