"""Which version of this code runs."""

from __future__ import annotations

import subprocess
from pathlib import Path


def commit(*options: str) -> str | None:
    """Of this checkout as `git describe` prints it with these options, with `-dirty` where tracked files
    differ from it; None outside of one, or without git."""
    words = ["git", "describe", "--always", "--dirty", "--exclude=*", *options]
    try:
        return subprocess.run(
            words, cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=60
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
