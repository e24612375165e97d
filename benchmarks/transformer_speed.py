"""How fast a DiT trains and samples, beside diffusers' own DiT of the same width, depth and token count."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers import DiTTransformer2DModel
from torch import nn

from eval.cost.dit import count_flops, count_step
from eval.cost.measured_step import fill_zeros
from eval.cost.timing import Spread, interleaved, ratios, spread, square_product

GUIDANCE, INTERNAL_GUIDANCE = 4.0, 1.5


def reference_dit(num_tokens: int, hidden_size: int, num_layers: int, num_heads: int) -> nn.Module:
    """diffusers' `DiTTransformer2DModel` (arXiv 2212.09748) with patch 1 on a square of `num_tokens` latents
    of 4 channels.

    Raises:
        ValueError: `num_tokens` is no square, which is all that this model takes.
    """
    side = math.isqrt(num_tokens)
    if side**2 != num_tokens:
        raise ValueError(f"diffusers' DiT takes squares of tokens, {num_tokens} is none")
    return DiTTransformer2DModel(
        num_attention_heads=num_heads,
        attention_head_dim=hidden_size // num_heads,
        in_channels=4,
        num_layers=num_layers,
        sample_size=side,
        patch_size=1,
    )


def transformer_speed(
    ours: nn.Module,
    reference: nn.Module,
    latents: torch.Tensor,
    reference_latents: torch.Tensor,
    *,
    dtype: torch.dtype = torch.float32,
    repeats: int = 5,
) -> dict[str, Any]:
    """Times of a training step and of a sampling step of both models, interleaved, and their ratios.

    Both are called as `model(latents, timestep (B,), class_labels (B,), return_dict=False)`, on the device
    where the latents are. A training step is forward, backward from the mean square of the output, and fused
    AdamW, in bfloat16 under autocast; a sampling step is a forward pass of the conditional and the
    unconditional half as one batch, guidance, and an Euler step, in bfloat16 with weights of that type.
    `reference_ratio` is our time over the reference's in the same round; `of_matmul_rate` is the rate at
    which we work off our FLOPs over that of a large matrix product, on a GPU the model FLOPs utilisation as
    far as that product reaches the peak.
    """
    device = latents.device
    for model in (ours, reference):
        fill_zeros(model)
    record: dict[str, Any] = {"batch_size": len(latents), "dtype": str(dtype).removeprefix("torch.")}
    steps = {
        "training_step": {
            "ours": training_step(ours, latents, dtype),
            "reference": training_step(reference, reference_latents, dtype),
        },
        "sampling_step": {
            "ours": sampling_step(ours, latents, dtype),
            "reference": sampling_step(reference, reference_latents, dtype),
        },
    }
    square, square_flops = square_product(device, dtype)
    for name, functions in steps.items():
        if name == "sampling_step":
            for model in (ours, reference):
                model.eval().requires_grad_(False).to(dtype)
                model.zero_grad()
        flops = _flops(ours, latents, backward=name == "training_step")
        seconds = interleaved({**functions, "square": square}, repeats, device)
        rate = ratios(seconds["square"], seconds["ours"]).scaled(flops / square_flops)
        record[name] = {
            "flops": flops,
            "seconds": spread(seconds["ours"]).to_json(),
            "reference_seconds": spread(seconds["reference"]).to_json(),
            "reference_ratio": ratios(seconds["ours"], seconds["reference"]).to_json(),
            "of_matmul_rate": rate.to_json(),
        }
    return record


def guidance_speed(
    model: nn.Module, latents: torch.Tensor, *, dtype: torch.dtype = torch.float32, repeats: int = 5
) -> dict[str, Any]:
    """Times of a sampling step without guidance, with internal guidance, and with classifier-free guidance,
    interleaved; of the guided ones the ratio to the unguided step of the same round, and that of FLOPs.

    The model is called as in `transformer_speed`, and has a head for internal guidance.
    """
    fill_zeros(model)
    model.eval().requires_grad_(False).to(dtype)
    steps = {
        "unguided": sampling_step(model, latents, dtype, halves=1),
        "internal": sampling_step(model, latents, dtype, halves=1, internal_guidance_scale=INTERNAL_GUIDANCE),
        "classifier_free": sampling_step(model, latents, dtype),
    }
    flops = {name: count_flops(step) for name, step in steps.items()}
    seconds = interleaved(steps, repeats, latents.device)
    record: dict[str, Any] = {"unguided_seconds": spread(seconds["unguided"]).to_json()}
    for name in ("internal", "classifier_free"):
        record[name] = {
            "ratio": ratios(seconds[name], seconds["unguided"]).to_json(),
            "flops_ratio": flops[name] / flops["unguided"],
        }
    return record


def describe(record: Mapping[str, Any]) -> str:
    """What the command prints, a line per kind of step, and one of guidance where it was timed."""
    lines = []
    for name in ("training_step", "sampling_step"):
        row = record[name]
        lines.append(
            f"{name.replace('_', ' ')}, batch {record['batch_size']}, {record['dtype']}: "
            f"{Spread(**row['reference_ratio'])} of the time of diffusers' DiTTransformer2DModel; "
            f"{Spread(**row['seconds'])} s, of a large matrix product's rate "
            f"{Spread(**row['of_matmul_rate'])}"
        )
    if guidance := record.get("guidance"):
        internal, free = (Spread(**guidance[name]["ratio"]) for name in ("internal", "classifier_free"))
        lines.append(
            f"guidance, batch {record['batch_size']}, {record['dtype']}: over an unguided step, internal "
            f"{internal}, classifier-free {free}"
        )
    return "\n".join(lines)


def training_step(model: nn.Module, latents: torch.Tensor, dtype: torch.dtype) -> Callable[[], None]:
    """Forward under autocast to `dtype`, backward from the mean square, fused AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    given = conditions(len(latents), latents.device)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(latents.device.type, dtype, enabled=dtype != torch.float32):
            loss = model(latents, *given, return_dict=False)[0].square().mean()
        loss.backward()
        optimizer.step()

    return step


def sampling_step(
    model: nn.Module, latents: torch.Tensor, dtype: torch.dtype, halves: int = 2, **options: Any
) -> Callable[[], None]:
    """A call of the model, whose weights have this dtype, and an Euler step; with both halves of guidance as
    one batch, unless `halves` is 1."""
    given = conditions(halves * len(latents), latents.device)

    @torch.no_grad()
    def step() -> None:
        batch = torch.cat([latents] * halves).to(dtype)
        prediction = model(batch, *given, return_dict=False, **options)[0].float()
        if halves == 2:
            unconditional, conditional = prediction.chunk(2)
            prediction = unconditional + GUIDANCE * (conditional - unconditional)
        torch.add(latents, prediction, alpha=-0.02)

    return step


def _flops(model: nn.Module, latents: torch.Tensor, *, backward: bool) -> int:
    """Of a training step, or of the forward pass of both halves of a guided batch."""
    if backward:
        given = conditions(len(latents), latents.device)
        return count_step(lambda: model(latents, *given, return_dict=False)[0])[1]
    given = conditions(2 * len(latents), latents.device)
    weight = next(model.parameters())
    with torch.no_grad():
        doubled = torch.cat([latents] * 2).to(weight.dtype)
        return count_flops(lambda: model(doubled, *given, return_dict=False)[0])


def conditions(batch_size: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Timesteps and class labels."""
    timestep = torch.linspace(0, 999, batch_size, device=device).long()
    return timestep, torch.zeros_like(timestep)
