"""A DiT that is aligned with a video encoder: it trains, resumes, and leaves no trace in what it
exports."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

import train_dit
from pipelines.pipeline_vidtwin import VidTwinPipeline
from tests.builders.runs import DIT_FLAGS, command_line
from tests.builders.scripts import metrics
from vidtwin_gen.weights import weights_sha256

ALIGNED = {"repa_weight": 0.5, "repa_dim": 32, "num_layers": 2}
STEPS = {"max_train_steps": 4, "checkpointing_steps": 2, "validation_steps": 4}


@pytest.fixture
def argv(featured_latents, tmp_path):
    """The command line of a short run, with changes."""

    def argv(output_dir=tmp_path / "run", **changes):
        places = {"vae": featured_latents.vae_dir, "latents": featured_latents.latents_dir}
        return command_line(DIT_FLAGS | STEPS | ALIGNED | places | changes, output_dir=output_dir)

    return argv


def test_it_trains_and_resumes_to_the_last_bit(argv, tmp_path):
    run = tmp_path / "run"
    train_dit.main(argv())
    lines = metrics(run)
    steps, validated = lines[:-1], lines[-1]
    assert all(0 < line["loss_repa"] < 2 for line in steps)
    assert "val_loss" in validated and not [name for name in validated if "repa" in name]
    exported = VidTwinPipeline.from_pretrained(run / "pipeline").transformer.state_dict()
    assert not [name for name in exported if "projection" in name or "overlaps" in name]
    projections = [load_file(run / f"checkpoint-{step}/model.safetensors") for step in (2, 4)]
    assert projections[0].keys() == projections[1].keys() and len(projections[0]) == 6
    assert all(not torch.equal(projections[0][name], projections[1][name]) for name in projections[0])

    text, weights = (run / "metrics.jsonl").read_text(), weights_sha256(run / "pipeline" / "transformer")
    for folder in ("checkpoint-4", "pipeline"):
        shutil.rmtree(run / folder)
    train_dit.main(argv())
    assert (run / "metrics.jsonl").read_text() == text
    assert weights_sha256(run / "pipeline" / "transformer") == weights
    resumed = load_file(run / "checkpoint-4/model.safetensors")
    assert all(torch.equal(resumed[name], value) for name, value in projections[1].items())


def test_the_first_step_differs_by_the_term_alone(argv, tmp_path):
    """Noise, weights and labels are those of a run without it, and so is the validation's loss of a model
    that has not moved."""
    runs = {
        "plain": {"repa_weight": 0},
        "aligned": {},
        "normalised": {"repa_normalise": True, "repa_layer": 2},
    }
    still = {"max_train_steps": 1, "lr_warmup_steps": 1}  # a warm-up begins at 0
    for name, changes in runs.items():
        train_dit.main(argv(tmp_path / name, **still | changes))
    plain, aligned, normalised = (metrics(tmp_path / name) for name in runs)
    assert plain[1] == aligned[1] == normalised[1]
    for lines in (aligned, normalised):
        expected = plain[0]["loss"] + 0.5 * lines[0]["loss_repa"]
        assert lines[0]["loss"] == pytest.approx(expected, rel=1e-6)
    assert aligned[0]["loss_repa"] != normalised[0]["loss_repa"]
    assert "loss_repa" not in plain[0]


def test_tokens_come_to_agree_with_the_features(argv, tmp_path):
    train_dit.main(argv(max_train_steps=20, checkpointing_steps=20, learning_rate=1e-2, lr_warmup_steps=1))
    losses = [line["loss_repa"] for line in metrics(tmp_path / "run") if "loss_repa" in line]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"repa_weight": -1}, "--repa_weight must be at least 0, got -1.0"),
        ({"repa_layer": 3}, "--repa_layer is a number of blocks, from 1 to --num_layers 2, or 0 .* got 3"),
        ({"repa_dim": 0}, "--repa_dim must be at least 1, got 0"),
    ],
)
def test_flags_that_cannot_be_are_refused(changes, message, argv, tmp_path, capsys):
    with pytest.raises(SystemExit):
        train_dit.main(argv(**changes))
    assert message.split(" .* ")[0] in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_one_feature_of_a_clip_cannot_be_normalised():
    metadata = {"features": {"grid": [1, 1, 1], "dim": 8}}
    config = SimpleNamespace(repa_normalise=True, latents="latents")
    with pytest.raises(ValueError, match="--repa_normalise standardises .* of --latents latents are one"):
        train_dit.alignment_head(None, metadata, config)


def test_what_it_cannot_train_on_is_refused(argv, tmp_path, tiny_latents, monkeypatch):
    places = {"vae": tiny_latents.vae_dir, "latents": tiny_latents.latents_dir}
    with pytest.raises(
        ValueError, match="--repa_weight 0.5 aligns with .* has none: encode again with --feat"
    ):
        train_dit.main(argv(**places))
    for name, value in {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="stage 1 and --repa_weight have more: launch it without FSDP"):
        train_dit.main(argv())
    assert not list(tmp_path.iterdir())
