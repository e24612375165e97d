"""Files and folders that have their name only when they are complete, or one owner; JSON; digests.

Whatever the project writes is written beside its place and renamed, so that a reader, a crash or a full disk
never meets half a file.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import socket
import stat
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from filelock import FileLock, Timeout

LOCK, OWNER = ".lock", ".owner.json"
PARTIAL = re.compile(r".+\.[0-9a-f]{8}\.partial")  # of `replacing_file`
REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # of a disk, to whoever writes


@contextmanager
def replacing_file(path: str | Path) -> Iterator[Path]:
    """A path beside `path` to write to, which takes its place when all went well. Folders above are made.

    It is this writer's own: of several processes that write one file, the last one's stands. What a writer
    that was killed has left there, the next one writes over.
    """
    final = Path(path)
    make_folder(final.parent)
    if final.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(final))
    partial = final.with_name(f"{final.name}.{0:08x}.partial")
    lock = _locked(partial)  # makes the file: where there is no writing, not all libraries say so
    if lock is None:
        partial = final.with_name(f"{final.name}.{uuid.uuid4().hex[:8]}.partial")
        partial.touch()
    mode = partial.stat().st_mode
    try:
        with writing(final):
            yield partial
        permit(partial, mode)
        partial.replace(final)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    finally:
        if lock is not None:
            lock.close()


def permit(file: Path, mode: int) -> None:
    """Gives a file the permissions of `mode`, that of one which was opened: safetensors lets its owner alone
    read what it writes, whatever the umask."""
    now = file.stat().st_mode
    if now | mode != now:
        file.chmod(stat.S_IMODE(now | mode))


def _locked(path: Path) -> IO[bytes] | None:
    """Opens the file, created or truncated, under an exclusive lock that lasts until it is closed. None if
    another process holds the lock, or has renamed or removed the file meanwhile."""
    file = path.open("ab")
    with suppress(OSError):  # locked, or renamed or removed since it was opened
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            file.truncate(0)
            return file
    file.close()
    return None


@contextmanager
def writing(place: str | Path) -> Iterator[None]:
    """Turns any library's error about a full, over-quota or read-only disk, or too large a file, into one
    OSError that names `place`."""
    try:
        yield
    except Exception as error:
        said = f"{error} {error.__cause__}"
        reason = next((reason for reason in map(os.strerror, REFUSALS) if reason in said), "")
        if "inline_container" in said or "iostream error" in said:  # torch.save; it does not say more
            reason = "torch can't write all of it, the disk may be full"
        named = isinstance(error, OSError) and str(error.filename).startswith(str(place))
        if named or not reason:
            raise
        raise OSError(errno.EIO, reason, str(place)) from error


@contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """A folder to write to, `partial-` and the name, which takes the place of `path` when all went well. What
    a writer that died has left there is removed. Raises ValueError where another process writes there."""
    final = Path(path).resolve()  # "." has no name, and beside a link is not beside what it leads to
    partial = final.with_name(f"partial-{final.name}")
    with owned_folder(partial, "name another folder"):
        for left in partial.iterdir():
            if left.name not in (LOCK, OWNER):
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        with writing(partial):
            yield partial
        rename_owned(partial, final)


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """As `replacing_folder`, where nothing is to be replaced. Raises ValueError as `check_new` does."""
    check_new(path)
    with replacing_folder(path) as partial:
        check_new(path)  # once more: another process may have finished it before this one owned `partial`
        yield partial


@contextmanager
def new_or_same_folder(path: str | Path) -> Iterator[Path]:
    """As `new_folder`; but a folder that holds the very files that are written now is left as it is. Says
    which of the two it was. What a process that was ended as its folder got its name left of its ownership is
    removed."""
    if not (Path(path).is_dir() and any(Path(path).iterdir())):
        with new_folder(path) as partial:
            yield partial
        print(f"wrote {path}")
        return
    with TemporaryDirectory() as again, writing(again):
        yield Path(again)
        there = digests_below(path)
        if digests_below(again) != {name: there[name] for name in there.keys() - {LOCK, OWNER}}:
            check_new(path)
    disown(Path(path))
    print(f"{path} is done already, by the same command")


def make_folder(path: Path) -> None:
    """Raises ValueError where there is a file, or a link that leads nowhere."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        if (link := Path(error.filename)).is_symlink() and not link.exists():  # perhaps one of those above
            raise ValueError(
                f"{link} is a link to {link.readlink()}, which is not there: mount it, or name another"
            ) from None
        raise ValueError(f"{path} is a file, and a folder is to be written: name another") from None


def check_new(path: str | Path) -> None:
    """Raises ValueError where `path` is a file or a folder with something in it."""
    path = Path(path)
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise ValueError(f"{path} is there already and would be overwritten: name a new folder")


def is_done(path: str | Path, record: str, command: Mapping[str, Any]) -> bool:
    """Whether the same command has made the folder `path`, which is then said.

    Args:
        record: name of the JSON object in it, whose `command` is the one that made it.
        command: what the folder follows from, as JSON, by the names of flags; content by its digest.

    Raises:
        ValueError: another command has made the folder, or it is not new.
    """
    file = Path(path) / record
    before = read_json(file, "name a new folder").get("command") if file.is_file() else None
    if before is None:
        check_new(path)
        return False
    if changed := changed_flags(before, command):
        raise ValueError(
            f"{path} is there already, of another command ({changed}): repeat that one, or name a new folder"
        )
    print(f"{path} is done already, by the same command")
    return True


def changed_flags(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Which flags have another value now, "" where none has."""
    return ", ".join(
        f"--{name} was {before.get(name)!r}, is {value!r}"
        for name, value in {**dict.fromkeys(before), **now}.items()
        if before.get(name) != value
    )


def rename_owned(folder: Path, path: Path) -> None:
    """Gives a folder that this process owns its name, in place of what is there, and leaves no trace of the
    ownership in it. An empty current directory or a mount point cannot be replaced: the files are moved into
    it instead, JSON last."""
    mode = (folder / OWNER).stat().st_mode
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            permit(file, mode)
    stays = path == Path.cwd() and not any(path.iterdir())
    if not stays:
        shutil.rmtree(path, ignore_errors=True)
        stays = path.is_dir() and not any(path.iterdir())
    if stays:
        for file in sorted(folder.iterdir(), key=lambda file: file.suffix == ".json"):
            shutil.move(file, path / file.name)  # it may be another disk
        folder.rmdir()
    else:
        folder.rename(path)
    disown(path)


def disown(folder: Path) -> None:
    """Removes every trace of the ownership from a finished folder."""
    for name in (OWNER, LOCK):
        (folder / name).unlink(missing_ok=True)


def file_lock(path: Path) -> FileLock:
    """A lock that the system releases when its process dies, however it does; the file stays. Raises OSError
    where the file system has no locks: filelock would take the file's mere existence for one, which outlives
    the process."""
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_UN)
        except OSError as error:
            reason = f"{error.strerror}: the file system has no locks (Lustre: mount it with flock)"
            raise OSError(error.errno, reason, str(path)) from None
    return FileLock(path)


@contextmanager
def owned_folder(path: str | Path, way_out: str) -> Iterator[None]:
    """The folder, made where there is none, is this process's alone as long as the context lasts. Half files
    that a killed writer has left below it are removed.

    The system releases the lock, a file that stays, when the process dies, however it does. Other machines
    see it over NFS and Lustre, where these are not mounted with `nolock` or `localflock`.

    Args:
        way_out: beside waiting, the end of the error's sentence.

    Raises:
        ValueError: another process owns it; which, where and since when.
        OSError: as `file_lock`.
    """
    folder = Path(path)
    make_folder(folder)
    lock, owner = file_lock(folder / LOCK), folder / OWNER
    try:
        lock.acquire(timeout=0)
    except Timeout:
        who = "another process, just started"
        if owner.is_file():
            who = "process {pid} on {host} since {start}".format(**read_json(owner, "wait"))
        raise ValueError(f"{folder} is in use by {who}: let it finish, or {way_out}") from None
    try:
        for left in [path for path in folder.rglob("*.partial") if PARTIAL.fullmatch(path.name)]:
            if writer := _locked(left):  # else one that is writing, below a folder of its own
                left.unlink()
                writer.close()
        start = datetime.now().astimezone().isoformat(timespec="seconds")
        write_json(owner, {"pid": os.getpid(), "host": socket.gethostname(), "start": start})
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def reserve(file: IO[bytes], num_bytes: int) -> None:
    """Makes the file so long, on the disk too where the system can: a file that is mapped into memory and
    finds the disk full ends the process without a word. Raises OSError where there is no room for it."""
    if not hasattr(os, "posix_fallocate"):  # macOS
        file.truncate(num_bytes)
        return
    try:
        os.posix_fallocate(file.fileno(), 0, num_bytes)
    except OSError as error:
        free = shutil.disk_usage(file.name).free
        reason = f"{error.strerror}, it takes {num_bytes:,} bytes and {free:,} are free"
        raise OSError(error.errno, reason, file.name) from None


@contextmanager
def own_bytes(file: IO[bytes], start: int, num_bytes: int) -> Iterator[None]:
    """These bytes of a file are this process's to write. Without the lock a client of NFS may write the whole
    pages that it has changed a part of, over what another one has put there meanwhile; with it the bytes
    alone, which are on the server afterwards."""
    fcntl.lockf(file, fcntl.LOCK_EX, num_bytes, start)
    try:
        yield
        file.flush()
    finally:
        fcntl.lockf(file, fcntl.LOCK_UN, num_bytes, start)


def write_text(path: str | Path, text: str) -> None:
    with replacing_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Mapping[str, Any], *, sort_keys: bool = False) -> None:
    """Raises ValueError for a number that is not finite, which JSON has no word for."""
    try:
        text = json.dumps(value, indent=2, sort_keys=sort_keys, allow_nan=False) + "\n"
    except ValueError as error:
        raise ValueError(f"{path} is not written, a value is infinite or no number: {error}") from None
    write_text(path, text)


def read_json(path: str | Path, way_out: str) -> dict[str, Any]:
    """The object in a file.

    Args:
        way_out: what to do where it cannot be read, the end of the error's sentence.

    Raises:
        ValueError: no such file, no JSON in it, or JSON that is no object.
        OSError: the file can't be read, or may not be looked for.
    """
    path = Path(path)
    check_reachable(path)
    if not path.is_file():
        seen = f"{path.parent} does not exist"
        if path.is_dir():
            seen = f"{path} is a folder"
        elif path.parent.is_dir():
            seen = f"{path.parent} holds no {path.name}"
        elif path.parent.exists():
            seen = f"{path.parent} is a file"
        raise ValueError(f"{seen}; {way_out}")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # of JSON or of UTF-8; of what is nested too deep
        raise ValueError(f"{path} can't be read as JSON: {error}; {way_out}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no JSON object; {way_out}")
    return value


def read_text(path: str | Path) -> str:
    """Raises ValueError where it is not UTF-8."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}): write it anew") from None


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a run's log, none where there is no file. The last one may be cut, of a training that is
    going on or was killed. Raises ValueError where another one is no JSON object of numbers with a step."""
    records = []
    lines = read_text(path).splitlines(keepends=True) if path.is_file() else []
    for number, line in enumerate(lines, 1):
        if not line.strip() or not line.endswith("\n"):
            continue
        try:
            record = json.loads(line)
            numbers = [type(value) in (int, float) for value in record.values()]
            if not all(numbers) or type(record.get("step")) is not int:
                raise ValueError("a value is no number, or there is no step")
        except (ValueError, AttributeError) as error:
            raise ValueError(f"{path}, line {number}, can't be read ({error}): delete that line") from None
        records.append(record)
    return records


def check_reachable(path: str | Path) -> None:
    """Raises OSError where the system won't tell whether `path` is there: a folder may not be entered, a name
    is too long. From Python 3.14 on `Path.exists` and its like call that "no"."""
    with suppress(FileNotFoundError, NotADirectoryError):
        Path(path).stat()


def only_this(path: str | Path) -> str:
    """The path for `datasets`, which takes one for a pattern: the pattern that no other path fits. Raises
    ValueError where it holds "::", which parts the addresses of a chain there."""
    if "::" in str(path):
        raise ValueError(f"{path}: the library datasets reads no path with '::' in it: rename the folder")
    return glob.escape(str(path))


def check_readable(path: str | Path) -> None:
    """Raises OSError where the file can't be opened, with the reason: safetensors has one for all of them."""
    with open(path, "rb"):
        pass


@contextmanager
def loading(what: str | Path, way_out: str) -> Iterator[None]:
    """For the call of a library that reads what somebody saved: whatever it raises of a damaged file becomes
    one ValueError that names `what` and ends with the way out."""
    try:
        yield
    except Exception as error:  # each library refuses in ways of its own, some of them by accident
        reason = first_line(error)
        if not isinstance(error, ValueError) and str(error):
            reason = f"{type(error).__name__}: {reason}"
        raise ValueError(f"{what} can't be loaded, {reason}; {way_out}") from error


def first_line(error: BaseException) -> str:
    """Of what an error says; its class where it says nothing. Torch's advice to run the code that it found in
    a file is no way out."""
    if "weights_only" in str(error):
        return "it is damaged, or holds more than tensors"
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def file_sha256(*paths: str | Path) -> str:
    """The digest of a file's bytes, or of those of several files after each other."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def digests_below(folder: str | Path) -> dict[str, str]:
    """The digest of every file below a folder, by its path from there."""
    files = sorted(file for file in Path(folder).rglob("*") if file.is_file())
    with ThreadPoolExecutor() as pool:  # hashing leaves Python's lock to others
        digests = pool.map(file_sha256, files)
        return {
            file.relative_to(folder).as_posix(): digest for file, digest in zip(files, digests, strict=True)
        }
