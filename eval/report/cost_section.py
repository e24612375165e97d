"""What latents cost, in a report: a table and bars for each transformer, and quality against cost."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from eval.report.comparison import (
    COST_FIELDS,
    GENERATED,
    NONE,
    REAL,
    RECONSTRUCTED,
    Comparison,
    cost_protocol,
    own_rows,
)
from eval.report.figures import Panel, draw_cost, draw_quality, in_full, plotted, short_names
from eval.report.page import Section, Table
from eval.report.published import PublishedGroup
from eval.report.runs import Run, not_here
from vidtwin_gen.records import CostRow
from vidtwin_gen.records.cost import OWN

TABLE_TITLES = {"rows": "", "paper_size_rows": ": paper size, the sizes of its Figure 5"}
BARS = {
    "tokens": "num_tokens",
    "FLOPs forward": "forward_flops",
    "FLOPs of a training step": "training_flops",
    "memory in training": "peak_bytes",
}
QUALITY = (
    "Distance against forward FLOPs of one pass; bars: standard deviation over seeds of generation, where "
    "several were measured; dotted: real against real clips"
)
FURTHER = ("measured", "figure_5")  # fields that only some rows have, and that become columns
HEADS = {  # of columns of the paper's counter
    "figure 5 num parameters": "Figure 5's parameters",
    "figure 5 num tokens padded": "Figure 5's tokens, last patches padded",
    "figure 5 num tokens floored": "Figure 5's tokens, last patches left out",
    "figure 5 macs padded": "Figure 5's multiply-adds, last patches padded",
    "figure 5 macs floored": "Figure 5's multiply-adds, last patches left out",
}
SIZES = ("num_layers", "hidden_size", "num_heads", "conditioning")
# of a setup, besides the transformer's sizes: what differs in these is not compared
SETUP = (*SIZES, *(name for name in COST_FIELDS if name not in ("clip_shape", "patch_size")))


@dataclass(frozen=True)
class ShownRow:
    """A row of a result. run: the one that it is of, "" where several have it alike. part: a key of
    `TABLE_TITLES`."""

    row: CostRow
    run: str
    part: str

    @property
    def name(self) -> str:
        return self.called(self.run)

    def called(self, run: str) -> str:
        """Its name where the run has this one."""
        return self.row.tokenizer + (f", {run}" if run else "")


def cost_section(runs: Sequence[Run], folder: Path, baseline: str = "") -> Section:
    """Tables over all runs, one for each transformer, and bars for each size of its clips and of its patches,
    written to `folder`.

    Args:
        baseline: what a tokenizer's name contains, of which the bars are multiples; by default VidTwin's.

    Raises:
        ValueError: no row is called so.
    """
    section = Section("Cost")
    short = {"": ""} | short_names([run.name for run in runs])
    rows = _all_rows(runs)
    names = sorted({shown.row.tokenizer for shown in rows})
    if baseline and not any(baseline.lower() in name.lower() for name in names):
        raise ValueError(
            f"--baseline {baseline}: it is in none of the names {', '.join(names) or '(no cost)'}"
        )
    if rows:
        section.body.append(
            "The same transformer on several kinds of latents. FLOPs and memory are counted, unless a column "
            "says measured: attention is included; memory is float32 with Adam, its peak in a training step."
        )
    for i, alike in enumerate(_grouped(rows, SETUP), 1):
        section.body += _tables(alike)
        for compared in _grouped(alike, ("clip_shape", "patch_size")):
            if len(compared) < 2:
                continue
            clip, patch = _words(compared[0].row.clip_shape), _words(compared[0].row.patch_size)
            path = folder / f"cost_{i}_clip_{_plain(clip)}_patch_{_plain(patch)}.png"
            at = _baseline(compared, baseline)
            labels = [shown.called(short[shown.run]) for shown in compared]
            bars = [{title: getattr(shown.row, name) for title, name in BARS.items()} for shown in compared]
            caption = (
                f"Clips of {clip}, patch {patch}, in multiples of what {compared[at].name} takes; "
                f"further left is cheaper{in_full(short, (shown.run for shown in compared))}"
            )
            section.body.append(
                plotted(path, caption, partial(draw_cost, list(zip(labels, bars, strict=True)), at))
            )
    crossovers = [str(crossover) for run in runs for crossover in (run.cost and run.cost.crossovers) or ()]
    section.body += [f"{line}." for line in dict.fromkeys(crossovers)]
    unpublished = {
        f"{entry['name']} ({entry['missing']}; {entry['source']})": None
        for run in runs
        for entry in ((run.cost and run.cost.not_published) or ())
    }
    if unpublished:
        section.body.append(f"Not published, so not counted: {'; '.join(unpublished)}.")
    for run in runs:
        if not run.cost:
            section.body.append(not_here(run, runs, "eval/cost.json"))
    return section


def _grouped(rows: Sequence[ShownRow], fields: Sequence[str]) -> list[list[ShownRow]]:
    """Rows of one part that are alike in these fields, in the order they appear."""
    groups: dict[str, list[ShownRow]] = {}
    for shown in rows:
        key = json.dumps([shown.part, *(getattr(shown.row, name) for name in fields)])
        groups.setdefault(key, []).append(shown)
    return list(groups.values())


def quality_section(
    comparison: Comparison, runs: Sequence[Run], published: Sequence[PublishedGroup], folder: Path
) -> Section:
    """Distances over forward FLOPs: a panel for each protocol of both, ours and the published studies that
    tell what their generators cost. What is in different panels does not compare."""
    ours = quality_panels(comparison, runs)
    theirs = []
    for group in published:
        points = [(r.model, r.forward_tflops, r.fvd) for r in group.rows if r.forward_tflops and r.fvd]
        if len(points) > 2:
            title = f"published: {group.title.split(':')[0]}"
            theirs.append(Panel(title, "TFLOPs, forward", "FVD", points, {}))
    section = Section("Quality against cost")
    if not ours:
        section.body.append("No run has both a distance and a cost (`eval/fvd.json`, `eval/cost.json`).")
        return section
    for panels, name, caption in (
        (ours, "quality.png", QUALITY),
        (theirs, "quality_published.png", "Published, UCF-101: one transformer on many tokenizers"),
    ):
        labels = [label for panel in panels for label, _, _ in panel.points]
        short = short_names([run.name for run in runs] if panels is ours else labels)
        caption = f"{caption}. Panels do not compare{in_full(short, labels)}"
        section.body.append(plotted(folder / name, caption, partial(draw_quality, panels, short)))
    return section


def quality_panels(comparison: Comparison, runs: Sequence[Run]) -> list[Panel]:
    """A panel for each kind of distance, protocol of it, and way of counting the cost."""
    panels: dict[tuple[str, str, str], Panel] = {}
    floors: dict[str, dict[str, float]] = defaultdict(dict)
    for run in runs:
        for number in comparison.measured[run.name]:
            if number.quantity == REAL:
                floors[number.key][run.name] = number.value
            if number.quantity not in (GENERATED, RECONSTRUCTED):
                continue
            for row in own_rows(run.cost) if run.cost else ():
                counted = cost_protocol(row)
                patch = f"patch {_words(row.patch_size)}"
                if row.own_dit:
                    patch = "each DiT at its own patch"
                    del counted["patch_size"]
                place = (number.quantity, number.key, json.dumps(counted))
                title = f"{number.quantity}: {comparison.name(number)}"
                axis = f"GFLOPs, forward, {patch}, batch {row.batch_size}"
                floor = floors[number.key] if number.quantity == GENERATED else {}
                panel = Panel(title, axis, number.quantity.split(",")[0], [], floor)
                panel = panels.setdefault(place, panel)
                point = (run.name, row.forward_flops / 1e9, number.value)
                panel.points.append(point)
                if number.std is not None:
                    panel.spreads[point] = number.std
    return [panels[place] for place in sorted(panels)]


def _all_rows(runs: Sequence[Run]) -> list[ShownRow]:
    """Of all runs; a row that several runs have alike is there once."""
    found: dict[str, tuple[str, CostRow, list[str]]] = {}
    for run in runs:
        for part in TABLE_TITLES:
            for row in (getattr(run.cost, part) if run.cost else None) or ():
                key = json.dumps([part, row.to_json()])
                found.setdefault(key, (part, row, []))[2].append(run.name)
    several = len(runs) > 1
    return [
        ShownRow(row, names[0] if several and len(names) == 1 else "", part)
        for part, row, names in found.values()
    ]


def _tables(rows: Sequence[ShownRow]) -> list[Table]:
    """What is counted of each row, and in a table of its own what only some have besides. The caption says
    for which clips and which transformer all rows are."""
    first = rows[0].row
    checkpointing = ", gradient checkpointing" if first.gradient_checkpointing else ""
    columns: dict[str, Callable[[CostRow], str]] = {
        "clip": lambda row: _words(row.clip_shape),
        "patch": lambda row: _words(row.patch_size),
        "elements": lambda row: f"{row.num_elements:,}",
        "rate": lambda row: f"{row.compression_rate:.3%}",
        "tokens": lambda row: f"{row.num_tokens:,}",
        "parameters": lambda row: f"{row.num_parameters:,}",
        "GFLOPs forward": lambda row: f"{row.forward_flops / 1e9:,.3f}",
        "GFLOPs training": lambda row: f"{row.training_flops / 1e9:,.3f}",
        "MiB training": lambda row: f"{row.peak_bytes / 2**20:,.1f}",
    }
    alike = ""
    for name, words in (("clip", " of {} clips"), ("patch", ", patch {}")):
        if len(cells := {columns[name](shown.row) for shown in rows}) == 1:
            del columns[name]
            alike += words.format(*cells)
    caption = (
        f"latents{alike}, depth {first.num_layers}, width {first.hidden_size}, {first.num_heads} heads, "
        f"batch {first.batch_size}, {first.attention} attention{checkpointing}{TABLE_TITLES[rows[0].part]}"
    )
    counted = [(shown.name, *(cell(shown.row) for cell in columns.values())) for shown in rows]
    tables = [Table(("latents", *columns), counted, caption)]
    further = [dict(_further({name: getattr(shown.row, name) for name in FURTHER})) for shown in rows]
    if names := list(dict.fromkeys(name for cells in further for name in cells)):
        more = [
            (shown.name, *(cells.get(name, NONE) for name in names))
            for shown, cells in zip(rows, further, strict=True)
        ]
        tables.append(
            Table(
                ("latents", *(HEADS.get(name, name) for name in names)),
                more,
                "the same, measured and as the paper's Figure 5 counts",
            )
        )
    return tables


def _further(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Columns that only some records have: what was measured, and what the paper's counter gives."""
    if isinstance(value, dict) and name and "median" in value:
        value = value["median"]
    if isinstance(value, dict):
        return [
            pair
            for key, item in value.items()
            for pair in _further(item, f"{name} {key}".replace("_", " ").strip())
        ]
    if isinstance(value, (int, float)) and not name.endswith("num threads"):
        if name.endswith(" bytes"):
            return [(f"{name.removesuffix(' bytes')} (MiB)", f"{value / 2**20:,.1f}")]
        return [(name, f"{value:,}" if isinstance(value, int) else f"{value:,.4g}")]
    return [(name, value)] if isinstance(value, str) and name.endswith((" reason", " device")) else []


def _baseline(rows: Sequence[ShownRow], wanted: str) -> int:
    """The row that is called so, or VidTwin's, or the first."""
    for name in (wanted, f"({OWN})", "VidTwin"):
        for at, shown in enumerate(rows):
            if name and name.lower() in shown.row.tokenizer.lower():
                return at
    return 0


def _plain(words: str) -> str:
    return "".join(c for c in words if c.isalnum())


def _words(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "×".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {_words(item)}" for name, item in value.items())
    return NONE if value is None else str(value)
