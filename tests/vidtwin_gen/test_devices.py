"""What the processes of a command do together, and in which numbers a device computes."""

import pytest
import torch

from tests.builders.processes import run_in_processes
from vidtwin_gen.devices import by_the_first, find_dtype, shared


def test_a_dtype_that_the_device_has_not_is_refused():
    cpu = torch.device("cpu")
    assert find_dtype("bfloat16", cpu) == torch.bfloat16
    with pytest.raises(ValueError, match="--vae_dtype float8_e4m3fn: cpu can't compute in it .*name another"):
        find_dtype("float8_e4m3fn", cpu, "vae_dtype")


def squared(number):
    if number == 3:
        raise ValueError("there is no 3")
    return number**2


def in_each(rank):
    assert by_the_first(lambda: f"seen by {rank}") == "seen by 0"
    assert list(shared([2, 1, 0], squared, "squares")) == [4, 1, 0]
    results = shared([0, 1, 2, 3], squared, "squares")
    assert [next(results), next(results)] == [0, 1]
    if rank == 0:  # which has no 3
        with pytest.raises(ValueError, match="there is no 3"):
            list(results)
    else:
        with pytest.raises(SystemExit):
            list(results)


@pytest.mark.parametrize("count", [1, 2])
def test_processes_share_items_and_tell_an_error_once(count):
    run_in_processes(count, in_each)
