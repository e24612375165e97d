"""Several processes on this machine, as a launcher starts them."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

from accelerate import PartialState
from accelerate.state import AcceleratorState


def _join(
    rank: int, count: int, port: int, function: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    AcceleratorState._reset_state(reset_partial_state=True)
    function(rank, *arguments)
    state = PartialState()
    assert state.num_processes == count
    state.destroy_process_group()


def run_in_processes(count: int, function: Callable[..., None], *arguments: Any) -> None:
    """`function(rank, *arguments)` in each; asserts that all end well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")  # what is imported need not be imported again
    children = [
        context.Process(target=_join, args=(rank, count, port, function, arguments)) for rank in range(count)
    ]
    try:
        for child in children:
            child.start()
        for child in children:
            child.join(120)
        assert [child.exitcode for child in children] == [0] * count
    finally:
        for child in children:
            child.kill()


def command_in_processes(count: int, main: Callable[[Sequence[str]], object], words: Sequence[str]) -> None:
    """`main(words)` in each."""
    run_in_processes(count, lambda _: main(words))
