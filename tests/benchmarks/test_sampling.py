"""benchmarks/sampling, of a tiny pipeline."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from benchmarks import sampling
from eval.study.judge import Judge
from tests.builders.extractors import FilterResponses, install
from tests.builders.runs import Run


def test_each_sampling_is_measured_once_and_further_ones_join_it(
    tmp_path: Path,
    tiny_dit_run: Run,
    synthetic_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sampling, "Judge", partial(Judge, num_clips=8, num_steps=2))
    network = FilterResponses()
    install(monkeypatch, network)
    pipeline = Path(shutil.copytree(tiny_dit_run.output_dir / "pipeline", tmp_path / "pipeline"))
    out = tmp_path / "out"
    words = ["--pipeline", pipeline, "--data", synthetic_root, "--num_clips", 8, "--num_fvd_clips", 4]
    words = list(map(str, [*words, "--out", out, "--guidance_scale", 1, 2, "--num_inference_steps"]))
    sampling.main([*words, "1"])
    seen = network.num_seen
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*_steps_1_*/*.json")}
    sampling.main([*words, "2"])
    assert times and all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert network.num_seen <= seen + 2 * 4  # clips of two more samplings, and no real ones
    record = json.loads((out / "sampling.json").read_text())
    found = [(row["guidance_scale"], row["num_inference_steps"]) for row in record["samplings"]]
    assert found == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert record["samplings"][0]["fvd"] != record["samplings"][3]["fvd"]
    assert all(0 <= row["accuracy"] <= 1 for row in record["samplings"])
    table = (out / "sampling.md").read_text()
    assert "| 1 | 2 | 2 |" in table and "| 2 | 2 | 4 |" in table  # passes
    assert record["floors"] == {} and "*held-out clips*" not in table  # from themselves
    with pytest.raises(SystemExit):
        sampling.main([*words, "1", "--num_clips", "16"])
    assert "has num_clips 8, not 16: name another --out" in capsys.readouterr().err
    names = ("transformer", "vae")
    weights = [next((pipeline / name).glob("*.safetensors")) for name in names]
    for name, file in zip(names, weights, strict=True):
        before = file.read_bytes()
        save_file({key: value + 1 for key, value in load_file(file).items()}, file)
        with pytest.raises(SystemExit):
            sampling.main([*words, "1"])
        assert f"has {name}_sha256 " in capsys.readouterr().err
        file.write_bytes(before)


def test_from_training_clips_held_out_ones_say_how_near_a_generator_could_come(
    tmp_path: Path, tiny_dit_run: Run, synthetic_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "Judge", partial(Judge, num_clips=8, num_steps=2))
    install(monkeypatch, FilterResponses())
    words = ["--pipeline", tiny_dit_run.output_dir / "pipeline", "--data", synthetic_root, "--split", "train"]
    words += ["--num_clips", 8, "--num_fvd_clips", 8, "--guidance_scale", 1, "--num_inference_steps", 1]
    sampling.main(list(map(str, [*words, "--out", tmp_path])))
    record = json.loads((tmp_path / "sampling.json").read_text())
    real, given_back = record["floors"].values()
    (sampled,) = record["samplings"]
    assert 0 < real["fvd"] < given_back["fvd"] != sampled["fvd"]  # by an autoencoder of a few steps
    table = (tmp_path / "sampling.md").read_text()
    assert f"| *held-out clips* | | | | {real['fvd']:.0f} |" in table
    assert f"| *reconstructions of them* | | | | {given_back['fvd']:.0f} |" in table
