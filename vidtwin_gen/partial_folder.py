"""A folder that takes long to fill: a killed command leaves the finished files, and goes on with the others
when it is repeated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vidtwin_gen.data.names import some
from vidtwin_gen.files import (
    LOCK,
    OWNER,
    changed_flags,
    check_new,
    owned_folder,
    read_json,
    rename_owned,
    replacing_file,
    write_json,
)

RECORD = "partial.json"
OURS = (RECORD, LOCK, OWNER, "partial.lock")  # the last of earlier versions


@contextmanager
def partial_folder(out: str | Path, command: Mapping[str, Any]) -> Iterator[PartialFolder]:
    """`<out>.partial`, this process's alone, which takes the name `out` when all went well.

    Args:
        out: the folder to be made; new or empty.
        command: what the files depend on, by the names of flags. As long as no file is finished, another
            command may take the folder over.

    Raises:
        ValueError: `out` is not empty, or `<out>.partial` is another command's, in use by another process, or
            nothing of ours.
    """
    check_new(out)
    final = Path(out).absolute()
    path = final.with_name(f"{final.name}.partial")
    others = [file.name for file in path.glob("*") if file.name not in OURS]
    if others and not (path / RECORD).is_file():
        raise ValueError(
            f"{path} holds {some(others)} and no {RECORD}, so it is not a command's to continue: "
            "move it away, or name another --out"
        )
    with owned_folder(path, "name another --out"):
        check_new(out)  # once more: another process may have finished it before this one owned the folder
        yield PartialFolder(path, command)
        check_new(out)
        rename_owned(path, final)
        (final / RECORD).unlink()


class PartialFolder:
    """What of the folder is finished, and how more is added.

    A file gets its own name when it is written, then a line in the record; whatever else a killed process
    left is removed.

    Attributes:
        files: the finished ones, by their path in the folder, with `num_bytes` and `about` of `adding`.
    """

    def __init__(self, path: Path, command: Mapping[str, Any]) -> None:
        self.path, self.command = path, dict(command)
        self.files: dict[str, dict[str, Any]] = {}
        record = read_json(path / RECORD, "remove the folder") if (path / RECORD).is_file() else {}
        files: dict[str, dict[str, Any]] = record.get("files", {})
        changed = changed_flags(record.get("command", {}), self.command)
        if files and changed:
            raise ValueError(
                f"{path} holds {len(files)} files of another command ({changed}): repeat "
                "that one to continue it, remove the folder, or name another --out"
            )
        for name, about in files.items():
            file = path / name
            if file.is_file() and file.stat().st_size == about["num_bytes"]:
                self.files[name] = about
            else:
                print(f"{file} is not as it was when it was finished, and made again")
        for file in (file for file in path.rglob("*") if file.is_file()):
            if file.relative_to(path).as_posix() not in (*self.files, RECORD, LOCK, OWNER):
                file.unlink()
        self._write_record()

    @contextmanager
    def adding(self, name: str, about: Mapping[str, Any]) -> Iterator[Path]:
        """A path to write a file to, which is then put on record with what is to be known about it (plain
        JSON)."""
        file = self.path / name
        with replacing_file(file) as partial:
            yield partial
        self.files[name] = {**about, "num_bytes": file.stat().st_size}
        self._write_record()

    def _write_record(self) -> None:
        write_json(self.path / RECORD, {"command": self.command, "files": self.files})
