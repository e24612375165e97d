"""Classifier-free guidance: how two predictions become one, and at which steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch


def check_guidance(
    scale: float, interval: Sequence[float], rescale: float, internal_scale: float, transformer: Any
) -> None:
    """Raises ValueError unless the scales are finite, 0 <= start <= stop <= 1 and 0 <= rescale <= 1, and
    where internal guidance is asked of a transformer without its head, or together with a step cache."""
    for name, value in (("guidance_scale", scale), ("internal_guidance_scale", internal_scale)):
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite, got {value}")
    if internal_scale != 1 and transformer.config.get("internal_layer") is None:
        raise ValueError(
            f"internal_guidance_scale {internal_scale} needs a transformer with a head for it: train one "
            "with train_dit.py --internal_guidance, or leave it at 1"
        )
    if internal_scale != 1 and transformer.is_cache_enabled:
        raise ValueError(
            f"internal_guidance_scale {internal_scale} needs the blocks that a step cache skips: call "
            "pipe.transformer.disable_cache(), or leave it at 1"
        )
    if len(interval) != 2 or not 0 <= interval[0] <= interval[1] <= 1:
        raise ValueError(
            "guidance_interval is (start, stop), fractions of the steps with 0 <= start <= stop <= 1, "
            f"got {tuple(interval)}"
        )
    if not 0 <= rescale <= 1:
        raise ValueError(f"guidance_rescale is a share from 0 to 1, got {rescale}")


def inside_interval(step: int, num_steps: int, interval: Sequence[float]) -> bool:
    """Whether step 0 ... num_steps - 1 is guided: int(start num_steps) <= step < int(stop num_steps), as in
    diffusers' guiders. To guide in the middle only is Kynkäänniemi et al.'s (arXiv 2404.07724)."""
    start, stop = (int(fraction * num_steps) for fraction in interval)
    return start <= step < stop


def guide(
    unconditional: torch.Tensor, conditional: torch.Tensor, scale: float, rescale: float = 0.0
) -> torch.Tensor:
    """unconditional + scale (conditional - unconditional), (B, L) (Ho and Salimans, arXiv 2207.12598).

    A share `rescale` of the result is brought back to the standard deviation of `conditional` (Lin et al.,
    arXiv 2305.08891, Equations 15 and 16).
    """
    guided = unconditional + scale * (conditional - unconditional)
    if rescale:
        factor = conditional.std(dim=1, keepdim=True) / guided.std(dim=1, keepdim=True)
        guided = rescale * guided * factor + (1 - rescale) * guided
    return guided
