"""The project's own commands as a benchmark runs them: each in a process, with its log and its time."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vidtwin_gen.program.children import run_child
from vidtwin_gen.program.signals import status_of

LAST_LINES = 6  # of a log, where a command failed


class CommandError(RuntimeError):
    """A command that ended with another status than 0; its last lines say why."""


def run_command(
    program: str, arguments: Sequence[object], log: Path, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """`python -m program arguments`; what it printed is appended to `log`.

    Raises:
        CommandError: it failed.
        SystemExit: a signal came; the command has ended.
    """
    words = [str(argument) for argument in arguments]
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with open(log, "ab") as file:
        begin = file.tell()  # of what it prints: several rows may share a log
        code, came = run_child(
            [sys.executable, "-m", program, *words],
            stdout=file,
            stderr=file,
            env={**os.environ, **(environment or {})},
        )
    if came:
        print(
            f"{program} was ended by {signal.Signals(came).name}; the same command goes on", file=sys.stderr
        )
        sys.exit(status_of(came))
    if code:
        printed = log.read_bytes()[begin:].decode(errors="replace")
        last = " | ".join(printed.splitlines()[-LAST_LINES:])
        raise CommandError(f"{program} ended with status {code}: {last[-350:]}")
    return {
        "command": shlex.join(["python", "-m", program, *words]),
        "seconds": round(time.monotonic() - start, 1),
    }
