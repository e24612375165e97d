"""What `train_vae.py` reads, gives its networks and measures, each held to what is made by hand here."""

import pytest
import torch
from accelerate import Accelerator
from PIL import Image

import train_vae
from autoencoder.adapter import encode, latent_layout
from autoencoder.losses.terms import hide_later_frames, noise_for_decoding
from autoencoder.model.vidtwin import AutoencoderVidTwin
from vidtwin_gen.data.ucf101 import build_indices
from vidtwin_gen.data.video import read_clip
from vidtwin_gen.data.video_dataset import BadVideos, VideoDataset
from vidtwin_gen.draws import BatchDraw
from vidtwin_gen.quality import psnr
from vidtwin_gen.training.accelerator import make_accelerator
from vidtwin_gen.training.optimizer import SkippingOptimizer


def config_of(run, output_dir, **changes):
    return train_vae.VAEConfig(**run.flags | changes | {"output_dir": str(output_dir)})


@pytest.fixture
def datasets_of(tiny_vae_run, tmp_path, monkeypatch):
    """`datasets_of(**flags)`: those that a training learns from and validates with."""

    def of(**flags):
        made = []

        class Watched(VideoDataset):
            def __init__(self, *arguments, **options):
                super().__init__(*arguments, **options)
                made.append(self)

        monkeypatch.setattr(train_vae, "VideoDataset", Watched)
        train_vae.main(tiny_vae_run.argv(tmp_path / "run", max_train_steps=1, **flags))
        return made

    return of


def test_training_clips_alone_are_mirrored_where_it_is_asked_for(datasets_of):
    training, held_out = datasets_of(flip=True, seed=3)
    assert (training.flip, training.seed, held_out.flip) == (True, 3, False)


def test_validation_sees_the_middle_of_videos_of_all_classes(datasets_of, tiny_vae_run, tmp_path):
    _, held_out = datasets_of()
    config = config_of(tiny_vae_run, tmp_path)
    in_order = build_indices(config.data, ("test",), fold=config.fold)["test"]
    paths = list(held_out.paths())
    assert paths != list(in_order["path"]) and sorted(paths) == sorted(in_order["path"])
    size = (config.height, config.width)
    middle = read_clip(paths[0], config.num_frames, size=size, stride=config.stride, start="center")
    assert torch.equal(held_out[0]["video"], middle)
    first = read_clip(paths[0], config.num_frames, size=size, stride=config.stride, start=0)
    assert not torch.equal(first, middle)


def test_the_autoencoder_learns_from_hidden_frames_and_a_sampled_posterior(tiny_vae_run, tmp_path):
    config = config_of(tiny_vae_run, tmp_path, predicted_share=0.9)
    vae = AutoencoderVidTwin.from_pretrained(tiny_vae_run.output_dir / "autoencoder")
    clips = torch.rand(4, 3, config.num_frames, 16, 16) * 2 - 1

    def draw():
        return BatchDraw(torch.Generator().manual_seed(2), torch.Generator().manual_seed(1), 4, slice(None))

    again = draw()
    seen = hide_later_frames(clips, 0.9, again)
    assert not torch.equal(seen, clips)
    with torch.no_grad():
        expected = vae(seen, sample_posterior=True, generator=again.generator).sample
        of_the_mean = vae(seen).sample
    optimizer = SkippingOptimizer([vae], config, make_accelerator(config), 1e-3, 1)
    logged = train_vae.training_step(clips, config, draw(), optimizer, None, None, None)
    assert logged["l1"].item() == pytest.approx((expected - clips).abs().mean().item(), rel=1e-5)
    assert logged["l1"].item() != pytest.approx((of_the_mean - clips).abs().mean().item(), rel=1e-4)


def test_the_decoder_learns_from_latents_with_noise(tiny_vae_run, tmp_path):
    saved = tiny_vae_run.output_dir / "autoencoder"
    changes = {"decoder_only": True, "autoencoder": str(saved), "latent_noise": 3.0}
    config = config_of(tiny_vae_run, tmp_path, **changes)
    vae = AutoencoderVidTwin.from_pretrained(saved).eval()
    clips = torch.rand(4, 3, config.num_frames, 16, 16) * 2 - 1
    std = torch.linspace(0.1, 2, vae.layout.num_elements)

    def draw():
        return BatchDraw(torch.Generator().manual_seed(2), torch.Generator().manual_seed(1), 4, slice(None))

    again = draw()
    with torch.no_grad():
        latents = vae.encode(clips).latent_dist.sample(again.generator)
        expected = vae.decode(latents + noise_for_decoding(std, 3.0, again)).sample
    optimizer = SkippingOptimizer([vae], config, make_accelerator(config), 1e-3, 1)
    logged = train_vae.training_step(clips, config, draw(), optimizer, None, None, None, std)
    assert logged["l1"].item() == pytest.approx((expected - clips).abs().mean().item(), rel=1e-5)


def test_noise_needs_the_deviations_of_the_latents(tiny_vae_run, tmp_path):
    run = tmp_path / "run"
    words = ["--decoder_only", "--autoencoder", str(tiny_vae_run.output_dir / "autoencoder")]
    with pytest.raises(ValueError, match=r"does not have in its config, as latents_std: name the vae/"):
        train_vae.main([*tiny_vae_run.argv(run, max_train_steps=1), *words, "--latent_noise", "0.4"])
    assert not run.exists()


@pytest.fixture
def validated(tiny_vae_run, tmp_path):
    """`validated(dataset, lpips, **flags)`: a trained autoencoder, its layout, what `validate` gives of it,
    and how long its animation shows a frame, in milliseconds."""
    vae = AutoencoderVidTwin.from_pretrained(tiny_vae_run.output_dir / "autoencoder")

    def run(dataset, lpips=None, **flags):
        config = config_of(tiny_vae_run, tmp_path, **flags)
        layout = latent_layout(vae, config.num_frames, config.height, config.width)
        bad_videos = BadVideos(len(dataset), 0.9)
        accelerator = Accelerator(cpu=True)
        values = train_vae.validate(vae, layout, dataset, bad_videos, lpips, config, accelerator, 1)
        (animation,) = (tmp_path / "samples").glob("*.gif")
        return vae, layout, values, Image.open(animation).info["duration"]

    return run


def held_out(run, tmp_path, paths, **rate):
    config = config_of(run, tmp_path)
    index = build_indices(config.data, ("test",), fold=config.fold)["test"].select(range(len(paths)))
    index = index.map(lambda row, number: {"path": str(paths[number])}, with_indices=True)
    size = (config.height, config.width)
    return VideoDataset(index, config.num_frames, size, shuffle=False, start="center", **rate)


def test_validation_is_a_mean_over_clips_without_stand_ins(validated, tiny_vae_run, tmp_path):
    good = list(build_indices(tiny_vae_run.flags["data"], ("test",))["test"]["path"])[:3]
    bad = tmp_path / "bad.avi"
    bad.write_bytes(b"no video")
    flags = {"train_batch_size": 2, "num_validation_videos": 4}

    def lpips(decoded, clips):
        return (decoded - clips).abs().mean(dim=(1, 2, 3))

    whole = held_out(tiny_vae_run, tmp_path, good, stride=2)
    vae, layout, values, _ = validated(whole, lpips, **flags)
    clips = torch.stack([whole[number]["video"] for number in range(3)])
    with torch.no_grad():
        decoded = train_vae.decode(vae, encode(vae, clips).mode(), layout)
    assert values["val_psnr"] == pytest.approx(psnr(decoded, clips).mean().item(), rel=1e-5)
    distance = (decoded.clamp(-1, 1) - clips).abs().mean().item()
    assert values["val_lpips"] == pytest.approx(distance, rel=1e-5)
    with_bad = held_out(tiny_vae_run, tmp_path, [*good, bad], stride=2)
    assert validated(with_bad, lpips, **flags)[2] == pytest.approx(values, rel=1e-5)


def test_clips_are_shown_at_the_rate_that_they_were_read_at(validated, tiny_vae_run, tmp_path):
    paths = list(build_indices(tiny_vae_run.flags["data"], ("test",))["test"]["path"])[:1]
    dataset = held_out(tiny_vae_run, tmp_path, paths, stride=2)
    assert train_vae.common_frame_rate(paths) == 25
    assert validated(dataset, stride=2, fps=0.0)[3] == 80
    assert validated(dataset, stride=0, fps=5.0)[3] == 200


def test_the_discriminator_has_a_rate_and_a_schedule_of_its_own(tiny_vae_run, tmp_path):
    flags = {"lr_scheduler": "linear", "lr_warmup_steps": 0, "max_train_steps": 10, "gan_start": 4}
    for flag, rate in ((3e-4, 3e-4), (0.0, 1e-3)):  # 0: that of the autoencoder
        config = config_of(tiny_vae_run, tmp_path, discriminator_learning_rate=flag, **flags)
        optimizer = train_vae.make_discriminator_optimizer(config, make_accelerator(config))
        assert optimizer.settings[0]["initial_lr"] == rate
        (schedule,) = optimizer.lr_schedulers
        factor = schedule.scheduler.lr_lambdas[0]
        assert [factor(step) for step in (0, 3, 6)] == [1, 0.5, 0]  # six steps are left after --gan_start
