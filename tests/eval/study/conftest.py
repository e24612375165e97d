"""Studies to write."""

from functools import partial

import pytest

from tests.builders.studies import write_study


@pytest.fixture
def write(tmp_path, few_videos):
    """`write(**changes)`: see `write_study`."""
    return partial(write_study, tmp_path, few_videos)
