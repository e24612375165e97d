"""A training on a signal: it ends its step, and its data workers wait for it."""

from __future__ import annotations

import ctypes
import os
import signal
from multiprocessing import RawValue
from types import FrameType

from vidtwin_gen.devices import end_with_lost_batch
from vidtwin_gen.program.children import end_with_parent
from vidtwin_gen.program.signals import SIGNALS


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


class DataWorkers:
    """What a DataLoader calls first in each of its workers, which a terminal, a launcher or a cluster sends
    the signals, too: they continue until their parent has ended its step, and end with it."""

    def __init__(self) -> None:
        self._may_end = RawValue(ctypes.c_bool, False)

    def __call__(self, worker: int) -> None:
        end_with_parent()
        end_with_lost_batch(worker)
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._may_end.value:
            os._exit(0)

    def may_end(self) -> None:
        """From now on a signal ends them."""
        self._may_end.value = True
