"""Steps timed on a card, and what any step of a model needs around it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec

import torch
from torch import nn
from torch._dynamo.convert_frame import FRAME_COMPILE_COUNTER
from torch._dynamo.utils import counters
from torch.autograd.profiler_util import FunctionEventAvg

from benchmarks.gpu.sizes import Sizes
from eval.cost.timing import spread, square_product

Step = Callable[[], object]
P = ParamSpec("P")
MOST_KERNELS = 14  # that a row lists


def timed(step: Step, repeats: int, device: torch.device, warm_up: int = 3) -> list[float]:
    """Seconds of each of `repeats` calls. On a GPU between events, after `warm_up` calls that do not count,
    and queued one behind the other as a training loop queues them."""
    for _ in range(warm_up if device.type == "cuda" else 0):
        step()
    if device.type != "cuda":
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        return seconds
    events = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    torch.cuda.synchronize(device)
    events[0].record()
    for event in events[1:]:
        step()
        event.record()
    torch.cuda.synchronize(device)
    return [a.elapsed_time(b) / 1000 for a, b in zip(events, events[1:], strict=False)]


def measured(
    step: Step, repeats: int, device: torch.device, *, flops: int, ceiling: float, warm_up: int = 3
) -> dict[str, Any]:
    """Time, FLOPs of the model, their share of the matrix products' rate, and the most memory in use."""
    step()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = spread(timed(step, repeats, device, warm_up))
    row: dict[str, Any] = {"seconds": seconds.to_json(), "flops": flops}
    row["mfu"] = flops / seconds.median / ceiling
    if device.type == "cuda":
        row["peak_memory_bytes"] = torch.cuda.max_memory_allocated(device)
    return row


def matrix_product(sizes: Sizes, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """The rate of a large square product of random matrices: what "of the matmul rate" means here."""
    if device.type == "cuda":
        step, flops = square_product(device, dtype)
    else:
        a, b = (torch.randn(sizes.matrix, sizes.matrix, dtype=dtype) for _ in range(2))
        step, flops = (lambda: torch.mm(a, b)), 2 * sizes.matrix**3
    seconds = spread(timed(step, 4 * sizes.repeats, device, 10))
    return {"seconds": seconds.to_json(), "flops_per_second": flops / seconds.median}


def copy_rate(sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """Bytes read and written a second by a copy that no cache holds."""
    source = torch.randint(255, (sizes.copied_bytes,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = spread(timed(lambda: target.copy_(source), sizes.repeats, device))
    return {"seconds": seconds.to_json(), "bytes_per_second": 2 * sizes.copied_bytes / seconds.median}


def kernel_times(step: Step, device: torch.device) -> dict[str, Any]:
    """Milliseconds and calls of the kernels that take longest in a step, of the second one, and of all."""
    activity = torch.profiler.ProfilerActivity
    kinds = [activity.CPU] if device.type != "cuda" else [activity.CPU, activity.CUDA]
    for _ in range(3 if device.type == "cuda" else 0):
        step()
    with torch.profiler.profile(activities=kinds) as profile:
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return kernel_table(profile.key_averages())


def kernel_table(averages: Sequence[FunctionEventAvg]) -> dict[str, Any]:
    """Of a profile's events by name: the MOST_KERNELS kernels, and as many operations, that take longest on
    the device, and all its milliseconds. An annotation, such as that of an optimizer's step, spans kernels
    and is none."""
    events = [event for event in averages if event.self_device_time_total and not event.is_user_annotation]
    events.sort(key=lambda event: -event.self_device_time_total)
    kernels = [event for event in events if event.device_type.name == "CUDA"]
    operations = [event for event in events if event.device_type.name != "CUDA"]
    longest = {
        name: [
            {"name": str(event.key)[:90], "ms": event.self_device_time_total / 1000, "calls": event.count}
            for event in of_kind[:MOST_KERNELS]
        ]
        for name, of_kind in (("kernels", kernels), ("operations", operations))
    }
    return longest | {"all_ms": sum(event.self_device_time_total for event in kernels) / 1000}


def dtype_on(device: torch.device) -> torch.dtype:
    """bf16 on a GPU. A rehearsal is in float32: in bf16 an old CPU takes minutes for a step."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def autocast(device: torch.device, enabled: bool = True) -> torch.autocast:
    """To bf16 on a GPU; none in a rehearsal."""
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled and device.type == "cuda")


class Autocast(nn.Module):
    """A model called under autocast: its output is a float32 tensor."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.model, self.device = model, device

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        with autocast(self.device):
            return self.model(**inputs).float()


def onto(model: nn.Module, device: torch.device) -> Any:
    """As `model.to(device)`, which tensors of FakeTensorMode refuse."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(parameter.detach().to(device))
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.to(device)
    return model


def compile_blocks(model: Any) -> None:
    """Ours as `--compile` does it; diffusers' DiT names no repeated blocks, which are the same list."""
    if getattr(model, "_repeated_blocks", None):
        model.compile_repeated_blocks()
    else:
        for block in model.transformer_blocks:
            block.compile()


def counting_what_is_compiled(measure: Callable[P, dict[str, Any]]) -> Callable[P, dict[str, Any]]:
    """`measure` with nothing compiled before. A row that was to be compiled says what came of it: how many
    frames were compiled, of how many, how often their graphs broke, and how often one was compiled again."""

    @wraps(measure)
    def counted(*args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
        torch._dynamo.reset()
        counters.clear()
        row = measure(*args, **kwargs)
        return row | {"compiled": compilations()} if kwargs.get("compiled") else row

    return counted


def compilations() -> dict[str, int]:
    return {
        "frames_ok": counters["frames"]["ok"],
        "frames": counters["frames"]["total"],
        "graph_breaks": counters["graph_break"].total(),
        "recompiles": FRAME_COMPILE_COUNTER.total() - len(FRAME_COMPILE_COUNTER),
    }
