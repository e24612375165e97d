"""A tiny pipeline, and the folder where one is saved. Tests never write there."""

import pytest

from tests.builders.pipelines import build_pipeline


@pytest.fixture
def pipe():
    return build_pipeline()


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "pipeline"
    build_pipeline().save_pretrained(path)
    return path
