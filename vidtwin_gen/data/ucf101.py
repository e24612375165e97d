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
from typing import Any, Literal

import datasets
import pyarrow

from vidtwin_gen.data.index_cache import MANY, IndexCache
from vidtwin_gen.data.names import check_class_names, folded, some
from vidtwin_gen.draws import hash64
from vidtwin_gen.files import read_text

logger = logging.getLogger(__name__)

Split = Literal["train", "test", "all"]

LISTS = "ucfTrainTestlist"
VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm"})
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
    is official split `fold`, 1 to 3 (files match by stem, so re-encoded copies do too, and folders in any
    capitals: UCF-101 itself has HandstandPushups and HandStandPushups), and classes keep the official names
    and order; a file in no list is left out with a warning. Elsewhere a hash of the group
    (`v_Biking_g07` of `v_Biking_g07_c02.avi`; without one, the file's own name) picks about a fifth of
    the groups, each independently of what else is there, and classes are sorted. Labels run from 0 over
    the classes present, alike in every split.

    Raises:
        ValueError: no videos, no such fold or split, lists missing, a leak between splits, an empty split, a
            class name that a later step could not take.
    """
    root = Path(root).expanduser().absolute()
    if unknown := [split for split in splits if split not in ("train", "test", "all")]:
        raise ValueError(f"split must be 'train', 'test' or 'all', got {unknown[0]!r}")
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; expected <root>/<class>/<video>")
    cache = IndexCache(root, [root / LISTS, root.parent / LISTS], [fold])
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
    files, strays = _find_videos(root), list[str]()
    lists = _find_lists(root, files)
    if lists is not None:
        files = _by_official_name(files, lists)
        names, split_of, strays = _official_splits(lists, fold, files)
    elif fold != 1 and {*splits} != {"all"}:
        raise ValueError(
            f"{root} has no {LISTS}, the lists of official splits, and so one split of its own, got "
            f"fold={fold}: leave it out, or put the lists there"
        )
    else:
        names, split_of = sorted(files), _hashed_splits(files)
    warnings = (
        [f"{len(strays)} videos are in no list of {lists} and left out: {some(strays)}"] if strays else []
    )
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


def _find_videos(root: Path) -> dict[str, list[str]]:
    """Class name: its videos, sorted. Hidden files are not videos (macOS leaves `._v_Biking_g01_c01.avi`)."""
    folders = sorted(path.name for path in root.iterdir() if path.is_dir() and path.name[0] != ".")

    def videos_of(name: str) -> list[str]:
        folder = os.path.join(root, name)
        files = sorted(file for file in os.listdir(folder) if _is_video(file))
        return [os.path.join(folder, file) for file in files]

    with ThreadPoolExecutor() as pool:
        files = {
            name: videos for name, videos in zip(folders, pool.map(videos_of, folders), strict=True) if videos
        }
    for path in chain.from_iterable(files.values()):
        try:
            path.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{path!r} is not UTF-8: rename it, or set PYTHONUTF8=1") from None
    if not files:
        suffixes = " ".join(sorted(VIDEO_SUFFIXES))
        raise ValueError(
            f"{root}: no folder in it holds a video ({suffixes}); expected <root>/<class>/<video>, which "
            "`python -m vidtwin_gen unpack` makes of parquet and .tar files, and of data sets of the hub"
        )
    return files


def _is_video(name: str) -> bool:
    return name[0] != "." and os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES


def _find_lists(root: Path, files: Mapping[str, list[str]]) -> Path | None:
    if (root / LISTS).is_dir():
        return root / LISTS
    beside = root.parent / LISTS
    # Lists beside a tree that has nothing to do with UCF-101 are somebody else's.
    ours = beside.is_dir() and set(_class_names(beside)) & set(_by_official_name(files, beside))
    return beside if ours else None


def _class_names(lists: Path) -> list[str]:
    """The second word of each line of classInd.txt; none without the file."""
    path = lists / "classInd.txt"
    lines = _lines(path) if path.exists() else []
    if bad := [line for line in lines if len(line.split()) != 2]:
        raise ValueError(f"{path} has the line {bad[0]!r:.80}, expected a number and a class name")
    names = [line.split()[1] for line in lines]
    if len(set(map(folded, names))) < len(names):
        raise ValueError(f"{path} names a class twice: {some(sorted(names))}")
    return names


def _lines(path: Path) -> list[str]:
    """Those of a list that are not empty. Raises ValueError where it is none."""
    text = read_text(path)
    if "\0" in text:
        raise ValueError(f"{path} holds zero bytes, and is no list: copy it again")
    return [line for line in text.splitlines() if line.strip()]


def _by_official_name(files: Mapping[str, list[str]], lists: Path) -> dict[str, list[str]]:
    """The videos by class, each named as in classInd.txt, whatever the capitals and the Unicode form of its
    folder."""
    official = {folded(name): name for name in _class_names(lists)}
    by_name: dict[str, list[str]] = {}
    for folder, videos in files.items():
        by_name.setdefault(official.get(folded(folder), folder), []).extend(videos)
    return by_name


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]  # a pathlib.Path of each takes ten times as long


def _clip(path: str) -> str:
    """What files of one clip have in common: the stem, in any capitals and Unicode form."""
    return folded(_stem(path))


def _official_splits(
    lists: Path, fold: int, files: Mapping[str, list[str]]
) -> tuple[list[str], dict[str, str], list[str]]:
    """Class names in official order, the split of every file that the lists know, and the other files."""
    if fold not in (1, 2, 3):
        raise ValueError(f"UCF-101 has the official splits 1, 2 and 3, got fold={fold}")
    listed: dict[str, str] = {}
    for part in ("train", "test"):
        path = lists / f"{part}list{fold:02d}.txt"
        if not path.is_file():
            raise ValueError(f"{path} is missing; restore it, or rename {lists} for a split of our own")
        # "Biking/v_Biking_g08_c01.avi 11" in the train lists, without the number in the test lists
        lines = [line.split() for line in _lines(path)]
        listed |= {_clip(words[0]): part for words in lines}
    official = _class_names(lists) or sorted(files)
    names = [name for name in official if any(_clip(path) in listed for path in files.get(name, ()))]
    splits: dict[str, str] = {}
    strays: list[str] = []
    found: dict[str, str] = {}
    for name, video in ((name, video) for name, videos in files.items() for video in videos):
        clip = _clip(video)
        if clip not in listed or name not in names:
            strays.append(video)
            continue
        if clip in found:
            raise ValueError(f"{found[clip]} and {video} are one clip of UCF-101; keep one of them")
        found[clip] = video
        splits[video] = listed[clip]
    if not splits:
        raise ValueError(f"no video is in the lists of {lists}; rename that folder for a split of our own")
    return names, splits, strays


def _hashed_splits(files: Mapping[str, list[str]]) -> dict[str, str]:
    return {
        path: "test" if hash64(0, f"{name}/{_group(path)}") < TEST_FRACTION * 2**64 else "train"
        for name, videos in files.items()
        for path in videos
    }


def _group(path: str) -> str:
    stem = _stem(path)
    match = GROUP.fullmatch(stem)
    return match["group"] if match else stem
