"""How a figure is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from eval.figures import write_figure
from eval.report.report import write_report
from eval.study.page import write_page
from tests.builders.results import write_run
from vidtwin_gen.files import read_json

STUDY = Path(__file__).parents[2] / "benchmarks" / "2026-11-29_latents" / "study.json"


@pytest.mark.parametrize("name", ["plain", "a$x$", "a$x_{$b", r"c$\foo$"])
def test_a_name_is_drawn_as_it_is_and_a_logarithmic_axis_as_before(tmp_path, name):
    def drawn(name):
        figure = Figure(layout="constrained")
        figure.suptitle(name)
        above, below = figure.subplots(2)
        above.plot([1, 2], [1e-3, 20], label=name)
        above.set_yscale("log")
        above.legend(title=name)
        below.barh([0, 1], [1, 2])
        below.set_yticks([0, 1], [name, "other"])
        below.set(title=name, xlabel=name)
        return figure

    write_figure(tmp_path / "written.png", drawn(name))
    drawn(name.replace("$", r"\$")).savefig(tmp_path / "escaped.png", dpi=110)
    assert (tmp_path / "written.png").read_bytes() == (tmp_path / "escaped.png").read_bytes()


def test_runs_and_rows_may_have_any_name(tmp_path):
    name, run = "a$x_{$b", write_run(tmp_path / "run")
    page = write_report([f"{name}={run}", f"other={run}"], tmp_path / "report")
    assert name in page.read_text(encoding="utf-8")
    record = read_json(STUDY, "")
    record["rows"] = {f"{name} {row}": value for row, value in record["rows"].items()}
    record["study"]["base"] = f"{name} {record['study']['base']}"
    write_page(tmp_path, record)
    assert name in (tmp_path / "study.md").read_text(encoding="utf-8")
