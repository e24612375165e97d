"""How the clips of a study are compared with real clips, and what a perfect generator would have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from eval.autoencoder import MeasuredAutoencoder
from eval.flags import CLIPS_FILE, Split
from eval.real_clips import RealClips
from eval.study.stages import do
from vidtwin_gen.demo import Stage
from vidtwin_gen.files import new_folder, read_json, write_json

CLIPS_AT_ONCE = 32


@dataclass(frozen=True)
class ClipDistances:
    """Args:
    data, fold, rate: the real clips, as `RealClips` takes them. shape: (num_frames, height, width) of a clip.
    features: where what is computed of clips is kept for all distances.
    num_clips: on each side. split: the real clips.
    """

    data: Path
    fold: int
    rate: Mapping[str, Any]
    shape: tuple[int, ...]
    features: Path
    num_clips: int
    split: Split = "train"

    def of(self, clips: Path, out: Path) -> dict[str, Any]:
        """FVD and KVD of generated clips from real ones, None of what was not measured; `out`, the JSON
        of `eval fvd`, and the features of the real clips stay."""
        (name, rate), *_ = self.rate.items()
        arguments = ["fvd", "--generated", clips, "--data", self.data, "--split", self.split, "--no_floors"]
        arguments += [f"--{name}", rate, "--fold", self.fold, "--num_samples", self.num_clips]
        arguments += ["--num_workers", 0, "--features_dir", self.features, "--out", out]
        do(Stage(f"{out.parent}, FVD", out, "eval", arguments))
        record = read_json(out, "remove it")
        return {name: record.get(name) for name in ("fvd", "kvd")}

    def of_held_out(self, folder: Path, per_class: int, vae: Path | None = None) -> dict[str, Any]:
        """The same of held-out clips, so many of each class, or of what an autoencoder gives of them back."""
        if not folder.exists():
            self._write_held_out(folder, per_class, vae)
        return self.of(folder / CLIPS_FILE, folder / "fvd.json")

    def _write_held_out(self, folder: Path, per_class: int, vae: Path | None) -> None:
        cpu = torch.device("cpu")
        autoencoder = MeasuredAutoencoder.load(vae, cpu, *self.shape, own_size=True) if vae else None
        shape = autoencoder.shape if autoencoder else self.shape
        real = RealClips.of_split(self.data, shape, "test", fold=self.fold, **self.rate)
        names = [name for name in real.class_names for _ in range(per_class)]
        write_real(folder, real, names, autoencoder)


def write_real(
    folder: Path, real: RealClips, names: Sequence[str], autoencoder: MeasuredAutoencoder | None
) -> None:
    """Real clips of these classes, or what the autoencoder gives of them back, in the files that `pipelines
    generate` writes: one window of each video, then a second one."""
    parts = [
        (autoencoder.reconstruct(clips) if autoencoder else clips, labels)
        for clips, labels in real.labelled(names, CLIPS_AT_ONCE, repeated=True)
    ]
    frames, labels = (torch.cat(part) for part in zip(*parts, strict=True))
    with new_folder(folder) as partial:
        save_file({"frames": frames, "labels": labels}, partial / CLIPS_FILE)
        about = {"class_labels": list(range(len(real.class_names))), "class_names": real.class_names}
        write_json(partial / "generated.json", about | {"seed": 0})
