"""The peak memory of a training step, predicted without allocating a byte."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.distributed._tools.mem_tracker import MemTracker
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.weak import WeakIdKeyDictionary

from eval.cost.flags import ATTENTION


def attention_kernel(attention: str) -> AbstractContextManager[Any]:
    """Inside: "fused", torch's own choice, which keeps no scores; or "math", products and a softmax apart."""
    if attention not in ATTENTION:
        raise ValueError(f"attention is one of {', '.join(ATTENTION)}, got {attention!r}")
    return sdpa_kernel(SDPBackend.MATH) if attention == "math" else nullcontext()


class _Unlisted(WeakIdKeyDictionary):
    """Hides the modules from MemTracker, which looks through all of them after each operation: minutes for 28
    layers, and only the peak of the whole is asked for."""

    def values(self) -> Iterator[Any]:  # type: ignore[override]
        return iter(())


def predict_training_memory(model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """Bytes at the peak of one float32 training step with Adam, by what they hold, and their sum as `peak`.

    To be called under `FakeTensorMode`: nothing is allocated or computed. The model returns a prediction;
    the loss is its mean square. Adam's two moments exist from the start and gradients do not, as from
    the second step of a training on; Adam is fused and needs nothing for itself. The peak falls where
    activations and gradients together are largest. What an allocator or a device adds is not in it.
    """
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    tracker = MemTracker()
    tracker.memory_tracking = _Unlisted()
    tracker.track_external(model, optimizer, *inputs.values())
    with tracker:
        model(**inputs).square().mean().backward()
        optimizer.step()
    (by_kind,) = tracker.get_tracker_snapshot("peak").values()
    amounts = {str(kind).rsplit(".", 1)[-1]: amount for kind, amount in by_kind.items()}
    return {
        "parameters": amounts["PARAM"] + amounts["BUFFER"],
        "gradients": amounts["GRAD"],
        "optimizer": amounts["OPT"],
        "activations": amounts["ACT"] + amounts["TEMP"],
        "inputs": amounts["OTH"],
        "peak": amounts["Total"],
    }
