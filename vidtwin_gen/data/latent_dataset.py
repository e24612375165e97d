"""Latents as training reads them: a folder of them, checked and mapped, and an endless stream of its rows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow
import torch
from pyarrow import parquet

from vidtwin_gen.data.latent_checks import check_metadata, check_rows, check_schema
from vidtwin_gen.draws import EpochOrder
from vidtwin_gen.files import check_reachable, file_sha256, first_line, only_this, read_json, writing
from vidtwin_gen.latents import LatentLayout
from vidtwin_gen.partial_folder import PARTIAL_RECORD

METADATA = "latents.json"
DATA = "data"  # the folder of the parquet files
CACHE = ".cache/huggingface/datasets"  # below .cache/huggingface huggingface_hub uploads nothing
DAMAGED = "copy the whole folder again, or remove it and encode again"


def latents_sha256(path: str | Path) -> str:
    """The digest of what a folder of latents says of itself: its rows follow from that."""
    return file_sha256(Path(path) / METADATA)


def load_latents(path: str | Path) -> tuple[dict[str, datasets.Dataset], dict[str, Any]]:
    """What `encode_dataset` wrote: the rows by split, memory-mapped, and the metadata.

    The first time, `datasets` unpacks the parquet files into what can be mapped: in the folder's `.cache`,
    which goes with it and is not uploaded, or, where that can't be written to, in its own cache
    (HF_DATASETS_CACHE). Several processes may load at once; one of them unpacks.

    Raises:
        ValueError: `path` is not such a folder, an unfinished one, has missing or damaged files, or no
            rows of a split.
    """
    path = Path(path)
    metadata = check_latents(path)
    files: Mapping[str, Mapping[str, int]] = metadata["files"]
    by_split = {}
    for split in ("train", "test"):
        of_split = [name for name in files if name.startswith(f"{DATA}/{split}-")]
        names = [name for name in of_split if files[name]["num_rows"]]  # earlier versions wrote empty ones
        if not names:
            raise ValueError(f"{path / METADATA} counts no {split} rows: encode videos of both splits again")
        by_split[split] = names
    try:
        # not load_dataset, which would also tell a counting service of it
        data_files = {split: [only_this(path / name) for name in names] for split, names in by_split.items()}
        cache = str(_cache_dir(path))
        with writing(cache):
            rows = datasets.Dataset.from_parquet(data_files, cache_dir=cache)  # type: ignore[arg-type]
    except datasets.exceptions.DatasetGenerationError as error:
        reason = first_line(error.__cause__ or error)
        raise ValueError(f"{path / DATA} can't be unpacked: {reason}; {DAMAGED}") from None
    for split, names in by_split.items():
        numbers = [(path / name, files[name]["num_rows"]) for name in names]
        try:
            check_rows(rows[split], metadata, numbers)
        except ValueError as error:
            raise ValueError(f"{error}; {DAMAGED}") from None
    return dict(rows), metadata


def check_latents(path: str | Path) -> dict[str, Any]:
    """The metadata of a folder of latents whose files are all there, as they were written. Raises ValueError
    as `load_latents`."""
    path = Path(path)
    metadata = _read_metadata(path)
    for name, about in metadata["files"].items():
        _check_file(path / name, about, metadata)
    return metadata


def _read_metadata(path: Path) -> dict[str, Any]:
    check_reachable(path / METADATA)
    if not (path / METADATA).is_file():
        partial = path if (path / PARTIAL_RECORD).is_file() else path.with_name(f"{path.name}.partial")
        if (partial / PARTIAL_RECORD).is_file():
            raise ValueError(
                f"{partial} is an unfinished encoding: repeat the command that began it, which goes on "
                "with it and gives the folder its name when all is there"
            )
        raise ValueError(
            f"{path}: no {METADATA}; expected a folder written by `python -m vidtwin_gen encode`"
        )
    metadata = read_json(path / METADATA, DAMAGED)
    if metadata.get("files") is None:
        raise ValueError(f"{path / METADATA} names no files, as an earlier version wrote it: encode again")
    try:
        check_metadata(metadata)
    except ValueError as error:
        raise ValueError(f"{path / METADATA}: {error}; {DAMAGED}") from None
    return metadata


def _check_file(path: Path, about: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Whether a file of rows is there, as it was written, and has the rows that it should have."""
    if not path.is_file():
        raise ValueError(f"{path} is missing; {DAMAGED}")
    if path.stat().st_size != about["num_bytes"]:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, not {about['num_bytes']}; {DAMAGED}")
    try:
        found = parquet.read_metadata(path)
        layout = LatentLayout.from_config(metadata["layout"])
        check_schema(found.schema.to_arrow_schema(), layout, metadata.get("features"))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{path} can't be read: {error}; {DAMAGED}") from None
    if found.num_rows != about["num_rows"]:
        raise ValueError(f"{path} has {found.num_rows} rows, {METADATA} says {about['num_rows']}; {DAMAGED}")
    if "sha256" in about and about["sha256"] != file_sha256(path):  # earlier versions have none
        raise ValueError(f"{path} is not as it was written; {DAMAGED}")


def _cache_dir(path: Path) -> Path:
    """Where the unpacked rows go: into the folder, or, where that can't be written to, beside what `datasets`
    keeps. It knows files by their paths and times, which other rows may have, too: a digest tells these."""
    digest, elsewhere = latents_sha256(path)[:16], Path(datasets.config.HF_DATASETS_CACHE)
    try:
        (path / CACHE).mkdir(parents=True, exist_ok=True)
    except OSError:
        return elsewhere / digest
    return (path / CACHE if os.access(path / CACHE, os.W_OK) else elsewhere) / digest


class LatentDataset(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Rows of latents as an endless stream, addressed by position, as VideoDataset is of clips.

    A batch is drawn at once: `DataLoader(dataset, batch_size=..., collate_fn=dict)`. Positions have no end:
    `range(len(dataset))` are those of each row once.
    """

    def __init__(
        self, rows: datasets.Dataset, *, shuffle: bool = True, seed: int = 0, features: bool = False
    ) -> None:
        columns = ["mean", "logvar", "label", *(["features"] if features else [])]
        self.rows = rows.select_columns(columns).with_format("arrow")
        self.order = EpochOrder(len(rows), shuffle=shuffle, seed=seed)
        self._columns: dict[str, _Column] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> dict[str, torch.Tensor]:
        """One row: as `__getitems__`, without B."""
        return {name: values[0] for name, values in self.__getitems__([position]).items()}

    def __getitems__(self, positions: Sequence[int]) -> dict[str, torch.Tensor]:
        """A whole batch at once: mean and logvar (B, L) float32, label (B,), and with `features` these, too,
        (B, P E) float32."""
        if not self._columns:
            table: pyarrow.Table = self.rows[:]  # mapped, not read
            self._columns = {name: _Column(table[name]) for name in table.column_names}
        rows = np.array([self.order[position] for position in positions])
        return {name: column.take(rows) for name, column in self._columns.items()}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_columns": {}}  # pickled, a view of the file would become its content


class _Column:
    """Of a table, seen as arrays in the file; `datasets` gathers rows too, and slower."""

    def __init__(self, column: pyarrow.ChunkedArray) -> None:
        self.chunks = [_array(chunk) for chunk in column.chunks if len(chunk)]
        self.starts = np.cumsum([0, *map(len, self.chunks)])[:-1]

    def take(self, rows: np.ndarray) -> torch.Tensor:
        """(B,) numbers of rows -> (B, ...); floating point numbers as float32, whole ones as int64."""
        chunks = np.searchsorted(self.starts, rows, side="right") - 1
        taken = np.empty((len(rows), *self.chunks[0].shape[1:]), self.chunks[0].dtype)
        for i, (chunk, row) in enumerate(zip(chunks, rows - self.starts[chunks], strict=True)):
            taken[i] = self.chunks[chunk][row]
        values = torch.from_numpy(taken)
        return values.float() if values.is_floating_point() else values.long()


def _array(chunk: pyarrow.Array) -> np.ndarray:
    """(n,) numbers or (n, L), one list a row."""
    if pyarrow.types.is_primitive(chunk.type):
        return chunk.to_numpy()
    return chunk.flatten().to_numpy().reshape(len(chunk), -1)
