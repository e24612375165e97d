"""What all figures share: their colours, their axes, and how one is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogFormatter, LogLocator, NullFormatter

from vidtwin_gen.files import replacing_file

COLOURS = ("#3b6ea5", "#c06c3e", "#5b8c5a", "#8a5a8c", "#9a8a3a", "#5a8a8c", "#a5526e", "#707070")


def tidy(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(which="both", labelsize=8)


def log_x(axes: Any, ratio: float = 1.0) -> None:
    """A logarithmic axis with plain numbers at 1, 2 and 5 of each power of ten; where the largest value is
    100 times the smallest or more (`ratio`), at the powers alone."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if ratio < 100 else (1,)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def write_figure(path: Path, figure: Figure, dpi: int = 110) -> None:
    """In the format that the suffix names. A name in it may be anything: `$` begins no formula but where
    matplotlib writes one itself, below a logarithmic axis."""
    formulas = {
        label
        for axis in figure.findobj(Axis)
        if isinstance(axis.get_major_formatter(), LogFormatter)
        for label in axis.get_ticklabels(which="both")
    }
    for text in figure.findobj(Text):
        if text not in formulas:
            text.set_parse_math(False)
    with replacing_file(path) as partial:
        figure.savefig(partial, dpi=dpi, format=path.suffix[1:])
