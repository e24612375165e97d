"""Two reports, made once. Tests never write there."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from eval.report.report import write_report
from tests.builders.results import PROTOCOL, write_run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("run"))
    write_report(folder)
    return folder


@pytest.fixture(scope="session")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of three runs: the second has another seed only, the third other numbers of clips."""
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "first")
    write_run(folder / "second", dataclasses.replace(PROTOCOL, seed=7), fvd=222.2)
    other = dataclasses.replace(PROTOCOL, name="quick-64", num_real=64, num_generated=64)
    write_run(folder / "third", other, fvd=111.1)
    page = write_report([folder / "first", f"renamed={folder / 'second'}", folder / "third"])
    assert page == folder / "report" / "report.html"
    return page.parent
