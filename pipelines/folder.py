"""The new folder that a command writes, and the saved pipeline that it reads."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.labels import label_ids
from pipelines.pipeline_vidtwin import VidTwinPipeline
from vidtwin_gen.data.video import write_gif, write_video

DEFAULT_FPS = 8.0  # where the pipeline's config does not say


def load_pipeline(args: argparse.Namespace) -> VidTwinPipeline:
    """The saved pipeline --pipeline on --device, once --out can be written. Raises ValueError."""
    folder, out = Path(args.pipeline), Path(args.out)
    if not (folder / "model_index.json").is_file():
        raise ValueError(
            f"--pipeline {folder} holds no model_index.json; name the folder of a saved pipeline"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(
            f"--out {out} is not empty and old videos would mix with new ones; name a new folder"
        )
    pipe = VidTwinPipeline.from_pretrained(folder).to(args.device)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def class_ids(pipe: VidTwinPipeline, labels: Sequence[str]) -> list[int]:
    """--class_labels as ids. A class may be called 7; a number is an id only where it is not a name.

    Raises:
        ValueError: one that is neither.
    """
    names = pipe.config.class_names or ()
    try:
        return label_ids(
            [int(text) if text.isdecimal() and text not in names else text for text in labels],
            pipe.transformer.config.num_classes,
            pipe.config.class_names,
        )
    except ValueError as error:
        raise ValueError(f"--class_labels: {error}") from None


def class_folder_name(pipe: VidTwinPipeline, label: int) -> str:
    names = pipe.config.class_names
    return names[label] if names else f"class_{label:03d}"


def frame_rate(pipe: VidTwinPipeline, args: argparse.Namespace) -> float:
    return args.fps or pipe.config.fps or DEFAULT_FPS


def clip_formats(args: argparse.Namespace) -> tuple[str, ...]:
    return ("mp4", "gif") if args.format == "both" else (args.format,)


def write_clip(path: Path, clip: Any, fps: float, formats: Sequence[str]) -> None:
    """A clip as `write_video` and `write_gif` take it, under this name with the formats' suffixes."""
    path.parent.mkdir(exist_ok=True)
    if "mp4" in formats:
        write_video(path.with_suffix(".mp4"), clip, fps)
    if "gif" in formats:
        write_gif(path.with_suffix(".gif"), clip, fps)


def sampling_options(args: argparse.Namespace) -> dict[str, Any]:
    """What of a pipeline's arguments every command takes as flags."""
    return {
        "guidance_scale": args.guidance_scale,
        "guidance_interval": list(args.guidance_interval),
        "num_inference_steps": args.num_inference_steps,
    }


def sampling_record(pipe: VidTwinPipeline, args: argparse.Namespace, fps: float) -> dict[str, Any]:
    """What the record of every command holds."""
    return {
        "pipeline": Path(args.pipeline).resolve().name,
        "scheduler": type(pipe.scheduler).__name__,
        **sampling_options(args),
        "seed": args.seed,
        "fps": fps,
    }


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(record, indent=2) + "\n")


def clip_generator(seed: int, label: int, number: int) -> torch.Generator:
    """The noise of one clip: neither the batch size nor the other classes asked for change it."""
    state = np.random.SeedSequence((seed, label, number)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state))
