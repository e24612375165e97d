"""benchmarks/scatter, of features whose distances are known."""

import pytest
import torch

from benchmarks.scatter import parted, scatter
from eval.fvd.distance import FeatureSet, distances


def test_the_sides_share_no_clip_and_change_with_every_division():
    rows = torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    generator = torch.Generator().manual_seed(5)
    found = [parted(rows, 20, generator) for _ in range(2)]
    generator.manual_seed(5)
    for value in found:
        order = torch.randperm(40, generator=generator)
        assert value == distances(FeatureSet.of(rows[order[:20]]), FeatureSet.of(rows[order[20:]]))
    assert found[0] != found[1]


def test_means_and_deviations_are_of_the_divisions():
    rows = torch.randn(64, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    table = scatter(rows, [8, 32], repeats=30, seed=3)
    generator = torch.Generator().manual_seed(3)
    for row, num_clips in zip(table, (8, 32), strict=True):
        drawn = torch.tensor([parted(rows, num_clips, generator) for _ in range(30)], dtype=torch.float64)
        assert row["num_clips"] == num_clips
        assert [row["fvd"], row["kvd"]] == pytest.approx(drawn.mean(0).tolist(), rel=1e-6)
        assert [row["fvd_std"], row["kvd_std"]] == pytest.approx(drawn.std(0).tolist(), rel=1e-6)
    assert table[0]["fvd"] > table[1]["fvd"] > 0  # biased upwards, more so of fewer clips
    assert abs(table[1]["kvd"]) < table[1]["kvd_std"]  # not biased


@pytest.mark.parametrize(("num_clips", "repeats"), [([33], 2), ([8, 1], 2), ([8], 1)])
def test_what_cannot_be_parted_is_refused(num_clips, repeats):
    with pytest.raises(ValueError, match="2 to 32 clips a side of 64 and at least 2 repeats"):
        scatter(torch.randn(64, 4), num_clips, repeats)
