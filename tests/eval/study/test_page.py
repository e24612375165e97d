"""The page of a study, from the record that is committed."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.study.curves import measured, sampling_flops
from eval.study.page import PLOTTED, draw_sampling, write_page
from vidtwin_gen.files import read_json

STUDIES = sorted((Path(__file__).parents[3] / "benchmarks").glob("2026-11-29_latents*/study.json"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.parent.name)
def test_the_page_of_a_kept_study_is_that_of_its_record(path, tmp_path):
    """Of one of before, which does not say how many clips were reconstructed, too."""
    write_page(tmp_path, read_json(path, ""))
    page = (tmp_path / "study.md").read_text(encoding="utf-8")
    kept = path.with_name("study.md").read_text(encoding="utf-8")
    tables = [[line for line in text.splitlines() if line.startswith("|")] for text in (page, kept)]
    assert tables[0] == tables[1]
    assert "Of held-out clips, N not recorded, each of another video" in page
    rows = ", ".join(read_json(path, "")["rows"])
    assert f"![class accuracy and KVD of {rows} over the TFLOPs of stage 2, at each point" in page


def test_sampling_is_drawn_with_every_seed():
    record = read_json(STUDIES[0], "")
    figure = draw_sampling(record, narrow=True)
    assert len(figure.legends) == 1 and not any(axes.get_legend() for axes in figure.axes)  # over no point
    calls = sorted({record["study"]["num_inference_steps"], *record["study"]["more_inference_steps"]})
    for axes, measure in zip(figure.axes, PLOTTED, strict=True):
        drawn = [sorted(zip(*line.get_data(), strict=True)) for line in axes.lines if line.get_alpha()]
        assert drawn == [
            sorted(
                (sampling_flops(row, count, record["study"]["guidance_scale"]) / 1e9, value)
                for count in calls
                for value in measured(row, row["ends"]["steps"], count, measure)
            )
            for row in record["rows"].values()
        ]
