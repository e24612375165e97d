"""Signals that end a run early, and children that end with their parent.

SLURM, Kubernetes and spot machines send SIGTERM or SIGUSR1 before they take a machine away; Ctrl-C is SIGINT.
"""

from __future__ import annotations

import _thread
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing import RawValue
from pathlib import Path
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_SET_PARENT_DEATH_SIGNAL = 1  # of prctl(2)


@contextmanager
def handled_by(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Inside, the three signals call `handler`; only the main thread gets signals, and may say so."""
    numbers = SIGNALS if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


class StopSignal:
    """The first of the signals that came; the process continues. A second Ctrl-C ends it at once.

    Attributes:
        number: of the signal, 0 before.
    """

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if number == self.number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.number = self.number or number


class RaisingSignals:
    """Inside, the first SIGINT or SIGTERM raises KeyboardInterrupt; a second one ends the process at once.

    After the first signal, errors in destructors (such as a half-made progress bar's) are not printed. If the
    signal arrives inside a destructor, which cannot raise, it is sent again 50 ms later. If the exception
    escapes as the block ends, the process prints its one line and dies by the signal.

    Args:
        name: of the program.

    Attributes:
        number: of the signal that came, 0 before.
    """

    def __init__(self, name: str) -> None:
        self.name, self.number = name, 0
        self._process, self._again = os.getpid(), list[threading.Timer]()

    def __enter__(self) -> RaisingSignals:
        in_main_thread = threading.current_thread() is threading.main_thread()
        signals = (signal.SIGINT, signal.SIGTERM) if in_main_thread else ()
        self._before = {number: signal.signal(number, self._raise) for number in signals}
        self._hooks = sys.unraisablehook, sys.excepthook
        return self

    def __exit__(self, *error: object) -> None:
        for timer in self._again:
            timer.cancel()
        for number, earlier in self._before.items():
            signal.signal(number, earlier)
        sys.unraisablehook, sys.excepthook = self._hooks

    def say(self) -> None:
        """The line that a signal ends a program with."""
        name = signal.Signals(self.number).name
        print(f"{self.name}: interrupted by {name}", file=sys.stderr, flush=True)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a data worker, forked: it continues until its parent ends it
            if number == signal.SIGTERM:
                os._exit(status_of(number))
            return
        self.number = number
        signal.signal(number, signal.SIG_DFL)
        sys.unraisablehook, sys.excepthook = self._not_raised, self._not_caught
        raise KeyboardInterrupt

    def _not_raised(self, lost: Any) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            signal.signal(self.number, self._raise)
            self._again.append(threading.Timer(0.05, _thread.interrupt_main, [self.number]))
            self._again[-1].start()

    def _not_caught(self, *error: object) -> None:
        self.say()
        os.kill(os.getpid(), self.number)


def end_at_once(number: int, frame: FrameType | None) -> None:
    """A handler for the time of imports, of which KeyboardInterrupt would show the traceback, if it came out
    of them: one line, and the process dies by the signal."""
    signals = RaisingSignals(Path(sys.argv[0]).name)
    signals.number = number
    signal.signal(number, signal.SIG_DFL)
    signals._not_caught()


def status_of(number: int) -> int:
    """The exit status that says which signal ended a process: 130, 143 or 138."""
    return 128 + number


def end_with_parent(number: int = signal.SIGKILL) -> None:
    """To be called in a child: Linux sends it this signal when its parent dies."""
    if _LIBC is not None:
        _LIBC.prctl(_SET_PARENT_DEATH_SIGNAL, number)


def run_child(command: Sequence[str], **how: Any) -> tuple[int, int]:
    """Runs a command in a session of its own to its end: its exit status, negative of the signal that ended
    it, and the last signal that came here meanwhile, 0 without one. Signals go on to it, once each, so that a
    training saves a checkpoint; it ends when this process dies.

    Args:
        how: further arguments of `subprocess.Popen`.
    """
    came = 0
    child = subprocess.Popen(
        command, start_new_session=True, preexec_fn=partial(end_with_parent, signal.SIGTERM), **how
    )

    def pass_on(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = number
        child.send_signal(number)

    with handled_by(pass_on):
        return child.wait(), came


class DataWorkers:
    """What a DataLoader calls first in each of its workers, which a terminal, a launcher or a cluster sends
    the signals, too: they continue until their parent has ended its step, and end with it."""

    def __init__(self) -> None:
        self._may_end = RawValue(ctypes.c_bool, False)

    def __call__(self, worker: int) -> None:
        end_with_parent()
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._may_end.value:
            os._exit(0)

    def may_end(self) -> None:
        """From now on a signal ends them."""
        self._may_end.value = True
