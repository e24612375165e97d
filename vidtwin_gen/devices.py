"""The processes that work together, and the device of each."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.queues import Queue
from typing import NoReturn, TypeVar

import torch
import torch.nn.functional as F
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object, parse_flag_from_env
from tqdm.auto import tqdm

from vidtwin_gen.files import first_line

T = TypeVar("T")
R = TypeVar("R")


def processes() -> PartialState:
    """Those that accelerate's launcher started, or this one alone. Left to itself, PartialState does not see
    several of them where there is no GPU."""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available())


def worker_context(num_workers: int) -> str | None:
    """How a DataLoader starts so many workers: on Linux by fork, Python's own way up to 3.13. A signal to all
    processes also reaches the fork server of later ones, which dies of it and ends the workers."""
    return "fork" if num_workers and sys.platform == "linux" else None


def end_with_lost_batch(worker: int) -> None:
    """What a DataLoader calls first in each of its workers: one that can't hand a batch over, as where
    /dev/shm is full, says why and ends. Python's queue drops the batch, and the parent waits for it forever.
    """
    Queue._on_queue_feeder_error = staticmethod(_end_worker)  # type: ignore[attr-defined]


def _end_worker(error: Exception, batch: object) -> None:
    advice = ": set a shorter TMPDIR" if "AF_UNIX path too long" in str(error) else ""
    print(f"a data worker can't hand over a batch, {first_line(error)}{advice}", file=sys.stderr, flush=True)
    os._exit(1)


def by_the_first(action: Callable[[], T]) -> T:
    """What one process does, or sees on the disk, for all, while the others wait; all get the result, which
    is pickled. Where it fails it says why, and the others end with it."""
    state, error = processes(), None
    result: T | None = None
    if state.is_main_process:
        try:
            result = action()
        except Exception as caught:
            error = caught
    if state.num_processes > 1:
        failed, result = broadcast_object_list([error is not None, result])
        if failed and not state.is_main_process:
            sys.exit(2)
    if error:
        raise error
    return result  # type: ignore[return-value]  # None is what such an action gives


def refuse(reason: str) -> NoReturn:
    """Ends all processes, which call it alike. Raises ValueError in the first, so that it is told once."""
    if processes().is_main_process:
        raise ValueError(reason)
    sys.exit(2)


@contextmanager
def one_error() -> Iterator[None]:
    """For what every process does and fails in alike: a ValueError in it ends all, and the first process
    alone raises it."""
    try:
        yield
    except ValueError as error:
        refuse(str(error))


@contextmanager
def all_or_none() -> Iterator[None]:
    """For what every process does by itself and may fail in: where one fails it says why, and the others end
    with it, at the end of the context. Not for what they do together: others would wait for the one."""
    failure = None
    try:
        yield
    except Exception as error:
        failure = error
    failed = gather_object([failure is not None])
    if failure is not None:
        raise failure
    if any(failed):
        sys.exit(2)


def shared(items: Sequence[T], work: Callable[[T], R], title: str = "") -> Iterator[R]:
    """`work` of each item, in their order, to every process; each does one item of a round. What it gives is
    pickled: on the CPU. Its ValueErrors end all processes, and one tells them. No bar without a title."""
    state = processes()
    quiet = not title or not state.is_main_process
    with tqdm(total=len(items), desc=title, unit="batch", disable=quiet) as progress:
        for start in range(0, len(items), state.num_processes):
            here = items[start : start + state.num_processes]
            done: list[R] = []
            error = ""
            try:
                done = [work(item) for item in here[state.process_index :][:1]]
            except ValueError as caught:
                error = str(caught)
            parts = gather_object([(done, error)])
            if errors := [error for _, error in parts if error]:
                refuse(errors[0])
            for part, _ in parts:
                yield from part
            progress.update(len(here))


def find_device(name: str | None) -> torch.device:
    """`--device`, or where it was left out a GPU if there is one; of several processes each has a GPU of its
    own. Raises ValueError where there is no such device."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device {name}: torch finds no GPU; leave the flag out")
    if name.startswith("meta"):
        raise ValueError(f"--device {name}: it computes nothing; name another, or leave the flag out")
    try:
        return processes().device if name == "cuda" else torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"--device {name}: {first_line(error)}") from None


def find_dtype(name: str, device: torch.device, flag: str = "dtype") -> torch.dtype:
    """The number type of this name. Raises ValueError where the device has no convolutions or products of
    it."""
    dtype: torch.dtype = getattr(torch, name)
    try:
        clip = torch.zeros(1, 8, 4, 8, 8, device=device, dtype=dtype)
        F.linear(F.conv3d(clip, clip[:, :, :1, :3, :3]), clip[0, :, 0, 0, :6])
    except RuntimeError as error:
        reason = first_line(error)
        raise ValueError(f"--{flag} {name}: {device} can't compute in it ({reason}); name another") from None
    return dtype
