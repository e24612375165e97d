"""The flow's path and how one prediction becomes another, as pure functions of flat latents (B, L).

sigma (B,) is the share of noise, 0 the data and 1 the noise, as in Stable Diffusion 3 (Esser et al., arXiv
2403.03206) and in diffusers' `FlowMatchEulerDiscreteScheduler`.
"""

from __future__ import annotations

import math

import torch

from vidtwin_gen.models.objectives import Objective

NUM_TRAIN_TIMESTEPS = 1000  # the scale of timesteps in every diffusers scheduler
REFERENCE_ELEMENTS = 4096  # latents of so many numbers need no shift: Stable Diffusion 3's by one channel
MIN_SIGMA = 0.05  # by which an error of x_0 is divided at least (arXiv 2511.13720)
PREDICTION_TYPES: dict[Objective, str] = {"flow": "flow_prediction", "paper": "sample"}


def noise_shift(shift: str, num_elements: int) -> float:
    """`shift` as a number; of "auto" sqrt(num_elements / 4096): the more numbers share their information, the
    more noise it takes to hide it (Esser et al., section 5.3.2; RAE, arXiv 2510.11690, section 4.3)."""
    return math.sqrt(num_elements / REFERENCE_ELEMENTS) if shift == "auto" else float(shift)


def timestep_of(sigma: torch.Tensor) -> torch.Tensor:
    """Noise level in [0, 1] -> timestep in [0, 1000], what the transformer takes."""
    return sigma * NUM_TRAIN_TIMESTEPS


def interpolate(x0: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """x_sigma = (1 - sigma) x_0 + sigma noise, (B, L): the straight path (Esser et al., Equation 13)."""
    sigma = column(sigma, x0)
    return (1 - sigma) * x0 + sigma * noise


def velocity(x0: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """d x_sigma / d sigma = noise - x_0, (B, L): what the transformer learns to predict."""
    return noise - x0


def velocity_from_x0(x_sigma: torch.Tensor, x0: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """(x_sigma - x_0) / max(sigma, 0.05), (B, L) float32: the velocity, and for sigma below 0.05 a share of
    it, or an error of x_0 would count without bounds (JiT, arXiv 2511.13720)."""
    return (x_sigma.float() - x0.float()) / column(sigma.clamp(min=MIN_SIGMA), x_sigma.float())


def x0_from_velocity(x_sigma: torch.Tensor, velocity: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """x_0 = x_sigma - sigma v, (B, L)."""
    return x_sigma - column(sigma, x_sigma) * velocity


def column(sigma: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """(B,) -> (B, 1), in the type and on the device of latents (B, L)."""
    return sigma.to(latents)[:, None]
