"""What the report's plots compare, and whether they can be read."""

from __future__ import annotations

import dataclasses

from eval.report.cost_section import cost_section
from eval.report.pictures import Picture, PictureRow
from eval.report.runs import read_runs
from tests.builders.results import ROW
from vidtwin_gen.records import CostResult, CostRow

OTHER_ROW = dataclasses.replace(ROW, tokenizer="MAGVIT-v2 (scaled)", num_tokens=300)


def plots(section) -> list[Picture]:
    return [picture for part in section.body if isinstance(part, PictureRow) for picture in part.pictures]


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
