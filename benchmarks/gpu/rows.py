"""Results that are written as they come: what a part had measured when it was killed stays."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.checkout import commit
from eval.machine import machine
from vidtwin_gen.files import changed_flags, write_json

LONGEST_REASON = 400  # characters of an error that a row keeps


class Rows:
    """Rows by name in a JSON file, beside the machine's description. A row that stands is not measured
    again, one that failed is; none is begun after `seconds` from now, so that a part ends in time. Each has
    the versions and the commit that made it; the machine is the last one's.

    Args:
        settings: what all rows depend on besides, as JSON.

    Raises:
        ValueError: the file has rows of another device or of other settings.
    """

    def __init__(
        self, path: Path, device: torch.device, seconds: float, settings: Mapping[str, Any] | None = None
    ) -> None:
        self.path, self.device = path, device
        self.ends = time.monotonic() + seconds
        self.record: dict[str, Any] = {"rows": {}}
        here = machine(device)
        if path.exists():
            self.record = json.loads(path.read_text())
            now = {"device": here["device"], **(settings or {})}
            before = {
                "device": self.record["machine"]["device"],
                **self.record.get("settings", settings or {}),
            }
            if changed := changed_flags(before, now):
                raise ValueError(f"{path} has rows of another run ({changed}): name another --out")
        self.record |= {"machine": here, "settings": dict(settings or {})}
        self.made_by: dict[str, Any] = {name: here[name] for name in ("torch", "triton") if name in here}
        if found := commit():
            self.made_by["commit"] = found
        self.left_out: list[str] = []

    @property
    def rows(self) -> dict[str, Any]:
        return self.record["rows"]

    def run(self, name: str, measure: Callable[[], Mapping[str, Any]]) -> None:
        """Measures a row. An error, out of memory too, is a row that says so."""
        if name in self.rows and "error" not in self.rows[name]:
            return
        if time.monotonic() > self.ends:
            self.left_out.append(name)
            return
        start = time.monotonic()
        try:
            row = dict(measure())
        except Exception as error:  # the rows after it are still to be had
            row = {"error": f"{type(error).__name__}: {error}"[:LONGEST_REASON]}
        row |= {"took_seconds": round(time.monotonic() - start, 1), **self.made_by}
        self.rows[name] = row
        self.write()
        print(f"{name}: {json.dumps(row)}", flush=True)
        if self.device.type == "cuda":  # of which the next row wants all
            gc.collect()
            torch.cuda.empty_cache()

    def write(self) -> None:
        write_json(self.path, self.record)

    def finish(self) -> None:
        """Says which rows are missing; the same command goes on with them."""
        self.write()
        failed = [name for name, row in self.rows.items() if "error" in row]
        print(f"wrote {self.path}: {len(self.rows)} rows, {len(failed)} failed {failed}")
        if self.left_out:
            print(f"no time was left for {self.left_out}: the same command goes on with them")
