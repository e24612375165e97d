"""The processes that work together, and the device of each."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, parse_flag_from_env


def processes() -> PartialState:
    """Those that accelerate's launcher started, or this one alone. Left to itself, PartialState does not see
    several of them where there is no GPU."""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available())


def by_the_first(action: Callable[[], object]) -> None:
    """What one process does for all, while the others wait; where it fails it says why, and the others end
    with it."""
    state, error = processes(), None
    if state.is_main_process:
        try:
            action()
        except Exception as caught:
            error = caught
    if state.num_processes > 1:
        (failed,) = broadcast_object_list([error is not None])
        if failed and not state.is_main_process:
            sys.exit(2)
    if error:
        raise error


def find_device(name: str | None) -> torch.device:
    """`--device`, or where it was left out a GPU if there is one; of several processes each has a GPU of its
    own. Raises ValueError where there is no such device."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device {name}: torch finds no GPU; leave the flag out")
    try:
        return processes().device if name == "cuda" else torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"--device {name}: {str(error).splitlines()[0]}") from None
