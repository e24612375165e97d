"""What `--data` names, as a folder of videos."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import datasets
from huggingface_hub import HfApi

from vidtwin_gen.data.ucf101 import VIDEO_SUFFIXES
from vidtwin_gen.files import file_lock, loading, make_folder
from vidtwin_gen.flags import is_hub_id
from vidtwin_gen.unpack.folder import unpack
from vidtwin_gen.unpack.rows import columns_of, data_files, splits_of


def video_folder(data: str | Path) -> Path:
    """The folder `<root>/<class>/<video>` that `data` is, or what a data set of the library `datasets`, local
    or OWNER/NAME on the hub, is unpacked to, once, in the cache of `datasets` (`HF_DATASETS_CACHE`). Several
    processes may ask at once; one of them unpacks.

    Raises:
        ValueError: no such folder or data set, or complaints of `columns_of` and `unpack`.
    """
    folder = Path(data).expanduser().absolute()
    kept = Path(datasets.config.HF_DATASETS_CACHE) / "vidtwin_gen"
    if folder.is_dir():
        files = [] if _holds_videos(folder) else data_files(folder)
        if not files:
            return folder
        place = kept / f"videos-{_digest(folder, files)}"
    elif is_hub_id(str(data)):
        place = _place_of_hub(str(data), kept)
    else:
        return folder  # whoever reads it says that it is not there
    make_folder(kept)
    with file_lock(place.with_name(f"{place.name}.lock")):
        if not place.is_dir():
            video_column, label_column = columns_of(splits_of(str(data)), str(data))
            unpack(str(data), str(place), video_column=video_column, label_column=label_column)
    return place


def _holds_videos(folder: Path) -> bool:
    """Below a folder, as of a class; it looks no further than the first."""
    folders = (entry for entry in folder.iterdir() if entry.is_dir())
    return any(file.suffix.lower() in VIDEO_SUFFIXES for entry in folders for file in entry.iterdir())


def _digest(folder: Path, files: Sequence[Path]) -> str:
    """Of where files lie, how large they are and when they were changed."""
    about = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps([str(folder), about]).encode()).hexdigest()[:32]


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
