"""What the processes of a command do together, and in which numbers a device computes."""

import pytest
import torch
from torch.utils.data import DataLoader

from tests.builders.processes import run_in_processes
from vidtwin_gen.devices import by_the_first, end_with_lost_batch, find_dtype, shared, worker_context
from vidtwin_gen.training.stopping import DataWorkers


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


class NeverSent:
    """As a batch where a worker's socket can't be made."""

    def __reduce__(self):
        raise OSError("AF_UNIX path too long")


@pytest.mark.parametrize("of_training", [False, True])
def test_a_worker_that_cannot_hand_over_a_batch_ends(of_training, capfd):
    workers = DataWorkers()
    workers.may_end()  # where the test fails, the loader has to end it
    start = workers if of_training else end_with_lost_batch
    how = {"num_workers": 1, "multiprocessing_context": worker_context(1), "timeout": 20}
    loader = DataLoader([NeverSent()], collate_fn=list, worker_init_fn=start, **how)
    with pytest.raises(RuntimeError, match="DataLoader worker .* exited unexpectedly"):
        next(iter(loader))
    said = "a data worker can't hand over a batch, AF_UNIX path too long: set a shorter TMPDIR\n"
    assert capfd.readouterr().err == said
