"""The flags of `python -m eval study`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vidtwin_gen.flags import flag


@dataclass(kw_only=True)
class StudyFlags:
    study: Path = flag(
        "JSON file that says what is compared; its keys are in docs/study.md", type=Path, positional=True
    )
    out: Path = flag("folder for all results; repeat the command to continue it", type=Path, required=True)
    rows: list[str] | None = flag(
        "train and measure only these rows, and write no page: for several processes that share a study",
        nargs="+",
        metavar="ROW",
    )
    dry_run: bool = flag(
        "print what each row costs and how long it trains, then stop", False, action="store_true"
    )
    command: str = ""
