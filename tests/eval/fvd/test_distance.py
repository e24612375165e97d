"""The Fréchet distance against closed forms, and the metric against the formula."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from eval.fvd.distance import (
    FeatureSums,
    FrechetVideoDistance,
    frechet_distance,
    mean_and_covariance,
)
from vidtwin_gen.records import FVDProtocol, distance_json

DIM = 6


class MeanColours:
    """A tiny real extractor: random projections of a clip, so that no weights are needed."""

    name, dim, resize, weights_sha256 = "projection", DIM, "none", "0" * 64
    min_frames, max_frames = 1, None

    def __call__(self, clips: torch.Tensor) -> torch.Tensor:
        flat = clips.flatten(1).float() / 255
        return flat @ torch.randn(flat.shape[1], DIM, generator=torch.Generator().manual_seed(0))


def random_clips(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 2, 4, 4, 3), dtype=torch.uint8, generator=generator)


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


def test_the_metric_is_the_formula_over_any_batching() -> None:
    real, generated = random_clips(20, 1), random_clips(13, 2)
    metric = FrechetVideoDistance(MeanColours())
    for batch in real.split(7):
        metric.update(batch, real=True)
    for batch in generated.split(5):
        metric.update(batch, real=False)
    statistics = []
    for clips in (real, generated):
        features = MeanColours()(clips).double()
        statistics += [features.mean(0), torch.cov(features.T)]  # torch.cov divides by N - 1
    # singular covariances: rounding by eps moves the square roots of their zero eigenvalues by sqrt(eps)
    assert metric.compute().item() == pytest.approx(frechet_distance(*statistics).item(), rel=1e-6)


def test_merged_states_of_two_processes_are_one_metric() -> None:
    real, generated = random_clips(16, 1), random_clips(16, 2)
    whole, *parts = (FrechetVideoDistance(MeanColours()) for _ in range(3))
    whole.update(real, real=True)
    whole.update(generated, real=False)
    for part, rows in zip(parts, (slice(0, 5), slice(5, 16)), strict=True):
        part.update(real[rows], real=True)
        part.update(generated[rows], real=False)
    parts[0].merge_state(parts[1])
    assert parts[0].compute().item() == pytest.approx(whole.compute().item(), rel=1e-6)


def test_equal_sets_are_at_zero_and_noise_moves_away() -> None:
    clips = random_clips(32, 3) // 2 + 64
    distances = []
    for amount in (0, 10, 40, 100):
        noise = torch.randint(-amount, amount + 1, clips.shape, generator=torch.Generator().manual_seed(4))
        metric = FrechetVideoDistance(MeanColours())
        metric.update(clips, real=True)
        metric.update((clips + noise).clamp(0, 255).to(torch.uint8), real=False)
        distances.append(metric.compute().item())
    assert distances[0] < 1e-4
    assert distances == sorted(distances)
    assert distances[1] > 1e-2


def test_update_after_compute_is_not_forgotten() -> None:
    metric = FrechetVideoDistance(MeanColours())
    for side in (True, False):
        metric.update(random_clips(4, int(side)), real=side)
    before = metric.compute()
    metric.update_features(torch.full((4, DIM), 9.0), real=False)
    assert metric.compute() != before


def test_one_clip_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="at least 2 generated clips"):
        mean_and_covariance(FeatureSums(torch.zeros(2), torch.zeros(2, 2), 1, "generated"))


def test_a_record_is_json_and_flags_too_few_clips() -> None:
    few, enough = (json.loads(json.dumps(distance_json(1.0, protocol(count)))) for count in (400, 401))
    assert few["rank_deficient"] and not enough["rank_deficient"]
    assert few["num_real"] == 400
    assert FVDProtocol(**few["protocol"]) == protocol(400)
