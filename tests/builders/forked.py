"""Commands in children of a process that has everything imported: a run costs its own work, and what kills it
kills nothing else."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import multiprocessing.util
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name

import psutil
from tqdm import tqdm

from vidtwin_gen.files import file_sha256

Main = Callable[[Sequence[str]], object]
OUTPUT = "said.txt"  # what a command says, in the folder where it runs
WHERE = signal.SIGALRM  # a child says where each of its threads is


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Args:
        status: its exit status, of one that a signal ended the signal's negative number.
        said: standard output and error together.
        seconds, peak: its duration, and the most memory in bytes that it held beyond what it was forked with.
        stopped: "hang" or "memory", where it was ended for that.
    """

    status: int
    said: str
    seconds: float
    peak: int
    stopped: str = ""

    @property
    def traceback(self) -> bool:
        return "Traceback (most recent call last)" in self.said

    @property
    def error(self) -> str:
        """Its one line of error, "" where it has none, or more than one."""
        lines = [line for line in self.said.replace("\r", "\n").splitlines() if "error: " in line]
        return lines[0] if len(lines) == 1 else ""


class Started:
    """A command that runs in a child, in a session of its own, with `folder` as its working folder.

    Args:
        prepare: what the child does first, such as setting a limit. output: where it says what it says.
    """

    def __init__(
        self,
        main: Main,
        words: Sequence[object],
        folder: Path,
        *,
        prepare: Callable[[], object] = lambda: None,
        environment: Mapping[str, str] | None = None,
        output: Path | None = None,
    ) -> None:
        self.output = output or folder / OUTPUT
        self.start = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        signals = {signal.SIGINT, signal.SIGTERM}
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # until the child knows what to do with them
        self.pid = os.fork()
        if self.pid:
            self.inherited = psutil.Process(self.pid).memory_info().rss  # of all that this process ran before
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        else:
            _run(main, [str(word) for word in words], folder, self.output, prepare, environment or {})
        self.peak = 0

    def is_running(self) -> bool:
        return not os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)

    def send(self, number: int) -> None:
        """A signal to the command and its children, as a terminal sends Ctrl-C."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:  # it has no session yet
            os.kill(self.pid, number)

    def wait(self, limit_s: float = 60, limit_bytes: int = 3 * 2**30) -> Ended:
        """How it ended; what is left of its session is killed after `limit_s` or above `limit_bytes`, when it
        has said where it is."""
        stopped = ""
        while self.is_running():
            with contextlib.suppress(psutil.Error):
                self._see(psutil.Process(self.pid).memory_info().rss)
            if not stopped and (self.seconds > limit_s or self.peak > limit_bytes):
                stopped = "hang" if self.seconds > limit_s else "memory"
                os.kill(self.pid, WHERE)
                time.sleep(0.5)
                self.send(signal.SIGKILL)
            time.sleep(0.01)
        seconds = self.seconds
        _, status, usage = os.wait4(self.pid, 0)
        self._see(usage.ru_maxrss * 1024)
        if not stopped and self.peak > limit_bytes:
            stopped = "memory"
        said = self.output.read_text(errors="replace") if self.output.is_file() else ""
        return Ended(os.waitstatus_to_exitcode(status), said, seconds, self.peak, stopped)

    def _see(self, memory: int) -> None:
        self.peak = max(self.peak, memory - self.inherited)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start


def warm() -> None:
    """Imports what the verbs of every program import when they run."""
    for program in ("vidtwin_gen", "autoencoder", "pipelines", "eval"):
        for verb in import_module(f"{program}.__main__").VERBS.values():
            if isinstance(verb.run, str):
                resolve_name(verb.run)
    gc.collect()
    gc.freeze()  # a child that collects garbage would copy all pages


def run(main: Main, words: Sequence[object], folder: Path, **how: object) -> Ended:
    """A command from its start to its end."""
    return Started(main, words, folder, **how).wait()  # type: ignore[arg-type]


def _run(
    main: Main,
    words: Sequence[str],
    folder: Path,
    output: Path,
    prepare: Callable[[], object],
    environment: Mapping[str, str],
) -> None:
    """The child: never returns."""
    status = 1
    try:
        os.setsid()
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        for number in (1, 2):
            os.dup2(file, number)
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        faulthandler.enable(file)
        faulthandler.register(WHERE, file)
        # tqdm's own is shared with every process that was forked from this one's parent, and stays locked
        # when one of them is killed
        tqdm.set_lock(threading.RLock())
        os.chdir(folder)
        os.environ.update(environment)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
        prepare()
        main(words)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        with contextlib.suppress(BaseException):
            multiprocessing.util._exit_function()  # type: ignore[attr-defined]  # ends data workers, as the interpreter does at its end
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


# What differs between two runs of one command, or is not its result.
NOT_COMPARED = re.compile(
    rf"{OUTPUT}|metrics\.jsonl|run\.json|\.cache|\.lock|checkpoint-|\.features|tensorboard"
)


def files_below(folder: Path) -> dict[str, str]:
    """The digest of every file of a result, by its path from there."""
    names = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: file_sha256(path) for name, path in names.items() if not NOT_COMPARED.search(name)}
