"""A command of a study: run in this process, once."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vidtwin_gen.demo import Stage
from vidtwin_gen.files import read_json, write_json


def do(stage: Stage) -> None:
    """A command, in this process, unless its result is there."""
    if stage.is_done:
        return
    module = stage.program if stage.program.startswith("train_") else f"{stage.program}.__main__"
    print(f"== {stage.name}", flush=True)
    start = time.process_time()
    importlib.import_module(module).main(list(map(str, stage.arguments)))
    print(f"   {time.process_time() - start:.1f} seconds of the processor", flush=True)


def once(path: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a file says, measured and written where there is none."""
    if not path.exists():
        write_json(path, measure())
    return read_json(path, "remove it")
