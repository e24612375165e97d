"""The distances against closed forms, the sums against the formula, the kernel against torchmetrics."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torchmetrics.image.kid import poly_mmd

from eval.fvd.distance import (
    ROWS,
    FeatureSet,
    distance_of_sums,
    distances,
    frechet_distance,
    kernel_distance,
    mean_and_covariance,
)
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
    assert distance_of_sums(*map(FeatureSet.of, sides)) == expected


def test_a_covariance_over_n_is_smaller_by_one_clip() -> None:
    """Of 1, 2 and 6 the squares of the deviations are 4, 1 and 9; of 0 and 2, 1 and 1."""
    few, fewer = (FeatureSet.of(torch.tensor(rows)) for rows in ([[1.0], [2.0], [6.0]], [[0.0], [2.0]]))
    assert mean_and_covariance(few)[1].item() == mean_and_covariance(few, "N-1")[1].item() == 7
    assert mean_and_covariance(few, "N")[1].item() == pytest.approx(14 / 3)
    for divisor, (first, second) in (("N-1", (7, 2)), ("N", (14 / 3, 1))):
        expected = (3 - 1) ** 2 + first + second - 2 * (first * second) ** 0.5
        both = distances(few, fewer, divisor=divisor)
        assert both.fvd == distance_of_sums(few, fewer, divisor) == pytest.approx(expected)
        assert both.kvd == distances(few, fewer).kvd


def test_equal_sets_are_at_zero_and_noise_moves_away() -> None:
    features, noise = random_features(32, 3), random_features(32, 4)
    distances = [
        distance_of_sums(FeatureSet.of(features), FeatureSet.of(features + amount * noise))
        for amount in (0, 0.1, 0.4, 1)
    ]
    assert distances[0] < 1e-4
    assert distances == sorted(distances)
    assert distances[1] > 1e-2


def test_one_clip_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="at least 2 generated clips"):
        mean_and_covariance(FeatureSet(torch.zeros(2), torch.zeros(2, 2), 1, "generated"))


def test_the_kernel_distance_of_a_few_numbers() -> None:
    """(x y + 1)^3 is 1 of 0 and 1; 1, 1 and 27 within 0, 1 and 2; 1, 1, 1, 1, 8 and 27 between the two."""
    few, more = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [1.0], [2.0]])
    expected = 1 + 29 / 3 - 2 * 39 / 6
    assert kernel_distance(few, more).item() == pytest.approx(expected, abs=1e-12)
    assert kernel_distance(more, few).item() == pytest.approx(expected, abs=1e-12)
    # 27 within 1 and 2; 1, 1, 8 and 27 between, of which the pairs (0, 1) and (1, 2) have 1 and 27
    assert kernel_distance(few, more[1:]).item() == pytest.approx(1 + 27 - 2 * 37 / 4, abs=1e-12)
    assert kernel_distance(few, more[1:], paired=True).item() == pytest.approx(1 + 27 - 2 * 9 / 2, abs=1e-12)


def test_the_kernel_distance_is_that_of_torchmetrics() -> None:
    """Which takes as many clips on both sides; they are more than the rows that are taken at a time."""
    first, second = random_features(ROWS + 88, 5), random_features(ROWS + 88, 6) + 0.1
    value = kernel_distance(first.float(), second.float())
    assert value.dtype == torch.float64
    expected = poly_mmd(first.float().double(), second.float().double())
    assert value.item() == pytest.approx(expected.item(), rel=1e-9)
    assert kernel_distance(first, first, paired=True).item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("num_first", "num_second"), [(2, 2), (5, 12)])
def test_the_kernel_distance_is_unbiased(num_first: int, num_second: int) -> None:
    """Of one distribution it is 0 on average whatever the counts; of pairs, if they are left out."""
    values, pairs, as_if_none = [], [], []
    for seed in range(300):
        first = random_features(num_first, seed)
        values.append(kernel_distance(first, random_features(num_second, 1000 + seed)))
        changed = 0.9 * first + (1 - 0.9**2) ** 0.5 * random_features(num_first, 2000 + seed)
        pairs.append(kernel_distance(first, changed, paired=True))
        as_if_none.append(kernel_distance(first, changed))

    def off(found: list[torch.Tensor]) -> float:
        """The mean, in its standard errors."""
        drawn = torch.stack(found)
        return (drawn.mean() / drawn.std() * len(drawn) ** 0.5).item()

    assert abs(off(values)) < 3 and abs(off(pairs)) < 3 and off(as_if_none) < -6
    assert min(values) < 0 < max(values)


def test_the_kernel_distance_grows_with_a_shift() -> None:
    first, second = random_features(40, 7), random_features(30, 8)
    values = [kernel_distance(first, second + shift).item() for shift in (0.5, 1, 2, 4)]
    assert values == sorted(values) and values[0] > 0.01


def test_features_that_have_no_kernel_distance_are_refused() -> None:
    one, two, three = (random_features(count, 9) for count in (1, 2, 3))
    for sides, paired in (((two, one), False), ((two, three[:, :2]), False), ((two, three), True)):
        with pytest.raises(ValueError, match="at least 2 clips each"):
            kernel_distance(*sides, paired=paired)


def test_both_distances_of_two_sets() -> None:
    first, second = random_features(20, 10), random_features(13, 11)
    sets = FeatureSet.of(first), FeatureSet.of(second)
    assert distances(*sets) == (distance_of_sums(*sets), kernel_distance(first, second).item())
    only_sums = FeatureSet(sets[0].total, sets[0].outer, sets[0].count)
    assert distances(only_sums, sets[1]) == (distance_of_sums(*sets), None)


def test_a_record_is_json_and_flags_too_few_clips() -> None:
    few, enough = (json.loads(json.dumps(distance_json(1.0, protocol(count), -0.5))) for count in (400, 401))
    assert few["rank_deficient"] and not enough["rank_deficient"]
    assert few["num_real"] == 400 and few["kvd"] == -0.5
    assert FVDProtocol(**few["protocol"]) == protocol(400)
