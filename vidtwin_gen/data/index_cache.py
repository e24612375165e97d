"""Indices of very many videos, kept on the disk: made once, and mapped by every process that reads them."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets

from vidtwin_gen.files import file_sha256, loading, new_folder, read_json, write_json

logger = logging.getLogger(__name__)

VERSION = 2  # of the format of an index
MANY = 50_000  # videos; to look for more takes seconds
# Seconds: file systems round times, so a folder changed more recently may change again and keep its time.
AT_REST_S = 2.0
WARNINGS = "warnings.json"


class IndexCache:
    """The indices of the folder `root`, kept in the cache of datasets (`HF_DATASETS_CACHE`).

    Their key is made of the times at which the classes' folders last changed, which a file that is added,
    removed or renamed moves, and of the split's lists. What a file contains is no part of an index.

    Args:
        lists: folders of the official lists and of classInd.txt, where there may be one.
        choice: what else an index depends on.
    """

    def __init__(self, root: Path, lists: Sequence[Path], choice: Sequence[Any]) -> None:
        names = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
        changed = {name: os.stat(root / name).st_mtime_ns for name in names}
        self.at_rest = time.time() - max(changed.values(), default=0) / 1e9 > AT_REST_S
        about = {
            "version": VERSION,
            "root": str(root),
            "folders": changed,
            "lists": [file_sha256(path) for folder in lists for path in sorted(folder.glob("*.txt"))],
            "choice": list(choice),
        }
        key = hashlib.sha256(json.dumps(about).encode()).hexdigest()
        self.folder = Path(datasets.config.HF_DATASETS_CACHE) / "vidtwin_gen" / f"index-{key[:32]}"

    def read(self, names: Sequence[str]) -> tuple[list[datasets.Dataset], list[str]] | None:
        """The indices of these names, mapped from the disk, and the warnings of their making; None where one
        is missing."""
        if not all((self.folder / name).is_dir() for name in names):
            return None
        with loading(self.folder, "remove it"):
            kept = [datasets.load_from_disk(str(self.folder / name)) for name in names]
        return kept, read_json(self.folder / WARNINGS, "remove the folder")["warnings"]

    def write(self, indices: Mapping[Any, datasets.Dataset], warnings: Sequence[str]) -> None:
        """What is not there yet, and if it can: without room, or while another process writes the same, the
        next call tries again. Nothing is replaced, as another process may be reading it."""
        if not self.at_rest:
            return
        try:
            write_json(self.folder / WARNINGS, {"warnings": list(warnings)})
            for name, index in indices.items():
                if (self.folder / name).is_dir():
                    continue
                with new_folder(self.folder / name) as partial:
                    index.save_to_disk(str(partial))
        except (OSError, ValueError) as error:
            logger.info("the index of these videos is not kept: %s", error)
