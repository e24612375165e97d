"""What the report's plots compare, and whether they can be read."""

from __future__ import annotations

import dataclasses

import pytest
from matplotlib.figure import Figure

from eval.report.comparison import compare
from eval.report.cost_section import cost_section, quality_panels
from eval.report.figures import draw_cost
from eval.report.pictures import Picture, PictureRow
from eval.report.runs import read_runs
from tests.builders.results import ROW, fvd_result
from vidtwin_gen.records import CostResult, CostRow

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
