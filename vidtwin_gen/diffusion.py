"""The training objectives as pure functions: `flow`, rectified flow, and `paper`, VidTwin's.

Latents are flat, (B, L), and whitened. Every draw is passed in, or comes from the generator that is. What
`flow` mixes and the network predicts stands in `models/parametrization.py`.

`flow`: sigma (B,) is the share of noise, 0 the data and 1 the noise; the loss is that of the velocity,
whether the network predicts it or x_0. The convention is that of Stable Diffusion 3 (Esser et al., arXiv
2403.03206) and of diffusers' `FlowMatchEulerDiscreteScheduler`, which therefore samples what is trained here.

`paper`: DDPM with 1000 steps (Ho et al., arXiv 2006.11239); alpha_bar (B,) is the share of the variance that
is the data's; the network predicts x_0 (arXiv 2412.17726, section 3.5). The paper does not tell its betas:
here they are DDPM's linear ones, and `DDIMScheduler` samples what is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import get_args

import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.training_utils import compute_density_for_timestep_sampling

from vidtwin_gen.latents import LatentLayout
from vidtwin_gen.models.objectives import LossWeighting, Objective
from vidtwin_gen.models.parametrization import NUM_TRAIN_TIMESTEPS, PREDICTION_TYPES, column


def make_scheduler(objective: Objective, shift: float = 1.0) -> SchedulerMixin:
    """The scheduler that samples what the objective trains: FlowMatchEuler, or DDIM for `paper`.

    `shift` is that of `flow`'s noise levels. DDIM starts at the last step of the training ("trailing"; Lin et
    al., arXiv 2305.08891), clips nothing, as whitened latents have no bounds, and ends at x_0 where its
    number of steps divides 1000.
    """
    if objective == "flow":
        return FlowMatchEulerDiscreteScheduler(num_train_timesteps=NUM_TRAIN_TIMESTEPS, shift=shift)
    return DDIMScheduler(
        num_train_timesteps=NUM_TRAIN_TIMESTEPS,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        clip_sample=False,
        prediction_type=PREDICTION_TYPES["paper"],
        timestep_spacing="trailing",
    )


def sample_sigmas(
    batch_size: int,
    generator: torch.Generator,
    *,
    logit_mean: float = 0.0,
    logit_std: float = 1.0,
    shift: float = 1.0,
) -> torch.Tensor:
    """(batch_size,) noise levels, logit-normal (Esser et al., Equation 19), on the generator's device.

    `shift` > 1 moves them towards the noise; give the sampling scheduler the same value.
    """
    sigma = compute_density_for_timestep_sampling(
        "logit_normal",
        batch_size,
        logit_mean=logit_mean,
        logit_std=logit_std,
        device=generator.device,
        generator=generator,
    )
    return shift_sigma(sigma, shift)


def shift_sigma(sigma: torch.Tensor, shift: float) -> torch.Tensor:
    """shift sigma / (1 + (shift - 1) sigma) (Esser et al., Equation 23)."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def sample_timesteps(batch_size: int, generator: torch.Generator) -> torch.Tensor:
    """(batch_size,) steps of DDPM, uniform in 0 to 999 (Ho et al., Algorithm 1)."""
    return torch.randint(NUM_TRAIN_TIMESTEPS, (batch_size,), generator=generator, device=generator.device)


@cache
def alphas_bar(device: torch.device) -> torch.Tensor:
    """(1000,) the alpha_bar of every step of DDPM."""
    return make_scheduler("paper").alphas_cumprod.to(device)


def diffuse(x0: torch.Tensor, noise: torch.Tensor, alpha_bar: torch.Tensor) -> torch.Tensor:
    """x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) noise, (B, L) (Ho et al., Equation 4)."""
    alpha_bar = column(alpha_bar, x0)
    return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise


def grid_losses(
    prediction: torch.Tensor, target: torch.Tensor, layout: LatentLayout
) -> dict[str, torch.Tensor]:
    """Mean squared error of each grid, name: scalar, of (B, L) prediction and target, in float32."""
    error = layout.split((prediction.float() - target.float()).square())
    return {name: part.mean() for name, part in error.items()}


def total_loss(
    losses: Mapping[str, torch.Tensor], layout: LatentLayout, weighting: LossWeighting = "element"
) -> torch.Tensor:
    """Scalar, the weighted mean of the grids' losses.

    `"element"`: every latent number counts the same, which is the plain mean squared error. `"grid"`: every
    grid counts the same, however large.
    """
    if weighting not in get_args(LossWeighting):
        raise ValueError(f"weighting is one of {get_args(LossWeighting)}, got {weighting!r}")
    weights = {grid.name: grid.num_elements if weighting == "element" else 1 for grid in layout.grids}
    total = torch.stack([weights[name] * losses[name] for name in layout.names]).sum()
    return total / sum(weights.values())


def contrastive_loss(
    prediction: torch.Tensor,
    target: torch.Tensor,
    labels: torch.Tensor,
    null_class: int,
    layout: LatentLayout,
    weighting: LossWeighting = "element",
) -> torch.Tensor:
    """Scalar: the loss of each prediction (B, L) against the target of another class, to be subtracted from
    the one against its own (contrastive flow matching, arXiv 2506.05350, Equation 6).

    That is the next sample of the batch with another label. Samples whose label was dropped are neither
    compared nor compared with, and count as 0, as do those that find no other class.
    """
    index = torch.arange(len(labels), device=labels.device)
    following = (index[:, None] + index) % len(labels)  # (B, B), each row from its own sample on
    others = labels[following]
    fits = (others != labels[:, None]) & (others != null_class) & (labels != null_class)[:, None]
    nearest = following.gather(1, fits.int().argmax(dim=1, keepdim=True))[:, 0]  # (B,)
    other = torch.where(fits.any(dim=1)[:, None], target[nearest], prediction.detach())
    return total_loss(grid_losses(prediction, other, layout), layout, weighting)


def drop_labels(
    labels: torch.Tensor, null_class: int, probability: float, drawn: torch.Tensor
) -> torch.Tensor:
    """(B,) labels -> (B,), replaced by `null_class` where `drawn` (B,), uniform in [0, 1), is below the
    probability, so that one network learns both halves of classifier-free guidance (Ho and Salimans, arXiv
    2207.12598, Algorithm 1)."""
    return torch.where(drawn.to(labels.device) < probability, null_class, labels)
