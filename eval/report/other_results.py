"""Results that only some runs have, shown in a report as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eval.report.comparison import NONE
from eval.report.page import Section, Table
from eval.report.pictures import Picture
from eval.report.runs import OPTIONAL, Run, prefix

MAX_NUMBERS = 60


def other_results(runs: Sequence[Run]) -> list[Section]:
    """A section for each of `OPTIONAL` that is there: its numbers by their names, and its pictures."""
    sections = []
    for stem, (_, title) in OPTIONAL.items():
        body: list[str | Table | list[Picture]] = []
        results = {run.name: run.optional[stem].to_json() for run in runs if stem in run.optional}
        numbers = {name: dict(_numbers(result)) for name, result in results.items()}
        names = list(dict.fromkeys(name for found in numbers.values() for name in found if name != "kind"))
        if names:
            rows = [(name, *(numbers.get(run.name, {}).get(name, NONE) for run in runs)) for name in names]
            body.append(Table(("result", *(run.name for run in runs)), rows[:MAX_NUMBERS]))
        if len(names) > MAX_NUMBERS:
            body.append(f"{len(names) - MAX_NUMBERS} further results are in `eval/{stem}.json`.")
        for run in runs:
            pictures = [
                Picture(path, f"{prefix(run, runs)}{title}, {path.stem}") for path in run.pictures(stem)
            ]
            if pictures:
                body.append(pictures)
        if body:
            sections.append(Section(title, body))
    return sections


def _numbers(record: Any, name: str = "") -> list[tuple[str, str]]:
    """Numbers and words of nested JSON by their path in it; of a long list, how many there are."""
    if isinstance(record, dict):
        return [
            pair
            for key, value in record.items()
            for pair in _numbers(value, f"{name}, {key}" if name else key)
        ]
    if isinstance(record, list):
        short = len(record) <= 8 and not any(isinstance(value, (dict, list)) for value in record)
        return [(name, ", ".join(map(_plain, record)) if short else f"{len(record)} values, in the file")]
    return [(name, _plain(record))]


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else NONE if value is None else str(value)
