"""How a program ends of a mistake, of what the system refuses and of a signal: with one line and a status."""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vidtwin_gen.program.output import lossy_output
from vidtwin_gen.program.signals import RaisingSignals, status_of


@contextmanager
def user_errors(program: str | None = None) -> Iterator[None]:
    """For a script's last lines: a ValueError inside, or a loss that is not finite any more, ends the program
    with one line and exit status 2; what the system refuses (space, permission, memory) with one and status
    1; Ctrl-C, SIGTERM and SIGHUP with one and status 130, 143 or 129, also where a library makes another
    error of it, or none. A second SIGINT or SIGTERM ends it at once. With VIDTWIN_GEN_TRACEBACK set an error
    has its traceback, too. What it says may be lost."""
    name = program or Path(sys.argv[0]).name
    if isinstance(sys.stdout, io.TextIOWrapper):  # as stderr: what a terminal can't show is no error
        sys.stdout.reconfigure(errors="backslashreplace")
    with lossy_output(name), _one_line_errors(name):
        yield


@contextmanager
def _one_line_errors(name: str) -> Iterator[None]:
    with RaisingSignals(name) as signals:
        try:
            yield
        except KeyboardInterrupt as error:
            signals.number = signals.number or signal.SIGINT
            # destroy half-made objects now, while their errors are still silenced
            traceback.clear_frames(error.__traceback__)
        except Exception as error:
            mistake = isinstance(error, (ValueError, FloatingPointError))
            refused = "" if mistake else _refused_by_the_system(error)
            if not (signals.number or refused or mistake):
                raise
            if not signals.number:
                if os.environ.get("VIDTWIN_GEN_TRACEBACK"):
                    traceback.print_exc()
                print(f"{name}: error: {refused or _words_of(error)}", file=sys.stderr)
                sys.exit(1 if refused else 2)
    if signals.number:
        signals.say()
        sys.exit(status_of(signals.number))


def _is_of_a_dead_worker(error: Exception) -> bool:
    """Torch says so of a worker that has died, and otherwise of an error in one. Where it dies as it hands
    over a batch, the connection may be lost before torch knows."""
    if isinstance(error, (EOFError, ConnectionError)):
        frames = traceback.walk_tb(error.__traceback__)
        return any(frame.f_code.co_name == "_try_get_data" for frame, _ in frames)  # of torch's DataLoader
    return "DataLoader worker (pid" in str(error)


def _words_of(error: Exception) -> str:
    """What an error says; without the traceback, where a DataLoader brings it from one of its workers."""
    said = str(error)
    if not re.match(r"Caught \w+ in DataLoader worker process", said):
        return said
    last = said.split("Traceback (most recent call last):\n")[-1]
    own = re.search(r"^[\w.]+(?:: )?(.*)", last, re.MULTILINE | re.DOTALL)  # the frames are indented
    return own[1].strip() if own else said


def _refused_by_the_system(error: Exception) -> str:
    """What to say of an error that is neither the user's nor ours, "" of another one."""
    if re.search(r"Too many open files(?! in system)", str(error)):  # torch's, too
        return "too many open files; raise the limit (ulimit -n), and the same command continues"
    if _is_of_a_dead_worker(error):
        said = str(error).strip() or type(error).__name__
        return (
            f"a data worker has died ({said}), of what it says above, or as where memory ends the system "
            "kills one; take fewer of them or smaller batches, and the same command continues"
        )
    said = _words_of(error)
    if "can't start new thread" in said:
        return (
            "the system starts no more threads; raise the limit (ulimit -u, or ulimit -v), or take fewer "
            "data workers, and the same command continues"
        )
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        if error.errno == errno.ENOSPC and not error.filename:  # multiprocessing names none
            place = "a disk, or /dev/shm, which data workers need: "
        return f"{place}{error.strerror}; when that is mended, the same command continues"
    if isinstance(error, OSError) and said.startswith("[Errno"):  # a data worker's, which came as words
        return f"{said}; when that is mended, the same command continues"
    if isinstance(error, shutil.Error):  # of several files, (from, to, why) each
        return f"{error.args[0][0][2]}; when that is mended, the same command continues"
    if "unable to allocate shared memory" in said:  # torch's, of a batch that a data worker hands over
        return f"/dev/shm is full ({said}); enlarge it, or train with --dataloader_num_workers 0"
    # torch's own class of out of memory is a RuntimeError, and its CPU has none
    if isinstance(error, MemoryError) or "out of memory" in said or "can't allocate memory" in said:
        first = next(iter(said.splitlines()), "of the CPU")
        return f"out of memory ({first}); take smaller batches, or smaller clips"
    return ""
