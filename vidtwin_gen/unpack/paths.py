"""Where the path of a row leads. A data set of the hub is a stranger's: it names no file of this machine. One
that is here may name any, as its owner's lists do."""

from __future__ import annotations

from pathlib import Path

import datasets
from huggingface_hub import constants

WEB = {"hf", "http", "https"}
ARCHIVES = {"bz2", "gzip", "lz4", "tar", "xz", "zip", "zstd"}  # zip://a.mp4::https://...: a file in another


def source_of(given: str, data: str, where: str) -> str | Path:
    """A URL as fsspec opens it, or a file. A relative path goes from the folder of the data set, else from
    the current one.

    Args:
        given: the path of a row.
        data: the data set, a folder or OWNER/NAME on the hub.
        where: the row, as errors name it.

    Raises:
        ValueError: the path leads where those of a data set of the hub may not.
    """
    folder = Path(data).expanduser()
    links = given.split("::") if "://" in given else []
    if not folder.is_dir():
        protocols = [link.lower().split("://")[0] if "://" in link else "" for link in links]
        if links and {*protocols} <= WEB | ARCHIVES and protocols[-1] in WEB:
            return given
        path = Path(given).resolve()
        if not links and any(path.is_relative_to(place.resolve()) for place in _downloads(data)):
            return path
        raise ValueError(
            f"{where} names {given}, and a data set of the hub may name https://, http://, hf:// and what "
            f"was downloaded of it. If you trust it, `hf download {data} --repo-type dataset --local-dir "
            "FOLDER`, and name the folder"
        )
    files = (folder / given, Path(given))
    return given if links else next((file for file in files if file.is_file()), files[1])


def _downloads(data: str) -> list[Path]:
    """Where `datasets` keeps the files of a repository, blobs that repositories share, and archives that it
    unpacked."""
    hub = Path(constants.HF_HUB_CACHE)
    unpacked = Path(datasets.config.HF_DATASETS_CACHE, "downloads")
    return [hub / f"datasets--{data.replace('/', '--')}", hub / "blobs", unpacked]
