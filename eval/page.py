"""Headings, tables and pictures as Markdown, and as one HTML page that needs no other file."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

MIN_CLIP_EDGE = 96  # pixels; a smaller clip is shown larger, by a whole factor


@dataclass(frozen=True)
class Picture:
    """`path` inside the run's folder, a caption, and how many rows of clips a GIF holds."""

    path: Path
    caption: str
    num_rows: int = 1


@dataclass(frozen=True)
class Table:
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass
class Section:
    """A heading and what stands under it, in order: paragraphs, tables, and rows of pictures."""

    title: str
    body: list[str | Table | list[Picture]] = field(default_factory=list)


def to_markdown(sections: Sequence[Section], run_dir: Path) -> str:
    """Markdown for a file in `run_dir`: pictures are links relative to it."""
    lines = ["# vidtwin-gen: report of a run", ""]
    for section in sections:
        lines += [f"## {section.title}", ""]
        for part in section.body:
            if isinstance(part, str):
                lines.append(part)
            elif isinstance(part, Table):
                lines.append(f"| {' | '.join(part.header)} |")
                lines.append("|" + "---|" * len(part.header))
                lines += [f"| {' | '.join(row)} |" for row in part.rows]
            else:
                lines += [
                    f"![{picture.caption}]({picture.path.relative_to(run_dir).as_posix()})"
                    for picture in part
                ]
            lines.append("")
    return "\n".join(lines)


def to_html(sections: Sequence[Section]) -> str:
    """One HTML page with every picture inside it and no address of anything outside."""
    parts = []
    for section in sections:
        parts.append(f"<section><h2>{html.escape(section.title)}</h2>")
        for part in section.body:
            if isinstance(part, str):
                parts.append(f"<p>{_inline(part)}</p>")
            elif isinstance(part, Table):
                parts.append(_html_table(part))
            else:
                parts.append(f'<div class="row">{"".join(_figure(picture) for picture in part)}</div>')
        parts.append("</section>")
    return _PAGE.replace("%BODY%", "\n".join(parts))


def _inline(text: str) -> str:
    """Escaped text with `code` set as code."""
    pieces = html.escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if i % 2 else piece for i, piece in enumerate(pieces))


def _html_table(table: Table) -> str:
    header = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.header)
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    return f'<div class="wide"><table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table></div>'


def _figure(picture: Picture) -> str:
    kind = {".gif": "gif", ".png": "png"}[picture.path.suffix]
    data = base64.b64encode(picture.path.read_bytes()).decode("ascii")
    caption = html.escape(picture.caption)
    width = f' width="{_shown_width(picture)}"' if kind == "gif" else ""
    return (
        f'<figure class="{kind}"><img alt="{caption}"{width} src="data:image/{kind};base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _shown_width(picture: Picture) -> int:
    with Image.open(picture.path) as image:
        width, height = image.size
    return width * max(1, math.ceil(MIN_CLIP_EDGE * picture.num_rows / height))


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>vidtwin-gen: report of a run</title>
<style>
:root { color-scheme: light dark; --ink: #1d232a; --soft: #5c6670; --paper: #fbfbf9; --line: #dcdfe2; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7ea; --soft: #9aa4ae; --paper: #15191d; --line: #30373e; }
}
body { margin: 0 auto; max-width: 62rem; padding: 2.5rem 1.25rem 4rem; background: var(--paper);
  color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.7rem; font-weight: 650; margin: 0 0 1.5rem; }
h2 { font-size: 1.15rem; font-weight: 650; margin: 2.5rem 0 .75rem; padding-top: 1rem;
  border-top: 1px solid var(--line); }
p { max-width: 46rem; }
code { font: .88em ui-monospace, monospace; background: color-mix(in srgb, var(--line) 45%, transparent);
  padding: .1em .3em; border-radius: 3px; }
.row { display: flex; flex-wrap: wrap; gap: .75rem; margin: .75rem 0; }
figure { margin: 0; }
figure.gif img { image-rendering: pixelated; max-width: 100%; height: auto; border-radius: 3px; }
figure.png img { max-width: 100%; background: #fff; border-radius: 4px; }
figcaption { color: var(--soft); font-size: .8rem; margin-top: .2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { color: var(--soft); font-weight: 550; }
</style>
</head>
<body>
<h1>vidtwin-gen: report of a run</h1>
%BODY%
</body>
</html>
"""
