"""Command lines of `python -m eval` from keywords, and what a refusal says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eval.__main__ import main


def words_of(verb: str, **flags: Any) -> list[str]:
    """A flag that is True stands alone; a list gives several values."""
    words = [verb]
    for name, value in flags.items():
        words.append(f"--{name}")
        words += [] if value is True else [str(v) for v in (value if isinstance(value, list) else [value])]
    return words


def run(verb: str, out: Path, **flags: Any) -> dict[str, Any]:
    """The verb's JSON, {} where it writes another file."""
    main(words_of(verb, **flags, out=out))
    return json.loads(out.read_text()) if out.suffix == ".json" else {}


def refused(capsys: pytest.CaptureFixture[str], verb: str, out: Path, **flags: Any) -> str:
    """The last line of what a verb says when it ends with status 2, having written nothing."""
    with pytest.raises(SystemExit) as stop:
        main(words_of(verb, **flags, out=out))
    assert stop.value.code == 2 and not out.exists()
    return capsys.readouterr().err.splitlines()[-1]
