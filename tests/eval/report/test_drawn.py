"""What the report's plots compare, and whether they can be read."""

from __future__ import annotations

import dataclasses
import re
from urllib.parse import unquote

import pytest
import torch
from matplotlib.figure import Figure

from eval.report.comparison import compare
from eval.report.cost_section import cost_section, quality_panels, quality_section
from eval.report.figures import LONGEST, Panel, draw_cost, draw_curves, draw_quality, short_names
from eval.report.page import Table
from eval.report.pictures import Picture, PictureRow
from eval.report.published import published_groups
from eval.report.report import generated_clips, loss_curves, write_report
from eval.report.runs import read_runs
from tests.builders.results import ROW, fvd_result
from vidtwin_gen.data.writing import write_gif
from vidtwin_gen.records import CostResult, CostRow

LONG_NAMES = [f"ucf101-10_lightning-dit-w240_muon-x0-shift2_seed{i}_guidance_4_again" for i in range(9)]
OTHER_ROW = dataclasses.replace(ROW, tokenizer="MAGVIT-v2 (scaled)", num_tokens=300)


def plots(section) -> list[Picture]:
    return [picture for part in section.body if isinstance(part, PictureRow) for picture in part.pictures]


def overlapping(texts) -> list[tuple[str, str]]:
    """Pairs of texts, drawn already, of which one lies over the other."""
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text()]
    return [
        (name, other)
        for i, (name, box) in enumerate(boxes)
        for other, its_box in boxes[:i]
        if box.overlaps(its_box)
    ]


def is_whole(figure: Figure) -> bool:
    """Whether nothing is cut at the figure's edges, and nothing lies over a panel but what is drawn there."""
    figure.draw_without_rendering()
    (legend,) = figure.legends or (None,)
    boxes = [axes.get_tightbbox() for axes in figure.axes] + ([legend.get_window_extent()] if legend else [])
    lies_over = any(box.overlaps(other) for i, box in enumerate(boxes) for other in boxes[:i])
    width, height = figure.bbox.size
    inside = all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height for box in boxes)
    panels = [axes.get_window_extent().size / figure.dpi for axes in figure.axes]
    return inside and not lies_over and all(w > 1 and h > 0.5 for w, h in panels)


def tick_labels(figure: Figure) -> list[list]:
    """Of each panel's axis of cost, as they are drawn."""
    figure.draw_without_rendering()
    return [
        [
            label
            for tick in (*axes.xaxis.get_major_ticks(), *axes.xaxis.get_minor_ticks())
            if axes.viewLim.x0 <= tick.get_loc() <= axes.viewLim.x1 and (label := tick.label1).get_text()
        ]
        for axes in figure.axes
    ]


def write_cost(run, *rows: CostRow) -> None:
    CostResult(command="python -m eval cost", rows=list(rows)).write(run / "eval/cost.json")


def test_bars_of_cost_are_of_clips_of_one_size(tmp_path):
    for name, shape in (("small", [16, 32, 32]), ("large", [16, 64, 64])):
        write_cost(tmp_path / name, *(dataclasses.replace(row, clip_shape=shape) for row in (ROW, OTHER_ROW)))
    section = cost_section(read_runs([tmp_path / "small", tmp_path / "large"]), tmp_path)
    small, large = plots(section)
    assert small.path != large.path and small.path.is_file() and large.path.is_file()
    for plot, name, shape in ((small, "small", "16×32×32"), (large, "large", "16×64×64")):
        assert plot.caption.startswith(f"Clips of {shape}, patch 1, in multiples of what ")
        assert f"{ROW.tokenizer}, {name} takes" in plot.caption


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("least", [0.205, 0.02, 1e-4])
def test_a_logarithmic_cost_is_dots_over_numbers_that_can_be_read(narrow, least):
    """A bar on a logarithmic axis is as long as where the axis happens to begin."""
    values = (least, 1.0, 4.48)
    rows = [(f"latents {value}", {"few": 1 + value, "FLOPs": 1e9 * value}) for value in values]
    figure = draw_cost(rows, 1, narrow)
    few, flops = figure.axes
    assert few.get_xscale() == "linear" and len(few.patches) == len(values)
    assert flops.get_xscale() == "log" and not flops.patches
    (dots,) = flops.collections
    assert list(dots.get_offsets()[:, 0]) == pytest.approx(values)
    for labels in tick_labels(figure):
        assert len(labels) >= 2 and not overlapping(labels)
        assert all(float(label.get_text()) >= 0 for label in labels)  # no powers of ten in mathematical type


def test_real_clips_are_a_floor_of_generated_ones_alone(tmp_path):
    """Reconstructions are compared with the clips that they are of, and may be nearer than others are."""
    floors = {"real": {"fvd": 47.0}, "reconstructions": {"fvd": 31.0}}
    fvd_result(50.0, floors=floors).write(tmp_path / "run/eval/fvd.json")
    write_cost(tmp_path / "run", ROW)
    runs = read_runs([tmp_path / "run"])
    panels = {panel.quality_axis: panel.floors for panel in quality_panels(compare(runs), runs)}
    assert panels == {"FVD": {"run": 47.0}, "rFVD": {}}


def test_shortened_names_are_distinct_and_short_names_stay():
    names = ["demo", *LONG_NAMES, "a" * 60, "a" * 59 + "b", f"{'a' * LONGEST}…"]
    short = short_names(names)
    assert list(short_names(["demo", "real"]).values()) == ["demo", "real"] and short["demo"] == "demo"
    assert len(set(short.values())) == len(names)
    assert max(map(len, short.values())) <= LONGEST + len("…… (9)")
    assert "seed1" in short_names(LONG_NAMES)[LONG_NAMES[1]]


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.filterwarnings("error")
def test_long_names_leave_the_plots_whole(narrow):
    short = short_names(LONG_NAMES)
    points = [(name, float(i), 10.0 * i) for i, name in enumerate(LONG_NAMES, 1)]
    axis = "GFLOPs, forward, patch structure 8×1×1, dynamics_x 16×1, dynamics_y 16×1, batch 1"
    panels = [Panel(f"FVD, generated: F{i}", axis, "FVD", points, {}) for i in (1, 2)]
    rows = [(f"VidTwin (this run's latents), {name}", {"tokens": 1, "FLOPs": 2}) for name in short.values()]
    logs = {name: [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 2.0}] for name in short.values()}
    for figure in (
        draw_quality(panels, short, narrow),
        draw_quality(panels[:1], short, narrow),
        draw_cost(rows, 0, narrow),
        draw_curves(logs, "Stage 1", narrow),
    ):
        assert is_whole(figure)
        for axes in figure.axes:
            assert not overlapping(axes.get_yticklabels())
    colours = [[line.get_color() for line in axes.lines] for axes in draw_quality(panels, short, narrow).axes]
    assert colours[0] == colours[1]


@pytest.mark.filterwarnings("error")
def test_captions_have_the_names_in_full(tmp_path):
    for name in LONG_NAMES[:2]:
        fvd_result(50.0).write(tmp_path / name / "eval/fvd.json")
        write_cost(tmp_path / name, ROW, OTHER_ROW)
        (tmp_path / name / "vae").mkdir()
        (tmp_path / name / "vae/metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    runs = read_runs([tmp_path / name for name in LONG_NAMES[:2]])
    (quality, _) = plots(quality_section(compare(runs), runs, published_groups(), tmp_path))
    (curves,) = plots(loss_curves(runs, tmp_path))
    for plot in (quality, curves):
        for name, shown in short_names(LONG_NAMES[:2]).items():
            assert f"{shown} is {name}" in plot.caption


def test_a_distance_over_several_seeds_has_its_spread(tmp_path):
    for name, spread in (("several", {"std": 6.5, "num_seeds": 2}), ("one", {})):
        fvd_result(50.0, **spread).write(tmp_path / name / "eval/fvd.json")
        write_cost(tmp_path / name, ROW)
    runs = read_runs([tmp_path / "several", tmp_path / "one"])
    panels = quality_panels(compare(runs), runs)
    (axes,) = draw_quality(panels, short_names(["several", "one"]), narrow=False).axes
    bars = [bar.get_segments()[0] for container in axes.containers for bar in container.lines[2]]
    assert [list(bar[:, 1]) for bar in bars] == [[43.5, 56.5]] and axes.get_ylim()[1] > 56.5
    section = quality_section(compare(runs), runs, published_groups(), tmp_path)
    assert "standard deviation over seeds" in plots(section)[0].caption


def test_clips_of_a_run_called_real_are_told_from_real_ones(tmp_path):
    clip = torch.randint(256, (2, 16, 16, 3), dtype=torch.uint8)
    for name in ("real", "demo"):
        for path in ("generated/Ball/Ball_0000.gif", "eval/real/Ball.gif"):
            write_gif(tmp_path / name / path, clip, fps=8)
    section = generated_clips(read_runs([tmp_path / "real", tmp_path / "demo"]))
    captions = [picture.caption for picture in plots(section)]
    assert captions == ["generated, real", "generated, demo", "real video"]


def test_markdown_has_no_html_of_a_name_and_finds_pictures_under_any(tmp_path):
    name = "a) 50% #1 <img src=x> & `b"
    clip = torch.randint(256, (2, 16, 16, 3), dtype=torch.uint8)
    write_gif(tmp_path / name / "eval/recon.gif", clip, fps=8)
    write_gif(tmp_path / "other" / "eval/recon.gif", clip, fps=8)
    text = write_report([tmp_path / name, tmp_path / "other"]).with_suffix(".md").read_text()
    assert "<img" not in text
    command = "`python -m pipelines generate --pipeline … --out … --format gif`"
    missing = "Not here: a) 50% #1 &lt;img src=x&gt; &amp; 'b: generated/&lt;Class&gt;/"
    (line,) = [line for line in text.splitlines() if line.startswith(missing)]
    assert line.endswith(f"It is written by {command}.")
    links = re.findall(r"!\[.*?\]\(([^)\s]+)\)", text)
    assert len(links) == 2 and all((tmp_path / "report" / unquote(link)).is_file() for link in links)
    assert not any(set(link) & set("()#<> ") for link in links)


def test_columns_of_the_papers_counter_have_plain_heads(tmp_path):
    both = {"padded": 12, "floored": 8}
    figure_5 = {"num_parameters": 12610560, "num_tokens": both, "macs": both}
    write_cost(tmp_path / "run", dataclasses.replace(ROW, figure_5=figure_5))
    section = cost_section(read_runs([tmp_path / "run"]), tmp_path)
    _, table = (part for part in section.body if isinstance(part, Table))
    assert len(table.header) == 6 and all(head.startswith("Figure 5's ") for head in table.header[1:])
    assert not any("macs" in head or "floored" in head for head in table.header)
