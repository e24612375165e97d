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
    autocast,
    compile_blocks,
    counting_what_is_compiled,
    measured,
    onto,
    timed,
)
from benchmarks.transformer_speed import reference_dit
from eval.cost.dit import Prediction, count_step
from eval.cost.measured_step import fill_zeros
from eval.cost.memory import predict_training_memory
from eval.cost.timing import spread
from vidtwin_gen.latents import LatentLayout
from vidtwin_gen.models.transformer import LatentTransformer

GUIDANCE = 4.0


def make_dit(layout: LatentLayout, size: dict[str, Any]) -> LatentTransformer:
    return LatentTransformer(layout.to_config(), num_classes=1000, **size)


def conditions(batch: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    timestep = torch.linspace(0, 999, batch, device=device)
    return timestep, torch.zeros(batch, dtype=torch.long, device=device)


def dit_flops(make: Callable[[], nn.Module], latents: tuple[int, ...], batch: int) -> tuple[int, int]:
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
        timestep, labels = conditions(batch, device)
        latents = torch.zeros(batch, model.layout.num_elements, device=device)
        inputs = {"hidden_states": latents, "timestep": timestep, "class_labels": labels}
        wrapped = Autocast(Prediction(model), device)
        return predict_training_memory(wrapped, inputs)["peak"]


def training_step(model: nn.Module, latents: torch.Tensor) -> Step:
    """Forward under autocast, backward from the mean square, fused AdamW."""
    fill_zeros(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    given = conditions(len(latents), latents.device)
    if not isinstance(model, LatentTransformer):
        given = (given[0].long(), given[1])

    def step() -> None:
        optimizer.zero_grad()
        with autocast(latents.device):
            prediction = model(latents, *given, return_dict=False)[0]
        prediction.float().square().mean().backward()
        optimizer.step()

    return step


def sampling_step(model: nn.Module, latents: torch.Tensor) -> Step:
    """Both halves of guidance as one batch, weights in bf16, and an Euler step."""
    fill_zeros(model)
    dtype = torch.bfloat16 if latents.is_cuda else torch.float32
    model.eval().requires_grad_(False).to(dtype)
    given = conditions(2 * len(latents), latents.device)
    if not isinstance(model, LatentTransformer):
        given = (given[0].long(), given[1])

    @torch.no_grad()
    def step() -> None:
        doubled = torch.cat([latents] * 2).to(dtype)
        unconditional, conditional = model(doubled, *given, return_dict=False)[0].float().chunk(2)
        if conditional.shape != latents.shape:  # diffusers' DiT also predicts a variance
            unconditional, conditional = (
                half[:, : latents.shape[1]] for half in (unconditional, conditional)
            )
        torch.add(latents, unconditional + GUIDANCE * (conditional - unconditional), alpha=-0.02)

    return step


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
    _, flops = dit_flops(make, (elements,), batch)
    step = training_step(model, torch.randn(batch, elements, device=device))
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
    _, flops = dit_flops(make, (sizes.square.num_elements,), batch)
    return _beside(models, training_step, sizes.repeats // 2 + 1, device, flops, ceiling, compiled)


@counting_what_is_compiled
def beside_sampling(
    sizes: Sizes, name: str, batch: int, device: torch.device, ceiling: float, *, compiled: bool
) -> dict[str, Any]:
    models, make = _two(sizes, name, batch, device)
    flops, _ = dit_flops(make, (sizes.square.num_elements,), 2 * batch)
    return _beside(models, sampling_step, sizes.repeats, device, flops, ceiling, compiled)
