"""The page of a study, from the record that is committed."""

from __future__ import annotations

from pathlib import Path

from eval.study.curves import measured, sampling_flops
from eval.study.page import PLOTTED, draw_sampling
from vidtwin_gen.files import read_json

STUDIES = sorted((Path(__file__).parents[3] / "benchmarks").glob("2026-11-29_latents*/study.json"))


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
