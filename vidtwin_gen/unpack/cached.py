"""What `--data` names, as a folder of videos."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import datasets
from huggingface_hub import HfApi

from vidtwin_gen.data.ucf101 import is_video
from vidtwin_gen.files import file_lock, loading, make_folder
from vidtwin_gen.flags import is_hub_id
from vidtwin_gen.unpack.folder import unpack
from vidtwin_gen.unpack.rows import BUILDERS, SAVED, columns_of, data_files, named_split, splits_of, state_of


def video_folder(data: str | Path) -> Path:
    """The folder `<root>/<class>/<video>` that `data` is, or what a data set of the library `datasets`, local
    or OWNER/NAME on the hub, is unpacked to, once, in the cache of `datasets` (`HF_DATASETS_CACHE`). Several
    processes may ask at once; one of them unpacks.

    Raises:
        ValueError: no such folder or data set, or complaints of `columns_of` and `unpack`.
        OSError: the cache can't be written.
    """
    folder = Path(data).expanduser().absolute()
    kept = Path(datasets.config.HF_DATASETS_CACHE) / "vidtwin_gen"
    if folder.is_dir():
        if videos := _class_with_videos(folder):
            if data_set := _data_set_in(folder):
                raise ValueError(
                    f"{folder} holds both videos, below {videos}, and a data set, {data_set}: name the "
                    "folder of one of them, or move the other"
                )
            return folder
        if not data_files(folder):
            return folder
        place = kept / f"videos-{state_of(folder)}"
    elif is_hub_id(str(data)):
        place = _place_of_hub(str(data), kept)
    else:
        return folder  # whoever reads it says that it is not there
    if place.is_dir():  # has its name only when it is complete; another user's lock can't be opened
        return place
    try:
        make_folder(kept)
        lock = file_lock(place.with_name(f"{place.name}.lock"))
    except OSError as error:
        reason = f"{error.strerror}: name a folder that you may write to in HF_DATASETS_CACHE"
        raise OSError(error.errno, reason, error.filename) from None
    with lock:
        if not place.is_dir():
            video_column, label_column = columns_of(splits_of(str(data)), str(data))
            unpack(str(data), str(place), video_column=video_column, label_column=label_column)
    return place


def _class_with_videos(folder: Path) -> str | None:
    """The first folder that has a video, as a class has; it looks no further."""
    folders = (entry for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != ".")
    for entry in folders:
        with suppress(PermissionError):  # such as a disk's lost+found
            if any(is_video(name) for name in os.listdir(entry)):
                return entry.name
    return None


def _data_set_in(folder: Path) -> str | None:
    """A file of one, where a repository of the hub has them: in the folder itself, or in its `data`."""
    places = [folder / name for name in SAVED]
    for suffix in BUILDERS:
        files = [*folder.glob(f"*{suffix}"), *folder.glob(f"data/*{suffix}")]
        places += [file for file in files if named_split(file.stem)]
    return next((str(place.relative_to(folder)) for place in places if place.is_file()), None)


def _place_of_hub(name: str, kept: Path) -> Path:
    """Of the newest revision; without a network, of the one that was unpacked last."""
    slug = f"videos-{name.replace('/', '--')}-"
    way_out = "there is no such folder either: name one of videos, or a data set of the hub"
    try:
        with loading(name, way_out):
            return kept / f"{slug}{str(HfApi().dataset_info(name).sha)[:12]}"
    except ValueError as error:
        unpacked = [path for path in kept.glob(f"{slug}*") if path.is_dir()]
        if not unpacked:
            raise
        last = max(unpacked, key=lambda path: path.stat().st_mtime)
        print(f"{error}: taking {last}, which was unpacked before")
        return last
