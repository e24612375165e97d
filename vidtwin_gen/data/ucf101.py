"""UCF-101, or any tree with a folder per class: the index and its splits."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import datasets

from vidtwin_gen.data.names import check_class_names, some
from vidtwin_gen.draws import hash64
from vidtwin_gen.files import read_text

logger = logging.getLogger(__name__)

LISTS = "ucfTrainTestlist"
VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm"})
TEST_FRACTION = 0.2  # of the groups, where there are no lists
GROUP = re.compile(r"(?P<group>.+_g\d+)_c\d+")


def build_index(
    root: str | Path, *, split: Literal["train", "test", "all"] = "train", fold: int = 1
) -> datasets.Dataset:
    """The videos `<root>/<class>/<video>`, a row each: path (absolute), class_name, label, group, split.

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
    if split not in ("train", "test", "all"):
        raise ValueError(f"split must be 'train', 'test' or 'all', got {split!r}")
    files = _find_videos(root)
    lists = _find_lists(root, files)
    if lists is not None:
        files = _by_official_name(files, lists)
        names, splits = _official_splits(lists, fold, files)
    else:
        names, splits = sorted(files), _hashed_splits(files)
    try:
        check_class_names(names)
    except ValueError as error:
        raise ValueError(f"{root}: {error}; rename the class's folder") from None
    rows = [
        {"path": str(path), "class_name": name, "label": label, "group": _group(path), "split": splits[path]}
        for label, name in enumerate(names)
        for path in files[name]
        if path in splits
    ]
    features = datasets.Features(
        path=datasets.Value("string"),
        class_name=datasets.Value("string"),
        label=datasets.ClassLabel(names=names),
        group=datasets.Value("string"),
        split=datasets.Value("string"),
    )

    def index_of(part: str) -> datasets.Dataset:
        chosen = [row for row in rows if part in (row["split"], "all")]
        columns = {column: [row[column] for row in chosen] for column in features}
        return datasets.Dataset.from_dict(columns, features=features)

    check_split(index_of("train"), index_of("test"))
    index = index_of(split)
    if not len(index):
        way_out = f"check {lists}" if lists is not None else "a split by hash takes more groups"
        raise ValueError(f"{root}: none of its {len(rows)} videos falls into split {split!r}; {way_out}")
    return index


def check_split(train_index: datasets.Dataset, test_index: datasets.Dataset) -> None:
    """Refuse, with a ValueError, a group of clips cut from one recording that stands on both sides."""
    groups = [
        set(zip(index["class_name"], index["group"], strict=True)) for index in (train_index, test_index)
    ]
    leaked = sorted("/".join(group) for group in groups[0] & groups[1])
    if leaked:
        raise ValueError(
            f"{len(leaked)} groups stand in both train and test ({some(leaked)}): test numbers would be "
            f"measured on training footage; take both from one fold, or correct the lists"
        )


def _find_videos(root: Path) -> dict[str, list[Path]]:
    """Class name: its videos, sorted. Hidden files are not videos (macOS leaves `._v_Biking_g01_c01.avi`)."""
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; expected <root>/<class>/<video>")
    files = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] != "."):
        videos = [p for p in folder.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES and p.name[0] != "."]
        if videos:
            files[folder.name] = sorted(videos)
    for path in (path for videos in files.values() for path in videos):
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise ValueError(f"{str(path)!r} is not UTF-8: rename it, or set PYTHONUTF8=1") from None
    if not files:
        suffixes = " ".join(sorted(VIDEO_SUFFIXES))
        raise ValueError(
            f"{root}: no folder in it holds a video ({suffixes}); expected <root>/<class>/<video>"
        )
    return files


def _find_lists(root: Path, files: Mapping[str, list[Path]]) -> Path | None:
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
    if len({name.casefold() for name in names}) < len(names):
        raise ValueError(f"{path} names a class twice: {some(sorted(names))}")
    return names


def _lines(path: Path) -> list[str]:
    """Those of a list that are not empty. Raises ValueError where it is none."""
    text = read_text(path)
    if "\0" in text:
        raise ValueError(f"{path} holds zero bytes, and is no list: copy it again")
    return [line for line in text.splitlines() if line.strip()]


def _by_official_name(files: Mapping[str, list[Path]], lists: Path) -> dict[str, list[Path]]:
    """The videos by class, each named as in classInd.txt, whatever the capitals of its folder."""
    official = {name.casefold(): name for name in _class_names(lists)}
    by_name: dict[str, list[Path]] = {}
    for folder, videos in files.items():
        by_name.setdefault(official.get(folder.casefold(), folder), []).extend(videos)
    return by_name


def _clip(path: str | Path) -> str:
    """What files of one clip have in common: the stem, in any capitals."""
    return Path(path).stem.casefold()


def _official_splits(
    lists: Path, fold: int, files: Mapping[str, list[Path]]
) -> tuple[list[str], dict[Path, str]]:
    """Class names in official order, and the split of every file that the lists know."""
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
    splits: dict[Path, str] = {}
    strays: list[str] = []
    found: dict[str, Path] = {}
    for name, path in ((name, path) for name, videos in files.items() for path in videos):
        clip = _clip(path)
        if clip not in listed or name not in names:
            strays.append(str(path))
            continue
        if clip in found:
            raise ValueError(f"{found[clip]} and {path} are one clip of UCF-101; keep one of them")
        found[clip] = path
        splits[path] = listed[clip]
    if strays:
        logger.warning("%d videos are in no list of %s and left out: %s", len(strays), lists, some(strays))
    if not splits:
        raise ValueError(f"no video is in the lists of {lists}; rename that folder for a split of our own")
    return names, splits


def _hashed_splits(files: Mapping[str, list[Path]]) -> dict[Path, str]:
    return {
        path: "test" if hash64(0, f"{name}/{_group(path)}") < TEST_FRACTION * 2**64 else "train"
        for name, videos in files.items()
        for path in videos
    }


def _group(path: Path) -> str:
    match = GROUP.fullmatch(path.stem)
    return match["group"] if match else path.stem
