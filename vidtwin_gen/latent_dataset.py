"""The latent data set: encode every clip once, keep the posterior, read it back as a stream of draws."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from diffusers.models.modeling_utils import ModelMixin
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from vidtwin_gen.draws import DrawOrder
from vidtwin_gen.latents import LatentLayout
from vidtwin_gen.ucf101 import build_index
from vidtwin_gen.video import first_fps
from vidtwin_gen.video_dataset import BadVideos, VideoDataset, collate

METADATA = "latents.json"


def weights_sha256(model_dir: str | Path) -> str:
    """The digest of a saved model's safetensors files: says which autoencoder made a set of latents."""
    digest = hashlib.sha256()
    files = sorted(Path(model_dir).glob("*.safetensors"))
    if not files:
        raise ValueError(f"{model_dir}: no .safetensors file; expected a folder written by save_pretrained")
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def encode_dataset(
    vae: ModelMixin,
    vae_dir: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    fold: int = 1,
    stride: int | None = None,
    fps: float | None = None,
    windows_per_video: int = 1,
    flip: bool = False,
    batch_size: int = 16,
    num_workers: int = 1,
    seed: int = 0,
    max_bad_fraction: float = 0.05,
) -> dict[str, Any]:
    """Encodes every video of `data` into `out`, and writes the whitening statistics into the autoencoder's
    config, in memory and in `vae_dir`.

    A row holds `mean` and `logvar` (L,) float32 of the raw posterior, `label`, `class_name`, `path` and
    `split`. Training videos give `windows_per_video` random windows each, test videos their centre. The
    statistics are those of the training rows: per grid and channel the mean, and the standard deviation of a
    posterior sample (the variance of the means plus the mean of the variances), so that a channel which the
    posterior leaves at its prior stays small instead of being blown up to unit variance.

    Raises:
        ValueError: `out` is not empty, too many unreadable files, or one of `build_index`'s complaints.

    Returns:
        What is also written as `latents.json`: layout, statistics, geometry, counts, the weights' sha256.
    """
    out = Path(out)
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty: name another --out, or remove it to encode again")
    layout: LatentLayout = vae.layout
    index = build_index(data, split="all", fold=fold)
    source_fps = first_fps(index["path"]) if fps is None else None
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    features = datasets.Features(
        mean=datasets.List(datasets.Value("float32"), length=layout.num_elements),
        logvar=datasets.List(datasets.Value("float32"), length=layout.num_elements),
        label=index.features["label"],
        class_name=datasets.Value("string"),
        path=datasets.Value("string"),
        split=datasets.Value("string"),
    )
    complaints: list[str] = []

    def rows() -> Iterator[dict[str, Any]]:
        for split in ("train", "test"):
            part = build_index(data, split=split, fold=fold)
            train = split == "train"
            reader = VideoDataset(
                part,
                vae.config.num_frames,
                (vae.config.height, vae.config.width),
                stride=stride,
                fps=fps,
                shuffle=False,
                start="random" if train else "center",
                flip=flip and train,
                seed=seed,
            )
            bad_videos = BadVideos(len(reader), max_bad_fraction)
            draws = range(len(reader) * (windows_per_video if train else 1))
            loader = DataLoader(
                reader, batch_size=batch_size, sampler=draws, num_workers=num_workers, collate_fn=collate
            )
            for batch in tqdm(loader, desc=f"encoding {split} clips", unit="batch"):
                bad_videos.update(batch)
                yield from _encoded_rows(vae, batch, part, split)
            if bad_videos.reasons:
                complaints.append(f"{split}: {bad_videos.summary()}")

    rows_dir = partial / "rows"
    try:
        # a fingerprint, because `datasets` would pickle the generator, and with it the autoencoder, for one
        dataset = datasets.Dataset.from_generator(
            rows, features=features, cache_dir=str(rows_dir), fingerprint="rows"
        )
    except datasets.exceptions.DatasetGenerationError as error:  # hides what the generator raised
        raise error.__cause__ or error from None
    mean, std = latent_statistics(dataset.filter(lambda s: s == "train", input_columns="split"), layout)
    metadata = {
        "layout": layout.to_config(),
        "latents_mean": mean,
        "latents_std": std,
        "class_names": index.features["label"].names,
        "fps": fps if source_fps is None else source_fps / (stride or 1),
        "stride": stride,
        "fold": fold,
        "windows_per_video": windows_per_video,
        "flip": flip,
        "seed": seed,
        "num_rows": {split: sum(s == split for s in dataset["split"]) for split in ("train", "test")},
        "bad_videos": complaints,
        "autoencoder_sha256": weights_sha256(vae_dir),
    }
    dataset.save_to_disk(str(partial / "dataset"))
    del dataset
    shutil.rmtree(rows_dir)
    (partial / METADATA).write_text(json.dumps(metadata, indent=2) + "\n")
    vae.register_to_config(latents_mean=mean, latents_std=std)
    vae.save_config(vae_dir)
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.exists():
        out.rmdir()
    partial.rename(out)
    return metadata


@torch.inference_mode()
def _encoded_rows(
    vae: ModelMixin, batch: Mapping[str, Any], index: datasets.Dataset, split: str
) -> list[dict[str, Any]]:
    """One row per clip of the batch, but for the stand-ins of bad files, which have rows of their own."""
    posterior = vae.encode(batch["video"].to(vae.device, vae.dtype)).latent_dist
    rows = []
    for i, number in enumerate(batch["index"].tolist()):
        if batch["substitute"][i]:
            continue
        source = index[number]
        row = {name: source[name] for name in ("label", "class_name", "path")}
        row |= {"mean": posterior.mean[i].cpu().numpy(), "logvar": posterior.logvar[i].cpu().numpy()}
        rows.append({**row, "split": split})
    return rows


def latent_statistics(dataset: datasets.Dataset, layout: LatentLayout) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of a posterior sample, one number per grid and channel in layout order.

    Float64 sums over the rows, a thousand at a time.
    """
    sums = torch.zeros(3, layout.num_elements, dtype=torch.float64)
    count = 0
    for rows in dataset.select_columns(["mean", "logvar"]).with_format("torch").iter(1000):
        mean, logvar = rows["mean"].double(), rows["logvar"].double()
        sums += torch.stack([mean.sum(0), mean.square().sum(0), logvar.exp().sum(0)])
        count += len(mean)
    if count == 0:
        raise ValueError("no row to measure: the training split is empty")
    first, second, variance = ({name: part[0] for name, part in layout.split(s[None]).items()} for s in sums)
    means, stds = [], []
    for grid in layout.grids:
        number = count * grid.num_positions
        mean = first[grid.name].flatten(0, -2).sum(0) / number
        square = second[grid.name].flatten(0, -2).sum(0) / number
        noise = variance[grid.name].flatten(0, -2).sum(0) / number
        means += mean.tolist()
        stds += (square - mean.square() + noise).sqrt().tolist()
    return means, stds


def load_latents(path: str | Path) -> tuple[dict[str, datasets.Dataset], dict[str, Any]]:
    """What `encode_dataset` wrote: the rows by split, memory-mapped, and the metadata.

    Raises:
        ValueError: `path` is not such a folder.
    """
    path = Path(path)
    if not (path / METADATA).is_file():
        raise ValueError(
            f"{path}: no {METADATA}; expected a folder written by `python -m vidtwin_gen encode`"
        )
    metadata = json.loads((path / METADATA).read_text())
    dataset = datasets.load_from_disk(str(path / "dataset"))
    counts: Mapping[str, int] = metadata["num_rows"]
    train = dataset.select(range(counts["train"]))  # the training rows come first
    return {"train": train, "test": dataset.select(range(counts["train"], len(dataset)))}, metadata


class LatentDataset(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Rows of latents as an endless stream addressed by the draw's number, as VideoDataset is of clips."""

    def __init__(self, rows: datasets.Dataset, *, shuffle: bool = True, seed: int = 0) -> None:
        self.rows = rows.select_columns(["mean", "logvar", "label"]).with_format("torch")
        self.order = DrawOrder(len(rows), shuffle=shuffle, seed=seed)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, draws: Sequence[int]) -> dict[str, torch.Tensor]:
        """A whole batch at once: mean and logvar (B, L), label (B,)."""
        return self.rows[[self.order[draw] for draw in draws]]
