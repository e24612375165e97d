"""The Fréchet and the kernel video distance (Unterthiner et al., arXiv 1812.01717): the formulas, and the
features they are of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torchmetrics.image.kid import poly_kernel

from eval.fvd.protocols import Divisor

ROWS = 512  # of the kernel's matrix at a time: 40 MB in float64 beside 10,000 features


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


def kernel_distance(first: torch.Tensor, second: torch.Tensor, *, paired: bool = False) -> torch.Tensor:
    """Squared maximum mean discrepancy, with the kernel k(x, y) = (x·y / D + 1)^3 of KID (Bińkowski et al.,
    arXiv 1801.01401):

        mean of k(x, x') over x != x'  +  mean of k(y, y') over y != y'  -  2 mean of k(x, y)

    Of clips drawn independently its expectation is the same for all N and M, so near 0 it may be negative. If
    both sides hold the same number of clips of each class, it is biased downwards by
    2 (1 - sum p²) / (N - 1) (k_within - k_between). Here p is a class's share, and k_within and k_between are
    the mean kernels of pairs of one class and of two: the first two means have fewer pairs of one class than
    the last. Where `paired`, all three leave out the pairs of a clip with itself, which makes up for that.

    paired: row i of both sides is the same clip, on one side changed. The last mean then leaves these pairs
    out (Gretton et al., JMLR 13, 2012, equation 4), which are alike and would bias it.

    Shapes: (N, D), (M, D), N = M where paired -> () float64.

    Raises:
        ValueError: other shapes, or fewer than two samples on a side.
    """
    first, second = first.double(), second.double()
    shapes, counts = (first.shape, second.shape), (len(first), len(second))
    too_few = min(counts) < 2 or (paired and counts[0] != counts[1])
    if too_few or first.ndim != 2 or shapes[0][1:] != shapes[1][1:]:
        raise ValueError(
            "expected features (N, D) and (M, D) of at least 2 clips each, N = M where paired, got "
            f"{[tuple(shape) for shape in shapes]}"
        )
    within = _mean_kernel(first, first, others=True) + _mean_kernel(second, second, others=True)
    return within - 2 * _mean_kernel(first, second, others=paired)


def _mean_kernel(x: torch.Tensor, y: torch.Tensor, *, others: bool) -> torch.Tensor:
    """The mean of k over all pairs of rows; of `others`, over those whose numbers differ."""
    total = x.new_zeros(())
    for start in range(0, len(x), ROWS):
        kernel = poly_kernel(x[start : start + ROWS], y)
        total += kernel.sum() - (kernel.diagonal(start).sum() if others else 0)
    return total / (len(x) * (len(y) - others))


@dataclass(frozen=True)
class FeatureSet:
    """N features as the distances need them: their sum (D,), the sum of x x^T (D, D), float64, N, and
    `rows` (N, D) themselves, None where only the sums were kept. `side` names them in an error."""

    total: torch.Tensor
    outer: torch.Tensor
    count: int
    side: str = "given"
    rows: torch.Tensor | None = None

    @classmethod
    def of(cls, features: torch.Tensor, side: str = "given") -> FeatureSet:
        """Of features (N, D)."""
        double = features.double()
        return cls(double.sum(0), double.T @ double, len(features), side, features)


class Distances(NamedTuple):
    """Of two sets of clips, under the names in the records; kvd: None where features were not kept."""

    fvd: float
    kvd: float | None


def distances(
    first: FeatureSet, second: FeatureSet, *, paired: bool = False, divisor: Divisor = "N-1"
) -> Distances:
    """Both distances; `paired` as in `kernel_distance`, `divisor` of the covariances. Raises as
    `mean_and_covariance`."""
    fvd, kvd = distance_of_sums(first, second, divisor), None
    if first.rows is not None and second.rows is not None:
        kvd = kernel_distance(first.rows, second.rows, paired=paired).item()
    return Distances(fvd, kvd)


def distance_of_sums(first: FeatureSet, second: FeatureSet, divisor: Divisor = "N-1") -> float:
    """The Fréchet distance between two sets of features. Raises as `mean_and_covariance`."""
    return frechet_distance(
        *mean_and_covariance(first, divisor), *mean_and_covariance(second, divisor)
    ).item()


def mean_and_covariance(sums: FeatureSet, divisor: Divisor = "N-1") -> tuple[torch.Tensor, torch.Tensor]:
    """The mean (D,) and the covariance (D, D) of N features.

    Raises:
        ValueError: fewer than two samples.
    """
    if sums.count < 2:
        raise ValueError(f"a covariance needs at least 2 {sums.side} clips, got {sums.count}")
    mean = sums.total / sums.count
    deviations = sums.outer - sums.count * torch.outer(mean, mean)
    return mean, deviations / (sums.count if divisor == "N" else sums.count - 1)
