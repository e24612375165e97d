"""The pictures of a report: what a log holds over steps, and what latents cost beside one another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

COLOURS = ("#3b6ea5", "#c06c3e", "#5b8c5a", "#8a5a8c", "#9a8a3a", "#5a8a8c")


def plot_curves(records: Sequence[dict[str, Any]], title: str, path: Path) -> None:
    """One small panel for each number the log holds, the loss first, at most eight."""
    counters = {"step", "samples", "epoch", "seconds", "time", "ms"}
    names = dict.fromkeys(
        name
        for record in records
        for name, value in record.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and name not in counters
    )
    order = sorted(names, key=lambda name: (not name.startswith("loss"), "loss" not in name, name == "lr"))[
        :8
    ]
    columns = min(4, max(1, len(order)))
    num_rows = max(1, -(-len(order) // columns))
    figure = Figure(figsize=(2.9 * columns, 2.3 * num_rows), layout="constrained")
    figure.suptitle(title, fontsize=11)
    for i, name in enumerate(order):
        axes = figure.add_subplot(num_rows, columns, i + 1)
        points = [
            (record.get("step", at), record[name])
            for at, record in enumerate(records)
            if record.get(name) is not None
        ]
        axes.plot(
            *zip(*points, strict=True),
            color=COLOURS[i % len(COLOURS)],
            linewidth=1.2,
            marker="." * (len(points) < 8),
        )
        axes.set_title(name, fontsize=9)
        if "loss" in name and all(value > 0 for _, value in points):
            axes.set_yscale("log")
        _tidy(axes)
    figure.savefig(path, dpi=110)


def plot_cost(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Bars of what each row of a cost record takes, relative to the first row."""
    quantities = (
        ("tokens", [row["num_tokens"] for row in rows]),
        ("FLOPs forward", [row["forward_flops"] for row in rows]),
        ("FLOPs training", [row["training_flops"] for row in rows]),
        ("memory training", [row["training_memory_bytes"]["peak"] for row in rows]),
    )
    figure = Figure(figsize=(8, 0.5 + 0.22 * (len(rows) + 1) * len(quantities)), layout="constrained")
    axes = figure.add_subplot()
    step = 0.8 / len(rows)
    for i, row in enumerate(rows):
        label = f"{row['tokenizer']}, patch {row['patch_size']}"
        lengths = [values[i] / values[0] for _, values in quantities]
        places = [at + i * step for at in range(len(quantities))]
        bars = axes.barh(places, lengths, step * 0.9, color=COLOURS[i % len(COLOURS)], label=label)
        axes.bar_label(bars, [f"{length:.2f}×" for length in lengths], fontsize=8, padding=3)
    axes.set_yticks([at + step * (len(rows) - 1) / 2 for at in range(len(quantities))])
    axes.set_yticklabels([name for name, _ in quantities], fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    figure.legend(loc="outside upper left", ncols=2, fontsize=8, frameon=False)
    _tidy(axes)
    figure.savefig(path, dpi=110)


def _tidy(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
