"""Signals that end a program early.

SLURM, Kubernetes and spot machines send SIGTERM or SIGUSR1 before they take a machine away; Ctrl-C is SIGINT;
a terminal that is closed, or whose connection ends, sends SIGHUP.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


def _heard(numbers: Sequence[signal.Signals]) -> list[signal.Signals]:
    """Those of them that come to this thread: the main one alone gets signals, and may handle them, and
    `nohup` has SIGHUP ignored."""
    if threading.current_thread() is not threading.main_thread():
        return []
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in numbers if not (ignored and number is signal.SIGHUP)]


@contextmanager
def handled_by(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Inside, the four signals call `handler`."""
    before = {number: signal.signal(number, handler) for number in _heard(SIGNALS)}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextmanager
def blocked_signals() -> Iterator[None]:
    """Processes started inside never see the four signals, not even while they start: those that are sent to
    all of a job are the parent's to answer."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class RaisingSignals:
    """Inside, the first SIGINT, SIGTERM or SIGHUP raises KeyboardInterrupt; a second SIGINT or SIGTERM ends
    the process at once.

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
        signals = _heard((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
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
        # a closed terminal sends it twice, by the shell and by the system
        signal.signal(number, signal.SIG_IGN if number == signal.SIGHUP else signal.SIG_DFL)
        sys.unraisablehook, sys.excepthook = self._not_raised, self._not_caught
        raise KeyboardInterrupt

    def _not_raised(self, lost: Any) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            signal.signal(self.number, self._raise)
            self._again.append(threading.Timer(0.05, _thread.interrupt_main, [self.number]))
            self._again[-1].start()

    def _not_caught(self, *error: object) -> None:
        self.say()
        signal.signal(self.number, signal.SIG_DFL)
        os.kill(os.getpid(), self.number)


def end_at_once(number: int, frame: FrameType | None) -> None:
    """A handler for the time of imports, of which KeyboardInterrupt would show the traceback, if it came out
    of them: one line, and the process dies by the signal."""
    signals = RaisingSignals(Path(sys.argv[0]).name)
    signals.number = number
    signals._not_caught()


def status_of(number: int) -> int:
    """The exit status that says which signal ended a process: 130, 143, 138 or 129."""
    return 128 + number
