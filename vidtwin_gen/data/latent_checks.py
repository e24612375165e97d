"""What a folder of latents says of itself, and its rows, against what training takes for granted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

import datasets
import numpy as np
import pyarrow as pa

from vidtwin_gen.data.names import check_class_names
from vidtwin_gen.latents import LatentLayout
from vidtwin_gen.records.json_types import check_type

LARGEST = 2**40  # of a size or a count
MOST_FPS = 1000
# In standard deviations of the whitening. Whitened latents are about normal; float16 ends at 65504.
FARTHEST = 1e4
LOGVAR_RANGE = (-30.0, 20.0)  # to which diffusers' Gaussians clamp it


class FileOfRows(TypedDict):
    num_rows: int
    num_bytes: int


class RowsBySplit(TypedDict):
    train: int
    test: int


class _Needed(TypedDict):
    files: dict[str, FileOfRows]
    layout: list[dict[str, Any]]
    latents_mean: list[float]
    latents_std: list[float]
    class_names: list[str]
    fps: float
    autoencoder_sha256: str


class Features(TypedDict):
    """Of a frozen video encoder: their grid (time, height, width), and the numbers at a place of it."""

    encoder: str
    encoder_sha256: str
    grid: list[int]
    dim: int


class Metadata(_Needed, total=False):
    """`latents.json`, of whatever version."""

    num_frames: int
    height: int
    width: int
    fold: int
    stride: int | None
    windows_per_video: int
    flip: bool
    dtype: Literal["float32", "float16"]
    vae_dtype: Literal["bfloat16", "float16"]
    windows_per_file: int
    seed: int
    autoencoder_class: str
    num_rows: RowsBySplit
    bad_videos: list[str]
    features: Features


AT_LEAST_1 = ("num_frames", "height", "width", "fold", "stride", "windows_per_video", "windows_per_file")


def check_metadata(metadata: Mapping[str, Any]) -> None:
    """Raises ValueError unless `latents.json` holds a layout, whitening for it, class names and a frame
    rate, each of its kind."""
    check_type("it", metadata, Metadata)
    counts = {name: metadata.get(name) for name in AT_LEAST_1}
    if features := metadata.get("features"):
        if len(features["grid"]) != 3:
            raise ValueError(f"features: grid must be 3 numbers, got {features['grid']}")
        sizes = [*features["grid"], features["dim"]]
        counts |= {f"features: size {i} of their grid and dim": size for i, size in enumerate(sizes)}
    for name, about in metadata["files"].items():
        counts |= {f"{name}: {key}": number for key, number in about.items() if key.startswith("num_")}
    for name, number in counts.items():
        if number is not None and not (name.endswith("num_rows") or 1 <= number <= LARGEST):
            raise ValueError(f"{name} must be from 1 to {LARGEST}, got {number}")
    for split, number in metadata.get("num_rows", {}).items():
        found = sum(about["num_rows"] for name, about in metadata["files"].items() if f"/{split}-" in name)
        if found and number != found:
            raise ValueError(f"num_rows counts {number} {split} rows, its files have {found}")
    LatentLayout.from_config(metadata["layout"]).check_whitening(
        metadata["latents_mean"], metadata["latents_std"]
    )
    check_class_names(metadata["class_names"])
    if not metadata["class_names"]:
        raise ValueError("class_names must name a class")
    if not 0 < metadata["fps"] <= MOST_FPS:
        raise ValueError(f"fps must be a number above 0, at most {MOST_FPS}, got {metadata['fps']!r}")


def check_schema(schema: pa.Schema, layout: LatentLayout, features: Features | None = None) -> None:
    """Raises ValueError where a file of rows has not the columns that training reads, each of its type."""
    sizes = dict.fromkeys(("mean", "logvar"), layout.num_elements)
    if features is not None:
        sizes["features"] = math.prod(features["grid"]) * features["dim"]
    for name, size in sizes.items():
        kind: Any = schema.field(name).type if name in schema.names else pa.null()
        is_right = pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type)
        if not is_right or kind.list_size != size:
            raise ValueError(f"its {name} must be {size} floating point numbers, is {kind}")
    for name, is_right in (("label", pa.types.is_integer), ("class_name", pa.types.is_string)):
        kind = schema.field(name).type if name in schema.names else pa.null()
        if not is_right(kind):
            raise ValueError(f"its {name} is {kind}")


def check_rows(
    rows: datasets.Dataset, metadata: Mapping[str, Any], files: Sequence[tuple[Path, int]]
) -> None:
    """Reads all rows of a split once.

    Args:
        files: the parquet files that the rows came from, in order, with their numbers of rows.

    Raises:
        ValueError: a label is not that of its class's name, or a number is not finite or far from what it can
            be; names the file and the row in it.
    """
    layout, names = LatentLayout.from_config(metadata["layout"]), np.array(metadata["class_names"])
    mean, std = (layout.expand_channels(metadata[f"latents_{name}"]).numpy() for name in ("mean", "std"))
    table: pa.Table = rows.with_format("arrow")[:]  # mapped, not read
    start = 0
    for batch in table.to_batches():
        arrays = {
            name: batch[name].flatten().to_numpy().reshape(len(batch), -1).astype(np.float32)
            for name in ("mean", "logvar")
        }
        labels = batch["label"].cast(pa.int64(), safe=False).fill_null(-1).to_numpy(zero_copy_only=False)
        known = (labels >= 0) & (labels < len(names))
        right = known & (
            names[np.where(known, labels, 0)] == batch["class_name"].to_numpy(zero_copy_only=False)
        )
        with np.errstate(invalid="ignore"):
            far = np.abs((arrays["mean"] - mean) / std)
            low, high = LOGVAR_RANGE
            faults = {
                f"a label that is not that of its class_name among {len(names)} class_names": ~right,
                f"a mean that is not finite, or over {FARTHEST:g} deviations off": ~(far <= FARTHEST).all(
                    axis=1
                ),
                f"a logvar that is not from {low:g} to {high:g}": ~(
                    (arrays["logvar"] >= low) & (arrays["logvar"] <= high)
                ).all(axis=1),
            }
        if "features" in metadata:
            whole = np.isfinite(batch["features"].flatten().to_numpy()).reshape(len(batch), -1)
            faults["a feature that is not finite"] = ~whole.all(axis=1)
        for fault, where in faults.items():
            if where.any():
                raise ValueError(f"{_place(files, start + int(where.argmax()))} has {fault}")
        start += len(batch)


def classes_without_rows(labels: Iterable[int], class_names: Sequence[str]) -> list[str]:
    """The classes that no row of a split is of, from the labels of its rows."""
    found = set(labels)
    return [name for label, name in enumerate(class_names) if label not in found]


def _place(files: Sequence[tuple[Path, int]], row: int) -> str:
    for path, count in files:
        if row < count:
            return f"{path}, row {row},"
        row -= count
    raise AssertionError("more rows than the files have")
