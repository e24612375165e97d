"""A folder that takes long to fill: the processes of a command share the work, a killed one leaves the
finished files, and the same command continues with the others."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object

from vidtwin_gen.data.names import some
from vidtwin_gen.devices import by_the_first, processes
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

PARTIAL_RECORD = "partial.json"  # the command, and what was finished when the folder was opened
ADDED = "added-*.jsonl"  # what each process has finished since, a line a file
Files = dict[str, dict[str, Any]]
OURS = (PARTIAL_RECORD, LOCK, OWNER, "partial.lock")  # the last of earlier versions


@contextmanager
def partial_folder(out: str | Path, command: Mapping[str, Any]) -> Iterator[PartialFolder]:
    """`<out>.partial`, of this process and those that a launcher started with it alone, which takes the name
    `out` when all went well.

    Args:
        out: the folder to be made; new or empty.
        command: what the files depend on, by the names of flags. As long as no file is finished, another
            command may take the folder over.

    Raises:
        ValueError: `out` is not empty, or `<out>.partial` is another command's, in use by another process, or
            nothing of ours.
    """
    final = Path(out).resolve()  # beside a link is not beside what it leads to
    path = final.with_name(f"{final.name}.partial")
    with ExitStack() as owned:
        yield PartialFolder(path, by_the_first(lambda: owned.enter_context(_opened(out, path, command))))
        by_the_first(lambda: _finish(path, final))


@contextmanager
def _opened(out: str | Path, path: Path, command: Mapping[str, Any]) -> Iterator[Files]:
    """The folder, owned, with nothing in it but the finished files, which it gives."""
    check_new(out)
    others = [file.name for file in path.glob("*") if file.name not in OURS]
    if others and not (path / PARTIAL_RECORD).is_file():
        raise ValueError(
            f"{path} holds {some(others)} and no {PARTIAL_RECORD}, so it is not a command's to continue: "
            "move it away, or name another --out"
        )
    with owned_folder(path, "name another --out"):
        check_new(out)  # once more: another process may have finished it before this one owned the folder
        yield _keep_finished(path, dict(command))


def _keep_finished(path: Path, command: dict[str, Any]) -> Files:
    """Puts what is finished on record, and removes whatever else a killed process has left."""
    record = (
        read_json(path / PARTIAL_RECORD, "remove the folder") if (path / PARTIAL_RECORD).is_file() else {}
    )
    files: Files = record.get("files", {})
    for log in sorted(path.glob(ADDED)):
        files |= dict(_whole_lines(log))
    changed = changed_flags(record.get("command", {}), command)
    if files and changed:
        raise ValueError(
            f"{path} holds {len(files)} files of another command ({changed}): repeat "
            "that one to continue it, remove the folder, or name another --out"
        )
    finished = {}
    for name, about in files.items():
        file = path / name
        if file.is_file() and file.stat().st_size == about["num_bytes"]:
            finished[name] = about
        else:
            print(f"{file} is not as it was when it was finished, and made again")
    write_json(path / PARTIAL_RECORD, {"command": command, "files": finished})
    kept = {*finished, PARTIAL_RECORD, LOCK, OWNER}
    for file in (file for file in path.rglob("*") if file.is_file()):
        if file.relative_to(path).as_posix() not in kept:
            file.unlink()
    return finished


def _whole_lines(log: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The last line may be cut, of a process that was killed."""
    for line in log.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)


def _finish(path: Path, final: Path) -> None:
    check_new(final)
    rename_owned(path, final)
    for record in (*final.glob(ADDED), final / PARTIAL_RECORD):  # until here the folder continues from them
        record.unlink()


class PartialFolder:
    """What of the folder is finished, and how more is added.

    A file gets its own name when it is written, then a line in this process's log.

    Attributes:
        files: the finished ones, by their path in the folder, with `num_bytes` and `about` of `adding`. Those
            of other processes are among them after `gather`.
    """

    def __init__(self, path: Path, files: Files) -> None:
        self.path, self.files = path, files
        self._log = path / ADDED.replace("*", str(processes().process_index))

    @contextmanager
    def adding(self, name: str, about: Mapping[str, Any]) -> Iterator[Path]:
        """A path to write a file to, which is then put on record with what is to be known about it (plain
        JSON)."""
        with replacing_file(self.path / name) as partial:
            yield partial
        self.add([name], about)

    def add(self, names: Iterable[str], about: Mapping[str, Any] | None = None) -> None:
        """Puts files on record that are written under their names already."""
        added = {name: {**(about or {}), "num_bytes": (self.path / name).stat().st_size} for name in names}
        self.files |= added
        with self._log.open("a", encoding="utf-8") as log:
            log.write("".join(f"{json.dumps(line)}\n" for line in added.items()))

    def gather(self) -> None:
        """Waits for the other processes, and puts together what all have finished."""
        for files in gather_object([self.files]):
            self.files |= files
