"""Signals that end a run early, and children that end with their parent.

SLURM, Kubernetes and spot machines send SIGTERM or SIGUSR1 before they take a machine away; Ctrl-C is SIGINT.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import RawValue
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_SET_PARENT_DEATH_SIGNAL = 1  # of prctl(2)


@contextmanager
def handled_by(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Inside, the three signals call `handler`."""
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


class StopSignal:
    """The first of the signals that came; the process goes on. A second Ctrl-C ends it at once.

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


def status_of(number: int) -> int:
    """The exit status that says which signal ended a process: 130, 143 or 138."""
    return 128 + number


def end_with_parent(number: int = signal.SIGKILL) -> None:
    """To be called in a child: Linux sends it this signal when its parent dies."""
    if _LIBC is not None:
        _LIBC.prctl(_SET_PARENT_DEATH_SIGNAL, number)


class DataWorkers:
    """What a DataLoader calls first in each of its workers, which a terminal, a launcher or a cluster sends
    the signals, too: they go on until their parent has ended its step, and end with it."""

    def __init__(self) -> None:
        self._may_end = RawValue(ctypes.c_bool, False)

    def __call__(self, worker: int) -> None:
        end_with_parent()
        for number in SIGNALS:
            signal.signal(number, self._end_if_told)

    def _end_if_told(self, number: int, frame: FrameType | None) -> None:
        if self._may_end.value:
            os._exit(0)

    def may_end(self) -> None:
        """From now on a signal ends them."""
        self._may_end.value = True
