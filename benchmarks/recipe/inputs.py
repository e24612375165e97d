"""What all rows share: the data, one autoencoder, its latents, and the floors of the distances."""

from __future__ import annotations

import importlib
import itertools
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets
import torch
from safetensors.torch import save_file

from benchmarks.recipe.judge import Judge
from benchmarks.recipe.rows import TINY, TINY_STEPS
from eval.autoencoder import MeasuredAutoencoder
from eval.real_clips import RealClips
from vidtwin_gen.data.ucf101 import build_index
from vidtwin_gen.demo import DEMO_SIZES, Stage
from vidtwin_gen.files import new_folder, read_json, write_json

LATENTS = "latents.json"
FLOORS = ("real", "reconstructions")
CLIPS_AT_ONCE = 32


@dataclass(frozen=True)
class Settings:
    """Of an ablation: all that its numbers depend on besides a row, its steps and its seed.

    Args:
        data: the videos, None for the embedded ones. vae, latents: None where they are made here.
        max_train_steps: of the base. num_clips, num_fvd_clips: generated for a class accuracy and measured
            for an FVD, 0 for none.
    """

    stage: int
    size: str
    data: str | None
    vae: str | None
    latents: str | None
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

    @property
    def shape(self) -> tuple[int, ...]:
        """(num_frames, height, width) of a clip."""
        return tuple(self.about[name] for name in ("num_frames", "height", "width"))


def do(stage: Stage) -> None:
    """A command, in this process, unless its result is there."""
    if stage.is_done:
        return
    module = stage.program if stage.program.startswith("train_") else f"{stage.program}.__main__"
    print(f"== {stage.name}", flush=True)
    start = time.process_time()
    importlib.import_module(module).main(list(map(str, stage.arguments)))
    print(f"   {time.process_time() - start:.1f} seconds of the processor", flush=True)


def once(path: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a file says, measured and written where there is none."""
    if not path.exists():
        write_json(path, measure())
    return read_json(path, "remove it")


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


def fvd_stage(inputs: Inputs, settings: Settings, clips: Path, out: Path) -> Stage:
    """The distance of clips from training clips, whose features are computed once for all."""
    (name, rate), *_ = inputs.rate.items()
    arguments = ["fvd", "--generated", clips, "--data", inputs.data, "--split", "train", "--no_floors"]
    arguments += [f"--{name}", rate, "--fold", inputs.fold]
    arguments += ["--num_samples", settings.num_fvd_clips, "--num_workers", 0]
    arguments += ["--features_dir", inputs.features]
    return Stage(f"{out}, FVD", out / "fvd.json", "eval", [*arguments, "--out", out / "fvd.json"])


def distances(folder: Path) -> dict[str, Any]:
    """What `fvd.json` says, None of what it does not."""
    record = read_json(folder / "fvd.json", "remove it")
    return {name: record.get(name) for name in ("fvd", "kvd")}


def measure_floors(inputs: Inputs, settings: Settings, out: Path) -> dict[str, Any]:
    """Of held-out clips, as they are and as the autoencoder gives them back, the FVD and the KVD from the
    training clips: what a perfect generator would have, and what a perfect one of these latents; and how
    many of them are recognised as their class."""
    judge = inputs.judge
    assert judge is not None
    floors = once(out / "floors" / "accuracy.json", lambda: {"accuracy": judge.of_held_out()})
    if not settings.num_fvd_clips:
        return floors
    for kind in FLOORS:
        folder = out / "floors" / kind
        if not folder.exists():
            write_held_out(inputs, settings, folder, is_reconstructed=kind == "reconstructions")
        do(fvd_stage(inputs, settings, folder / "clips.safetensors", folder))
    return floors | {kind: distances(out / "floors" / kind) for kind in FLOORS}


def write_held_out(inputs: Inputs, settings: Settings, folder: Path, *, is_reconstructed: bool) -> None:
    """Held-out clips in the files that `pipelines generate` writes, as many of each class as are generated:
    one of each video, then a second window of it."""
    autoencoder = MeasuredAutoencoder.load(inputs.vae, torch.device("cpu"), *inputs.shape, own_size=True)
    real = RealClips.of_split(inputs.data, autoencoder.shape, "test", fold=inputs.fold, **inputs.rate)
    count = per_class(inputs, settings.num_clips)
    names = [name for name in real.class_names for _ in range(count)]
    read = (real.read(draw).frames[0] for draw in real.of_classes(names))  # (F, H, W, C)
    parts = []
    while part := list(itertools.islice(read, CLIPS_AT_ONCE)):
        clips = torch.stack(part)
        parts.append(autoencoder.reconstruct(clips) if is_reconstructed else clips)
    labels = torch.tensor([real.label(name) for name in names])
    with new_folder(folder) as partial:
        save_file({"frames": torch.cat(parts), "labels": labels}, partial / "clips.safetensors")
        about = {"class_labels": list(range(len(real.class_names))), "class_names": real.class_names}
        write_json(partial / "generated.json", about | {"seed": 0})
