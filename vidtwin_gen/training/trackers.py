"""The tracker of a run, by accelerate: whether it can be had, and pictures for it."""

from __future__ import annotations

import numpy as np
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from PIL import Image

# what `log_images` needs to know where it does not take a batch of pictures (N, H, W, 3) as it is
PICTURE_OPTIONS = {"tensorboard": {"dataformats": "NHWC"}, "wandb": {}}


def check_tracker(name: str) -> None:
    """accelerate itself trains without a tracker that is not installed. Raises ValueError where there is no
    such tracker, or it is not installed."""
    if name in ("none", "all"):
        return
    if name not in LOGGER_TYPE_TO_CLASS:
        known = ", ".join(sorted(LOGGER_TYPE_TO_CLASS))
        raise ValueError(f"--report_to is none, all, or one of {known}; got {name!r}")
    if name not in [str(tracker) for tracker in get_available_trackers()]:
        raise ValueError(f"--report_to {name} is not installed: pip install {name}; or --report_to none")


def log_picture(accelerator: Accelerator, picture: Image.Image, step: int) -> None:
    """`picture` as the `samples` of that step, where the tracker takes pictures; only the first process has
    trackers."""
    for tracker in accelerator.trackers:
        if tracker.name in PICTURE_OPTIONS:
            pixels = np.asarray(picture.convert("RGB"))[None]  # (1, H, W, 3), uint8
            tracker.log_images({"samples": pixels}, step=step, **PICTURE_OPTIONS[tracker.name])
