"""Steps of the DiT, alone and beside diffusers' DiT."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.gpu.sizes import Sizes
from benchmarks.gpu.timing import (
    Autocast,
    Step,
    compile_blocks,
    counting_what_is_compiled,
    dtype_on,
    measured,
    onto,
    timed,
)
from benchmarks.transformer_speed import conditions, reference_dit, sampling_step, training_step
from eval.cost.dit import Prediction, count_step
from eval.cost.measured_step import fill_zeros
from eval.cost.memory import predict_training_memory
from eval.cost.timing import spread
from vidtwin_gen.latents import LatentLayout
from vidtwin_gen.models.transformer import LatentTransformer


def make_dit(layout: LatentLayout, size: dict[str, Any]) -> LatentTransformer:
    return LatentTransformer(layout.to_config(), num_classes=1000, **size)


def flops_of_batch(make: Callable[[], nn.Module], latents: tuple[int, ...], batch: int) -> tuple[int, int]:
    """Of a forward pass and of a training step on a batch: counted for one clip, times the clips."""
    with FakeTensorMode():
        model = make()
        inputs = torch.zeros(1, *latents)
        step = count_step(lambda: model(inputs, *conditions(1, inputs.device), return_dict=False)[0])
    return batch * step[0], batch * step[1]


def predicted_peak(make: Callable[[], Any], batch: int, device: torch.device, checkpoint: bool) -> int:
    """Bytes of a training step in bf16, by the predictor of `eval cost`, on tensors that are not there."""
    with FakeTensorMode():
        model = onto(make(), device)
        if checkpoint:
            model.enable_gradient_checkpointing()
        inputs = {
            "hidden_states": torch.zeros(batch, model.layout.num_elements, device=device),
            "timestep": torch.zeros(batch, device=device),
            "class_labels": torch.zeros(batch, dtype=torch.long, device=device),
        }
        wrapped = Autocast(Prediction(model), device)
        return predict_training_memory(wrapped, inputs)["peak"]


def training(model: nn.Module, latents: torch.Tensor) -> Step:
    fill_zeros(model)
    return training_step(model, latents, dtype_on(latents.device))


def sampling(model: nn.Module, latents: torch.Tensor) -> Step:
    """With its weights in bf16 on a GPU."""
    fill_zeros(model)
    dtype = dtype_on(latents.device)
    return sampling_step(model.eval().requires_grad_(False).to(dtype), latents, dtype)


@counting_what_is_compiled
def dit_training(
    make: Callable[[], LatentTransformer],
    batch: int,
    device: torch.device,
    ceiling: float,
    repeats: int,
    *,
    checkpointing: bool = False,
    compiled: bool = False,
) -> dict[str, Any]:
    """A training step; its FLOPs are the model's, without what checkpointing computes again."""
    model = make().to(device)
    elements = model.layout.num_elements
    if checkpointing:
        model.enable_gradient_checkpointing()
    if compiled:
        compile_blocks(model)
    row: dict[str, Any] = {"batch_size": batch, "num_tokens": model.layout.num_tokens()}
    _, flops = flops_of_batch(make, (elements,), batch)
    step = training(model, torch.randn(batch, elements, device=device))
    row |= measured(step, repeats, device, flops=flops, ceiling=ceiling)
    if not compiled:
        row["predicted_peak_bytes"] = predicted_peak(make, batch, device, checkpointing)
        if device.type == "cuda":
            row["predicted_over_measured"] = row["predicted_peak_bytes"] / row["peak_memory_bytes"]
    return row


def _two(
    sizes: Sizes, name: str, batch: int, device: torch.device
) -> tuple[dict[str, tuple[nn.Module, torch.Tensor]], Callable[[], LatentTransformer]]:
    """Ours and diffusers' DiT of this size on 1,024 tokens, each with latents."""
    make = partial(make_dit, sizes.square, sizes.dits[name])
    tokens = sizes.square.num_tokens()
    side = math.isqrt(tokens)
    plain = {key: sizes.dits[name][key] for key in ("hidden_size", "num_layers", "num_heads")}
    return {
        "ours": (make().to(device), torch.randn(batch, sizes.square.num_elements, device=device)),
        "reference": (
            reference_dit(tokens, **plain).to(device),
            torch.randn(batch, 4, side, side, device=device),
        ),
    }, make


def _beside(
    models: dict[str, tuple[nn.Module, torch.Tensor]],
    as_step: Callable[[nn.Module, torch.Tensor], Step],
    repeats: int,
    device: torch.device,
    flops: int,
    ceiling: float,
    compiled: bool,
) -> dict[str, Any]:
    """Both in turns of `repeats` steps, three turns each."""
    steps = {}
    for key, (model, latents) in models.items():
        if compiled:
            compile_blocks(model)
        steps[key] = as_step(model, latents)
    seconds: dict[str, list[float]] = {key: [] for key in steps}
    for turn in range(3):
        for key, step in steps.items():
            seconds[key] += timed(step, repeats, device, 1 if turn else 3)
    ours, reference = spread(seconds["ours"]), spread(seconds["reference"])
    return {
        "batch_size": len(models["ours"][1]),
        "flops": flops,
        "seconds": ours.to_json(),
        "mfu": flops / ours.median / ceiling,
        "reference_seconds": reference.to_json(),
        "reference_ratio": ours.median / reference.median,
    }


@counting_what_is_compiled
def beside_training(
    sizes: Sizes, name: str, batch: int, device: torch.device, ceiling: float, *, compiled: bool
) -> dict[str, Any]:
    models, make = _two(sizes, name, batch, device)
    _, flops = flops_of_batch(make, (sizes.square.num_elements,), batch)
    return _beside(models, training, sizes.repeats // 2 + 1, device, flops, ceiling, compiled)


@counting_what_is_compiled
def beside_sampling(
    sizes: Sizes, name: str, batch: int, device: torch.device, ceiling: float, *, compiled: bool
) -> dict[str, Any]:
    models, make = _two(sizes, name, batch, device)
    flops, _ = flops_of_batch(make, (sizes.square.num_elements,), 2 * batch)
    return _beside(models, sampling, sizes.repeats, device, flops, ceiling, compiled)
