"""How clips were generated, how often a classifier tells their class, how near training clips they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypedDict

from vidtwin_gen.records.result import Result


class _Needed(TypedDict):
    accuracy: float
    num_clips: int
    confusion: list[list[int]]


class _Accuracy(_Needed, total=False):
    interval: list[float]


class _Nearness(TypedDict):
    num_clips: int
    median_ratio: float
    nearer: float
    interval: list[float]


class _Pair(TypedDict):
    clip: int
    ratio: float
    video: str


Accuracy = Annotated[dict[str, Any], _Accuracy]
Nearness = Annotated[dict[str, Any], _Nearness]
Pairs = list[Annotated[dict[str, Any], _Pair]]


def wilson_interval(share: float, count: int) -> list[float]:
    """The 95 % confidence interval of a share of `count` clips (Wilson, 1927): it also has a width where all
    of them are right."""
    z = 1.96**2 / count
    centre, half = share + z / 2, math.sqrt(z * (share * (1 - share) + z / 4))
    return [(centre - half) / (1 + z), (centre + half) / (1 + z)]


@dataclass(frozen=True, kw_only=True)
class GeneratedRecord(Result):
    """How the clips of a folder were generated: its generated.json.

    Args:
        pipeline: name of the pipeline's folder. scheduler: its class.
        class_names, class_labels: of the classes that clips were made of, in the order of the clips.
        num_videos_per_class: None where `labels_from`, the name of a file, said how many.
        num_videos: of all classes.
        command: what the clips follow from, by the names of flags.
        dtype: of the pipeline's weights and arithmetic; None: float32.
    """

    kind: ClassVar[str] = "generated"
    written_by: ClassVar[str] = "python -m pipelines generate"
    optional: ClassVar[tuple[str, ...]] = ("command", "dtype")  # the first in earlier versions

    pipeline: str
    scheduler: str
    guidance_scale: float
    guidance_interval: list[float]
    internal_guidance_scale: float = 1.0
    num_inference_steps: int
    seed: int
    fps: float
    class_names: list[str]
    class_labels: list[int]
    num_videos_per_class: int | None
    labels_from: str | None
    num_videos: int
    command: dict[str, Any] | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        if len(self.class_names) != len(self.class_labels):
            raise ValueError(f"class_names must be as many as class_labels, got {self.class_names!r:.80}")


@dataclass(frozen=True, kw_only=True)
class AccuracyResult(Result):
    """How often a classifier trained on real clips recognises generated ones, beside real held-out ones.

    generated, real: `accuracy`, its 95 % confidence `interval` over clips (earlier versions have none),
    `num_clips` and `confusion` (a row a class asked for, a column a class seen).
    num_train: real clips that the classifier learned from.
    codec: of the generated clips, None where they are no videos; note: what it does.
    skipped_videos: real ones that give no clip, each with the reason; None where all do.
    """

    kind: ClassVar[str] = "accuracy"
    written_by: ClassVar[str] = "python -m eval accuracy"
    optional: ClassVar[tuple[str, ...]] = ("codec", "note", "skipped_videos")

    class_names: list[str]
    num_train: int
    seed: int
    fold: int
    resolution: str
    frame_rate: str
    num_steps: int
    horizontal_flip: bool
    generated: Accuracy
    real: Accuracy
    codec: str | None = None
    note: str | None = None
    skipped_videos: list[str] | None = None

    def text(self, side: str) -> str:
        """The accuracy of "generated" or "real" clips, with its interval where there is one."""
        found = getattr(self, side)
        low, high = found.get("interval", (None, None))
        return f"{found['accuracy']:.1%}" + (f" ({low:.1%} to {high:.1%})" if low is not None else "")


@dataclass(frozen=True, kw_only=True)
class NearestResult(Result):
    """How near generated clips are to training clips, beside held-out ones and copies.

    generated, held_out, copies: `num_clips`, the median of their ratios, the share that is `nearer` than the
    threshold, and its 95 % confidence `interval` over clips. A ratio is the distance to the nearest training
    clip over the median of those to each video's nearest. copies: reconstructions of training clips, None
    where they were not looked at.
    threshold: the ratio below which a twentieth of the held-out clips lies.
    thumbnail: what is compared of a clip.
    closest: of the nearest generated clips the number, the class asked for, the ratio, and the training
    video, <class>/<name>.
    codec, note, skipped_videos: as in `AccuracyResult`.
    """

    kind: ClassVar[str] = "nearest"
    written_by: ClassVar[str] = "python -m eval nearest"
    optional: ClassVar[tuple[str, ...]] = ("codec", "note", "skipped_videos")

    thumbnail: str
    threshold: float
    generated: Nearness
    held_out: Nearness
    copies: Nearness | None = None
    closest: Pairs
    num_train_videos: int
    windows_per_video: int
    seed: int
    fold: int
    resolution: str
    frame_rate: str
    resize: str
    codec: str | None = None
    note: str | None = None
    skipped_videos: list[str] | None = None

    def in_words(self) -> dict[str, str]:
        """What was found of each side."""
        sides = {"generated clips": self.generated, "held-out clips": self.held_out}
        if self.copies:
            sides["reconstructions of training clips"] = self.copies
        return {
            f"{name} nearer to a training video than 95 % of held-out ones": (
                f"{side['nearer']:.1%} ({side['interval'][0]:.1%} to {side['interval'][1]:.1%}) of "
                f"{side['num_clips']}; ratio {side['median_ratio']:.2f} in the median"
            )
            for name, side in sides.items()
        }
