"""What all rows share: the data, one autoencoder, its latents, and the floors of the distances."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets

from benchmarks.recipe.rows import TINY, TINY_STEPS
from eval.study.distances import ClipDistances
from eval.study.judge import Judge
from eval.study.stages import do, once
from vidtwin_gen.data.ucf101 import build_index
from vidtwin_gen.demo import DEMO_SIZES, Stage
from vidtwin_gen.files import read_json

LATENTS = "latents.json"
FLOORS = ("real", "reconstructions")


@dataclass(frozen=True)
class Settings:
    """Of an ablation: all that its numbers depend on besides a row, its steps and its seed.

    Args:
        data: the videos, None for the embedded ones. vae, latents: None where they are made here.
        features: the video encoder whose features are stored beside latents that are made here.
        max_train_steps: of the base. num_clips, num_fvd_clips: generated for a class accuracy and measured
            for an FVD, 0 for none.
    """

    stage: int
    size: str
    data: str | None
    vae: str | None
    latents: str | None
    features: str | None
    max_train_steps: int
    num_clips: int
    num_fvd_clips: int
    threads: int
    tiny: bool


@dataclass(frozen=True)
class Inputs:
    """Folders, and what `latents.json` says; of stage 1 the data alone. `features`: where what is computed
    of clips is kept for all distances."""

    data: Path
    features: Path = Path()
    vae: Path = Path()
    latents: Path = Path()
    about: dict[str, Any] = field(default_factory=dict)
    judge: Judge | None = None

    @property
    def fold(self) -> int:
        return self.about.get("fold", 1)

    @property
    def rate(self) -> dict[str, Any]:
        """As clips are read: a stride, or frames a second."""
        stride = self.about.get("stride")
        return {"stride": stride} if stride else {"fps": self.about["fps"]}

    def comparison(self, settings: Settings) -> ClipDistances:
        return ClipDistances(
            self.data, self.fold, self.rate, self.shape, self.features, settings.num_fvd_clips
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """(num_frames, height, width) of a clip."""
        return tuple(self.about[name] for name in ("num_frames", "height", "width"))


def make_data(settings: Settings, out: Path) -> Inputs:
    """The videos that were named, or the embedded ones."""
    if settings.data:
        return Inputs(Path(settings.data))
    data = out / "data"
    size = ["--clips_per_group", 1] if settings.tiny else []
    do(Stage("data", data, "vidtwin_gen", ["data", "--out", data, *size]))
    return Inputs(data)


def make_inputs(settings: Settings, out: Path) -> Inputs:
    """With the autoencoder and its latents, those that were named or those of the preset, of seed 0.

    Raises:
        ValueError: no such latents, or too few held-out videos for the floors.
    """
    data, size = make_data(settings, out).data, DEMO_SIZES[settings.size]
    vae = Path(settings.vae) if settings.vae else out / "vae" / "autoencoder"
    latents = Path(settings.latents) if settings.latents else out / "latents"
    about = read_latents(latents) if settings.latents else {}
    check_held_out(build_index(data, split="test", fold=about.get("fold", 1)), settings)
    if not settings.vae:
        tiny = [*TINY[1].split(), "--max_train_steps", TINY_STEPS] if settings.tiny else []
        train = ["--preset", settings.size, *tiny, "--data", data, "--output_dir", vae.parent]
        do(Stage("the autoencoder", vae, "train_vae", [*train, "--dataloader_num_workers", 0]))
    if not settings.latents:
        windows = 1 if settings.tiny else size.windows_per_video
        encode = ["encode", "--vae", vae, "--data", data, "--stride", size.stride, "--out", latents]
        encode += ["--windows_per_video", windows, "--num_workers", 0]
        encode += ["--features", settings.features] if settings.features else []
        do(Stage("latents", latents / LATENTS, "vidtwin_gen", encode))
    inputs = Inputs(data, out / "features", vae, latents, read_latents(latents))
    sizes = {"num_clips": 8, "num_steps": 2} if settings.tiny else {}
    return replace(inputs, judge=Judge(data, inputs.fold, inputs.rate, inputs.shape, **sizes))


def read_latents(folder: Path) -> dict[str, Any]:
    return read_json(folder / LATENTS, "name with --latents a folder of `python -m vidtwin_gen encode`")


def check_held_out(index: datasets.Dataset, settings: Settings) -> None:
    """Raises ValueError where the floors would need more than two windows of a held-out video."""
    videos = Counter(index["label"])
    num_classes, fewest = len(videos), min(videos.values())
    if settings.num_fvd_clips and settings.num_clips > 2 * fewest * num_classes:
        raise ValueError(
            f"--num_clips {settings.num_clips} is more than twice the held-out videos, of which a class has "
            f"{fewest}: --num_clips {2 * fewest * num_classes}, or --num_fvd_clips 0"
        )


def per_class(inputs: Inputs, num_clips: int) -> int:
    """Clips of each class, of which there are then `num_clips` or a few more."""
    return math.ceil(num_clips / len(inputs.about["class_names"]))


def measure_floors(inputs: Inputs, settings: Settings, out: Path) -> dict[str, Any]:
    """Of held-out clips, as they are and as the autoencoder gives them back, the FVD and the KVD from the
    training clips: what a perfect generator would have, and what a perfect one of these latents; and how
    many of them are recognised as their class."""
    judge = inputs.judge
    assert judge is not None
    floors = once(out / "floors" / "accuracy.json", lambda: {"accuracy": judge.of_held_out()})
    if not settings.num_fvd_clips:
        return floors
    comparison, count = inputs.comparison(settings), per_class(inputs, settings.num_clips)
    of_kind = {"real": None, "reconstructions": inputs.vae}
    return floors | {
        kind: comparison.of_held_out(out / "floors" / kind, count, of_kind[kind]) for kind in FLOORS
    }
