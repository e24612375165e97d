"""The project's own commands as a benchmark runs them: each in a process, with its log and its time."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TOLD_LINES = 6  # of a log, where a command failed


class CommandError(RuntimeError):
    """A command that ended with another status than 0; its last lines say why."""


def run_command(
    program: str, arguments: Sequence[object], log: Path, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """`python -m program arguments`; what it printed is appended to `log`.

    Raises:
        CommandError: it failed.
    """
    words = [str(argument) for argument in arguments]
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with open(log, "a", encoding="utf-8") as file:
        command = [sys.executable, "-m", program, *words]
        code = subprocess.run(
            command, stdout=file, stderr=file, env={**os.environ, **(environment or {})}, check=False
        ).returncode
    if code:
        told = " | ".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-TOLD_LINES:])
        raise CommandError(f"{program} ended with status {code}: {told[-350:]}")
    return {
        "command": shlex.join(["python", "-m", program, *words]),
        "seconds": round(time.monotonic() - start, 1),
    }
