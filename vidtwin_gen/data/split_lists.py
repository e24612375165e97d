"""UCF-101's lists of its splits and classes, which other data sets may have, too."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from vidtwin_gen.data.names import folded, some
from vidtwin_gen.files import read_text

Split = Literal["train", "test", "all"]

LISTS = "ucfTrainTestlist"
CLASSES_FILE = "classInd.txt"  # in the lists, or in the folder of a data set without lists
LINE = re.compile(r"(?P<path>.+?)(\s+\d+)?")  # those of the train lists end in the number of the class


def find_lists(root: Path, files: Mapping[str, list[str]]) -> Path | None:
    """The folder of the lists, in the root or beside it."""
    if (root / LISTS).is_dir():
        return root / LISTS
    beside = root.parent / LISTS
    # Lists beside a tree that has nothing to do with UCF-101 are somebody else's.
    ours = beside.is_dir() and set(listed_classes(beside)) & set(by_official_name(files, beside))
    return beside if ours else None


def listed_classes(lists: Path) -> list[str]:
    """The second word of each line of classInd.txt, by the number before it; none without the file."""
    path = lists / CLASSES_FILE
    lines = _lines(path) if path.exists() else []
    if bad := [line for line in lines if len(line.split()) != 2 or not line.split()[0].isdecimal()]:
        raise ValueError(f"{path} has the line {bad[0]!r:.80}, expected a number and a class name")
    names = [line.split()[1] for line in sorted(lines, key=lambda line: int(line.split()[0]))]
    if len(set(map(folded, names))) < len(names):
        raise ValueError(f"{path} names a class twice: {some(sorted(names))}")
    return names


def _lines(path: Path) -> list[str]:
    """Those of a list that are not empty. Raises ValueError where it is none."""
    text = read_text(path)
    if "\0" in text:
        raise ValueError(f"{path} holds zero bytes, and is no list: copy it again")
    return [line for line in text.splitlines() if line.strip()]


def by_official_name(files: Mapping[str, list[str]], lists: Path) -> dict[str, list[str]]:
    """The videos by class, each named as in classInd.txt, whatever the capitals and the Unicode form of its
    folder."""
    official = {folded(name): name for name in listed_classes(lists)}
    by_name: dict[str, list[str]] = {}
    for folder, videos in files.items():
        by_name.setdefault(official.get(folded(folder), folder), []).extend(videos)
    return by_name


def stem_of(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]  # a pathlib.Path of each takes ten times as long


def _listed(line: str) -> tuple[str, str]:
    """Folder and stem of a line such as "Biking/v_Biking_g08_c01.avi 11", in any capitals and Unicode form.
    What is a number behind the last dot belongs to the name."""
    match = LINE.fullmatch(line.strip())
    assert match is not None
    folder, _, name = match["path"].rpartition("/")
    stem, suffix = os.path.splitext(name)
    return folded(os.path.basename(folder)), folded(name if suffix[1:].isdecimal() else stem)


def official_splits(
    lists: Path, fold: int, files: Mapping[str, list[str]]
) -> tuple[list[str], dict[str, str], list[str]]:
    """Class names in official order, the split of every file that the lists know, and the other files.

    Raises:
        ValueError: no such fold, a list is missing or damaged, a clip is in both or there twice, or none is.
    """
    if fold not in (1, 2, 3):
        raise ValueError(f"UCF-101 has the official splits 1, 2 and 3, got fold={fold}")
    official = listed_classes(lists) or sorted(files)
    known = set(map(folded, official))
    listed: dict[tuple[str, str], str] = {}  # "": of a line that names no class
    for part in ("train", "test"):
        path = lists / f"{part}list{fold:02d}.txt"
        if not path.is_file():
            raise ValueError(f"{path} is missing; restore it, or rename {lists} for a split of our own")
        for line in _lines(path):
            folder, clip = _listed(line)
            if listed.setdefault((folder if folder in known else "", clip), part) != part:
                raise ValueError(f"{path} has {line.strip()!r:.200}, which is in the train list, too")

    def entry(name: str, video: str) -> tuple[str, str] | None:
        clip = folded(stem_of(video))
        return next((key for key in ((folded(name), clip), ("", clip)) if key in listed), None)

    names = [name for name in official if any(entry(name, video) for video in files.get(name, ()))]
    splits: dict[str, str] = {}
    strays: list[str] = []
    found: dict[tuple[str, str], str] = {}
    for name, video in ((name, video) for name, videos in files.items() for video in videos):
        key = entry(name, video)
        if key is None or name not in names:
            strays.append(video)
            continue
        if key in found:
            raise ValueError(f"{found[key]} and {video} are one clip of {lists}; keep one of them")
        found[key] = video
        splits[video] = listed[key]
    if not splits:
        raise ValueError(f"no video is in the lists of {lists}; rename that folder for a split of our own")
    return names, splits, strays
