"""Fixtures of the tests that hold for both training scripts."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders.runs import Run
from tests.builders.scripts import SCRIPTS


@pytest.fixture(params=SCRIPTS)
def script(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def run(script: str, request: pytest.FixtureRequest) -> Run:
    """The finished run of this script."""
    return request.getfixturevalue({"train_vae": "tiny_vae_run", "train_dit": "tiny_dit_run"}[script])


@pytest.fixture
def copied(run: Run, tmp_path: Path) -> Path:
    """Its folder, copied to be written to."""
    return Path(shutil.copytree(run.output_dir, tmp_path / "copied"))


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """A script that is run as one takes it over."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)
