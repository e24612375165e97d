"""The flags of `python -m eval study`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vidtwin_gen.flags import flag


@dataclass(kw_only=True)
class StudyFlags:
    study: Path = flag("JSON of what is compared: docs/study.md", type=Path, positional=True)
    out: Path = flag("folder of everything that is made; the same command goes on", type=Path, required=True)
    rows: list[str] | None = flag(
        "train and measure these only, without the page: several processes share a study, each with its own",
        nargs="+",
        metavar="ROW",
    )
    dry_run: bool = flag(
        "print what each row costs and how far it trains, then stop", False, action="store_true"
    )
    command: str = ""
