"""examples/quickstart.ipynb: it runs from top to bottom, and what is shown in it is of its own cells."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

nbformat = pytest.importorskip("nbformat", reason="nbclient is not installed: pip install -e '.[test]'")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed: pip install -e '.[test]'")

NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"
SMALLER = {"CLIPS_PER_GROUP": 1, "NUM_STEPS": 2, "TRAIN_STEPS": 2, "FVD_CLIPS": 2}
MOST_BYTES = 3e6  # that a page on the hub should load


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds_of_outputs(notebook) -> list[set[str]]:
    """Of each cell, once it is seen that all ran in order, without errors, warnings and progress bars, and
    that pictures say what they show."""
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for output in (output for cell in cells for output in cell.outputs):
        assert output.output_type != "error" and output.get("name") != "stderr", output
        if "image/png" in output.get("data", {}):
            assert output.metadata["image/png"]["alt"]
    return [{kind for output in cell.outputs for kind in output.get("data", ["text"])} for cell in cells]


@pytest.mark.slow
def test_it_runs_and_shows_what_it_showed(tmp_path: Path) -> None:
    """From its folder, as Jupyter does, with less of everything that its first cell names."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    shown = kinds_of_outputs(notebook)
    settings = code_cells(notebook)[0]
    names = {**SMALLER, "OUT": str(tmp_path)}
    assert set(re.findall(r"^(\w+) =", settings.source, re.MULTILINE)) == set(names)
    settings.source = "\n".join(f"{name} = {value!r}" for name, value in names.items())
    nbclient.execute(notebook, cwd=NOTEBOOK.parent, timeout=600)
    assert kinds_of_outputs(notebook) == shown


def test_it_is_small_and_names_no_place_of_a_machine() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < MOST_BYTES
    assert re.findall(r"/(?:home|root|tmp|work|usr)/", re.sub(r'"image/png": ".*"', "", text)) == []
