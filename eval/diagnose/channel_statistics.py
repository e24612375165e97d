"""What the channels of a latent hold, over many clips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from autoencoder.model.posterior import FlatGaussian
from vidtwin_gen.latents import LatentLayout

# Nats per latent number. 0.01 nats are 0.014 bits: of a hundred such numbers the decoder learns one bit.
DEAD_BELOW = 0.01


@dataclass(frozen=True)
class GridStatistics:
    """Of one grid, a value for each of its channels (c,), float64, over clips and positions.

    Attributes:
        mean, std_of_mean: mean and standard deviation of the posterior's means.
        posterior_std: mean of the posterior's standard deviations.
        std: of posterior samples, by the law of total variance: what whitening divides by.
        kl: divergence of the posterior from the standard normal, nats per number.
        information: the same from the Gaussian with the channel's own mean and `std`, 0.5 (log std^2 - mean
            log-variance). Never above `kl`, and an upper bound of what a number tells about its clip, also
            where an autoencoder was hardly held to the standard normal.
        num_positions: of the grid.
    """

    mean: torch.Tensor
    std_of_mean: torch.Tensor
    posterior_std: torch.Tensor
    std: torch.Tensor
    kl: torch.Tensor
    information: torch.Tensor
    num_positions: int

    @property
    def dead(self) -> torch.Tensor:
        """(c,) bool: channels with less than DEAD_BELOW nats of `information` a number. One whose KL is below
        it is always among them; so is one that is the same number in every clip and at every position,
        whatever its KL."""
        return self.information < DEAD_BELOW

    def to_json(self) -> dict[str, Any]:
        names = ("mean", "std_of_mean", "posterior_std", "std", "kl", "information", "dead")
        return {
            **{name: getattr(self, name).tolist() for name in names},
            "dead_fraction": self.dead.double().mean().item(),
            "num_positions": self.num_positions,
            "kl_per_clip": self.kl.sum().item() * self.num_positions,
        }


def posterior_moments(posterior: FlatGaussian, layout: LatentLayout) -> torch.Tensor:
    """Of posteriors over (B, L) -> (B, 5, num_channels) float64: means over each channel's positions of mean,
    mean^2, logvar, variance and standard deviation. Small, so that they can be kept of every clip."""
    mean, logvar = posterior.mean.double(), posterior.logvar.double()
    terms = (mean, mean.square(), logvar, logvar.exp(), (logvar / 2).exp())
    by_grid = (layout.split(term).values() for term in terms)
    return torch.stack(
        [torch.cat([part.flatten(1, -2).mean(1) for part in parts], dim=1) for parts in by_grid], 1
    )


def channel_statistics(moments: torch.Tensor, layout: LatentLayout) -> dict[str, GridStatistics]:
    """(5, num_channels) means over clips of `posterior_moments` -> the statistics of each grid, by name."""
    statistics = {}
    of_grids = moments.split([grid.channels for grid in layout.grids], dim=1)
    for grid, (mean, square, logvar, variance, posterior_std) in zip(layout.grids, of_grids, strict=True):
        spread = (square - mean.square()).clamp(min=0)
        statistics[grid.name] = GridStatistics(
            mean=mean,
            std_of_mean=spread.sqrt(),
            posterior_std=posterior_std,
            std=(spread + variance).sqrt(),
            kl=0.5 * (square + variance - 1 - logvar),
            information=0.5 * ((spread + variance).log() - logvar),
            num_positions=grid.num_positions,
        )
    return statistics
