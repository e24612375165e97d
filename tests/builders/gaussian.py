"""A pipeline whose denoiser is the best one for Gaussian data, so that what samplers must reach is known."""

from __future__ import annotations

import functools
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    UniPCMultistepScheduler,
)

from pipelines.pipeline_vidtwin import VidTwinPipeline
from tests.builders.pipelines import NAMES, build_pipeline
from vidtwin_gen.latents import LatentLayout
from vidtwin_gen.models.transformer import LatentTransformer

FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
X0 = {"prediction_type": "sample"}
RHO = 0.8  # between a number of the Structure and one of the Dynamics

ODE_SOLVERS: dict[str, tuple[str, Any, float]] = {  # what is predicted, the solver, its error in 40 steps
    "flow euler": ("flow_prediction", FlowMatchEulerDiscreteScheduler(), 0.03),
    "flow euler, shifted": ("flow_prediction", FlowMatchEulerDiscreteScheduler(shift=3.0), 0.04),
    "flow heun": ("flow_prediction", FlowMatchHeunDiscreteScheduler(), 2e-4),
    "flow dpm": ("flow_prediction", DPMSolverMultistepScheduler(**FLOW), 0.003),
    "flow dpm, shifted": ("flow_prediction", DPMSolverMultistepScheduler(**FLOW, flow_shift=3.0), 0.007),
    "flow unipc": ("flow_prediction", UniPCMultistepScheduler(**FLOW), 0.001),
    "ddim": ("sample", DDIMScheduler(**X0, clip_sample=False), 0.04),
    "ddim, trailing": ("sample", DDIMScheduler(**X0, clip_sample=False, timestep_spacing="trailing"), 0.04),
    "dpm": ("sample", DPMSolverMultistepScheduler(**X0), 0.01),
    "dpm singlestep": ("sample", DPMSolverSinglestepScheduler(**X0), 0.02),
    "unipc": ("sample", UniPCMultistepScheduler(**X0), 0.01),
    "euler": ("sample", EulerDiscreteScheduler(**X0), 0.04),
}
STOCHASTIC: dict[str, tuple[str, Any]] = {
    "ddpm": ("sample", DDPMScheduler(**X0, clip_sample=False)),
    "sde dpm": ("sample", DPMSolverMultistepScheduler(**X0, algorithm_type="sde-dpmsolver++")),
    "flow sde dpm": (
        "flow_prediction",
        DPMSolverMultistepScheduler(**FLOW, algorithm_type="sde-dpmsolver++"),
    ),
}
UNGUIDED = {"guidance_scale": 1.0, "num_inference_steps": 40, "output_type": "latent"}


class GaussianDenoiser(LatentTransformer):
    """The best prediction for Gaussian data: class c has mean c / 2, no class has mean 0, and numbers of
    Structure and of Dynamics are correlated in pairs."""

    def forward(self, hidden_states, timestep, class_labels, attention_kwargs=None, return_dict=True):
        mean = torch.where(class_labels == self.null_class, 0, class_labels / 2)[:, None]
        if self.config.prediction_type == "flow_prediction":
            noise_share = timestep[:, None] / 1000
            data_share = 1 - noise_share
        else:
            alphas = DDPMScheduler().alphas_cumprod[timestep.long()][:, None]
            data_share, noise_share = alphas.sqrt(), (1 - alphas).sqrt()
        variances, basis = eigenvectors(self.layout)
        centred = (hidden_states - data_share * mean) @ basis
        gain = data_share * variances / (data_share**2 * variances + noise_share**2)
        x0 = mean + (gain * centred) @ basis.T
        if self.config.prediction_type == "sample":
            return (x0,)
        return ((hidden_states - x0) / noise_share,)


@functools.cache
def eigenvectors(layout: LatentLayout) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the covariance: the variances (L,), and the directions (L, L) as columns."""
    sizes = [grid.num_elements for grid in layout.grids]
    pairs = torch.arange(min(sizes[0], sum(sizes[1:])))
    matrix = torch.eye(sum(sizes))
    matrix[pairs, sizes[0] + pairs] = matrix[sizes[0] + pairs, pairs] = RHO
    return torch.linalg.eigh(matrix)


def build_gaussian(
    scheduler: Any, prediction_type: str = "flow_prediction", shift: str | None = "1.0"
) -> VidTwinPipeline:
    """`shift`: the training's, on record; None: there is no record."""
    vae = build_pipeline().vae
    sizes = {"hidden_size": 8, "num_layers": 1, "num_heads": 1}
    denoiser = GaussianDenoiser(
        vae.layout.to_config(), len(NAMES), prediction_type=prediction_type, **sizes
    ).eval()
    training = None if shift is None else {"flags": {"shift": shift}}
    pipe = VidTwinPipeline(vae, denoiser, scheduler, class_names=NAMES, training=training)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def end_of_the_ode(layout: LatentLayout, noise: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """mean + covariance^(1/2) noise: along each eigenvector the flow scales the noise to the deviation."""
    variances, basis = eigenvectors(layout)
    return mean + ((noise @ basis) * variances.sqrt()) @ basis.T
