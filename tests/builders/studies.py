"""The JSON of a study, as small as may be."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from tests.builders.autoencoders import TINY_AUTOENCODER, build_of
from tests.builders.runs import DIT_FLAGS, TRAINING_FLAGS, command_line

SHORT = {"max_train_steps": 2, "checkpointing_steps": 2, "validation_steps": 2}
STAGE_1 = TRAINING_FLAGS | SHORT | {"train_batch_size": 2, "lpips_weight": 0, "gan_weight": 0}
STAGE_2 = DIT_FLAGS | SHORT | {"max_train_steps": 4, "num_sample_classes": 1, "num_inference_steps": 1}


def write_study(folder: Path, videos: Path, **changes: Any) -> Path:
    """Of a VidTwin that is trained and of a saved Wan, with changes; a change to None leaves the key out."""
    ours = folder / "ours.json"
    if not ours.exists():
        ours.write_text(
            json.dumps({"_class_name": "AutoencoderVidTwin"} | TINY_AUTOENCODER | {"num_frames": 5})
        )
    if not (folder / "wan").exists():
        build_of("AutoencoderKLWan").save_pretrained(folder / "wan")
    study = {
        "data": str(videos),
        "num_frames": 5,
        "height": 16,
        "width": 16,
        "windows_per_video": 1,
        "train_vae": shlex.join(command_line(STAGE_1, num_validation_videos=2)),
        "train_dit": shlex.join(command_line(STAGE_2, patch_size=None)),
        "base": "ours",
        "seeds": [0],
        "points": [1.0],
        "num_clips": 4,
        "num_inference_steps": 2,
        "more_inference_steps": [1],
        "rows": {"ours": {"autoencoder": str(ours)}, "wan": {"autoencoder": str(folder / "wan")}},
    }
    path = folder / "study.json"
    kept = {name: value for name, value in (study | changes).items() if value is not None}
    path.write_text(json.dumps(kept))
    return path
