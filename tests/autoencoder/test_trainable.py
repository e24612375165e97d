"""Stage 1 trains any video autoencoder of diffusers: by its class and sizes, or from a saved folder."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

import train_vae
from autoencoder import adapter
from autoencoder.loading import build_video_autoencoder, load_video_autoencoder
from autoencoder.model.vidtwin import AutoencoderVidTwin
from autoencoder.trainable import autoencoder_to_train, freeze_encoder, return_posterior
from tests.builders.autoencoders import (
    ABLATIONS,
    AUTOENCODERS,
    TINY_AUTOENCODER,
    TRAINED_AUTOENCODER,
    build_of,
)
from tests.builders.runs import VAE_FLAGS, command_line
from tests.builders.scripts import metrics
from vidtwin_gen.__main__ import main
from vidtwin_gen.training.ema import ema_weights
from vidtwin_gen.weights import weights_sha256

TRAINED = ("AutoencoderKLMagvit", "AutoencoderVidTok", "AutoencoderKLWan", "AutoencoderKLCogVideoX")
SHORT = {"max_train_steps": 4, "checkpointing_steps": 2, "validation_steps": 4, "gan_start": 1}


@pytest.fixture
def config_of(tmp_path):
    def write(name, **changes):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({"_class_name": name} | AUTOENCODERS.get(name, ({},))[0] | changes))
        return path

    return write


def flags_of(name, root, **changes):
    return VAE_FLAGS | SHORT | {"data": root, "num_frames": AUTOENCODERS[name][1], "stride": 1} | changes


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_every_parameter_learns_from_the_clip_in_one_call(name):
    vae = build_of(name).train()
    num_frames = AUTOENCODERS[name][1]
    layout = adapter.latent_layout(vae, num_frames, 16, 16)
    return_posterior(vae, layout)
    clips = torch.rand(2, 3, num_frames, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    output = vae(clips, sample_posterior=True, generator=torch.Generator().manual_seed(1))
    output.sample.square().mean().backward()
    assert [name for name, parameter in vae.named_parameters() if parameter.grad is None] == []
    last = adapter.last_layer(vae, layout)
    assert 3 * 16 <= len(last) * 16 <= 3 * 16**2 and last.grad.any()
    with torch.no_grad():
        vae.eval()
        means = vae(clips)
        posterior = adapter.encode(vae, clips)
        assert torch.equal(means.latent_dist.mean, posterior.mean)
        assert torch.equal(means.sample, adapter.decode(vae, posterior.mean, layout))


def learns_from_decoding(vae, layout):
    latents = torch.randn(1, layout.num_elements, generator=torch.Generator().manual_seed(0))
    adapter.decode(vae, latents, layout).square().mean().backward()
    return {name for name, parameter in vae.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("name", [*AUTOENCODERS, *ABLATIONS, "ours"])
def test_a_frozen_encoder_leaves_just_what_decoding_uses(name):
    def build():
        torch.manual_seed(0)
        if name in AUTOENCODERS:
            return build_of(name).train()
        return AutoencoderVidTwin(**TRAINED_AUTOENCODER | ABLATIONS.get(name, {}))

    vae = build()
    layout = adapter.latent_layout(vae, AUTOENCODERS[name][1] if name in AUTOENCODERS else 4, 16, 16)
    freeze_encoder(vae, layout)
    trained = {name for name, parameter in vae.named_parameters() if parameter.requires_grad}
    assert 0 < len(trained) < len(list(vae.parameters()))
    assert trained == learns_from_decoding(build(), layout)


def test_a_frozen_encoder_has_no_dropout_and_the_decoder_stays_in_training_mode():
    vae = AutoencoderVidTwin(**TRAINED_AUTOENCODER)
    clips = torch.rand(1, 3, 4, 16, 16)
    assert not torch.equal(*(vae.encode(clips).latent_dist.mean for _ in range(2)))
    freeze_encoder(vae, vae.layout)
    with ema_weights(None, vae):  # as validation does
        expected = vae.encode(clips).latent_dist.mean
        assert not vae.decoder.training
    assert torch.equal(vae.encode(clips).latent_dist.mean, expected)
    assert vae.decoder.training


def test_training_the_decoder_alone_keeps_latents_and_their_whitening(synthetic_root, tmp_path, capsys):
    vae = AutoencoderVidTwin(**TRAINED_AUTOENCODER)
    mean = [0.5] * vae.layout.num_channels
    vae.register_to_config(latents_mean=mean, latents_std=mean)
    vae.save_pretrained(tmp_path / "before")
    flags = VAE_FLAGS | SHORT | {"data": synthetic_root, "autoencoder": tmp_path / "before"}
    words = [*command_line(flags, output_dir=tmp_path / "run"), "--decoder_only", "--optimizer", "muon"]
    train_vae.main([*words, "--dry_run"])
    assert re.search(r"[\d,]+ parameters, of which [\d,]+ are trained; latent", capsys.readouterr().out)
    train_vae.main(words)
    after = load_video_autoencoder(tmp_path / "run" / "autoencoder")
    assert list(after.config.latents_mean) == list(after.config.latents_std) == mean
    vae.eval()
    clips = torch.rand(1, 3, 4, 16, 16)
    latents = vae.encode(clips).latent_dist.parameters
    assert torch.equal(after.encode(clips).latent_dist.parameters, latents)
    z = latents.chunk(2, dim=1)[0]
    assert not torch.equal(after.decode(z).sample, vae.decode(z).sample)

    weights = weights_sha256(tmp_path / "run" / "autoencoder")
    shutil.rmtree(tmp_path / "run" / "autoencoder")
    shutil.rmtree(tmp_path / "run" / "checkpoint-4")
    train_vae.main(words)
    assert weights_sha256(tmp_path / "run" / "autoencoder") == weights


@pytest.mark.parametrize("name", TRAINED)
def test_a_class_of_diffusers_is_trained_with_the_whole_loss(name, config_of, synthetic_root, tmp_path):
    flags = flags_of(name, synthetic_root, autoencoder=config_of(name), max_train_steps=2, validation_steps=2)
    train_vae.main(command_line(flags, output_dir=tmp_path / "run"))
    *steps, validation = metrics(tmp_path / "run")
    assert {"l1", "kl", "gan", "gan_adaptive_weight", "discriminator_loss"} <= steps[-1].keys()
    assert steps[-1]["gan_adaptive_weight"] > 0
    assert validation["val_psnr"] > 0
    vae = load_video_autoencoder(tmp_path / "run" / "autoencoder")
    assert type(vae).__name__ == name
    assert adapter.clip_size(vae, adapter.latent_layout(vae, AUTOENCODERS[name][1], 16, 16))


def test_a_run_resumes_to_the_same_weights_and_a_saved_folder_goes_on(config_of, synthetic_root, tmp_path):
    flags = flags_of("AutoencoderKLWan", synthetic_root, autoencoder=config_of("AutoencoderKLWan"))
    run = tmp_path / "run"
    train_vae.main(command_line(flags, output_dir=run))
    weights = weights_sha256(run / "autoencoder")
    main(["export", "--checkpoint", str(run / "checkpoint-4"), "--out", str(tmp_path / "exported")])
    assert weights_sha256(tmp_path / "exported") == weights
    saved = (run / "autoencoder").rename(tmp_path / "autoencoder")
    shutil.rmtree(run / "checkpoint-4")
    train_vae.main(command_line(flags, output_dir=run))
    assert weights_sha256(run / "autoencoder") == weights

    stays = flags | {"autoencoder": saved, "learning_rate": 0, "adam_weight_decay": 0, "max_train_steps": 1}
    train_vae.main(command_line(stays, output_dir=tmp_path / "on"))
    assert weights_sha256(tmp_path / "on" / "autoencoder") == weights


def test_ours_may_be_named_like_the_others(config_of, synthetic_root, tmp_path, capsys):
    path = config_of("AutoencoderVidTwin", **TINY_AUTOENCODER)
    assert autoencoder_to_train(str(path)).training
    exported = json.loads(path.read_text()) | {"auto_map": {"AutoModel": "code.AutoencoderVidTwin"}}
    (tmp_path / "exported.json").write_text(json.dumps(exported))
    assert build_video_autoencoder(tmp_path / "exported.json").config.patch_size
    with pytest.raises(ValueError, match="holds no nowhere.json; name a JSON file of a video"):
        autoencoder_to_train("nowhere.json")
    flags = VAE_FLAGS | {"data": synthetic_root, "autoencoder": path, "dry_run": None}
    train_vae.main([*command_line(flags, output_dir=tmp_path / "run"), "--dry_run"])
    assert "dynamics_x" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "changes", "complaint"),
    [
        ("AutoencoderKL", {}, "of AutoencoderKL, which does not work on videos; name a JSON file"),
        ("NoSuchAutoencoder", {}, "of NoSuchAutoencoder, no autoencoder of diffusers"),
        ("AutoencoderKLWan", {"width": 4}, "AutoencoderKLWan has no width; it has base_dim"),
        ("AutoencoderVidTwin", TINY_AUTOENCODER | {"patch_size": 5}, "can't have these sizes: .*patch_size"),
        ("AutoencoderVidTok", {"regularizer": "fsq", "double_z": False, "z_channels": 6}, "Gaussian latent"),
        ("AutoencoderKLMagvit", {}, "does not take clips of 4x16x16 .*clips of 5x16x16 work"),
    ],
)
def test_what_can_not_be_trained_is_refused(
    name, changes, complaint, config_of, synthetic_root, tmp_path, capsys
):
    flags = VAE_FLAGS | {"data": synthetic_root, "autoencoder": config_of(name, **changes)}
    with pytest.raises(ValueError, match=complaint):
        train_vae.main(command_line(flags, output_dir=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_the_shipped_sizes_are_comparable():
    """As docs/autoencoders.md has them."""
    sizes, layouts = {}, {}
    for path in Path(train_vae.__file__).parent.glob("autoencoder/configs/*.json"):
        with torch.device("meta"):
            vae = build_video_autoencoder(path)
        layouts[path.stem], sizes[path.stem] = adapter.latent_layout(vae, 17, 64, 64), vae.num_parameters()
    assert len(sizes) == 5 and max(sizes.values()) < 1.1 * min(sizes.values())
    ours, magvit = layouts["vidtwin"], layouts["magvit"]
    assert magvit.num_tokens() / ours.num_tokens() == pytest.approx(3.1, abs=0.05)
    assert magvit.num_elements / ours.num_elements == pytest.approx(3.2, abs=0.1)
    assert {layout.grids[0].shape for name, layout in layouts.items() if name != "vidtwin"} == {(5, 8, 8)}
    page = (Path(train_vae.__file__).parent / "docs/autoencoders.md").read_text(encoding="utf-8")
    for name, layout in layouts.items():
        (row,) = re.findall(rf"^\| `{name}.json` .*$", page, re.MULTILINE)
        assert f"| {layout.num_tokens()} |" in row and f"| {layout.num_elements:,} |" in row


@pytest.mark.parametrize(
    ("words", "way_out"),
    [
        ("--compile", "give --compile false"),
        ("--gradient_checkpointing", "leave the flag out"),
        ("--optimizer muon", "say --optimizer adamw"),
    ],
)
def test_what_its_class_does_not_have_is_refused(words, way_out, config_of, synthetic_root, tmp_path):
    flags = flags_of("AutoencoderKLWan", synthetic_root, autoencoder=config_of("AutoencoderKLWan"))
    with pytest.raises(ValueError, match=f"{words}.* AutoencoderKLWan .*{way_out}"):
        train_vae.main([*command_line(flags, output_dir=tmp_path / "run"), *words.split()])
    assert not (tmp_path / "run").exists()
