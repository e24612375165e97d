"""The tracker of a run, by accelerate: whether it can be had, and pictures for it."""

from __future__ import annotations

import numpy as np
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from PIL import Image

from vidtwin_gen.files import first_line
from vidtwin_gen.training.config import TrainingConfig

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


def start_trackers(accelerator: Accelerator, config: TrainingConfig, step: int) -> None:
    """Those of `report_to`, of a run that goes on after `step`, with its flags. Raises ValueError with what a
    tracker says where it doesn't start, such as without a login."""
    # TensorBoard drops what it has past the checkpoint
    purge = {"tensorboard": {"purge_step": step + 1}} if step else {}
    try:
        accelerator.init_trackers(config.tracker_project_name, init_kwargs=purge)
        for tracker in accelerator.trackers:
            # it has the flags already, and would show a run for each time that they come
            if not (step and tracker.name == "tensorboard"):
                tracker.store_init_configuration(config.public())
    except Exception as error:  # each tracker has errors of its own
        raise ValueError(
            f"--report_to {config.report_to} --tracker_project_name {config.tracker_project_name}: "
            f"{first_line(error)}; mend that, or take --report_to none"
        ) from error


def log_picture(accelerator: Accelerator, picture: Image.Image, step: int) -> None:
    """`picture` as the `samples` of that step, where the tracker takes pictures; only the first process has
    trackers."""
    for tracker in accelerator.trackers:
        if tracker.name in PICTURE_OPTIONS:
            pixels = np.asarray(picture.convert("RGB"))[None]  # (1, H, W, 3), uint8
            tracker.log_images({"samples": pixels}, step=step, **PICTURE_OPTIONS[tracker.name])
