"""Videos and classes of a data set of the library `datasets`, local or of the hub, row by row."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
from datasets.data_files import SPLIT_KEYWORDS

from vidtwin_gen.data.ucf101 import VIDEO_SUFFIXES
from vidtwin_gen.files import loading
from vidtwin_gen.flags import is_hub_id

TEST_NAMES = ("test", "validation")  # of these the first that is there
# "val", "dev", ... are "validation", as `datasets` reads names of files
SPLIT_OF = {word: str(split) for split, words in SPLIT_KEYWORDS.items() for word in words}
SAVED = ("state.json", "dataset_dict.json")
LABELS = ("cls", "class", "class_name", "category")
BUILDERS = {".parquet": "parquet", ".tar": "webdataset"}


def data_files(folder: Path) -> list[Path]:
    """What a data set in a folder is read from: what `save_to_disk` wrote, parquet or .tar files, else
    nothing."""
    if saved := [folder / name for name in SAVED if (folder / name).is_file()]:
        return saved
    found = (sorted(folder.rglob(f"*{suffix}")) for suffix in BUILDERS)
    return next((files for files in found if files), [])


def splits_of(data: str) -> Mapping[str, Any]:
    """The rows of each split, one after the other."""
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
    by_split: dict[str, list[str]] = {}
    for file in files:  # train-00000-of-00002.parquet, test/000.tar
        words = re.split(r"[^a-z]+", str(file.relative_to(folder)).lower())
        named = [SPLIT_OF[word] for word in words if word in SPLIT_OF]
        by_split.setdefault((named or ["train"])[0], []).append(str(file))
    with loading(data, way_out):
        return datasets.load_dataset(BUILDERS[files[0].suffix], data_files=by_split, streaming=True)


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


def rows_of(rows: Any, video_column: str, label_column: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Class name, and bytes and path of the video, of every row."""
    missing = {video_column, label_column} - set(rows.features)
    if missing:
        raise ValueError(
            f"no column {' or '.join(sorted(missing))}, there are {', '.join(rows.features)}: name them with "
            "--video_column and --label_column"
        )
    feature = rows.features[label_column]
    if isinstance(rows.features[video_column], datasets.Video):
        rows = rows.cast_column(video_column, datasets.Video(decode=False))
    for row in rows.select_columns([video_column, label_column]):
        label, video = row[label_column], row[video_column]
        named = isinstance(feature, datasets.ClassLabel) and isinstance(label, int) and label >= 0
        name = feature.int2str(label) if named else "" if label in (None, -1) else str(label)
        yield name, {"bytes": video, "path": None} if isinstance(video, bytes) else video or {}
