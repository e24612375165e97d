"""What the autoencoder costs: the counts, the meter of memory, the command."""

from __future__ import annotations

import json
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from autoencoder.model.vidtwin import AutoencoderVidTwin
from eval.__main__ import main
from eval.cost import measured_step
from eval.cost.autoencoder import SMALL, Workload, autoencoder_cost, count, make_passes
from eval.cost.dit import count_flops
from eval.cost.measured_step import check_started, measure_peaks
from eval.cost.timing import interleaved, ratios, spread
from tests.builders.autoencoders import (
    TINY_AUTOENCODER,
    build_autoencoder,
    build_of,
    random_clips,
    random_latents,
)

TINY = TINY_AUTOENCODER | {"qformer_layers": 3}  # the first and the last see the video


def build(**sizes: Any) -> AutoencoderVidTwin:
    return build_autoencoder(**TINY | sizes).requires_grad_(False)


def test_frames_a_second_are_those_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eval.cost.autoencoder.can_measure_memory", lambda _: False)  # which takes processes
    workload = Workload(torch.device("cpu"), batch_size=2, repeats=1, training=False)
    row = autoencoder_cost(TINY, workload)["encode"]
    assert row["frames_per_second"] * row["seconds"]["median"] == pytest.approx(2 * TINY["num_frames"])


def inputs(model: AutoencoderVidTwin, batch_size: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips (B, C, F, H, W) and latents (B, L)."""
    return random_clips(model, batch_size), random_latents(model, batch_size, seed=1)


def test_the_trunks_flops_are_those_of_the_formula() -> None:
    model = build(height=32, width=24)
    b, f, s, d, layers = 2, 4, 8 * 6, 16, 2
    x = torch.randn(b, d, f, 8, 6)
    # by token: two attentions of four projections, an MLP of four times the width; 4 n^2 d per sequence
    projections = layers * b * f * s * 2 * (2 * 4 * d**2 + 2 * 4 * d**2)
    attention = layers * (b * f * 4 * s**2 * d + b * s * 4 * f**2 * d)
    assert count_flops(lambda: model.encoder(x)) == projections + attention


def test_counts_need_no_numbers() -> None:
    cost = count(TINY, Workload(torch.device("cpu"), batch_size=2))
    model = build()
    clips, latents = inputs(model)
    assert cost["flops"]["encode"] == count_flops(lambda: model.encode(clips).latent_dist.parameters)
    assert cost["flops"]["decode"] == count_flops(lambda: model.decode(latents).sample)
    forward = cost["flops"]["encode"] + cost["flops"]["decode"]
    assert 2.5 < cost["flops"]["training_step"] / forward < 3.5
    assert cost["num_parameters"] == model.num_parameters()
    assert cost["latent_elements"] == model.layout.num_elements


def test_rounds_are_fair_and_ratios_are_of_a_round() -> None:
    calls: list[str] = []
    functions = {name: lambda name=name: calls.append(name) for name in "abc"}
    seconds = interleaved(functions, 3, torch.device("cpu"))
    assert "".join(calls) == "abc" + "abc" + "bca" + "cab"
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3, "c": 3}
    # a machine three times slower in one round changes no ratio
    assert ratios([1.0, 3.0, 1.0], [2.0, 6.0, 2.0]) == spread([0.5, 0.5, 0.5])
    assert str(spread([1.0, 2.0, 3.0, 4.0, 5.0])) == "3 (2 to 4)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With whitening, as the autoencoder of every pipeline has it."""
    path = tmp_path_factory.mktemp("autoencoder")
    vae = build()
    count = vae.layout.num_channels
    vae.register_to_config(latents_mean=[0.5] * count, latents_std=[2.0] * count)
    vae.save_pretrained(path)
    return path


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "cost.json"
    flags = ["--repeats", "2", "--gradient_checkpointing"]
    main(["cost", "--autoencoder", str(folder), *flags, "--out", str(out)])
    record = json.loads(out.read_text())
    assert record["kind"] == "autoencoder_cost" and record["autoencoder"] == str(folder)
    assert record["clip_shape"] == [4, 16, 16] and record["latent_elements"] == build().layout.num_elements
    for name in ("encode", "decode", "training_step"):
        measured = record[name]
        for key in ("seconds", "of_matmul_rate"):
            assert measured[key]["count"] == 2
            assert 0 < measured[key]["lower_quartile"] <= measured[key]["median"]
        assert measured["frames_per_second"] == pytest.approx(4 / measured["seconds"]["median"])
        assert measured["peak_memory_bytes"] >= 0
    assert "training_step: " in capsys.readouterr().out


def test_where_no_peak_is_told_the_rest_is_measured(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measured_step, "STATUS", tmp_path / "no-proc")  # as on macOS
    out = tmp_path / "cost.json"
    main(["cost", "--autoencoder", str(folder), "--skip_training", "--repeats", "1", "--out", str(out)])
    encode = json.loads(out.read_text())["encode"]
    assert encode["peak_memory_bytes"] is None and encode["frames_per_second"] > 0
    assert "memory not measured here" in capsys.readouterr().out


def test_a_process_that_does_not_start_is_no_want_of_memory() -> None:
    told = "no process can be started from here.*python -m eval cost"
    with (
        ProcessPoolExecutor(1, initializer=os._exit, initargs=(1,)) as pool,
        pytest.raises(ValueError, match=told),
    ):
        check_started(pool)


def test_memory_is_the_models_and_not_the_process_that_asks(tmp_path: Path) -> None:
    """A parent's own gigabyte changes nothing."""
    config = TINY | {"num_frames": 8, "height": 32, "width": 32, "hidden_size": 128, "num_layers": 2}
    workload = Workload(torch.device("cpu"), batch_size=1)

    held = torch.ones(2**28)  # 1 GiB
    peak = measure_peaks(partial(make_passes, config, workload), partial(make_passes, SMALL, workload))
    num_parameters = count(config, workload)["num_parameters"]
    # weights, gradients and two moments, and activations; held until here
    assert 4 * 4 * num_parameters < peak["training_step"] < 2**29 < held.nbytes


def test_neither_a_preset_nor_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["cost", "--autoencoder", "huge", "--out", str(tmp_path / "cost.json")])
    assert ended.value.code == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "no folder with a config.json, and no preset 'huge' of the autoencoder; there are" in message
    build_of("AutoencoderKLMagvit").save_pretrained(tmp_path / "magvit")
    with pytest.raises(SystemExit):
        main(["cost", "--autoencoder", str(tmp_path / "magvit"), "--out", str(tmp_path / "cost.json")])
    assert "is of AutoencoderKLMagvit, and this measures AutoencoderVidTwin's" in capsys.readouterr().err
