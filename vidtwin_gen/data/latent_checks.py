"""What a folder of latents says of itself, and its rows, against what training takes for granted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from vidtwin_gen.latents import LatentLayout

MOST_FPS = 1000
# In standard deviations of the whitening. Whitened latents are about normal; float16 ends at 65504.
FARTHEST = 1e4
LOGVAR_RANGE = (-30.0, 20.0)  # to which diffusers' Gaussians clamp it


def check_metadata(metadata: Mapping[str, Any]) -> None:
    """Raises ValueError unless `latents.json` holds a layout, whitening for it, class names and a frame
    rate, each of its kind."""
    for name in ("layout", "latents_mean", "latents_std", "class_names", "fps", "autoencoder_sha256"):
        if metadata.get(name) is None:
            raise ValueError(f"{name} must be there, got none")
    LatentLayout.from_config(metadata["layout"]).check_whitening(
        metadata["latents_mean"], metadata["latents_std"]
    )
    for name, about in metadata["files"].items():
        numbers = [about.get(key) if isinstance(about, dict) else None for key in ("num_rows", "num_bytes")]
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError(f"of {name} num_rows and num_bytes must be known, got {about!r}")
    names, fps = metadata["class_names"], metadata["fps"]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"class_names must be a list of words, got {names!r}")
    if len(set(names)) < len(names):
        raise ValueError(f"class_names must differ, got {names}")
    if not (type(fps) in (int, float) and 0 < fps <= MOST_FPS):
        raise ValueError(f"fps must be a number above 0, at most {MOST_FPS}, got {fps!r}")


def check_rows(
    rows: datasets.Dataset, metadata: Mapping[str, Any], files: Sequence[tuple[Path, int]]
) -> None:
    """Reads all rows of a split once.

    Args:
        files: the parquet files that the rows came from, in order, with their numbers of rows.

    Raises:
        ValueError: a column is of another type, a label is not that of its class's name, or a number is not
            finite or far from what it can be; names the file and the row in it.
    """
    layout, names = LatentLayout.from_config(metadata["layout"]), np.array(metadata["class_names"])
    mean, std = (layout.expand_channels(metadata[f"latents_{name}"]).numpy() for name in ("mean", "std"))
    table: pa.Table = rows.with_format("arrow")[:]  # mapped, not read
    for name in ("mean", "logvar"):
        kind = table.schema.field(name).type
        if not (pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type)):
            raise ValueError(f"{files[0][0]}: the column {name} is of {kind}, not of floating point numbers")
        if kind.list_size != layout.num_elements:
            raise ValueError(
                f"{files[0][0]}: {name} has {kind.list_size} numbers, the layout {layout.num_elements}"
            )
    start = 0
    for batch in table.to_batches():
        arrays = {
            name: batch[name].flatten().to_numpy().reshape(len(batch), -1).astype(np.float32)
            for name in ("mean", "logvar")
        }
        labels = batch["label"].to_numpy(zero_copy_only=False)
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
