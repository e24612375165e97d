"""What the commands that sample share: the saved pipeline, classes and noise of clips, and their files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch

from autoencoder.loading import load_video_autoencoder
from pipelines.flags import SamplingFlags
from pipelines.guidance import check_guidance
from pipelines.labels import label_ids
from pipelines.pipeline_vidtwin import VidTwinPipeline
from pipelines.schedulers import check_scheduler
from vidtwin_gen.data.writing import write_gif, write_video
from vidtwin_gen.devices import find_device, find_dtype
from vidtwin_gen.files import file_sha256, loading, read_json
from vidtwin_gen.flags import dtype_record
from vidtwin_gen.models.checks import check_arguments
from vidtwin_gen.models.parametrization import NUM_TRAIN_TIMESTEPS
from vidtwin_gen.models.transformer import LatentTransformer

WANTED = "name with --pipeline the folder of a saved pipeline"
COPY = "copy again the whole folder that save_pretrained wrote"
DEFAULT_FPS = 8.0  # where the pipeline's config does not say
SLOWEST, FASTEST = 0.01, 1e6  # frames a second that both an MP4 and a GIF can hold


def load_pipeline(flags: SamplingFlags) -> VidTwinPipeline:
    """The saved pipeline --pipeline on --device, its networks in --dtype. Raises ValueError where there is no
    such folder, where what it holds does not go together, or the guidance does not go with it."""
    folder, device = Path(flags.pipeline), find_device(flags.device)
    dtype = find_dtype(flags.dtype, device)
    if isinstance(read_json(folder / "model_index.json", WANTED).get("_class_name"), list):
        raise ValueError(
            f"--pipeline {folder} is an export, with code of its own, which commands do not run: name the "
            "pipeline that it was exported from, or load it in Python with trust_remote_code=True"
        )
    check_scheduler_files(folder)
    vae = load_video_autoencoder(folder / "vae", dtype)
    with loading(f"--pipeline {folder}/transformer", COPY):
        transformer = LatentTransformer.from_pretrained(folder / "transformer", dtype=dtype)
    with loading(f"--pipeline {folder}", COPY):
        pipe = VidTwinPipeline.from_pretrained(folder, vae=vae, transformer=transformer)
    check_scheduler(pipe.scheduler, pipe.transformer.config.prediction_type, pipe.trained_shift)
    scales = flags.guidance_scale, flags.guidance_interval, 0.0, flags.internal_guidance_scale
    check_guidance(*scales, pipe.transformer)
    trained = (pipe.config.training or {}).get("flags", {})
    if flags.guidance_scale > 1 and trained.get("class_dropout") == 0 and not trained.get("init_from"):
        print(
            f"--pipeline {folder} was trained with --class_dropout 0 and does not know what no class looks "
            f"like, away from which --guidance_scale {flags.guidance_scale} guides: take 1"
        )
    pipe = pipe.to(device)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def check_scheduler_files(folder: Path) -> None:
    """Raises ValueError where a saved pipeline's scheduler is of another class than its index says, which
    diffusers would take for one of that class, has settings of another type, or has another scale of
    timesteps, of which it would make a table of any length."""
    index = read_json(folder / "model_index.json", WANTED)
    config = read_json(folder / "scheduler" / "scheduler_config.json", COPY)
    found, named = config.get("_class_name"), index.get("scheduler")
    if not isinstance(named, list) or named[1:] != [found]:
        raise ValueError(
            f"--pipeline {folder}: model_index.json names {named}, its scheduler is {found}; {COPY}"
        )
    try:
        check_arguments(getattr(diffusers, str(found), object), config)
    except ValueError as error:
        raise ValueError(f"--pipeline {folder}/scheduler: {error}; {COPY}") from None
    if config.get("num_train_timesteps", NUM_TRAIN_TIMESTEPS) != NUM_TRAIN_TIMESTEPS:
        raise ValueError(
            f"--pipeline {folder}: the scheduler's num_train_timesteps must be {NUM_TRAIN_TIMESTEPS}, got "
            f"{config['num_train_timesteps']!r}"
        )


def class_ids(pipe: VidTwinPipeline, labels: Sequence[str], *, may_repeat: bool = False) -> list[int]:
    """--class_labels as ids. A class may be called 7; a number is an id only where it is not a name. Raises
    ValueError for one that is neither, or that is there already."""
    names = pipe.config.class_names or ()
    try:
        ids = label_ids(
            [int(text) if text.isdecimal() and text not in names else text for text in labels],
            pipe.transformer.config.num_classes,
            pipe.config.class_names,
        )
    except ValueError as error:
        raise ValueError(f"--class_labels: {error}") from None
    if len(set(ids)) < len(ids) and not may_repeat:
        raise ValueError(
            f"--class_labels {' '.join(labels)} names a class twice, whose clips would be the same: name it "
            "once, and ask for more of it with --num_videos_per_class"
        )
    return ids


def all_class_names(pipe: VidTwinPipeline) -> list[str]:
    """The pipeline's, or class_000 and so on where it has none."""
    numbers = range(pipe.transformer.config.num_classes)
    return list(pipe.config.class_names or (f"class_{label:03d}" for label in numbers))


def frame_rate(pipe: VidTwinPipeline, flags: SamplingFlags) -> float:
    """Of the files. Raises ValueError for one that no file can hold."""
    fps = flags.fps or pipe.config.fps or DEFAULT_FPS
    if not SLOWEST <= fps <= FASTEST:
        raise ValueError(f"--fps of a video file is from {SLOWEST:g} to {FASTEST:.0f}, got {fps:g}")
    return fps


def sample(
    pipe: VidTwinPipeline, flags: SamplingFlags, clips: Sequence[tuple[int, int, int]], **options: Any
) -> torch.Tensor:
    """What the pipeline gives, as `output_type` in the options says, for each (seed, label, number)."""
    sampled = pipe(
        [label for _, label, _ in clips],
        generator=[clip_generator(*clip) for clip in clips],
        return_dict=False,
        **sampling_options(flags),
        **options,
    )
    videos = torch.as_tensor(sampled[0])
    if not torch.isfinite(videos).all():
        raise ValueError(
            f"--pipeline {flags.pipeline} generates NaN or infinity: a lower --guidance_scale, another "
            "scheduler or --dtype float32 may help; else train it again"
        )
    return videos


def suffixes(flags: SamplingFlags) -> tuple[str, ...]:
    """Of the files of a clip."""
    return ("mp4", "gif") if flags.format == "both" else (flags.format,)


def write_clip(path: Path, clip: Any, fps: float, flags: SamplingFlags) -> None:
    """A clip as `write_video` and `write_gif` take it, under this name, dots included, with the
    suffixes of --format."""
    path.parent.mkdir(exist_ok=True)
    writers = {"mp4": write_video, "gif": write_gif}
    for suffix in suffixes(flags):
        writers[suffix](path.with_name(f"{path.name}.{suffix}"), clip, fps)


def sampling_options(flags: SamplingFlags) -> dict[str, Any]:
    """What of a pipeline's arguments every command takes as flags."""
    return {
        "guidance_scale": flags.guidance_scale,
        "guidance_interval": list(flags.guidance_interval),
        "internal_guidance_scale": flags.internal_guidance_scale,
        "num_inference_steps": flags.num_inference_steps,
    }


def sampling_command(flags: SamplingFlags) -> dict[str, Any]:
    """What the files of a command follow from, as JSON by the names of flags; content by its digest. Raises
    ValueError where --pipeline is no pipeline."""
    folder, values = Path(flags.pipeline), vars(flags)
    index = read_json(folder / "model_index.json", WANTED)
    index.pop("training", None)  # what a model card says
    digests = [
        file_sha256(*sorted(filter(Path.is_file, folder.glob("*/*")))),
        hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest(),
    ]
    command = {name: values[name] for name in values.keys() - {"out", "device", "batch_size"}}
    if flags.internal_guidance_scale == 1:  # folders of earlier versions do not name it
        del command["internal_guidance_scale"]
    if flags.dtype == "float32":  # nor this
        del command["dtype"]
    command |= {"pipeline": " ".join(digest[:16] for digest in digests)}
    for name in {"video", "labels_from"} & command.keys():
        if command[name] and Path(command[name]).is_file():  # else it is refused where it is read
            command[name] = file_sha256(command[name])[:16]
    return json.loads(json.dumps(command, sort_keys=True, default=str))


def sampling_record(
    pipe: VidTwinPipeline, flags: SamplingFlags, fps: float, command: dict[str, Any]
) -> dict[str, Any]:
    """What every command records."""
    return {
        "pipeline": Path(flags.pipeline).resolve().name,
        "scheduler": type(pipe.scheduler).__name__,
        **sampling_options(flags),
        "seed": flags.seed,
        "fps": fps,
        **dtype_record(flags.dtype),
        "command": command,
    }


def clip_generator(seed: int, label: int, number: int) -> torch.Generator:
    """The noise of one clip: neither the batch size nor the other classes asked for change it."""
    state = np.random.SeedSequence((seed, label, number)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state))
