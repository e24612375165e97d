"""The digests of a checkpoint's files, written with them: what a disk has changed since is then seen."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vidtwin_gen.files import file_sha256, read_json, write_json

MANIFEST = "manifest.json"


def write_manifest(folder: Path) -> None:
    """`manifest.json`: the sha256 of every file below `folder`, by its path from there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    digests = dict(zip([path.relative_to(folder).as_posix() for path in files], _digests(files), strict=True))
    write_json(folder / MANIFEST, {"sha256": digests})


def damage_of(folder: Path) -> str:
    """What is not as the manifest says, "" where all is or where there is none, as in folders of before."""
    if not (folder / MANIFEST).is_file():
        return ""
    try:
        digests = read_json(folder / MANIFEST, "")["sha256"]
    except (ValueError, KeyError):
        return f"{MANIFEST} can't be read"
    missing = [name for name in digests if not (folder / name).is_file()]
    if missing:
        return f"{missing[0]} is missing"
    seen = _digests([folder / name for name in digests])
    changed = [name for name, digest in zip(digests, seen, strict=True) if digest != digests[name]]
    return f"{changed[0]} is not as it was written" if changed else ""


def _digests(files: list[Path]) -> list[str]:
    with ThreadPoolExecutor() as pool:  # hashing leaves Python's lock to others
        return list(pool.map(file_sha256, files))
