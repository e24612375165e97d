"""Videos and classes of a data set of the library `datasets`, local or of the hub, row by row."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets

from vidtwin_gen.files import loading

TEST_NAMES = ("test", "validation")  # of these the first that is there
BUILDERS = {".parquet": "parquet", ".tar": "webdataset"}


def splits_of(data: str) -> Mapping[str, Any]:
    """The rows of each split, one after the other."""
    folder = Path(data).expanduser()
    way_out = "name a folder of datasets' save_to_disk, of parquet or .tar files, or OWNER/NAME on the hub"
    if any((folder / name).is_file() for name in ("state.json", "dataset_dict.json")):
        with loading(data, way_out):
            saved = datasets.load_from_disk(str(folder))
        return saved if isinstance(saved, datasets.DatasetDict) else {"train": saved}
    if not folder.is_dir():
        if folder.is_absolute() or data.count("/") != 1:
            raise ValueError(f"{data}: no such folder; {way_out}")
        with loading(data, f"without a network only what is here can be unpacked: {way_out}"):
            return datasets.load_dataset(data, streaming=True)
    for suffix, builder in BUILDERS.items():
        if files := sorted(map(str, folder.rglob(f"*{suffix}"))):
            by_split: dict[str, list[str]] = {}
            for file in files:  # train-00000-of-00002.parquet, test/000.tar
                words = re.split(r"[^a-z]+", str(Path(file).relative_to(folder)).lower())
                named = [word for word in words if word in ("train", *TEST_NAMES)]
                by_split.setdefault((named or ["train"])[0], []).append(file)
            with loading(data, way_out):
                return datasets.load_dataset(builder, data_files=by_split, streaming=True)
    raise ValueError(f"{data} holds neither a data set of save_to_disk nor parquet or .tar files; {way_out}")


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
