"""A data set of the library `datasets`, local or of the hub, as the folder of videos that commands read."""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import fsspec
from tqdm.auto import tqdm

from vidtwin_gen.data.names import MOST_BYTES, check_class_names, some
from vidtwin_gen.data.split_lists import CLASSES_FILE, LISTS
from vidtwin_gen.data.ucf101 import VIDEO_SUFFIXES
from vidtwin_gen.files import file_sha256, is_done, loading, new_folder, write_json, write_text
from vidtwin_gen.unpack.paths import source_of
from vidtwin_gen.unpack.rows import TEST_NAMES, data_files, rows_of, splits_of, state_of

RECORD = "unpacked.json"


def unpack(
    data: str,
    out: str,
    *,
    video_column: str = "video",
    label_column: str = "label",
    train_split: str = "train",
    test_split: str | None = None,
) -> None:
    """Writes `<out>/<class>/<video>`, the bytes of every video as they are, and `unpacked.json` with the
    digest of all. Of several splits two get lists as UCF-101 has; one alone is split by `build_index`. The
    order of the classes is kept.

    Args:
        data: a folder of `Dataset.save_to_disk`, a folder with parquet files or WebDataset's .tar below, or
            OWNER/NAME on the hub.
        video_column: of `datasets.Video`, or of bytes, paths or both. label_column: of class labels or names.
        train_split, test_split: of several splits those that are taken; by default the second is "test", or
            without one "validation".

    Raises:
        ValueError: no such data set, split or column, a row without video or class or whose path leads where
            it may not (`source_of`), names that are no class names; `out` is there and of another command.
    """
    columns = {"video_column": video_column, "label_column": label_column}
    command: dict[str, str | None] = {"data": data, **columns}
    if (train_split, test_split) != ("train", None):
        command |= {"train_split": train_split, "test_split": test_split}
    if data_files(Path(data).expanduser()):
        command["state"] = state_of(Path(data).expanduser().absolute())
    if is_done(out, RECORD, command):
        return
    splits = splits_of(data)
    parts = _parts(list(splits), train_split, test_split, data)
    digest, stems, listed = hashlib.sha256(), set[str](), dict[str, list[str]](train=[], test=[])
    part_of, in_both = dict[str, str](), list[str]()  # of the digest of a video; videos of the second
    with new_folder(out) as folder:
        folders: dict[str, str] = {}
        for split, part in parts.items():
            rows = rows_of(splits[split], video_column, label_column, data, split)
            bar = tqdm(rows, desc=f"unpacking {split}", unit="video")
            for number, (where, name, video) in enumerate(bar):
                if name not in folders:
                    folders[name] = _folder_of(name, where)
                place = Path(folders[name], _file_name(video, video_column, f"{split}-{number:07d}", stems))
                (folder / place.parent).mkdir(exist_ok=True)
                _write(folder / place, video, where, data)
                sha256 = file_sha256(folder / place)
                digest.update(f"{place.as_posix()} {sha256}\n".encode())
                listed[part].append(place.as_posix())
                if part_of.setdefault(sha256, part) != part:
                    in_both.append(place.as_posix())
        try:
            check_class_names(list(folders.values()))
        except ValueError as error:
            raise ValueError(f"{data}: {error}; rename a class") from None
        lists = folder / LISTS if len(parts) > 1 else folder
        names = _ordered(splits[next(iter(parts))], label_column, folders)
        write_text(lists / CLASSES_FILE, _lines(f"{number} {name}" for number, name in enumerate(names, 1)))
        if len(parts) > 1:
            write_text(lists / "trainlist01.txt", _lines(listed["train"]))
            write_text(lists / "testlist01.txt", _lines(listed["test"]))
        count = sum(map(len, listed.values()))
        write_json(folder / RECORD, {"command": command, "num_videos": count, "sha256": digest.hexdigest()})
    print(f"wrote {count} videos of {len(folders)} classes to {out}")
    if in_both:
        print(
            f"{len(in_both)} videos of the test split are in the training split, too ({some(in_both)}): test "
            f"numbers would be measured on training footage; take their lines out of {Path(out, LISTS)}"
        )


def _parts(names: Sequence[str], train_split: str, test_split: str | None, data: str) -> dict[str, str]:
    """Of the splits that are taken, what they are here: "train" or "test".

    Raises:
        ValueError: of several it isn't clear which, or those that are named are not there.
    """
    if len(names) == 1 and not test_split and train_split in (names[0], "train"):
        return {names[0]: "train"}
    tests = [test_split] if test_split else [name for name in TEST_NAMES if name in names][:1]
    if not tests or not {train_split, *tests} <= {*names} or train_split in tests:
        raise ValueError(
            f"{data}: which splits are for training and for testing? There are {', '.join(names)}. "
            "`python -m vidtwin_gen unpack` takes --train_split and --test_split; then name its folder"
        )
    if left_out := [name for name in names if name not in (train_split, *tests)]:
        print(f"{data}: left out is {some(left_out)}, as {tests[0]} is the test split")
    return {train_split: "train", tests[0]: "test"}


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


def _write(path: Path, video: Mapping[str, Any], where: str, data: str) -> None:
    """`data`: the data set, by which `source_of` reads paths."""
    given = video.get("path") or ""
    if video.get("bytes"):
        path.write_bytes(video["bytes"])
        return
    source = source_of(given, data, where) if given else None
    if isinstance(source, str):  # as rows of plain files on the hub have it
        fetching = loading(f"{where}, {given}", "see that it is there and that the network is")
        with fetching, fsspec.open(source, "rb") as file, path.open("wb") as copy:
            shutil.copyfileobj(file, copy)
    elif source and source.is_file():
        shutil.copyfile(source, path)
    else:
        raise ValueError(f"{where} has no video: neither bytes nor a file that is here ({given or None})")
