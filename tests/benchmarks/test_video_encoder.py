"""benchmarks/recipe/video_encoder.py, and its model as the ablation takes it."""

import json
from pathlib import Path

import pytest
import torch
from transformers import VideoMAEConfig, VideoMAEModel

from autoencoder.encode.video_encoder import VideoEncoder
from benchmarks.recipe import __main__ as recipe
from benchmarks.recipe import video_encoder
from tests.builders.runs import Latents
from vidtwin_gen.data.pixels import from_uint8
from vidtwin_gen.draws import seeded_generator

SIZES = "--stride 2 --num_frames 8 --size 16 --hidden_size 12 --windows_per_video 1 --batch_size 4"


def test_patches_are_hidden_in_all_frames_of_mirrored_and_other_clips() -> None:
    clips = torch.randint(256, (1, 4, 16, 16, 3), dtype=torch.uint8)
    batch = video_encoder.masked_batch(clips, 20, torch.Generator().manual_seed(0))
    hidden = batch["bool_masked_pos"]
    assert hidden.shape == (20, 2 * 64) and (hidden.sum(1) == 2 * 48).all()
    assert torch.equal(hidden[:, :64], hidden[:, 64:]) and len(hidden.unique(dim=0)) == 20
    one, other = batch["pixel_values"].unique(dim=0)
    assert torch.equal(one, other.flip(-1))


def test_a_model_trains_once_and_sees_the_same_colours_as_encode(
    few_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "encoder"
    words = ["--data", str(few_videos), "--out", str(out), *SIZES.split()]
    video_encoder.main([*words, "--max_train_steps", "2"])
    about = json.loads((out / "video_encoder.json").read_text())
    trained = VideoMAEModel.from_pretrained(out)
    untrained = VideoMAEModel.from_pretrained(out / "untrained")
    differences = [
        (a - b).abs().max() for a, b in zip(trained.parameters(), untrained.parameters(), strict=True)
    ]
    assert max(differences) > 0
    assert set(about["linear_accuracy"]) == {"trained", "untrained"}

    seen: list[torch.Tensor] = []
    encoder = VideoEncoder(str(out), 8, (1, 1, 1))
    encoder.model.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    clip = torch.randint(256, (1, 8, 16, 16, 3), dtype=torch.uint8)
    encoder(from_uint8(clip))
    shown = video_encoder.masked_batch(clip, 1, torch.Generator().manual_seed(0))["pixel_values"][0]
    difference = min((shown - seen[0][0]).abs().max(), (shown.flip(-1) - seen[0][0]).abs().max())
    assert difference < 1e-5


@pytest.mark.slow
def test_a_training_goes_on_where_it_was_stopped(
    few_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--data", str(few_videos), *SIZES.split(), "--max_train_steps", "60"]
    video_encoder.main([*words, "--out", str(tmp_path / "whole")])

    drawn: list[int] = []

    def stopped(seed: int, step: int) -> torch.Generator:
        if len(drawn) == 55:
            raise KeyboardInterrupt
        drawn.append(step)
        return seeded_generator(seed, step)

    monkeypatch.setattr(video_encoder, "seeded_generator", stopped)
    with pytest.raises(SystemExit):
        video_encoder.main([*words, "--out", str(tmp_path / "parts")])
    drawn.clear()
    video_encoder.main([*words, "--out", str(tmp_path / "parts")])
    assert drawn == list(range(50, 60))
    one, other = (VideoMAEModel.from_pretrained(tmp_path / name) for name in ("whole", "parts"))
    assert all(map(torch.equal, one.parameters(), other.parameters()))


def test_classes_that_colours_tell_are_told_apart(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = VideoMAEConfig(
        image_size=16, patch_size=4, num_frames=4, hidden_size=12, num_attention_heads=3, num_hidden_layers=1
    )
    model = VideoMAEModel(config)
    torch.nn.init.normal_(model.embeddings.patch_embeddings.projection.weight)
    video_encoder.save(model, tmp_path)
    labels = torch.arange(80) % 2
    levels = torch.tensor([20, 220])[labels].view(-1, 1, 1, 1, 1)
    clips = (levels + torch.randint(-15, 15, (80, 4, 16, 16, 3))).to(torch.uint8)
    parts = clips.split(40)
    assert video_encoder.linear_accuracy(tmp_path, parts, labels.split(40)) == 1
    assert video_encoder.linear_accuracy(tmp_path, parts, (labels[:40], 1 - labels[40:])) == 0


def test_sizes_that_do_not_divide_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        video_encoder.main(["--data", "absent", "--out", str(tmp_path / "out"), "--size", "20"])
    assert "--size 20" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_ablation_aligns_with_it(
    few_videos: Path, featured_latents: Latents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # as the command does, which would leave it to other tests
    encoder, out = featured_latents.latents_dir.parent / "encoder", tmp_path / "out"
    words = ["--tiny", "--data", few_videos, "--vae", featured_latents.vae_dir, "--features", encoder]
    words += ["--num_clips", 2, "--num_fvd_clips", 0, "--readings", "steps", "--seeds", 0, "--out", out]
    recipe.main(list(map(str, [*words, "--rows", "base", "repa"])))
    record = json.loads((out / "stage_2.json").read_text())
    losses = {name: row["readings"]["steps"]["0"]["val_loss"] for name, row in record["rows"].items()}
    assert losses["base"] != losses["repa"]
    log = (out / "stage_2/repa/steps_3/seed_0/dit/metrics.jsonl").read_text()
    assert "loss_repa" in log
    assert record["settings"]["features"] == str(encoder)
