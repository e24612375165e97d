"""A folder that takes long to fill: a killed command leaves the finished files, and goes on with the others
when it is repeated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vidtwin_gen.data.ucf101 import some
from vidtwin_gen.files import read_json, replacing_file, write_json

RECORD = "partial.json"
LOCK = "partial.lock"


class PartialFolder:
    """`<out>.partial`: takes the name `out` when all files are there.

    A file gets its own name when it is written, then a line in the record; whatever else a killed process
    leaves is removed by the next one. To be used as a context, which locks the folder.

    Args:
        out: the folder to be made; new or empty.
        command: what the files depend on, by the names of flags. As long as no file is finished, another
            command may take the folder over.

    Attributes:
        path: `<out>.partial`. files: the finished ones, by their path in it, with `num_bytes` and `about` of
            `add`.

    Raises:
        ValueError: `out` is not empty, or `<out>.partial` is another command's, in use by another process, or
            nothing of ours.
    """

    def __init__(self, out: str | Path, command: Mapping[str, Any]) -> None:
        self.out = Path(out)
        self.path = self.out.with_name(self.out.name + ".partial")
        if self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise ValueError(f"{out} is not empty: name another --out, or remove it to encode again")
        others = [p.name for p in self.path.glob("*") if not p.name.startswith("partial.")]
        if others and not (self.path / RECORD).is_file():
            raise ValueError(
                f"{self.path} holds {some(others)} and no {RECORD}, so it is not a command's to continue: "
                "move it away, or name another --out"
            )
        self.command = dict(command)
        self.files: dict[str, dict[str, Any]] = {}
        self._lock = FileLock(self.path / LOCK)

    def __enter__(self) -> PartialFolder:
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(
                f"{self.path}: another process is writing to it; let it finish, or name another --out"
            ) from None
        try:
            self._continue()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._lock.release()

    def add(self, name: str, write: Callable[[Path], None], about: Mapping[str, Any]) -> None:
        """Writes a file, by a call of `write` with a path, and puts it on record with what is to be known
        about it (plain JSON)."""
        file = self.path / name
        with replacing_file(file) as partial:
            write(partial)
        self.files[name] = {**about, "num_bytes": file.stat().st_size}
        self._write_record()

    def finish(self) -> None:
        """The folder gets its name, and loses the record."""
        if self.out.exists():
            self.out.rmdir()
        self.path.rename(self.out)
        for name in (RECORD, LOCK):
            (self.out / name).unlink(missing_ok=True)

    def _continue(self) -> None:
        """Takes over what the record of an earlier process says is finished."""
        record_path = self.path / RECORD
        record = read_json(record_path, "remove the folder") if record_path.is_file() else {}
        files: dict[str, dict[str, Any]] = record.get("files", {})
        before: dict[str, Any] = record.get("command", {})
        changed = [
            f"--{name} was {before.get(name)!r}, is {value!r}"
            for name, value in self.command.items()
            if before.get(name) != value
        ]
        if files and changed:
            raise ValueError(
                f"{self.path} holds {len(files)} files of another command ({', '.join(changed)}): repeat "
                "that one to continue it, remove the folder, or name another --out"
            )
        for name, about in files.items():
            file = self.path / name
            if file.is_file() and file.stat().st_size == about["num_bytes"]:
                self.files[name] = about
            else:
                print(f"{file} is not as it was when it was finished, and made again")
        for file in (path for path in self.path.rglob("*") if path.is_file()):
            name = file.relative_to(self.path).as_posix()
            if name not in (*self.files, RECORD, LOCK):
                file.unlink()
        self._write_record()

    def _write_record(self) -> None:
        write_json(self.path / RECORD, {"command": self.command, "files": self.files})
