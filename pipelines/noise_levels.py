"""What a pipeline asks of its scheduler: its noise levels, and latents as noisy as it has them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.ltx.pipeline_ltx import retrieve_timesteps

from pipelines.schedulers import check_flow_sigmas, flow_match_euler, is_flow_matching, known_settings
from vidtwin_gen.models.parametrization import NUM_TRAIN_TIMESTEPS, interpolate, timestep_of, x0_from_velocity


def set_timesteps(
    scheduler: Any,
    num_inference_steps: int,
    device: torch.device,
    timesteps: Sequence[float] | None = None,
    sigmas: Sequence[float] | None = None,
    *,
    shift: float | None = None,
) -> tuple[torch.Tensor, int]:
    """Prepares a scheduler for one run from its first step. `shift` as for `check_scheduler`.

    Returns:
        Its timesteps, one per call of the model, and the number of steps, which those of a second-order
        scheduler exceed.

    Raises:
        ValueError: both schedules, one that this scheduler does not take, or values out of order or range; or
            a scheduler whose noise levels are not those of a flow, all in [0, 1] and the last one 0.
    """
    has_flow_sigmas = bool(known_settings(scheduler).get("use_flow_sigmas"))
    if has_flow_sigmas and timesteps is not None:  # some fail, some take their own all the same
        raise ValueError(
            f"{type(scheduler).__name__} takes no timesteps for a flow, got {timesteps}: leave them "
            f"out, or assign a scheduler that does: pipe.scheduler = {flow_match_euler(scheduler, shift)}"
        )
    schedules = [("timesteps", timesteps, float(NUM_TRAIN_TIMESTEPS))]
    schedules += [("sigmas", sigmas, 1.0 if is_flow_matching(scheduler) else math.inf)]
    for name, values, top in schedules:
        if values is not None and not _fall(values, top):
            raise ValueError(f"{name} must fall, from at most {top:g} and not below 0, got {values!r}")
    levels = None if sigmas is None else np.asarray(sigmas, dtype=np.float64)  # multistep solvers scale them
    retrieve_timesteps(scheduler, num_inference_steps, device, timesteps, levels)
    if is_flow_matching(scheduler):
        check_flow_sigmas(scheduler, shift)
    if has_flow_sigmas and levels is not None and not levels.astype(np.float32).all():  # they divide by it
        raise ValueError(
            f"{type(scheduler).__name__} ends at 0 by itself: leave the 0 out of sigmas, got {sigmas!r}"
        )
    if hasattr(scheduler, "set_begin_index"):  # or a step looks its index up, and rounded times repeat
        scheduler.set_begin_index(0)
    return scheduler.timesteps, -(-len(scheduler.timesteps) // scheduler.order)


def _fall(values: Any, top: float) -> bool:
    """Whether these are numbers in a row, each below the one before, from at most `top` and not below 0."""
    try:
        levels = np.asarray(values)
    except (TypeError, ValueError, RuntimeError):  # numpy makes no array of rows of different lengths
        return False
    if levels.ndim != 1 or levels.size == 0 or levels.dtype.kind not in "iuf":
        return False
    return bool((levels[:-1] > levels[1:]).all() and levels[-1] >= 0 and levels[0] <= top)


def model_timestep(scheduler: Any, index: int, device: torch.device) -> torch.Tensor:
    """() float32 in [0, 1000] on a device, the time of the model's call `index`.

    From sigma for flow matching, since multistep schedulers round their timesteps to whole numbers.
    """
    if is_flow_matching(scheduler):
        return timestep_of(_sigma(scheduler, index, device).float())
    return scheduler.timesteps[index].to(device).float()


def noise_level(scheduler: Any, index: int) -> float | None:
    """The scheduler's own sigma at the model's call `index`, where it has one."""
    return float(scheduler.sigmas[index]) if hasattr(scheduler, "sigmas") else None


def _sigma(scheduler: Any, index: int, device: torch.device) -> torch.Tensor:
    """() the scheduler's own, on a device: multistep schedulers keep theirs on the host, and a number that is
    filled in needs no copy."""
    sigma = scheduler.sigmas[index]
    if sigma.device == device:
        return sigma
    return torch.full((), sigma.item(), dtype=sigma.dtype, device=device)


def add_noise(scheduler: Any, x0: torch.Tensor, noise: torch.Tensor, index: int) -> torch.Tensor:
    """(B, L) x0 as noisy as latents are when the model is called for time number `index`; as many as there
    are calls, and it is x0 itself."""
    if index == len(scheduler.timesteps):
        return x0
    if is_flow_matching(scheduler):
        return interpolate(x0, noise, _sigma(scheduler, index, x0.device).expand(len(x0)))
    return scheduler.add_noise(x0, noise, scheduler.timesteps[index].expand(len(x0)))


def predicted_x0(scheduler: Any, latents: torch.Tensor, prediction: torch.Tensor, index: int) -> torch.Tensor:
    """(B, L) x0 from latents at the model's call `index` and from what it predicted there."""
    if is_flow_matching(scheduler):
        sigma = _sigma(scheduler, index, latents.device)
        return x0_from_velocity(latents, prediction, sigma.expand(len(latents)))
    return prediction


def forget_last_sample(scheduler: Any) -> None:
    """To be called where latents were changed between two steps: UniPC's corrector would start again from
    where the last step began, and undo the change."""
    if hasattr(scheduler, "last_sample"):
        scheduler.last_sample = None
