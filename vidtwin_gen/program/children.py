"""Processes that a program starts, which end with it."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from types import FrameType
from typing import Any

from vidtwin_gen.program.signals import handled_by

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_SET_PARENT_DEATH_SIGNAL = 1  # of prctl(2)


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
