"""A sample of the fuzz: kinds whose commands take a fraction of a second."""

import json

import pytest

from benchmarks.fuzz import KINDS, WELL, main

QUICK = ["DiT's config", "scheduler's config", "released checkpoint", "latents' rows", "results, on a card"]
QUICK += ["reference statistics", "counts of clips"]


@pytest.mark.slow
def test_bad_input_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # as main does, which would leave it to the tests that follow
    assert (
        main(["--budget", "180", "--seed", "5", "--out", str(tmp_path / "table.json"), "--kinds", *QUICK])
        == 0
    )
    counts = json.loads((tmp_path / "table.json").read_text())["counts"]
    assert set(counts) == set(QUICK) and len(KINDS) == 20
    assert all(outcome in WELL for of_kind in counts.values() for outcome in of_kind)
    assert sum(sum(of_kind.values()) for of_kind in counts.values()) == 9 * len(QUICK)
    assert all(of_kind.get("refused") for of_kind in counts.values())
