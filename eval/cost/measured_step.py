"""A training step as it really is: peak memory and seconds, measured in a process of its own."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

from eval.cost.memory import attention_kernel
from eval.cost.timing import interleaved, spread

PRELOAD = [
    "vidtwin_gen.program.dies_of_interrupt",
    __name__,
    "autoencoder.model.vidtwin",
    "vidtwin_gen.models.transformer",
]
STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")

Make = Callable[[], tuple[nn.Module, Mapping[str, torch.Tensor]]]
# yields passes by name; what one pass holds may be freed when the next is asked for
Passes = Callable[[], Iterator[tuple[str, Callable[[], object]]]]


def measure_step(
    make: Make, make_small: Make, *, attention: str = "fused", device: str = "cpu", repeats: int = 3
) -> dict[str, Any]:
    """Of a float32 training step with fused Adam and of a forward pass, after two steps that do not count.

    The step is that of `predict_training_memory`, its memory that of `measure_peaks`. Both passes are timed
    in a second process, whose allocator is as it always is.

    Args:
        make: builds the model and its inputs by keyword, on the CPU; a function that can be pickled.
        make_small: the same kind of model, as small as may be.
        repeats: how often each is timed, in turns.

    Raises:
        ValueError: the memory did not suffice, or this system does not tell a process's peak.
    """
    peaks = measure_peaks(
        partial(_training_pass, make, device),
        partial(_training_pass, make_small, device),
        attention=attention,
        device=device,
    )
    seconds = _in_fresh_process(device, _measure_seconds, make, attention, device, repeats)
    return {
        "device": device,
        "peak_bytes": peaks["training_step"],
        "peak_is": "allocated" if _on_gpu(device) else "resident",
        "seconds": {name: spread(values).to_json() for name, values in seconds.items()},
        "num_threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def measure_peaks(
    passes: Passes, small_passes: Passes, *, attention: str = "fused", device: str = "cpu"
) -> dict[str, int]:
    """Bytes that each pass takes at most, its model included: on a GPU what the allocator gave out, on a CPU
    what a fresh process had resident, less what it had before there was a model.

    A small model's passes run first, so that what torch loads lazily is not counted.

    Args:
        passes, small_passes: functions that can be pickled.

    Raises:
        ValueError: the memory did not suffice, or this system does not tell a process's peak.
    """
    return _in_fresh_process(device, _measure_peaks, passes, small_passes, attention, device)


def free_memory(device: str | torch.device) -> int:
    """Bytes that a new process could have."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def can_measure_memory(device: str) -> bool:
    """Whether this system tells the peak of a process."""
    return _on_gpu(device) or STATUS.is_file()


def _in_fresh_process(device: str, function: Callable[..., Any], *arguments: Any) -> Any:
    if not can_measure_memory(device):
        raise ValueError(f"the peak of a process is read from {STATUS}, which only Linux has; measure there")
    # a CPU's processes are forked from one that has imported what they need and done nothing with it; CUDA
    # does not outlive a fork
    context = multiprocessing.get_context("spawn" if _on_gpu(device) else "forkserver")
    context.set_forkserver_preload(PRELOAD)
    try:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            check_started(pool)
            return pool.submit(function, *arguments).result()
    except RuntimeError as error:
        # a CPU's allocator has no class of its own for it
        out_of_memory = isinstance(error, BrokenProcessPool | torch.OutOfMemoryError)
        if not out_of_memory and "can't allocate memory" not in str(error):
            raise
        raise ValueError(
            f"{device} ran out of memory while measuring ({type(error).__name__}): take a smaller size, "
            "batch or tokenizer, or gradient checkpointing"
        ) from None


def check_started(pool: ProcessPoolExecutor) -> None:
    """Raises ValueError where its process has not started, which is no want of memory."""
    try:
        pool.submit(os.getpid).result()
    except BrokenProcessPool:
        raise ValueError(
            "no process can be started from here, see above: run `python -m eval cost`, or put what a script "
            'does under `if __name__ == "__main__":`'
        ) from None


def _measure_peaks(passes: Passes, small_passes: Passes, attention: str, device: str) -> dict[str, int]:
    _return_what_is_freed()
    peaks = {}
    with attention_kernel(attention):
        for _, function in small_passes():
            for _ in range(2):
                function()
        del function
        gc.collect()
        before = _memory(device)
        for name, function in passes():
            for _ in range(2):
                function()
            _reset_peak(device)
            function()
            peaks[name] = _peak(device) - before
    return peaks


def _training_pass(make: Make, device: str) -> Iterator[tuple[str, Callable[[], object]]]:
    yield "training_step", _passes(*make(), device)[0]


def _measure_seconds(make: Make, attention: str, device: str, repeats: int) -> dict[str, list[float]]:
    with attention_kernel(attention):
        train, forward = _passes(*make(), device)
        train()  # the first of two that do not count; `interleaved` makes the second
        return interleaved({"forward": forward, "training_step": train}, repeats, torch.device(device))


def _passes(
    model: nn.Module, inputs: Mapping[str, torch.Tensor], device: str
) -> tuple[Callable[[], object], Callable[[], object]]:
    """A training step and a forward pass."""
    model.to(device)
    fill_zeros(model)
    inputs = {name: value.to(device) for name, value in inputs.items()}
    forward = partial(model, **inputs)
    return training_step(model, lambda: forward().square().mean()), torch.no_grad()(forward)


def training_step(model: nn.Module, loss: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    """Forward, backward, optimizer; it returns the loss."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        return value.detach()

    return step


@torch.no_grad()
def fill_zeros(model: nn.Module) -> None:
    """A branch that is zero at initialisation would hide from a comparison of outputs, and has nothing but
    zeros to train."""
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)


def _return_what_is_freed() -> None:
    """glibc keeps freed blocks below a size that grows with the blocks it sees; then what is resident is not
    what is needed. Fixed thresholds (mallopt's -1 and -3) return every tensor of 64 KiB and more."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for option in (-1, -3):
            libc.mallopt(option, 2**16)


def _memory(device: str) -> int:
    return torch.cuda.memory_allocated(device) if _on_gpu(device) else _status("VmRSS")


def _reset_peak(device: str) -> None:
    if _on_gpu(device):
        torch.cuda.reset_peak_memory_stats(device)
    else:
        CLEAR_REFS.write_text("5")  # of proc(5): resets the high-water mark


def _peak(device: str) -> int:
    return torch.cuda.max_memory_allocated(device) if _on_gpu(device) else _status("VmHWM")


def _on_gpu(device: str) -> bool:
    return torch.device(device).type == "cuda"


def _status(name: str) -> int:
    """Bytes. VmHWM and not getrusage's maximum, which a process inherits from the one that started it."""
    found = re.search(rf"^{name}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    assert found, name
    return int(found[1]) * 1024
