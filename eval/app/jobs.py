"""Work that says how far it is and ends when nobody waits for it any more; work that may crash."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Event, Lock
from typing import Any, TypeVar

Result = TypeVar("Result")
Progress = tuple[int, int]  # steps done, of how many
Step = Callable[[int, int], None]
Job = Generator[Progress, None, Result]
WAITING = (0, 0)  # for another visitor's work
AGAIN_S = 0.2  # seconds after which the last progress is yielded again, so that whoever waits can leave

# Neither a fork of a process with threads, nor one that has to import torch first.
CHILDREN = multiprocessing.get_context("forkserver")
PRELOAD = ["vidtwin_gen.program.dies_of_interrupt", "eval.app.costs"]
CHILDREN.set_forkserver_preload(PRELOAD)


class Stopped(Exception):
    """Nobody waits for this work."""


def steps_of(work: Callable[[Step], Result], turn: Lock) -> Job[Result]:
    """Runs `work(step)` in a thread once `turn` is free. Yields what it reports by `step(done, total)`, and
    WAITING while another work has the turn; returns its result. Once this generator is closed, the next call
    of `step` ends the work."""
    said: SimpleQueue[Progress | None] = SimpleQueue()
    left = Event()

    def step(done: int, total: int) -> None:
        if left.is_set():
            raise Stopped
        said.put((done, total))

    def run() -> Result:
        if turn.locked():
            step(*WAITING)
        with turn:
            step(0, 1)
            return work(step)

    thread = ThreadPoolExecutor(1)
    future = thread.submit(run)
    future.add_done_callback(lambda _: said.put(None))
    progress: Progress | None = (0, 1)
    try:
        while True:
            with suppress(Empty):
                progress = said.get(timeout=AGAIN_S)
            if progress is None:
                return future.result()
            yield progress
    finally:
        left.set()
        thread.shutdown(wait=False)


def in_child(function: Callable[..., Result], *arguments: Any) -> Result:
    """The result of a function of this package in a process of its own. Raises ValueError where that dies."""
    with ProcessPoolExecutor(1, mp_context=CHILDREN) as child:
        try:
            return child.submit(function, *arguments).result()
        except BrokenProcessPool:
            raise ValueError(
                "the process that counted it ended, perhaps for want of memory: try again"
            ) from None
