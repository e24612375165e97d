"""Headings, tables and pictures as Markdown, and as one HTML page that needs no other file."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote

import jinja2

from eval.report.pictures import CLIP_EDGE, MAX_WIDTH, PAGE_LIMIT, Picture, PictureRow, embed
from vidtwin_gen.data.names import markdown

LONG = 40  # characters from which a cell is kept from becoming too narrow


@dataclass(frozen=True)
class Table:
    """Cells are plain text. `caption` says what the table is of, where the heading above does not. In a
    `headline` the numbers that begin the cells from the third column on are large."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    headline: bool = False


@dataclass
class Section:
    """A heading and what stands under it, in order: paragraphs, tables, and rows of pictures. Where `folded`,
    the page opens it on demand."""

    title: str
    body: list[str | Table | PictureRow] = field(default_factory=list)
    folded: bool = False


def to_markdown(sections: Sequence[Section], folder: Path, title: str) -> str:
    """Markdown for a file in `folder`: pictures are links relative to it."""
    lines = [f"# {markdown(title)}", ""]
    for section in sections:
        lines += [f"## {section.title}", ""]
        for part in section.body:
            if isinstance(part, str):
                lines.append(_markdown_text(part))
            elif isinstance(part, Table):
                lines += [part.caption, ""] if part.caption else []
                lines.append(_markdown_row(part.header))
                lines.append("|" + "---|" * len(part.header))
                lines += [_markdown_row(row) for row in part.rows]
            else:
                lines += [f"**{markdown(part.label)}**", ""] if part.label else []
                lines += [
                    f"![{markdown(_alternative(part, picture))}]({_link(picture.path, folder)})"
                    for picture in part.pictures
                ]
            lines.append("")
    return "\n".join(lines)


def to_html(sections: Sequence[Section], title: str) -> str:
    """One HTML page with its pictures inside, up to PAGE_LIMIT bytes of them, and no address of anything
    outside. What had no room is named at the end."""
    rows = [part for section in sections for part in section.body if isinstance(part, PictureRow)]
    pictures = [picture for row in rows for picture in row.pictures]
    pictures += [replace(picture, path=picture.narrow) for picture in pictures if picture.narrow]
    embedded, left_out = embed(pictures, PAGE_LIMIT)
    limits = (
        f"Pictures on this page take at most {PAGE_LIMIT / 2**20:.3g} MB; larger clips are shrunk to "
        f"{CLIP_EDGE} pixels in height and larger pictures to {MAX_WIDTH} in width, and compressed; their "
        "files are not."
    )
    if left_out:
        limits += f" Left out for want of room: {', '.join(f'`{path.as_posix()}`' for path in left_out)}."
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"text": html.escape, "inline": _inline}
    environment.globals["alternative"] = _alternative
    page = environment.from_string(_PAGE)
    return page.render(title=title, sections=sections, embedded=embedded, limits=limits, long=LONG) + "\n"


def _alternative(row: PictureRow, picture: Picture) -> str:
    return f"{row.label}, {picture.caption}" if row.label else picture.caption


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(markdown, cells))} |"


def _markdown_text(text: str) -> str:
    """A paragraph in one line, its `code` as it is and no HTML in the rest, which may be a run's name."""
    pieces = text.split("`")
    plain = (piece if i % 2 else html.escape(piece, quote=False) for i, piece in enumerate(pieces))
    return " ".join("`".join(plain).split())


def _link(path: Path, folder: Path) -> str:
    return quote(Path(os.path.relpath(path, folder)).as_posix())


def _inline(text: str) -> str:
    """Escaped text with `code` set as code."""
    pieces = html.escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if i % 2 else piece for i, piece in enumerate(pieces))


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title|text }}</title>
<style>
:root { color-scheme: light dark; --ink: #1d232a; --soft: #5c6670; --paper: #fbfbf9; --line: #dcdfe2; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7ea; --soft: #9aa4ae; --paper: #15191d; --line: #30373e; }
}
body { margin: 0 auto; max-width: 68rem; padding: 2.5rem 1.25rem 4rem; background: var(--paper);
  color: var(--ink); font: 16px/1.55 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; font-weight: 650; margin: 0 0 1.5rem; }
section { border-top: 1px solid var(--line); margin-top: 2.5rem; padding-top: 1rem; }
h2 { font-size: 1.15rem; font-weight: 650; margin: 0 0 .75rem; }
summary { cursor: pointer; }
summary h2 { display: inline; }
p { max-width: 46rem; }
code { font: .88em ui-monospace, monospace; background: color-mix(in srgb, var(--line) 45%, transparent);
  padding: .1em .3em; border-radius: 3px; }
.row { display: flex; flex-wrap: wrap; gap: .75rem; margin: .75rem 0; }
figure { margin: 0; max-width: 100%; }
img { max-width: 100%; height: auto; }
figure.gif { width: min-content; }
figure.gif img { image-rendering: pixelated; max-width: min(100vw - 2.5rem, 68rem); border-radius: 3px; }
.clips { display: inline-block; vertical-align: top; max-width: 100%; margin-right: 1.5rem; }
h3 { font-size: .95rem; font-weight: 550; margin: .75rem 0 0; }
.clips .row { margin: .35rem 0 .5rem; }
@media (max-width: 48rem) {
  .clips { display: block; margin-right: 0; }
  .clips figure.gif { width: calc((100% - 1.5rem) / 3); }
  .clips figure.gif img { width: 100%; max-width: 100%; }
}
figure.png img, figure.plot img { background: #fff; border-radius: 4px; }
figure.plot { overflow-x: auto; }
figure.plot > img { max-width: max(100%, 38rem); }
@media (max-width: 56rem) { picture img { width: 100%; max-width: 30rem; } }
@media (prefers-color-scheme: dark) { figure.plot img { filter: invert(.89) hue-rotate(180deg); } }
figcaption { color: var(--soft); font-size: .8rem; line-height: 1.35; margin-top: .2rem; }
.wide { overflow-x: auto; margin: .75rem 0 1.25rem; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 550; padding-bottom: .3rem; }
th, td { text-align: left; padding: .35rem 1rem .35rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: normal; }
td { min-width: 4.5rem; }
td.long { min-width: 13rem; }
td b { font-size: 1.35rem; font-weight: 650; line-height: 1.2; margin-right: .3rem; }
thead th { color: var(--soft); font-weight: 550; }
th button { all: unset; cursor: pointer; }
th button:focus-visible { outline: 2px solid; outline-offset: 2px; }
th button::after { content: "↕"; margin-left: .3em; opacity: .5; }
th[aria-sort=ascending] button::after { content: "↑"; opacity: 1; }
th[aria-sort=descending] button::after { content: "↓"; opacity: 1; }
tbody th { font-weight: 400; min-width: 9rem; }
footer { color: var(--soft); font-size: .85rem; margin-top: 3rem; }
</style>
</head>
<body>
<main>
<h1>{{ title|text }}</h1>
{% for section in sections %}
<section>
{% if section.folded %}
<details><summary><h2>{{ section.title|text }}</h2></summary>
{% else %}
<h2>{{ section.title|text }}</h2>
{% endif %}
{% for part in section.body %}
{% if part is string %}
<p>{{ part|inline }}</p>
{% elif part.header is defined %}
{# scrolls sideways where it is too wide, by keyboard too; the first cell of a row names it #}
<div class="wide" role="region" tabindex="0" aria-label="{{ (part.caption or section.title)|text }}"><table>
{%- if part.caption %}<caption>{{ part.caption|text }}</caption>{% endif %}
<thead><tr>{% for cell in part.header %}<th scope="col">{{ cell|text }}</th>{% endfor %}
</tr></thead><tbody>
{%- for row in part.rows %}
<tr><th scope="row">{{ row[0]|text }}</th>
{%- for cell in row[1:] %}
<td{{ ' class="long"' if cell|length > long and not part.headline }}>
{%- if part.headline and loop.index > 1 %}
{% set number, _, rest = cell.partition(" ") %}<b>{{ number.rstrip(",")|text }}</b> {{ rest|text }}
{%- else %}{{ cell|text }}{% endif %}</td>
{%- endfor %}
</tr>
{%- endfor %}
</tbody></table></div>
{% elif part.pictures|selectattr("path", "in", embedded)|list %}
<div class="{{ "clips" if part.label else "row" }}">
{%- if part.label %}<h3>{{ part.label|text }}</h3><div class="row">{% endif %}
{%- for picture in part.pictures|selectattr("path", "in", embedded) %}
{% set narrow = embedded[picture.narrow] %}
<figure class="{{ "plot" if picture.plot else picture.kind }}">{% if narrow %}<picture><source \
media="(max-width: 56rem)" srcset="{{ narrow.address }}" width="{{ narrow.width }}" \
height="{{ narrow.height }}">{% endif %}<img \
alt="{{ alternative(part, picture)|text }}" \
width="{{ embedded[picture.path].width }}" height="{{ embedded[picture.path].height }}" \
src="{{ embedded[picture.path].address }}">{{ "</picture>" if narrow }}\
<figcaption>{{ picture.caption|text }}</figcaption></figure>
{%- endfor %}
{%- if part.label %}</div>{% endif %}
</div>
{% else %}

{% endif %}
{% endfor %}
{% if section.folded %}
</details>
{% endif %}
</section>
{% endfor %}
<footer><p>{{ limits|inline }}</p></footer>
</main>
<script>
// A click on the head of a column sorts by it: upwards, downwards, then as the table was. What begins with a
// number goes by it, before what does not.
const number = text =>
  parseFloat((text.match(/^-?[0-9,]*[.]?[0-9]+(e[+-][0-9]+)?/) ?? [""])[0].replaceAll(",", ""));
const next = {ascending: "descending", descending: "none"};
for (const {tHead, tBodies: [body]} of document.querySelectorAll("table")) {
  const heads = [...tHead.rows[0].cells], rows = [...body.rows];
  if (rows.length > 1) heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.onclick = () => {
      const order = next[head.getAttribute("aria-sort")] ?? "ascending";
      const sign = order === "ascending" ? 1 : -1;
      for (const other of heads) other.setAttribute("aria-sort", other === head ? order : "none");
      const compare = (...pair) => {
        const [a, b] = pair.map(row => row.cells[column].textContent.trim()), [x, y] = [a, b].map(number);
        if (isNaN(x) !== isNaN(y)) return isNaN(x) - isNaN(y);
        return sign * (x - y || a.localeCompare(b, "en", {numeric: true}));
      };
      body.append(...(order === "none" ? rows : [...rows].sort(compare)));
    };
  });
}
</script>
</body>
</html>
"""
