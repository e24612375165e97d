"""Guidance: how several predictions become one, and at which steps."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from diffusers.guiders import BaseGuidance
from diffusers.models.attention_dispatch import _AttentionBackendRegistry

# the call's own guidance, in place of which a guider comes
SETTINGS_OF_GUIDANCE = ("guidance_scale", "guidance_interval", "guidance_rescale", "internal_guidance_scale")
UNFIT_GUIDERS = {  # found by trying all that diffusers 0.42 has
    "FrequencyDecoupledGuidance": "parts the frequencies of rows and columns, which a flat latent has not",
    "LTX2Guidance": "is made for the arguments of LTX-2's own transformer",
    "SmoothedEnergyGuidance": "blurs over one square of tokens, and in diffusers 0.42 over none",
}


def check_guidance(
    scale: float, interval: Sequence[float], rescale: float, internal_scale: float, transformer: Any
) -> None:
    """Raises ValueError unless the scales are finite, 0 <= start <= stop <= 1 and 0 <= rescale <= 1, and
    where internal guidance is asked of a transformer without its head, or together with a step cache."""
    for name, value in (("guidance_scale", scale), ("internal_guidance_scale", internal_scale)):
        if not isinstance(value, numbers.Real) or not math.isfinite(value):
            raise ValueError(f"{name} is a finite number, got {value!r}")
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
    bounds = tuple(interval) if isinstance(interval, Iterable) else ()
    are_two = len(bounds) == 2 and all(isinstance(bound, numbers.Real) for bound in bounds)
    if not are_two or not 0 <= bounds[0] <= bounds[1] <= 1:
        raise ValueError(
            "guidance_interval is (start, stop), fractions of the steps with 0 <= start <= stop <= 1, "
            f"got {interval!r}"
        )
    if not isinstance(rescale, numbers.Real) or not 0 <= rescale <= 1:
        raise ValueError(f"guidance_rescale is a share from 0 to 1, got {rescale!r}")


def check_guider(guider: Any, transformer: Any, others: Mapping[str, Any]) -> None:
    """Raises ValueError unless `guider` is one of `diffusers.guiders` that fits a flat latent and this
    transformer, and the only guidance: `others` are those of SETTINGS_OF_GUIDANCE that were asked for."""
    name = type(guider).__name__
    if not isinstance(guider, BaseGuidance):
        raise ValueError(
            "guider is an object of diffusers.guiders, such as ClassifierFreeGuidance(guidance_scale=4.0), "
            f"got {guider!r}"
        )
    if others:
        asked = ", ".join(f"{key}={value}" for key, value in others.items())
        raise ValueError(
            f"the guider {name} and {asked} are guidance twice: leave one of them out; a guider has "
            "guidance_scale, guidance_rescale, start and stop as its own arguments"
        )
    for key, value in guider.config.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{key} of the guider {name} must be finite, got {value}")
    if name in UNFIT_GUIDERS:
        raise ValueError(
            f"the guider {name} {UNFIT_GUIDERS[name]}: take another of diffusers.guiders, such as "
            "AdaptiveProjectedGuidance"
        )
    if transformer.is_cache_enabled:
        raise ValueError(
            f"the guider {name} does not go with a step cache: call pipe.transformer.disable_cache(), or "
            "leave the guider out"
        )
    if getattr(guider, "zero_init_steps", 0) > 0 and getattr(guider, "guidance_rescale", 0) > 0:
        raise ValueError(
            f"{name} with zero_init_steps={guider.zero_init_steps} and guidance_rescale="
            f"{guider.guidance_rescale} divides by the deviation of zeros: set one of them to 0"
        )
    configs = (
        getattr(guider, "skip_layer_config", None) or getattr(guider, "auto_guidance_config", None) or []
    )
    blocks = range(len(transformer.transformer_blocks))
    for config in configs:
        indices = config.indices
        if not isinstance(indices, list) or not indices or not set(indices) <= set(blocks):
            raise ValueError(
                f"{name} skips blocks of the transformer, from 0 to {blocks[-1]}, got indices={indices!r}: "
                "pass its configuration as diffusers.LayerSkipConfig(indices=[...])"
            )
    if any(config.skip_attention_scores for config in configs):
        chosen = transformer.transformer_blocks[0].attn.processor._attention_backend
        backend = chosen or _AttentionBackendRegistry.get_active_backend()[0]
        if "native" not in backend:
            raise ValueError(
                f"{name} reaches the attention of torch only, not the backend {str(backend.value)!r}: call "
                "pipe.transformer.set_attention_backend('native')"
            )


def rehearse(guider: BaseGuidance, transformer: Any, num_steps: int) -> None:
    """Takes a guider through all steps without a prediction. Raises ValueError where it would fail at one, or
    would skip blocks without doing so: diffusers 0.42 does that where classifier-free guidance is off."""
    name = type(guider).__name__
    for step in range(num_steps):
        guider.set_state(step, num_steps, None)
        batches = guider.prepare_inputs({"class_labels": (None, None)})
        found = [getattr(batch, guider._identifier_key) for batch in batches]
        if found == ["pred_cond", "pred_cond_skip"]:
            raise ValueError(
                f"{name} skips blocks only where it guides by the class, too, which it does not at step "
                f"{step} of {num_steps}: set its guidance_scale to another number than 1, and start and stop "
                "around those of the skipping"
            )
        for _ in batches:
            try:
                guider.prepare_models(transformer)
            except ValueError as error:
                raise ValueError(f"the guider {name} does not fit the transformer: {error}") from None
            finally:
                guider.cleanup_models(transformer)


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
        # a new transformer predicts 0 everywhere
        deviation = guided.std(dim=1, keepdim=True).clamp(min=torch.finfo(guided.dtype).tiny)
        factor = conditional.std(dim=1, keepdim=True) / deviation
        guided = rescale * guided * factor + (1 - rescale) * guided
    return guided
