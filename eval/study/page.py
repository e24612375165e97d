"""The page of a study: what each row costs, what it gives, and two plots of one over the other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from eval.figures import COLOURS, log_x, tidy
from eval.report.figures import grid, legend_below, plotted
from eval.report.page import Section, Table, to_html, to_markdown
from eval.study.curves import (
    cell,
    curve,
    measured,
    sampling_flops,
    times_the_flops,
    training_flops,
    value_at,
)
from vidtwin_gen.files import write_text

TITLES = {"steps": "Equal steps", "flops": "Equal training FLOPs of the DiT"}
MEASURES = {"accuracy": "class accuracy", "fvd": "FVD", "kvd": "KVD"}
PLOTTED = ("accuracy", "kvd")


def write_page(out: Path, record: Mapping[str, Any]) -> None:
    """`study.md`, `study.html`, and `training.png` and `sampling.png`, wide and narrow, in its folder."""
    study, real = record["study"], record["real"]
    what = f"{' and '.join(MEASURES[name] for name in PLOTTED)} of {', '.join(record['rows'])} over"
    every = "large points joined by lines are means, small ones the seeds"
    plots = [
        plotted(
            out / "training.png",
            f"{what} the TFLOPs of stage 2, at each point of its training: {every}",
            partial(draw_training, record),
        ),
        plotted(
            out / "sampling.png",
            f"{what} the GFLOPs of sampling a clip, after equal steps of training: {every}",
            partial(draw_sampling, record),
        ),
    ]
    frames = "×".join(str(study[name]) for name in ("num_frames", "height", "width"))
    about = (
        f"Clips of {frames}, {study['num_clips']} or a few more generated at each point, guidance "
        f"{study['guidance_scale']:g}, {study['num_inference_steps']} steps of the sampler where no other "
        f"number is named; mean ± standard deviation over seeds {', '.join(map(str, study['seeds']))}. FVD "
        f"and KVD are of {study['num_fvd_clips'] or study['num_clips']} of them, from as many training "
        "clips. Real held-out clips: class accuracy "
        f"{100 * real['accuracy']:.1f} %, FVD {cell([real['fvd']], 0)}, KVD {cell([real['kvd']], 3)}. Both "
        "trainings see the same clips in the same order in every row. With a constant learning rate after "
        "warm-up, a shorter training of stage 2 is a prefix of a longer one, so one run gives every point. "
        "FLOPs are counted, of matrix products, convolutions and attention; LPIPS, the discriminator and "
        "encoding are not in them."
    )
    with_what = ", ".join(f"{name} {value}" for name, value in record["machine"].items())
    made = f"`{record['command']}` with {with_what}."
    sections = [
        Section("What was compared", [about, made, costs(record), autoencoders(record)]),
        *(Section(title, [reading(record, name)]) for name, title in TITLES.items()),
        Section(
            f"To come as far as {study['base']}",
            [
                f"How many times the FLOPs of {study['base']}'s training a row needs for what that reaches, "
                "seed by seed, between its points on a logarithmic line; – where a seed never does. A row "
                "that is as good at its first point needs at most that. Of a saved autoencoder stage 1 "
                "counts as nothing.",
                reached(record),
            ],
        ),
        Section(
            f"When the whole training of {study['base']} is spent",
            [
                f"Where each row stands when both stages have cost what both of {study['base']}'s cost, "
                "between its points on a logarithmic line: at its last point where it trained no further, – "
                "where it has not come to its first. Of a saved autoencoder stage 1 counts as nothing.",
                at_the_whole_cost(record),
            ],
        ),
        Section("Steps of the sampler, after equal steps of training", [samplers(record)]),
        Section("Plots", list(plots)),
    ]
    write_text(out / "study.md", to_markdown(sections, out, "Study of latents"))
    write_text(out / "study.html", to_html(sections, "Study of latents"))


def costs(record: Mapping[str, Any]) -> Table:
    rows = []
    for name, row in record["rows"].items():
        cost = row["cost"]
        rows.append(
            [
                name,
                cost["autoencoder_class"],
                f"{cost['autoencoder_parameters'] / 1e6:.2f}",
                f"{cost['dit_parameters'] / 1e6:.2f}",
                f"{cost['num_elements']:,}",
                f"{cost['num_tokens']:,}",
                f"{cost['dit_forward_flops'] / 1e9:.2f}",
                f"{cost['dit_training_flops'] / 1e9:.2f}",
                f"{cost['dit_training_memory'] / 2**20:,.0f}",
                tera(row["stage_1_flops"], 0) if row["stage_1_flops"] else "–",
            ]
        )
    header = ["row", "class", "M parameters", "of the DiT", "numbers", "tokens", "GFLOPs a call"]
    header += ["GFLOPs a clip trained", "MiB, batch 1", "TFLOPs of stage 1"]
    return Table(header, rows)


def tera(flops: int, digits: int) -> str:
    """TFLOPs with so many decimals, or more where that leaves fewer than two significant digits."""
    value = flops / 1e12
    if not value:
        return "0"
    return f"{value:,.{max(digits, 1 - math.floor(math.log10(value)))}f}"


def autoencoders(record: Mapping[str, Any]) -> Table:
    rows = []
    for name, row in record["rows"].items():
        quality, unpaired = row["quality"], row["reconstructions"]
        digits = {"psnr": 2, "ssim": 4, "lpips": 4, "rfvd": 0, "tfvd": 0}
        cells = [cell([quality.get(measure)], count) for measure, count in digits.items()]
        rows.append([name, *cells, cell([unpaired["fvd"]], 0), cell([unpaired["kvd"]], 3)])
    header = ["row", "PSNR, dB", "SSIM", "LPIPS", "rFVD", "tFVD", "FVD of reconstructions, unpaired", "KVD"]
    study = record["study"]
    counts = sorted({row.get("num_reconstructed", 0) for row in record["rows"].values()})
    of = (
        f"{' or '.join(map(str, counts))} held-out clips" if all(counts) else "held-out clips, N not recorded"
    )
    caption = (
        f"Of {of}, each of another video; unpaired, of "
        f"{study['num_fvd_clips'] or study['num_clips']}, from as many training clips."
    )
    return Table(header, rows, caption)


def reading(record: Mapping[str, Any], name: str) -> Table:
    """A table of the ends of a reading."""
    study, rows = record["study"], []
    calls = study["num_inference_steps"]
    for title, row in record["rows"].items():
        steps = row["ends"][name]
        spent = training_flops(row, steps)
        rows.append([title, f"{steps:,}", tera(spent, 1), *values(row, steps, calls)])
    return Table(["row", "steps", "TFLOPs of stage 2", "accuracy, %", "FVD", "KVD"], rows)


def at_the_whole_cost(record: Mapping[str, Any]) -> Table:
    rows_of, calls = record["rows"], record["study"]["num_inference_steps"]
    base, rows = rows_of[record["study"]["base"]], []
    budget = base["stage_1_flops"] + training_flops(base, base["ends"]["steps"])
    for name, row in rows_of.items():
        left = budget - row["stage_1_flops"]
        standing = {
            measure: [value_at(row, seed, calls, measure, left) for seed in row["seeds"].values()]
            for measure in MEASURES
        }
        per_step = training_flops(row, 1)
        trained = max(map(int, next(iter(row["seeds"].values()))))
        steps = max(0, min(left // per_step, trained))
        share = f"{100 * row['stage_1_flops'] / budget:.0f}"
        rows.append([name, share, f"{steps:,}", *cells(standing)])
    header = ["row", "stage 1, % of the budget", "steps of stage 2", "accuracy, %", "FVD", "KVD"]
    return Table(header, rows)


def samplers(record: Mapping[str, Any]) -> Table:
    study, rows = record["study"], []
    for calls in sorted({study["num_inference_steps"], *study["more_inference_steps"]}):
        for title, row in record["rows"].items():
            spent = sampling_flops(row, calls, study["guidance_scale"])
            quality = values(row, row["ends"]["steps"], calls)
            rows.append([title, str(calls), f"{spent / 1e9:,.1f}", *quality])
    return Table(["row", "steps", "GFLOPs a clip", "accuracy, %", "FVD", "KVD"], rows)


def values(row: Mapping[str, Any], steps: int, calls: int) -> list[str]:
    return cells({measure: measured(row, steps, calls, measure) for measure in MEASURES})


def cells(by_seed: Mapping[str, Sequence[float | None]]) -> list[str]:
    accuracy = [None if x is None else 100 * x for x in by_seed["accuracy"]]
    return [cell(accuracy, 1), cell(by_seed["fvd"], 0), cell(by_seed["kvd"], 3)]


def reached(record: Mapping[str, Any]) -> Table:
    stages = {"stage 2": False, "both stages": True}
    rows = []
    for name in record["rows"]:
        factors = (
            times_the_flops(record, name, measure, with_stage_1=both)
            for measure in MEASURES
            for both in stages.values()
        )
        rows.append([name, *(" ".join(cell([x], 2) for x in of_seeds) for of_seeds in factors)])
    header = [f"{title}, {stage}" for title in MEASURES.values() for stage in stages]
    return Table(["row", *header], rows)


def draw_training(record: Mapping[str, Any], narrow: bool) -> Figure:
    """Quality over the FLOPs of stage 2: the mean of each point's seeds, and the seeds."""
    figure, axes = _panels("TFLOPs of stage 2", narrow)
    calls = record["study"]["num_inference_steps"]
    for colour, (name, row) in zip(cycle(COLOURS), record["rows"].items(), strict=False):
        for axis, measure in zip(axes, PLOTTED, strict=True):
            seeds = [dict(curve(seed, calls, measure)) for seed in row["seeds"].values()]
            steps = sorted(set.intersection(*map(set, seeds)))
            spent = [training_flops(row, step) / 1e12 for step in steps]
            means = [fmean(seed[step] for seed in seeds) for step in steps]
            axis.plot(spent, means, "o-", color=colour, label=name)
            for seed in seeds:
                axis.plot(spent, [seed[step] for step in steps], ".", color=colour, alpha=0.5)
    legend_below(figure, axes[0].get_legend_handles_labels()[0], narrow)
    return figure


def draw_sampling(record: Mapping[str, Any], narrow: bool) -> Figure:
    """Quality over the FLOPs of a clip, after equal steps of training: the mean of each point's seeds, and
    the seeds."""
    figure, axes = _panels("GFLOPs of a clip", narrow)
    study = record["study"]
    counts = sorted({study["num_inference_steps"], *study["more_inference_steps"]})
    for colour, (name, row) in zip(cycle(COLOURS), record["rows"].items(), strict=False):
        spent = [sampling_flops(row, count, study["guidance_scale"]) / 1e9 for count in counts]
        for axis, measure in zip(axes, PLOTTED, strict=True):
            seeds = [measured(row, row["ends"]["steps"], count, measure) for count in counts]
            known = [(x, [y for y in ys if y is not None]) for x, ys in zip(spent, seeds, strict=True)]
            means = [(x, fmean(ys)) for x, ys in known if ys]
            axis.plot(*zip(*means, strict=True), "o-", color=colour, label=name)
            each = [(x, y) for x, ys in known for y in ys]
            axis.plot(*zip(*each, strict=True), ".", color=colour, alpha=0.5)
    legend_below(figure, axes[0].get_legend_handles_labels()[0], narrow)
    return figure


def _panels(label: str, narrow: bool) -> tuple[Figure, list[Any]]:
    figure, panels = grid(len(PLOTTED), 2, (5, 4), narrow)
    for axes, measure in zip(panels, PLOTTED, strict=True):
        axes.set(xlabel=label, ylabel=MEASURES[measure])
        log_x(axes)
        axes.grid(alpha=0.3)
        tidy(axes)
    return figure, panels
