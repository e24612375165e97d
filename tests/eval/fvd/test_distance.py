"""The Fréchet distance against closed forms, and its sums against the formula."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from eval.fvd.distance import FeatureSums, distance_of_sums, frechet_distance, mean_and_covariance
from vidtwin_gen.records import FVDProtocol, distance_json

DIM = 6


def random_features(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def random_covariance(rank: int, seed: int) -> torch.Tensor:
    root = torch.randn(DIM, rank, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return root @ root.T


def protocol(count: int) -> FVDProtocol:
    return FVDProtocol(
        name="test",
        num_real=count,
        num_generated=count,
        num_frames=16,
        height=64,
        width=64,
        split="test",
        resize="none",
        feature_extractor="projection",
        weights_sha256="0" * 64,
        feature_dim=400,
    )


def test_diagonal_gaussians_have_a_closed_form() -> None:
    mu1, mu2 = torch.zeros(3), torch.tensor([1.0, 2.0, 2.0])
    var1, var2 = torch.tensor([1.0, 4.0, 9.0]), torch.tensor([4.0, 4.0, 1.0])
    distance = frechet_distance(mu1, torch.diag(var1), mu2, torch.diag(var2))
    assert distance.item() == pytest.approx(9 + (1 + 0 + 4), abs=1e-9)  # |mu|^2 + sum (s1 - s2)^2


def test_full_covariances_agree_with_the_eigenvalues_of_their_product() -> None:
    # the roots of the eigenvalues of S1 S2, which are real and positive in exact arithmetic
    s1, s2 = random_covariance(DIM, 0), random_covariance(DIM, 1)
    roots = np.sqrt(np.linalg.eigvals((s1 @ s2).numpy()).real).sum()
    zero = torch.zeros(DIM)
    expected = (s1.trace() + s2.trace()).item() - 2 * roots
    assert frechet_distance(zero, s1, zero, s2).item() == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(zero, s1, zero, s2).item() == pytest.approx(
        frechet_distance(zero, s2, zero, s1).item(), rel=1e-9
    )


@pytest.mark.parametrize("rank", [1, 3, DIM])
def test_a_distribution_is_at_zero_from_itself_whatever_its_rank(rank: int) -> None:
    mu, sigma = torch.randn(DIM), random_covariance(rank, 0) * 1e4
    distance = frechet_distance(mu, sigma, mu, sigma)
    assert distance.dtype == torch.float64
    assert 0 <= distance.item() < 1e-6


def test_unequal_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(D, D\)"):
        frechet_distance(torch.zeros(3), torch.eye(3), torch.zeros(3), torch.eye(4))


def test_the_sums_give_the_formula() -> None:
    sides = random_features(20, 1), random_features(13, 2)
    statistics = []
    for features in sides:
        statistics += [features.mean(0), torch.cov(features.T)]  # torch.cov divides by N - 1
    # singular covariances: rounding by eps moves the square roots of their zero eigenvalues by sqrt(eps)
    expected = pytest.approx(frechet_distance(*statistics).item(), rel=1e-6)
    assert distance_of_sums(*map(FeatureSums.of, sides)) == expected


def test_equal_sets_are_at_zero_and_noise_moves_away() -> None:
    features, noise = random_features(32, 3), random_features(32, 4)
    distances = [
        distance_of_sums(FeatureSums.of(features), FeatureSums.of(features + amount * noise))
        for amount in (0, 0.1, 0.4, 1)
    ]
    assert distances[0] < 1e-4
    assert distances == sorted(distances)
    assert distances[1] > 1e-2


def test_one_clip_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="at least 2 generated clips"):
        mean_and_covariance(FeatureSums(torch.zeros(2), torch.zeros(2, 2), 1, "generated"))


def test_a_record_is_json_and_flags_too_few_clips() -> None:
    few, enough = (json.loads(json.dumps(distance_json(1.0, protocol(count)))) for count in (400, 401))
    assert few["rank_deficient"] and not enough["rank_deficient"]
    assert few["num_real"] == 400
    assert FVDProtocol(**few["protocol"]) == protocol(400)
