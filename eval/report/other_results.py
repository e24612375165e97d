"""Results that only some runs have: what they found, in words, with the pictures of the same name."""

from __future__ import annotations

from collections.abc import Sequence

from eval.report.comparison import NONE
from eval.report.page import Section, Table
from eval.report.pictures import Picture, PictureRow
from eval.report.runs import OPTIONAL, Run, prefix


def other_results(runs: Sequence[Run]) -> list[Section]:
    """A section for each of `OPTIONAL` that is there."""
    sections = []
    for stem, (_, title) in OPTIONAL.items():
        section = Section(title)
        words = {run.name: run.optional[stem].in_words() for run in runs if stem in run.optional}
        if names := list(dict.fromkeys(name for found in words.values() for name in found)):
            rows = [(name, *(words.get(run.name, {}).get(name, NONE) for run in runs)) for name in names]
            section.body.append(Table(("result", *(run.name for run in runs)), rows))
        for run in runs:
            if paths := run.pictures(stem):
                captions = (f"{prefix(run, runs)}{title}, {path.stem}" for path in paths)
                section.body.append(PictureRow([*map(Picture, paths, captions)]))
        if section.body:
            sections.append(section)
    return sections
