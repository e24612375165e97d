"""The Gaussian over the flat latent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import nn
from torch.utils._pytree import register_pytree_node

INITIAL_LOGVAR = -4.0


def init_posterior_head(head: nn.Conv2d | nn.Linear) -> None:
    """For a last layer whose channels are means, then log-variances: starts with a little noise everywhere.

    torch's default starts with a variance of 1 around means near 0, where training has to find the signal.
    """
    num_means = len(head.weight) // 2
    with torch.no_grad():
        head.weight[num_means:] = 0.0
        assert head.bias is not None
        head.bias[num_means:] = INITIAL_LOGVAR


class FlatGaussian(DiagonalGaussianDistribution):
    """Diagonal Gaussian over (B, L) latents, from the (B, 2L) concatenation of mean and log-variance.

    `sample(generator)`, `mode()`, `mean`, `logvar` (clamped to [-30, 20]), `std` and `var` are diffusers'.
    It has no `dtype`: accelerate takes whatever has one for a tensor.
    """

    def kl(self) -> torch.Tensor:
        """(B,) divergence from the standard normal in nats, summed over L (Kingma, 2014, appendix B).

        In float32 whatever the model's type. diffusers' own sums dimensions 1 to 3 and so cannot take a flat
        latent.
        """
        mean, logvar = self.mean.float(), self.logvar.float()
        return 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).sum(dim=1)


def _rebuilt(leaves: Iterable[Any], _: None) -> FlatGaussian:
    (parameters,) = leaves
    if isinstance(parameters, torch.Tensor):
        return FlatGaussian(parameters)
    posterior = FlatGaussian.__new__(FlatGaussian)  # torch also puts marks in place of the tensors
    posterior.parameters = parameters
    return posterior


# so that torch.export and torch.compile take a model that returns one
register_pytree_node(
    FlatGaussian,
    lambda posterior: ([posterior.parameters], None),
    _rebuilt,
    serialized_type_name="vidtwin_gen.FlatGaussian",
)
