"""The pictures of a diagnosis: what the channels of a latent hold, and what swapped parts look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure

from eval.diagnose.channel_statistics import DEAD_BELOW, GridStatistics
from eval.figures import COLOURS, tidy, write_figure

BARS_AT_MOST = 64  # of more channels the numbers below their bars would overlap
MOST_FRAMES = 8  # of a clip in a row


def plot_channels(statistics: Mapping[str, GridStatistics], title: str, path: Path) -> None:
    """A column of two panels for each grid: above, nats per number of each channel, log scale, with the line
    below which it is dead; below, where its values lie and how wide the posterior is."""
    widths = [max(len(grid.kl), 6) ** 0.5 for grid in statistics.values()]
    size = (max(2.2 * sum(widths) / 2, 7.5), 5.6)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontsize=11)
    panels = figure.subplots(2, len(statistics), squeeze=False, width_ratios=widths)
    for column, (name, grid) in enumerate(statistics.items()):
        channels = range(len(grid.kl))
        above, below = panels[:, column]
        for nats, width, alpha, label in (
            (grid.kl, 0.75, 0.35, "KL from the standard normal"),
            (grid.information, 0.4, 1.0, "from the channel's own Gaussian"),
        ):
            above.bar(channels, nats.tolist(), width, color=COLOURS[0], alpha=alpha, label=label)
        above.axhline(DEAD_BELOW, color=COLOURS[1], linewidth=1, linestyle="--", label="dead below")
        above.set_yscale("log")
        above.set_ylim(bottom=min(DEAD_BELOW, grid.information.clamp(min=1e-4).min().item()) / 2)
        share = f"{int(grid.dead.sum())} of {len(grid.kl)} channels dead"
        above.set_title(f"{name}, {grid.num_positions} positions\n{share}", fontsize=9)
        below.axhline(0, color="#bbbbbb", linewidth=0.8)
        below.errorbar(
            channels,
            grid.mean.tolist(),
            grid.std_of_mean.tolist(),
            fmt="o",
            markersize=3,
            linewidth=1.2,
            color=COLOURS[2],
            label="posterior means: mean ± std",
        )
        below.plot(channels, grid.posterior_std.tolist(), "x", color=COLOURS[1], label="mean posterior std")
        below.set_xlabel("channel", fontsize=8)
        for axes in (above, below):
            tidy(axes)
            if len(grid.kl) <= BARS_AT_MOST:
                axes.set_xticks(channels)
            axes.set_xlim(-0.7, len(grid.kl) - 0.3)
    panels[0, 0].set_ylabel("nats per number", fontsize=8)
    panels[1, 0].set_ylabel("raw latent", fontsize=8)
    handles = [axes.get_legend_handles_labels() for axes in panels[:, 0]]
    figure.legend(
        *(sum(parts, []) for parts in zip(*handles, strict=True)),
        loc="outside lower center",
        ncols=3,
        fontsize=8,
        frameon=False,
    )
    write_figure(path, figure)


def plot_swaps(rows: Sequence[tuple[str, torch.Tensor]], path: Path) -> None:
    """Clips (C, F, H, W) in [-1, 1] with their names -> a row each, MOST_FRAMES evenly spaced frames."""
    length, height, width = rows[0][1].shape[1:]
    shown = torch.linspace(0, length - 1, min(MOST_FRAMES, length)).round().long()
    labels, frame = 1.6, min(1.0, width / height)  # inches: the room for names, the height of a frame
    figure_width = labels + frame * len(shown) * width / height
    figure = Figure(figsize=(figure_width, 1.06 * frame * len(rows)))
    panels = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
    for axes, (name, clip) in zip(panels, rows, strict=True):
        frames = clip[:, shown].clamp(-1, 1).add(1).div(2)  # (C, f, H, W)
        axes.imshow(frames.permute(2, 1, 3, 0).flatten(1, 2).cpu().numpy(), interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
        axes.spines[:].set_visible(False)
    figure.subplots_adjust(left=labels / figure_width, right=1, top=1, bottom=0, hspace=0.06)
    write_figure(path, figure, dpi=150)
