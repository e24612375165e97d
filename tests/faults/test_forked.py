"""What a child is ended for."""

import time

import pytest
import torch

from tests.builders.forked import Started


@pytest.mark.parametrize(("mebibytes", "stopped"), [(0, ""), (256, "memory")])
def test_memory_that_was_there_before_is_not_a_childs(tmp_path, mebibytes, stopped):
    of_the_parent = torch.ones(2**28, dtype=torch.uint8)

    def main(words):
        held = torch.ones(mebibytes * 2**20, dtype=torch.uint8)
        time.sleep(0.1)
        assert len(held) == mebibytes * 2**20

    ended = Started(main, [], tmp_path).wait(limit_bytes=2**27)
    assert ended.stopped == stopped, ended
    assert len(of_the_parent) == 2**28
