"""The flags of `python -m eval report`."""

from __future__ import annotations

from dataclasses import dataclass

from vidtwin_gen.flags import flag, folder_to_write


@dataclass(kw_only=True)
class ReportFlags:
    runs: list[str] = flag("folder of a run, or NAME=FOLDER", positional=True, nargs="+", metavar="RUN")
    out: str | None = flag(
        "folder of the report; left out: the run's, or `report` beside the first", type=folder_to_write
    )
    baseline: str | None = flag("part of the name of the tokenizer that the cost bars are multiples of")
