"""Every scheduler samples what it should, from a denoiser whose answer is known, and others are refused."""

import pytest
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
from tests.test_pipeline import NAMES, build_pipeline, generate, seeded
from vidtwin_gen.transformer import LatentTransformer

FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
X0 = {"prediction_type": "sample"}
RHO = 0.8  # between a number of the Structure and one of the Dynamics


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
        variances, basis = torch.linalg.eigh(covariance(self.layout))
        centred = (hidden_states - data_share * mean) @ basis
        gain = data_share * variances / (data_share**2 * variances + noise_share**2)
        x0 = mean + (gain * centred) @ basis.T
        if self.config.prediction_type == "sample":
            return (x0,)
        return ((hidden_states - x0) / noise_share,)


def covariance(layout):
    sizes = [grid.num_elements for grid in layout.grids]
    pairs = torch.arange(min(sizes[0], sum(sizes[1:])))
    matrix = torch.eye(sum(sizes))
    matrix[pairs, sizes[0] + pairs] = matrix[sizes[0] + pairs, pairs] = RHO
    return matrix


def build_gaussian(scheduler, prediction_type="flow_prediction"):
    vae = build_pipeline().vae
    sizes = {"hidden_size": 8, "num_layers": 1, "num_heads": 1}
    denoiser = GaussianDenoiser(
        vae.layout.to_config(), len(NAMES), prediction_type=prediction_type, **sizes
    ).eval()
    pipe = VidTwinPipeline(vae, denoiser, scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def where_the_ode_ends(layout, noise, mean):
    """mean + covariance^(1/2) noise: along each eigenvector the flow scales the noise to the deviation."""
    variances, basis = torch.linalg.eigh(covariance(layout))
    return mean + ((noise @ basis) * variances.sqrt()) @ basis.T


ODE_SOLVERS = {
    "flow euler": ("flow_prediction", FlowMatchEulerDiscreteScheduler(), 0.02),
    "flow euler, shifted": ("flow_prediction", FlowMatchEulerDiscreteScheduler(shift=3.0), 0.02),
    "flow heun": ("flow_prediction", FlowMatchHeunDiscreteScheduler(), 0.002),
    "flow dpm": ("flow_prediction", DPMSolverMultistepScheduler(**FLOW), 0.003),
    "flow dpm, shifted": ("flow_prediction", DPMSolverMultistepScheduler(**FLOW, flow_shift=3.0), 0.003),
    "flow unipc": ("flow_prediction", UniPCMultistepScheduler(**FLOW), 0.003),
    "ddim": ("sample", DDIMScheduler(**X0, clip_sample=False), 0.04),
    "ddim, trailing": ("sample", DDIMScheduler(**X0, clip_sample=False, timestep_spacing="trailing"), 0.04),
    "dpm": ("sample", DPMSolverMultistepScheduler(**X0), 0.02),
    "dpm singlestep": ("sample", DPMSolverSinglestepScheduler(**X0), 0.02),
    "unipc": ("sample", UniPCMultistepScheduler(**X0), 0.02),
    "euler": ("sample", EulerDiscreteScheduler(**X0), 0.04),
}


@pytest.mark.parametrize("name", ODE_SOLVERS)
def test_an_ode_solver_ends_where_the_flow_does(name):
    prediction_type, scheduler, tolerance = ODE_SOLVERS[name]
    pipe = build_gaussian(scheduler, prediction_type)
    noise = torch.randn(2, pipe.transformer.layout.num_elements, generator=seeded(0)[0])
    options = {"guidance_scale": 1.0, "num_inference_steps": 40, "output_type": "latent"}
    sample = generate(pipe, [3, 1], latents=noise, **options)
    expected = where_the_ode_ends(pipe.transformer.layout, noise, torch.tensor([[1.5], [0.5]]))
    print(name, float((sample - expected).norm() / expected.norm()))
    assert (sample - expected).norm() < tolerance * expected.norm()
