"""An autoencoder and videos to encode, which a test may change."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def vae_dir(tiny_vae_run, tmp_path):
    return Path(shutil.copytree(tiny_vae_run.output_dir / "autoencoder", tmp_path / "autoencoder"))


@pytest.fixture
def videos(few_videos, tmp_path):
    return Path(shutil.copytree(few_videos, tmp_path / "few"))
