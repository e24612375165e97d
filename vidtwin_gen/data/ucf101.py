"""UCF-101, or any tree with a folder per class: the index and its splits."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import pyarrow

from vidtwin_gen.data.index_cache import MANY, IndexCache
from vidtwin_gen.data.names import check_class_names, some
from vidtwin_gen.data.split_lists import (
    LISTS,
    Split,
    by_official_name,
    find_lists,
    listed_classes,
    official_splits,
    stem_of,
)
from vidtwin_gen.draws import hash64
from vidtwin_gen.files import check_reachable

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"}
)
TEST_FRACTION = 0.2  # of the groups, where there are no lists
PART = 1000  # files that a thread looks at before another result is handed on
GROUP = re.compile(r"(?P<group>.+_g\d+)_c\d+")


def build_index(root: str | Path, *, split: Split = "train", fold: int = 1) -> datasets.Dataset:
    """One of `build_indices`."""
    return build_indices(root, [split], fold=fold)[split]


def build_indices(
    root: str | Path, splits: Sequence[Split], *, fold: int = 1
) -> dict[Split, datasets.Dataset]:
    """The videos `<root>/<class>/<video>` of each of some splits, a row each: path (absolute), class_name,
    label, group, split. The folders are looked through once, several at a time; an index of 50,000 videos
    and more is kept (`IndexCache`).

    With the official lists in `<root>/ucfTrainTestlist`, or beside `root` as the archives unpack, the split
    is official split `fold`, 1 to 3 (files match by class and stem, so re-encoded copies do too, and folders
    in any capitals: UCF-101 itself has HandstandPushups and HandStandPushups), and classes keep the official
    names and the order of their numbers; a file in no list is left out with a warning. Elsewhere a hash of
    the group (`v_Biking_g07` of `v_Biking_g07_c02.avi`; without one, the file's own name) picks about a fifth
    of the groups, each independently of what else is there, and classes are sorted, or in the order of
    `<root>/classInd.txt`. Labels run from 0 over the classes present, alike in every split. What lies in the
    folder and is left out is told.

    Raises:
        ValueError: no videos, no such fold or split, lists missing, a leak between splits, an empty split, a
            class name that a later step could not take.
    """
    root = Path(root).expanduser().absolute()
    if unknown := [split for split in splits if split not in ("train", "test", "all")]:
        raise ValueError(f"split must be 'train', 'test' or 'all', got {unknown[0]!r}")
    check_reachable(root)
    if not root.is_dir():
        what = "is a file" if root.is_file() else "no such folder"
        raise ValueError(f"{root}: {what}; expected the folder of <root>/<class>/<video>")
    cache = IndexCache(root, [root / LISTS, root.parent / LISTS, root], [fold])
    kept = cache.read(splits)
    of_splits, warnings = kept or _made(root, splits, fold)
    for warning in warnings:
        logger.warning(warning)
    indices = dict(zip(splits, of_splits, strict=True))
    if kept is None and max(map(len, of_splits)) >= MANY:
        cache.write(indices, warnings)
    return indices


def _made(root: Path, splits: Sequence[Split], fold: int) -> tuple[list[datasets.Dataset], list[str]]:
    """The index of each split, and what is to be said of them."""
    files, warnings = _find_videos(root)
    lists = find_lists(root, files)
    if lists is not None:
        files = by_official_name(files, lists)
        names, split_of, strays = official_splits(lists, fold, files)
        if strays:
            left_out = f"{len(strays)} videos are in no list of {lists} and left out: {some(strays)}"
            warnings = [*warnings, left_out]
    elif fold != 1 and {*splits} != {"all"}:
        raise ValueError(
            f"{root} has no {LISTS}, the lists of official splits, and so one split of its own, got "
            f"fold={fold}: leave it out, or put the lists there"
        )
    else:
        files = by_official_name(files, root)
        first = [name for name in listed_classes(root) if name in files]
        names, split_of = first + sorted(files.keys() - first), _hashed_splits(files)
    try:
        check_class_names(names)
    except ValueError as error:
        raise ValueError(f"{root}: {error}; rename the class's folder") from None
    videos = [(path, label) for label, name in enumerate(names) for path in files[name] if path in split_of]
    features = datasets.Features(
        path=datasets.Value("string"),
        class_name=datasets.Value("string"),
        label=datasets.ClassLabel(names=names),
        group=datasets.Value("string"),
        split=datasets.Value("string"),
    )

    def index_of(split: Split) -> datasets.Dataset:
        chosen = [video for video in videos if split in (split_of[video[0]], "all")]
        columns = {
            "path": [path for path, _ in chosen],
            "class_name": [names[label] for _, label in chosen],
            "label": [label for _, label in chosen],
            "group": [_group(path) for path, _ in chosen],
            "split": [split_of[path] for path, _ in chosen],
        }
        return datasets.Dataset(pyarrow.table(columns, schema=features.arrow_schema))

    indices: dict[Split, datasets.Dataset] = {split: index_of(split) for split in ("train", "test")}
    check_split(indices["train"], indices["test"])
    indices = {split: indices[split] if split in indices else index_of(split) for split in splits}
    for split, index in indices.items():
        if not len(index):
            way_out = f"check {lists}" if lists is not None else "a split by hash takes more groups"
            raise ValueError(
                f"{root}: none of its {len(videos)} videos falls into split {split!r}; {way_out}"
            )
    return [indices[split] for split in splits], warnings


def check_split(train_index: datasets.Dataset, test_index: datasets.Dataset) -> None:
    """Refuse, with a ValueError, a group of clips cut from one recording that stands on both sides."""
    groups = [
        set(zip(column(index, "class_name"), column(index, "group"), strict=True))
        for index in (train_index, test_index)
    ]
    leaked = sorted("/".join(group) for group in groups[0] & groups[1])
    if leaked:
        raise ValueError(
            f"{len(leaked)} groups stand in both train and test ({some(leaked)}): test numbers would be "
            f"measured on training footage; take both from one fold, or correct the lists"
        )


def column(index: datasets.Dataset, name: str) -> list[Any]:
    """All of a column, at once: row by row it takes a minute for every million."""
    return index.select_columns(name).with_format("arrow")[:][name].to_pylist()


def file_sizes(paths: Sequence[str]) -> list[int | None]:
    """Bytes of each file, None of what is none; over a network many answers are awaited at a time."""

    def sizes(part: Sequence[str]) -> list[int | None]:
        return [os.stat(path).st_size if os.path.isfile(path) else None for path in part]

    parts = [paths[start : start + PART] for start in range(0, len(paths), PART)]
    with ThreadPoolExecutor() as pool:
        return list(chain.from_iterable(pool.map(sizes, parts)))


def index_sha256(*indices: datasets.Dataset) -> str:
    """The digest of what is learned from, wherever it lies: class, name, label and size of every video."""
    digest = hashlib.sha256()
    for index in indices:
        paths, labels = column(index, "path"), column(index, "label")
        for path, label, size in zip(paths, labels, file_sizes(paths), strict=True):
            place = "/".join(path.rsplit("/", 2)[1:])  # <class>/<video>; of a link that leads nowhere no size
            digest.update(f"{place} {label} {size}\n".encode())
    return digest.hexdigest()


def _find_videos(root: Path) -> tuple[dict[str, list[str]], list[str]]:
    """Class name: its videos, sorted; and what is to be said of other folders and files. Hidden files are not
    videos (macOS leaves `._v_Biking_g01_c01.avi`)."""
    folders = sorted(path.name for path in root.iterdir() if path.is_dir() and path.name[0] != ".")
    loose = sorted(path.name for path in root.iterdir() if is_video(path.name) and path.is_file())
    unread, empty = list[str](), list[str]()  # the second hold something, and no video

    def videos_of(name: str) -> list[str]:
        folder = os.path.join(root, name)
        try:
            found = [file for file in os.listdir(folder) if file[0] != "."]
        except PermissionError:  # such as a disk's lost+found
            unread.append(name)
            return []
        videos = sorted(filter(is_video, found))
        if found and not videos and name != LISTS:
            empty.append(f"{name} ({sorted(found)[0]})")
        return [os.path.join(folder, file) for file in videos]

    with ThreadPoolExecutor() as pool:
        files = {
            name: videos for name, videos in zip(folders, pool.map(videos_of, folders), strict=True) if videos
        }
    told = {
        "folders may not be read and are left out": unread,
        "folders hold no video and are no classes": empty,
        "videos are in no class's folder and left out": loose,
    }
    warnings = [
        f"{len(names)} {what} of {root}: {some(sorted(names))}" for what, names in told.items() if names
    ]
    for path in chain.from_iterable(files.values()):
        try:
            path.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{path!r} is not UTF-8: rename it, or set PYTHONUTF8=1") from None
    if not files:
        suffixes = " ".join(sorted(VIDEO_SUFFIXES))
        way_out = (
            "move its videos into a folder in it, which is then their class"
            if loose
            else "expected <root>/<class>/<video>, which `python -m vidtwin_gen unpack` makes of parquet and "
            ".tar files, and of data sets of the hub"
        )
        raise ValueError(f"{root}: no folder in it holds a video ({suffixes}); {way_out}")
    return files, warnings


def is_video(name: str) -> bool:
    """By the name of the file, which may not be hidden."""
    return name[0] != "." and os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES


def _hashed_splits(files: Mapping[str, list[str]]) -> dict[str, str]:
    return {
        path: "test" if hash64(0, f"{name}/{_group(path)}") < TEST_FRACTION * 2**64 else "train"
        for name, videos in files.items()
        for path in videos
    }


def _group(path: str) -> str:
    stem = stem_of(path)
    match = GROUP.fullmatch(stem)
    return match["group"] if match else stem
