"""HTML of what the studio shows. Clips are in the page itself: none of their files stays on the disk."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from eval.app.jobs import WAITING, Progress
from eval.app.studio import Clip
from eval.cost.table import sentences
from vidtwin_gen.data.names import file_names
from vidtwin_gen.data.writing import write_gif, write_video
from vidtwin_gen.records import CostRow

STYLE = """
.clips { display: grid; grid-template-columns: repeat(auto-fill, minmax(130px, 1fr)); gap: 1rem; }
.clips figure { margin: 0; min-width: 0; }
.clips figure:has(details[open]) { grid-column: 1 / -1; }
.clips video { width: 100%; max-width: 20rem; display: block; image-rendering: pixelated; }
.clips figcaption { font-size: .85rem; overflow-wrap: anywhere; margin: .25rem 0; }
.clips pre { overflow-x: auto; font-size: .75rem; padding: .5rem; }
.clips pre { background: var(--background-fill-secondary); }
.state progress { width: 100%; accent-color: var(--color-accent); }
.state.alert { border-left: 4px solid var(--error-border-color, #dc2626); padding-left: .5rem; }
.costs { overflow-x: auto; }
.costs table { width: 100%; border-collapse: collapse; font-size: .85rem; }
.costs th, .costs td { text-align: left; padding: .2rem .5rem; }
.costs tr { border-bottom: 1px solid var(--border-color-primary); }
.costs td { min-width: 5rem; font-variant-numeric: tabular-nums; }
.costs i { display: block; height: .4rem; background: var(--color-accent); border-radius: 2px; }
footer { display: none !important; }
"""

# a video that begins by itself stands still for visitors who asked for little motion
UNLESS_REDUCED = "if (matchMedia('(prefers-reduced-motion: reduce)').matches) this.pause()"


def state(progress: Progress, unit: str = "step") -> str:
    """How far a work is."""
    done, total = progress
    text = f"{unit} {done} of {total}"
    if progress == WAITING:
        text = "waiting: another visitor's clips are being made"
    elif progress == (0, 1):
        text = "starting"
    bar = f'<progress max="{total or 1}" value="{done}"></progress>'
    return f'<div class="state" role="status">{bar}{text}</div>'


def said(text: str, role: str = "status") -> str:
    """`role`: "alert" for what went wrong."""
    return f'<div class="state {role}" role="{role}">{escape(text)}</div>'


def gallery(clips: Sequence[Clip]) -> str:
    """Looping side by side, with controls, each with its files and the Python that makes it."""
    return f'<div class="clips">{"".join(map(_figure, clips))}</div>'


def _figure(clip: Clip) -> str:
    name, title = escape(file_names([clip.title])[0]), escape(clip.title)
    files = {"mp4": "video/mp4", "gif": "image/gif"}
    urls = {suffix: f"data:{kind};base64,{_encoded(clip, suffix)}" for suffix, kind in files.items()}
    links = " ".join(
        f'<a download="{name}.{suffix}" href="{url}">{suffix}</a>' for suffix, url in urls.items()
    )
    code = f"<details><summary>Python</summary><pre>{escape(clip.code)}</pre></details>" if clip.code else ""
    video = f'src="{urls["mp4"]}" aria-label="{title}" autoplay loop muted playsinline controls'
    return (
        f'<figure><video {video} onloadeddata="{UNLESS_REDUCED}"></video>'
        f"<figcaption>{title} · {links}</figcaption>{code}</figure>"
    )


def _encoded(clip: Clip, suffix: str) -> str:
    with TemporaryDirectory() as folder:
        file = Path(folder, f"clip.{suffix}")
        if suffix == "gif":
            write_gif(file, clip.frames, clip.fps)
        else:
            odd = [(0, 0), *((0, side % 2) for side in clip.frames.shape[1:3]), (0, 0)]
            write_video(file, np.pad(clip.frames, odd, mode="edge"), clip.fps)
        return b64encode(file.read_bytes()).decode()


COLUMNS: dict[str, Callable[[CostRow], float]] = {
    "tokens": lambda row: row.num_tokens,
    "elements": lambda row: row.num_elements,
    "GFLOPs forward": lambda row: row.forward_flops / 1e9,
    "MiB of training": lambda row: row.peak_bytes / 2**20,
}


def costs(rows: Sequence[CostRow]) -> str:
    """A bar for each number, and the sentences of `eval cost` on the first tokenizer against the others."""
    values = [[value(row) for row in rows] for value in COLUMNS.values()]
    head = "".join(f'<th scope="col">{name}</th>' for name in ("tokenizer", *COLUMNS))
    lines = []
    for number, row in enumerate(rows):
        cells = "".join(_bar(column[number], min(column), max(column)) for column in values)
        lines.append(f'<tr><th scope="row">{escape(row.tokenizer)}</th>{cells}</tr>')
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    first, *others = [f"{escape(sentence)}." for sentence in sentences(rows)] or [""]
    items = "".join(f"<li>{sentence}</li>" for sentence in others)
    more = f"<details><summary>Beside the others</summary><ul>{items}</ul></details>" if others else ""
    return f'<p>{first}</p>{more}<div class="costs">{table}</div>'


def _bar(value: float, least: float, most: float) -> str:
    """A number over a bar on a logarithmic scale, 10 % wide for the least and 100 % for the most."""
    text = f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    share = math.log(value / least) / math.log(most / least) if most > least else 1
    return f'<td>{text}<i style="width: {10 + 90 * share:.0f}%"></i></td>'
