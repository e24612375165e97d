"""The plots of a report: logs over steps, what latents cost beside one another, quality against cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, cycle, product
from os.path import commonprefix
from pathlib import Path
from textwrap import fill
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from eval.figures import COLOURS, log_x, tidy, write_figure
from eval.report.pictures import Picture, PictureRow

COUNTERS = {"step", "samples", "epoch", "seconds", "time", "ms"}
MAX_CURVES = 8
LOG_FROM = 20  # a ratio of the largest to the smallest from which an axis is logarithmic
LONGEST = 24  # characters of a run's name in a plot
NARROW_WIDTH = 3.4  # inches: letters of 8 points are 11 pixels high where a phone shows it 350 wide
LINE, LETTER = 0.14, 0.08  # inches that a line of 8 points, and a wide letter of it, take
NARROW_DPI = 180  # a phone has two or three dots in a pixel


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Each name as a plot shows it: of those of more than `LONGEST` characters the part where they begin to
    differ, and where that is another's already, with a number."""
    long = [name for name in names if len(name) > LONGEST]
    begin = max(0, len(commonprefix(long)) - LONGEST // 3) if len(long) > 1 else 0
    short = {name: name for name in names if name not in long}
    for name in long:
        cut = "…" * (begin > 0) + name[begin : begin + LONGEST] + "…" * (begin + LONGEST < len(name))
        shown, numbers = cut, count(2)
        while shown in short.values():
            shown = f"{cut} ({next(numbers)})"
        short[name] = shown
    return short


def in_full(short: Mapping[str, str], drawn: Iterable[str]) -> str:
    """For the caption of a plot: what the shortened ones of these names stand for."""
    cut = [f"{short[name]} is {name}" for name in dict.fromkeys(drawn) if short[name] != name]
    return f". {'; '.join(cut)}" if cut else ""


def plotted(path: Path, caption: str, draw: Callable[[bool], Figure]) -> PictureRow:
    """A plot written to `path`, and beside it what `draw(True)` makes of it for narrow screens."""
    narrow = path.with_stem(f"{path.stem}_narrow")
    write_figure(path, draw(False))
    write_figure(narrow, draw(True), NARROW_DPI)
    return PictureRow([Picture(path, caption, plot=True, narrow=narrow)])


def draw_curves(logs: Mapping[str, Sequence[dict[str, Any]]], title: str, narrow: bool) -> Figure:
    """One small panel for each number that the logs hold, losses first, at most `MAX_CURVES`, and in it one
    curve for each name in `logs` that has the number. Names keep their colour from panel to panel."""
    names = dict.fromkeys(
        name
        for records in logs.values()
        for record in records
        for name, value in record.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and name not in COUNTERS
    )
    order = sorted(names, key=lambda name: (not name.startswith("loss"), "loss" not in name, name == "lr"))
    order = order[:MAX_CURVES]
    figure, panels = grid(len(order), 4, (2.9, 2.3), narrow, margin=0.3)
    figure.suptitle(title, fontsize=11)
    for axes, name in zip(panels, order, strict=True):
        positive = True
        for colour, (label, records) in zip(cycle(COLOURS), logs.items(), strict=False):
            points = [
                (record.get("step", at), record[name])
                for at, record in enumerate(records)
                if record.get(name) is not None
            ]
            if points:
                steps, values = zip(*points, strict=True)
                marker = "." if len(points) < 8 else ""
                axes.plot(steps, values, color=colour, linewidth=1.2, marker=marker, label=label)
                positive &= min(values) > 0
        axes.set_title(name, fontsize=9)
        if "loss" in name and positive:
            axes.set_yscale("log")
        tidy(axes)
    if len(logs) > 1:
        marks = [
            Line2D([], [], color=colour, label=label)
            for colour, label in zip(cycle(COLOURS), logs, strict=False)
        ]
        legend_below(figure, marks, narrow)
    return figure


def draw_cost(rows: Sequence[tuple[str, Mapping[str, float]]], baseline: int, narrow: bool) -> Figure:
    """Bars of what each labelled row takes, relative to the row at `baseline`; a panel for each quantity.
    Dots where the axis is logarithmic: the length of a bar says nothing there. A quantity that the baseline
    lacks, or has none of, is left out."""
    reference = rows[baseline][1]
    quantities = [name for name, value in reference.items() if value]
    names = [fill(label, 18 if narrow else 36) for label, _ in rows]
    lines = 1 + max(name.count("\n") for name in names)
    size = 9 / min(2, len(quantities)), 0.5 + (0.1 + LINE * lines) * len(rows)
    figure, panels = grid(len(quantities), 2, size, narrow, margin=0.3, sharey=True)
    places = range(len(rows))
    for axes, name in zip(panels, quantities, strict=True):
        lengths = [values.get(name, math.nan) / reference[name] for _, values in rows]
        colours = [COLOURS[1] if row == baseline else COLOURS[0] for row in places]
        known = [length for length in lengths if length > 0]
        if (ratio := max(known) / min(known)) > LOG_FROM:
            log_x(axes, ratio)
            axes.scatter(lengths, places, color=colours)
            axes.grid(axis="y", alpha=0.3)
        else:
            axes.barh(places, lengths, 0.72, color=colours)
        for place, length in enumerate(lengths):
            if not math.isnan(length):
                to_the_right = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
                axes.annotate(f"{length:.3g}×", (length, place), fontsize=8, **to_the_right)
        axes.axvline(1, color=COLOURS[1], linewidth=0.8)
        axes.margins(x=0.18)
        axes.set_title(name, fontsize=9)
        axes.set_yticks(places, names, fontsize=8)
        tidy(axes)
    panels[0].invert_yaxis()
    return figure


@dataclass(frozen=True)
class Panel:
    """Quality against cost under one protocol: (label, cost, distance) for each point, and of generated clips
    by label the distance of real clips from real ones, below which nothing can be expected. spreads: the
    standard deviation of a point's distance, where it is known."""

    title: str
    cost_axis: str
    quality_axis: str
    points: list[tuple[str, float, float]]
    floors: Mapping[str, float]
    spreads: dict[tuple[str, float, float], float] = field(default_factory=dict)


def draw_quality(panels: Sequence[Panel], short: Mapping[str, str], narrow: bool) -> Figure:
    """A panel for each protocol, whose axes are its own: nothing is to be read across panels. `short` has the
    name in the legend of each label, in the order that gives it one look in all panels."""
    figure, places = grid(len(panels), 2, (4.9, 2.9), narrow)
    drawn = {label for panel in panels for label, _, _ in panel.points}
    marks = {
        label: Line2D([], [], color=colour, marker=marker, linestyle="", label=name)
        for (label, name), (marker, colour) in zip(
            short.items(), cycle(product("os^Dv", COLOURS)), strict=False
        )
        if label in drawn
    }
    for axes, panel in zip(places, panels, strict=True):
        for point in panel.points:
            label, cost, distance = point
            mark, spread = marks[label], panel.spreads.get(point)
            look = {"color": mark.get_color(), "marker": mark.get_marker(), "markersize": 6, "capsize": 3}
            axes.errorbar([cost], [distance], None if spread is None else [spread], **look)
            if label in panel.floors:
                axes.axhline(panel.floors[label], color=mark.get_color(), linewidth=1.2, linestyle=":")
        costs = [cost for _, cost, _ in panel.points]
        if (ratio := max(costs) / min(costs)) > 3:
            log_x(axes, ratio)
        else:
            axes.set_xlim(0, 1.2 * max(costs))
        axes.set_ylim(0, 1.15 * max(point[2] + panel.spreads.get(point, 0) for point in panel.points))
        axes.set_title(fill(panel.title, 40 if narrow else 60), fontsize=9)
        axes.set_xlabel(fill(panel.cost_axis, 40 if narrow else 60), fontsize=8)
        axes.set_ylabel(panel.quality_axis, fontsize=8)
        tidy(axes)
    legend_below(figure, list(marks.values()), narrow)
    return figure


def legend_below(figure: Figure, marks: Sequence[Line2D], narrow: bool) -> None:
    """The legend of all panels, with room of its own."""
    width, height = figure.get_size_inches()
    longest = max(len(str(mark.get_label())) for mark in marks)
    ncols = 1 if narrow else max(1, min(len(marks), int(width / (0.6 + LETTER * longest))))
    figure.set_size_inches(width, height + 0.15 + 1.2 * LINE * -(-len(marks) // ncols))
    figure.legend(handles=marks, loc="outside lower center", ncols=ncols, fontsize=8, frameon=False)


def grid(
    count: int,
    max_columns: int,
    size: tuple[float, float],
    narrow: bool,
    *,
    margin: float = 0.0,
    sharey: bool = False,
) -> tuple[Figure, list[Any]]:
    """A figure with `count` panels of this width and height in inches, row by row, and `margin` above; where
    `narrow`, below one another and as wide as a phone."""
    columns = 1 if narrow else min(max_columns, max(1, count))
    size = (NARROW_WIDTH, size[1]) if narrow else size
    num_rows = max(1, -(-count // columns))
    figure = Figure(figsize=(size[0] * columns, size[1] * num_rows + margin), layout="constrained")
    panels = list(figure.subplots(num_rows, columns, squeeze=False, sharey=sharey).flat)
    for axes in panels[count:]:
        axes.remove()
    return figure, panels[:count]
