"""The flags of `python -m pipelines`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vidtwin_gen.flags import DEVICE, dtype_flag, flag, positive, rate, whole


@dataclass(kw_only=True)
class SamplingFlags:
    """Of the verbs that sample."""

    pipeline: str = flag("folder of a saved VidTwinPipeline", required=True)
    out: str = flag("new folder for the videos", required=True)
    guidance_scale: float = flag("classifier-free guidance; 1 means none, at half the cost", 4.0, type=float)
    guidance_interval: tuple[float, float] = flag(
        "fractions of the steps between which guidance acts; steps outside cost half",
        (0.0, 1.0),
        type=float,
        nargs=2,
        metavar=("START", "STOP"),
    )
    internal_guidance_scale: float = flag(
        "for a pipeline trained with --internal_guidance; costs nothing; 1 means none", 1.0, type=float
    )
    num_inference_steps: int = flag("sampling steps", 50, type=positive)
    seed: int = flag("seed of the noise; a clip depends on it, its class and its number", 0, type=whole)
    format: str = flag(
        "format of the videos; a GIF of more than 50 frames a second keeps every second frame",
        "mp4",
        choices=["mp4", "gif", "both"],
    )
    fps: float | None = flag("frames per second of the files; left out: the pipeline's own", type=rate)
    device: str | None = flag(DEVICE)
    dtype: str = dtype_flag("the pipeline's networks")


@dataclass(kw_only=True)
class GenerateFlags(SamplingFlags):
    class_labels: list[str] | None = flag(
        "class names or ids; left out: all classes", nargs="+", metavar="CLASS", excludes="classes"
    )
    labels_from: Path | None = flag(
        "file that says how many videos of each class: of `python -m eval reference`, or JSON with a number "
        "for each class name",
        type=Path,
        metavar="FILE",
        excludes="classes",
    )
    num_videos_per_class: int = flag(
        "videos of each class; left out: 4, or as --labels_from says", type=positive
    )
    batch_size: int = flag("clips at once; changes rounding only", 16, type=positive)

    def __post_init__(self) -> None:
        if self.num_videos_per_class is None:
            self.num_videos_per_class = 4
        elif self.labels_from is not None:
            print(f"--labels_from {self.labels_from} says how many videos, not --num_videos_per_class")


@dataclass(kw_only=True)
class EditFlags(SamplingFlags):
    video: str = flag("a video file; one window of it is taken", required=True)
    start: int = flag("the window's first frame", 0, type=whole)
    stride: int | None = flag(
        "take every n-th frame; left out: the frame rate of the pipeline's clips", type=positive
    )
    keep: str = flag("the part of the video that stays", choices=["structure", "dynamics"], required=True)
    class_labels: list[str] = flag("classes of the new videos", nargs="+", required=True, metavar="CLASS")
    num_videos_per_class: int = flag("new videos of each class", 3, type=positive)
    num_resamples: int = flag(
        "how often the noise is resampled at each step: more follow the kept part more closely, and each "
        "costs as much as the sampling itself",
        1,
        type=whole,
    )
    batch_size: int = flag("clips at once; changes rounding only", 16, type=positive)


@dataclass(kw_only=True)
class MixFlags(SamplingFlags):
    class_labels: list[str] = flag("classes of the two clips", nargs=2, required=True, metavar="CLASS")
    num_videos_per_class: int = flag("pairs to mix", 1, type=positive)


@dataclass(kw_only=True)
class AppFlags:
    """Of the studio, `eval/app/`."""

    pipeline: str | None = flag(
        "folder of a saved VidTwinPipeline; left out: pretrained/moving-shapes of a checkout"
    )
    host: str = flag("address to listen at; 0.0.0.0: every network of this machine", "127.0.0.1")
    port: int | None = flag("port; left out: the first free one from 7860 on", type=positive)
    share: bool = flag("also a public link, through a server of gradio's", False, action="store_true")
    device: str | None = flag(DEVICE)


@dataclass(kw_only=True)
class ExportFlags:
    pipeline: str = flag("folder of a saved VidTwinPipeline", required=True)
    out: str = flag("folder for it, new or empty", required=True)


@dataclass(kw_only=True)
class CardFlags:
    pipeline: str = flag("folder of a saved VidTwinPipeline", required=True)
    metrics: list[str] | None = flag(
        "results of `python -m eval fvd`, recon, accuracy; generated.json says how clips were sampled",
        nargs="+",
        metavar="JSON",
    )
    dataset: str | None = flag("name of the training data")
    license: str | None = flag("licence of the weights, as the hub spells it; left out: apache-2.0")


@dataclass(kw_only=True)
class CheckpointFlags:
    """Of `python -m vidtwin_gen export`."""

    checkpoint: str = flag("a folder checkpoint-<step> of train_vae.py or train_dit.py", required=True)
    out: str = flag("folder for the autoencoder or the pipeline, new or empty", required=True)
    no_ema: bool = flag("export the weights of the last step, not their EMA", False, action="store_true")
    vae: str | None = flag("for a pipeline: its autoencoder; left out: where the run had it")
    latents: str | None = flag(
        "for a pipeline: the latents it was trained on; left out: where the run had them"
    )
