"""benchmarks/recipe, rehearsed over the tests' own autoencoder and latents."""

import json
import shutil
from pathlib import Path

import pytest

from autoencoder.losses.perceptual import LPIPS_WEIGHTS
from benchmarks.recipe import __main__ as recipe
from benchmarks.recipe.rows import STAGES, chosen_rows
from tests.builders.commands import run
from tests.builders.extractors import FilterResponses, install
from tests.builders.runs import Latents
from vidtwin_gen.training.config import parse_config
from vidtwin_gen.training.dit_config import PRESETS, DiTConfig


def command(out: Path, root: Path, *words: object) -> list[str]:
    return list(map(str, ["--tiny", "--data", root, "--out", out, *words]))


@pytest.fixture
def extractor(monkeypatch: pytest.MonkeyPatch) -> FilterResponses:
    """Small networks, or none, where they are not the point."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # as the command does, which would leave it to other tests
    monkeypatch.setenv(LPIPS_WEIGHTS.variable, "absent")
    network = FilterResponses()
    install(monkeypatch, network)
    return network


@pytest.mark.slow
def test_generators_are_compared_and_nothing_twice(
    tmp_path: Path,
    synthetic_root: Path,
    tiny_latents: Latents,
    extractor: FilterResponses,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = ["--vae", tiny_latents.vae_dir, "--latents", tiny_latents.latents_dir]
    flags = [*places, "--num_clips", 8, "--readings", "steps"]
    words = command(tmp_path / "a", synthetic_root, *flags)
    recipe.main([*words, "--rows", "base", "--seeds", "0"])
    first = json.loads((tmp_path / "a/stage_2.json").read_text())
    runs = tmp_path / "a/stage_2"
    times = {path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.is_file()}
    num_seen = extractor.num_seen

    recipe.main([*words, "--rows", "shift-1", "--seeds", "0", "1"])
    record = json.loads((tmp_path / "a/stage_2.json").read_text())
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert extractor.num_seen == num_seen + 2 * 8  # the clips of the new row's two seeds, no real ones
    assert list(record["rows"]) == ["base", "shift-1"] and record["rows"]["base"] == first["rows"]["base"]
    seeds = record["rows"]["shift-1"]["readings"]["steps"]
    assert seeds["0"] != seeds["1"] and seeds["0"]["val_loss"] > 0
    sampled = seeds["0"]["samplings"]["cfg 4"]
    assert sampled["fvd"] > 0 and sampled["passes"] == 4
    clips = tmp_path / "a/stage_2/shift-1/steps_3/seed_0/cfg_4/clips/clips.safetensors"
    judged = {"data": synthetic_root, "generated": clips, "stride": 2, "num_clips": 8, "num_steps": 2}
    by_command = run("accuracy", tmp_path / "accuracy.json", **judged)
    assert sampled["accuracy"] == by_command["generated"]["accuracy"]
    assert record["floors"]["accuracy"] == by_command["real"]["accuracy"]
    floors = record["floors"]
    assert 0 < floors["real"]["fvd"] != floors["reconstructions"]["fvd"] > 0
    table = (tmp_path / "a/stage_2.md").read_text()
    assert "Equal steps" in table and "Equal processor seconds" not in table
    assert table.count("| base |") == table.count("| shift-1 |") == 1
    val_loss = f"{sum(seed['val_loss'] for seed in seeds.values()) / 2:.4f} ±"
    assert f"({val_loss}" in table  # of other noise levels

    # the record alone goes on, on another machine say
    (tmp_path / "c").mkdir()
    shutil.copy(tmp_path / "a/stage_2.json", tmp_path / "c")
    recipe.main([*command(tmp_path / "c", synthetic_root, *flags), "--rows", "base", "--seeds", "0"])
    assert not (tmp_path / "c/stage_2").exists()
    assert json.loads((tmp_path / "c/stage_2.json").read_text())["rows"] == record["rows"]

    # of a preset that has changed since, it does not
    older = record | {"preset": record["preset"] | {"hidden_size": 64}}
    (tmp_path / "c/stage_2.json").write_text(json.dumps(older))
    with pytest.raises(SystemExit):
        recipe.main([*command(tmp_path / "c", synthetic_root, *flags), "--rows", "base", "--seeds", "0"])
    assert "(--hidden_size was 64, is 128): go on with it at its commit" in capsys.readouterr().err
    assert json.loads((tmp_path / "c/stage_2.json").read_text()) == older

    # other flags are refused, and the same steps are given back
    with pytest.raises(SystemExit):
        recipe.main([*words, "--num_clips", "16"])
    record["rows"]["shift-1"]["steps"] = {"steps": 9, "seconds": 3}
    (tmp_path / "steps.json").write_text(json.dumps(record))
    words = command(tmp_path / "b", synthetic_root, *places, "--num_fvd_clips", 0, "--num_clips", 8)
    words += ["--rows", "shift-1", "--readings", "seconds", "--seeds", "0"]
    recipe.main([*words, "--steps_from", str(tmp_path / "steps.json")])
    again = json.loads((tmp_path / "b/stage_2.json").read_text())["rows"]["shift-1"]
    assert again["seconds_per_step"] == record["rows"]["shift-1"]["seconds_per_step"]
    assert again["readings"]["seconds"]["0"]["val_loss"] == seeds["0"]["val_loss"]


@pytest.mark.slow
def test_autoencoders_are_compared(tmp_path: Path, synthetic_root: Path, extractor: FilterResponses) -> None:
    rows = ["--rows", "base", "mse-100", "--stage", 1, "--seeds", 0]
    recipe.main(command(tmp_path, synthetic_root, *rows))
    record = json.loads((tmp_path / "stage_1.json").read_text())
    for name, row in record["rows"].items():
        costs = row["base_seconds_per_step"] / row["seconds_per_step"]
        assert row["steps"] == {"steps": 3, "seconds": max(1, round(3 * costs))}, name
        of_seed = row["readings"]["steps"]["0"]
        assert [line["seconds"] for line in of_seed["curve"]] == [
            step * row["seconds_per_step"] for step in (1, 2, 3)
        ]
        assert of_seed["val_psnr"] == of_seed["curve"][-1]["val_psnr"] > 0
    assert record["rows"]["base"]["readings"]["steps"] == record["rows"]["base"]["readings"]["seconds"]
    assert record["rows"]["base"]["parameters"] == record["rows"]["mse-100"]["parameters"] > 0


def test_rows_are_flags_of_the_training() -> None:
    """But for those whose latents are still to be made."""
    for name, row in chosen_rows(STAGES[2], None, {}).items():
        config = parse_config(DiTConfig, PRESETS, [
            "--preset", "demo", "--vae", "v", "--latents", "l", "--output_dir", "o", *row.flags.split(),
        ])  # fmt: skip
        assert (name == "base") == (not row.flags)
        assert config.max_train_steps == PRESETS["demo"]["max_train_steps"]
        assert row.samplings[-1].fvd  # which a rehearsal takes
    assert set(STAGES[2]) - set(chosen_rows(STAGES[2], None, {})) == {"repa"}
    assert "repa" in chosen_rows(STAGES[2], None, {"features": 1})


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--size", "cpu"], "name their folder with --data"),
        (["--latents", "x"], "needs --vae"),
        (["--stage", "1", "--vae", "x"], "stage 2"),
        (["--stage", "1", "--features", "x"], "stage 2"),
        (["--vae", "x", "--latents", "y", "--features", "z"], "leave --latents out"),
        (["--num_fvd_clips", "300"], "--num_clips 256"),
        (["--rows", "base", "x1"], "--rows x1: there are base, velocity"),
        (["--steps_from", "absent.json"], "absent.json"),
    ],
)
def test_what_does_not_go_together_is_refused(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        recipe.main(["--out", str(tmp_path), *words])
    assert told in capsys.readouterr().err
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".json" or path.is_dir()]
