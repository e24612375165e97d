"""Tiny video encoders of transformers, saved as the hub has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import PreTrainedModel, VideoMAEConfig, VideoMAEModel, VJEPA2Config, VJEPA2Model

VJEPA2_SIZES: dict[str, Any] = {
    "crop_size": 16,
    "patch_size": 4,
    "frames_per_clip": 4,
    "hidden_size": 12,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "pred_hidden_size": 12,
    "pred_num_attention_heads": 2,
    "pred_num_hidden_layers": 1,
    "num_pooler_layers": 1,
}
VIDEOMAE_SIZES: dict[str, Any] = {
    "image_size": 16,
    "patch_size": 8,
    "num_frames": 4,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "intermediate_size": 16,
}
COLOURS = {"rescale_factor": 1 / 255, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.5]}
PROCESSOR = {"vjepa2": "video_preprocessor_config.json", "videomae": "preprocessor_config.json"}


def save_video_encoder(
    folder: Path, kind: Literal["vjepa2", "videomae"] = "vjepa2", seed: int = 0
) -> PreTrainedModel:
    """The model that `folder` then holds, of random weights that are no smaller than trained ones."""
    torch.manual_seed(seed)
    model = VJEPA2Model(VJEPA2Config(**VJEPA2_SIZES))
    if kind == "videomae":
        model = VideoMAEModel(VideoMAEConfig(**VIDEOMAE_SIZES))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.eval().save_pretrained(folder)
    (folder / PROCESSOR[kind]).write_text(json.dumps(COLOURS))
    return model
