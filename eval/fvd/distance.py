"""The Fréchet video distance (Unterthiner et al., arXiv 1812.01717): the formula, and the sums it is of."""

from __future__ import annotations

from dataclasses import dataclass

import torch


def frechet_distance(
    mu1: torch.Tensor, sigma1: torch.Tensor, mu2: torch.Tensor, sigma2: torch.Tensor
) -> torch.Tensor:
    """Squared Fréchet distance of two Gaussians (Dowson and Landau, 1982):

        |mu1 - mu2|^2 + tr(S1) + tr(S2) - 2 tr((S1^1/2 S2 S1^1/2)^1/2)

    The last trace is the sum of the singular values of S2^1/2 S1^1/2, whose squares are the eigenvalues under
    the root: real whatever the rank, and without a second square root that would blow up rounding.

    Shapes: means (D,), covariances (D, D), symmetric positive semi-definite -> () float64, never negative.
    """
    mu1, sigma1, mu2, sigma2 = (torch.as_tensor(x).double() for x in (mu1, sigma1, mu2, sigma2))
    if mu1.shape != mu2.shape or not sigma1.shape == sigma2.shape == mu1.shape * 2:
        raise ValueError(
            "expected means (D,) and covariances (D, D) of one D, got "
            f"{[tuple(x.shape) for x in (mu1, sigma1, mu2, sigma2)]}"
        )
    root_trace = torch.linalg.svdvals(_matrix_sqrt(sigma2) @ _matrix_sqrt(sigma1)).sum()
    distance = (mu1 - mu2).square().sum() + sigma1.trace() + sigma2.trace() - 2 * root_trace
    return distance.clamp(min=0)


def _matrix_sqrt(sigma: torch.Tensor) -> torch.Tensor:
    """Symmetric square root. Eigenvalues that are zero up to rounding (rank-deficient sets) count as zero."""
    values, vectors = torch.linalg.eigh((sigma + sigma.T) / 2)
    floor = values.abs().max() * len(values) * torch.finfo(values.dtype).eps
    roots = torch.where(values > floor, values, 0).sqrt()
    return (vectors * roots) @ vectors.T


@dataclass(frozen=True)
class FeatureSums:
    """What a Fréchet distance needs of N features (D,): their sum (D,), the sum of x x^T (D, D), float64, and
    N. `side` names them in an error."""

    total: torch.Tensor
    outer: torch.Tensor
    count: int
    side: str = "given"

    @classmethod
    def of(cls, features: torch.Tensor, side: str = "given") -> FeatureSums:
        """Of features (N, D)."""
        features = features.double()
        return cls(features.sum(0), features.T @ features, len(features), side)


def distance_of_sums(first: FeatureSums, second: FeatureSums) -> float:
    """The Fréchet distance between two sets of features. Raises as `mean_and_covariance`."""
    return frechet_distance(*mean_and_covariance(first), *mean_and_covariance(second)).item()


def mean_and_covariance(sums: FeatureSums) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean (D,) and the covariance (D, D) with the divisor N - 1.

    Raises:
        ValueError: fewer than two samples.
    """
    if sums.count < 2:
        raise ValueError(f"a covariance needs at least 2 {sums.side} clips, got {sums.count}")
    mean = sums.total / sums.count
    return mean, (sums.outer - sums.count * torch.outer(mean, mean)) / (sums.count - 1)
