"""Videos and classes of a data set of the library `datasets`, local or of the hub, row by row."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import datasets
import pyarrow
from datasets.data_files import SPLIT_KEYWORDS
from pyarrow import parquet

from vidtwin_gen.data.ucf101 import VIDEO_SUFFIXES
from vidtwin_gen.files import loading, only_this
from vidtwin_gen.flags import is_hub_id

TEST_NAMES = ("test", "validation")  # of these the first that is there
# "val", "dev", ... are "validation", as `datasets` reads names of files
SPLIT_OF = {word: str(split) for split, words in SPLIT_KEYWORDS.items() for word in words}
SAVED = ("state.json", "dataset_dict.json")
LABELS = ("cls", "class", "class_name", "category")
BUILDERS = {".parquet": "parquet", ".tar": "webdataset"}
END_OF_TAR = bytes(512)


def data_files(folder: Path) -> list[Path]:
    """What a data set in a folder is read from: what `save_to_disk` wrote, parquet or .tar files, else
    nothing."""
    if saved := [folder / name for name in SAVED if (folder / name).is_file()]:
        return saved
    found = (sorted(folder.rglob(f"*{suffix}")) for suffix in BUILDERS)
    return next((files for files in found if files), [])


def state_of(folder: Path) -> str:
    """A digest of where the files of a data set lie, how large they are and when they were changed."""
    files = data_files(folder)
    if files and files[0].name in SAVED:
        files = sorted({*files, *folder.rglob("*.arrow")})
    about = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps([str(folder), about]).encode()).hexdigest()[:32]


def named_split(path: str) -> str | None:
    """The split that a file's name or place says: train-00000-of-00002.parquet, test/000.tar."""
    words = re.split(r"[^a-z]+", path.lower())
    return next((SPLIT_OF[word] for word in words if word in SPLIT_OF), None)


def splits_of(data: str) -> Mapping[str, Any]:
    """The rows of each split, one after the other.

    Raises:
        ValueError: no such data set, or one that is damaged or of which it isn't clear what its splits are.
    """
    folder = Path(data).expanduser()
    way_out = "name a folder of datasets' save_to_disk, of parquet or .tar files, or OWNER/NAME on the hub"
    files = data_files(folder)
    if files and files[0].name in SAVED:
        with loading(data, way_out):
            saved = datasets.load_from_disk(str(folder))
        if not isinstance(saved, datasets.DatasetDict):
            return {"train": saved}
        names = [SPLIT_OF.get(name, name) for name in saved]
        return saved if len(set(names)) < len(names) else dict(zip(names, saved.values(), strict=True))
    if not folder.is_dir():
        if not is_hub_id(data):
            raise ValueError(f"{data}: no such folder; {way_out}")
        with loading(data, f"without a network only what is here can be unpacked: {way_out}"):
            return datasets.load_dataset(data, streaming=True)
    if not files:
        raise ValueError(
            f"{data} holds neither a data set of save_to_disk nor parquet or .tar files; {way_out}"
        )
    by_split: dict[str | None, list[Path]] = {}
    for file in files:
        if file.suffix == ".tar" and not _is_whole(file):
            raise ValueError(f"{file} has no end, as a .tar has that was copied in part: copy it again")
        if file.suffix == ".parquet" and _has_no_rows(file):
            raise ValueError(f"{file} has no rows: remove it, or write its split anew")
        by_split.setdefault(named_split(str(file.relative_to(folder))), []).append(file)
    unnamed = by_split.pop(None, [])
    if unnamed and "train" in by_split:
        raise ValueError(
            f"{data}: of which split is {unnamed[0]}, beside files named after train? Name it after one of "
            f"{', '.join(dict.fromkeys(SPLIT_OF.values()))}, or move it elsewhere"
        )
    if unnamed:
        by_split["train"] = unnamed
    with loading(data, way_out):
        named = {split: list(map(only_this, of_split)) for split, of_split in by_split.items()}
        return datasets.load_dataset(BUILDERS[files[0].suffix], data_files=named, streaming=True)


def columns_of(splits: Mapping[str, Any], data: str) -> tuple[str, str]:
    """The columns of videos and of classes: `video` and `label`, or the only ones that are of these kinds.

    Raises:
        ValueError: there is none, or there are several.
    """
    features = next(iter(splits.values())).features
    kinds = {
        "video": [name for name in features if isinstance(features[name], datasets.Video)]
        or [name for name in features if f".{name}" in VIDEO_SUFFIXES],
        "label": [name for name in features if isinstance(features[name], datasets.ClassLabel)]
        or [name for name in features if name in LABELS],
    }
    found = {kind: [kind] if kind in features else names for kind, names in kinds.items()}
    for kind, names in found.items():
        if len(names) != 1:
            raise ValueError(
                f"{data}: which column is the {kind}? There are {', '.join(features)}. "
                "`python -m vidtwin_gen unpack` takes --video_column and --label_column; then name its folder"
            )
    return found["video"][0], found["label"][0]


def _is_whole(tar: Path) -> bool:
    with tar.open("rb") as file:
        file.seek(max(0, tar.stat().st_size - len(END_OF_TAR)))
        return file.read() == END_OF_TAR


def _has_no_rows(file: Path) -> bool:
    """Of one that is damaged it is not said here."""
    with suppress(pyarrow.ArrowException, OSError):
        return parquet.read_metadata(file).num_rows == 0
    return False


def rows_of(
    rows: Any, video_column: str, label_column: str, data: str, split: str
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Of every row its place, as errors name it, its class name, and bytes and path of the video.

    Args:
        data, split: of the rows, as errors name them.

    Raises:
        ValueError: no such columns, one of them holds something else, or the rows can't be read.
    """
    missing = {video_column, label_column} - set(rows.features)
    if missing:
        raise ValueError(
            f"no column {' or '.join(sorted(missing))}, there are {', '.join(rows.features)}: name them with "
            "--video_column and --label_column"
        )
    feature = rows.features[label_column]
    if isinstance(rows.features[video_column], datasets.Video):
        rows = rows.cast_column(video_column, datasets.Video(decode=False))
    chosen = rows.select_columns([video_column, label_column])
    for number, row in enumerate(_read(chosen, f"{data}, split {split},")):
        where = f"{data}: row {number} of {split}"
        yield where, _class_name(row[label_column], feature, where), _video(row[video_column], where)


def _read(rows: Iterable[Any], name: str) -> Iterator[Any]:
    """The same, with one kind of error for what is damaged."""
    iterator, nothing = iter(rows), object()
    for number in count():
        way_out = f"row {number} may have a class of another kind than those before, or a file be damaged"
        with loading(name, f"{way_out}: write the class anew, or copy it again"):
            row = next(iterator, nothing)
        if row is nothing:
            return
        yield row


def _class_name(label: Any, feature: Any, where: str) -> str:
    """Empty where the row has none."""
    if label is None or label == -1:
        return ""
    if not isinstance(label, str | int):
        raise ValueError(
            f"{where}: {label!r:.60} is no class, which is a name or a number: name their column with "
            "--label_column"
        )
    return feature.int2str(label) if isinstance(feature, datasets.ClassLabel) else str(label)


def _video(video: Any, where: str) -> Mapping[str, Any]:
    """Its bytes and its path, of which one may be missing, or both."""
    if isinstance(video, bytes):
        return {"bytes": video, "path": None}
    if isinstance(video, str):
        return {"bytes": None, "path": video}
    if not isinstance(video, Mapping | None):
        raise ValueError(
            f"{where}: a {type(video).__name__} is no video, which is a file's bytes or path: name their "
            "column with --video_column"
        )
    return video or {}
