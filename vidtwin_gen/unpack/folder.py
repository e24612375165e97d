"""A data set of the library `datasets`, local or of the hub, as the folder of videos that commands read."""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import fsspec
from tqdm.auto import tqdm

from vidtwin_gen.data.names import MOST_BYTES, check_class_names, some
from vidtwin_gen.data.ucf101 import LISTS, VIDEO_SUFFIXES
from vidtwin_gen.files import file_sha256, is_done, loading, new_folder, write_json, write_text
from vidtwin_gen.unpack.rows import TEST_NAMES, rows_of, splits_of

RECORD = "unpacked.json"


def unpack(data: str, out: str, *, video_column: str = "video", label_column: str = "label") -> None:
    """Writes `<out>/<class>/<video>`, the bytes of every video as they are, and `unpacked.json` with the
    digest of all. A data set with a split "train" and one "test", or "validation", gets lists of these as
    UCF-101 has, and keeps the order of its classes; others are split by `build_index`.

    Args:
        data: a folder of `Dataset.save_to_disk`, a folder with parquet files or WebDataset's .tar below, or
            OWNER/NAME on the hub.
        video_column: of `datasets.Video`, or of bytes and a path. label_column: of class labels or names.

    Raises:
        ValueError: no such data set or column, a row without video or class, names that are no class names;
            `out` is there and of another command.
    """
    command = {"data": data, "video_column": video_column, "label_column": label_column}
    if is_done(out, RECORD, command):
        return
    splits = splits_of(data)
    tests = [name for name in TEST_NAMES if name in splits][:1]
    parts = {"train": "train", tests[0]: "test"} if "train" in splits and tests else {}
    if left_out := [name for name in splits if parts and name not in parts]:
        print(f"{data}: left out is {some(left_out)}, as {tests[0]} is the test split")
    digest, stems, listed = hashlib.sha256(), set[str](), dict[str, list[str]](train=[], test=[])
    with new_folder(out) as folder:
        folders: dict[str, str] = {}
        for split in parts or splits:
            rows = rows_of(splits[split], video_column, label_column)
            for number, (name, video) in enumerate(tqdm(rows, desc=f"unpacking {split}", unit="video")):
                where = f"{data}: row {number} of {split}"
                if name not in folders:
                    folders[name] = _folder_of(name, where)
                place = Path(folders[name], _file_name(video, video_column, f"{split}-{number:07d}", stems))
                (folder / place.parent).mkdir(exist_ok=True)
                _write(folder / place, video, where)
                digest.update(f"{place.as_posix()} {file_sha256(folder / place)}\n".encode())
                listed[parts.get(split, "train")].append(place.as_posix())
        try:
            check_class_names(list(folders.values()))
        except ValueError as error:
            raise ValueError(f"{data}: {error}; rename a class") from None
        if parts:
            names = _ordered(splits["train"], label_column, folders)
            numbers = {name: number for number, name in enumerate(names, 1)}
            write_text(folder / LISTS / "classInd.txt", _lines(f"{numbers[name]} {name}" for name in names))
            write_text(folder / LISTS / "trainlist01.txt", _lines(listed["train"]))
            write_text(folder / LISTS / "testlist01.txt", _lines(listed["test"]))
        count = sum(map(len, listed.values()))
        write_json(folder / RECORD, {"command": command, "num_videos": count, "sha256": digest.hexdigest()})
    print(f"wrote {count} videos of {len(folders)} classes to {out}")


def _lines(words: Any) -> str:
    return "".join(f"{word}\n" for word in words)


def _ordered(rows: Any, label_column: str, folders: Mapping[str, str]) -> list[str]:
    """The class folders in the order of their labels."""
    feature = rows.features[label_column]
    names = feature.names if isinstance(feature, datasets.ClassLabel) else sorted(folders, key=_by_number)
    return [folders[name] for name in names if name in folders]


def _by_number(name: str) -> tuple[int, str]:
    """Numbers by their size, before words."""
    return (int(name), name) if name.isdecimal() else (sys.maxsize, name)


def _folder_of(name: str, where: str) -> str:
    folder = re.sub(r"\s+", "_", name.strip())  # a line of classInd.txt is two words
    if not folder:
        raise ValueError(f"{where} has no class")
    if folder[0] == "." or "/" in folder or "\0" in folder or len(folder.encode()) > MOST_BYTES:
        raise ValueError(
            f"{where} is of class {name[:80]!r}, which can't be a folder's name: rename the class"
        )
    return folder


def _file_name(video: Mapping[str, Any], column: str, default: str, stems: set[str]) -> str:
    """The name that the video had, from which its group is read, or a number; no two stems are alike."""
    given = Path(video.get("path") or "")
    stem = re.sub(r"[^\w.()+-]", "_", given.stem)
    if not stem.strip("._") or stem[0] == "." or len(stem.encode()) > 200 or stem.casefold() in stems:
        stem = default
    stems.add(stem.casefold())
    # ffmpeg looks at the content, so that another suffix does no harm
    suffix = next((end for end in (given.suffix.lower(), f".{column}") if end in VIDEO_SUFFIXES), ".mp4")
    return stem + suffix


def _write(path: Path, video: Mapping[str, Any], where: str) -> None:
    if video.get("bytes"):
        path.write_bytes(video["bytes"])
    elif "://" in (video.get("path") or ""):  # as rows of plain files on the hub have it
        fetching = loading(f"{where}, {video['path']}", "see that it is there and that the network is")
        with fetching, fsspec.open(video["path"], "rb") as source, path.open("wb") as file:
            shutil.copyfileobj(source, file)
    elif video.get("path") and Path(video["path"]).is_file():
        shutil.copyfile(video["path"], path)
    else:
        raise ValueError(f"{where} has no video: neither bytes nor a file that is here ({video.get('path')})")
