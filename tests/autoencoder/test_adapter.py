"""Any video autoencoder of diffusers in place of ours: layout, latents, the road from videos to videos."""

import json
import logging
from functools import partial

import diffusers
import pytest
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from safetensors.torch import load_file, save_file

import train_dit
from autoencoder import adapter
from autoencoder.export import export_autoencoder
from autoencoder.loading import load_video_autoencoder
from autoencoder.model.vidtwin import AutoencoderVidTwin
from eval.__main__ import main as evaluate
from pipelines.__main__ import main as pipelines
from pipelines.pipeline_vidtwin import VidTwinPipeline
from tests.builders.autoencoders import AUTOENCODERS, LTX, WAN_CONFIG, build_of
from tests.builders.runs import DIT_FLAGS, command_line
from vidtwin_gen.__main__ import main as vidtwin_gen
from vidtwin_gen.data.latent_dataset import load_latents
from vidtwin_gen.latents import LatentLayout
from vidtwin_gen.models.transformer import LatentTransformer


@pytest.fixture(scope="module", params=AUTOENCODERS)
def case(request):
    """The autoencoder, frames that work and that do not, the latent's shape, and the layout."""
    _, num_frames, wrong, shape = AUTOENCODERS[request.param]
    vae = build_of(request.param)
    return vae, num_frames, wrong, shape, adapter.latent_layout(vae, num_frames, 16, 16)


def clips_of(num_frames, count=2):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, num_frames, 16, 16, generator=generator) * 2 - 1


def native(vae, clips):
    """The class's own calls: the posterior's mean and log-variance, and what its mean is decoded to."""
    if isinstance(vae, diffusers.AutoencoderVidTok):  # as its forward does before it encodes
        clips = torch.cat([clips[:, :, :1]] * (vae.temporal_compression_ratio - 1) + [clips], dim=2)
    if isinstance(vae, diffusers.AutoencoderKLHunyuanVideo15) and len(clips) > 1:  # takes one clip at a time
        return tuple(
            torch.cat(parts) for parts in zip(*(native(vae, clip[None]) for clip in clips), strict=True)
        )
    posterior = vae.encode(clips).latent_dist
    decoded = vae.decode(posterior.mean)
    return posterior.mean, posterior.logvar, decoded if torch.is_tensor(decoded) else decoded.sample


@torch.no_grad()
def test_flat_is_what_the_class_itself_computes(case):
    vae, num_frames, _, shape, layout = case
    assert layout.names == ("video",) and layout.grids[0].axes == ("time", "height", "width")
    assert layout.grids[0].shape == shape and layout.grids[0].channels in (
        4,
        vae.config.get("latent_channels"),
    )
    assert adapter.clip_size(vae, layout) == (num_frames, 16, 16)

    clips = clips_of(num_frames)
    mean, logvar, decoded = native(vae, clips)
    posterior = adapter.encode(vae, clips)
    assert posterior.mean.shape == (2, layout.num_elements)
    for part, expected in ((posterior.mean, mean), (posterior.logvar, logvar)):
        assert torch.equal(layout.split(part)["video"].movedim(-1, 1), expected)
    back = adapter.decode(vae, posterior.mode(), layout)
    assert back.shape == clips.shape and torch.equal(back, decoded)
    assert torch.equal(back, vae(clips, sample_posterior=False).sample)


@torch.no_grad()
def test_calls_do_not_influence_each_other(case):
    vae, num_frames, wrong, _, layout = case
    clips = clips_of(num_frames)
    first = adapter.encode(vae, clips).mean
    back = adapter.decode(vae, first, layout)
    with pytest.raises(ValueError, match="does not take clips"):
        adapter.latent_layout(vae, wrong, 16, 16)
    adapter.encode(vae, clips_of(num_frames, count=1).flip(2))
    assert torch.equal(adapter.encode(vae, clips).mean, first)
    adapter.decode(vae, first[:1] + 1, layout)
    assert torch.equal(adapter.decode(vae, first, layout), back)
    # one by one as in a batch
    for i in range(2):
        torch.testing.assert_close(
            adapter.encode(vae, clips[i : i + 1]).mean[0], first[i], atol=1e-4, rtol=1e-4
        )
        single = adapter.decode(vae, first[i : i + 1], layout)[0]
        torch.testing.assert_close(single, back[i], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", AUTOENCODERS)
@torch.no_grad()
def test_slicing_decodes_one_clip_after_the_other(name):
    num_frames, vae = AUTOENCODERS[name][1], build_of(name)
    layout, clips = adapter.latent_layout(vae, num_frames, 16, 16), clips_of(num_frames, count=3)
    latents = adapter.encode(vae, clips).mean
    together = adapter.decode(vae, latents, layout)
    vae.enable_slicing()
    torch.testing.assert_close(adapter.encode(vae, clips).mean, latents, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(adapter.decode(vae, latents, layout), together, atol=1e-3, rtol=1e-3)
    vae.disable_slicing()
    assert torch.equal(adapter.decode(vae, latents, layout), together)


def test_sizes_that_do_not_come_back_are_refused_with_one_that_does(case):
    vae, _, wrong, _, _ = case
    with pytest.raises(
        ValueError, match=rf"clips of {wrong}x16x16 \(frames.*clips of (\d+)x16x16 work"
    ) as error:
        adapter.latent_layout(vae, wrong, 16, 16)
    num_frames = int(str(error.value).split("clips of ")[-1].split("x")[0])
    adapter.latent_layout(vae, num_frames, 16, 16)


def test_odd_sides_and_other_layouts_are_refused():
    vae = build_of("AutoencoderKLWan")
    with pytest.raises(ValueError, match="5x17x16 .*5 *x16x16.*clips of 5x16x16 work"):
        adapter.latent_layout(vae, 5, 17, 16)
    layout = adapter.latent_layout(vae, 5, 16, 16)
    other = adapter.latent_layout(build_of("AutoencoderKLWan", z_dim=6), 5, 16, 16)
    ours = LatentLayout.from_config([{"name": "a", "axes": ["query"], "shape": [4], "channels": 4}])
    for wrong, complaint in ((other, "can't decode latents of"), (ours, "are one grid of")):
        transformer = LatentTransformer(wrong.to_config(), 2, hidden_size=16, num_layers=1, num_heads=2)
        with pytest.raises(ValueError, match=f"made for another latent than .*{complaint}"):
            VidTwinPipeline(vae, transformer, FlowMatchEulerDiscreteScheduler())
    transformer = LatentTransformer(layout.to_config(), 2, hidden_size=16, num_layers=1, num_heads=2)
    with pytest.raises(ValueError, match="latents_mean: expected 4 finite values, one per grid and channel"):
        whitening = {"latents_mean": [0.0] * 3, "latents_std": [1.0] * 4}
        VidTwinPipeline(vae, transformer, FlowMatchEulerDiscreteScheduler(), **whitening)


@pytest.mark.parametrize(
    ("name", "config", "complaint"),
    [
        ("AutoencoderKL", {"block_out_channels": [8], "norm_num_groups": 4}, "does not work on videos"),
        ("AutoencoderKLTemporalDecoder", {"layers_per_block": 1}, "decode needs num_frames beside"),
        ("AutoencoderKLLTXVideo", {**LTX, "timestep_conditioning": True}, "decode needs temb beside"),
        ("AutoencoderKLAllegro", {}, "encodes in tiles alone"),
        ("AutoencoderKLLTXVideo", {**LTX, "decoder_inject_noise": [True] * 5}, "decoder draws noise"),
        ("AutoencoderKLWan", {**WAN_CONFIG, "base_dim": "wide"}, "whose sizes do not go"),
        ("UNet2DModel", {}, "no autoencoder of diffusers"),
        ("BertModel", {}, "no autoencoder of diffusers"),
        ("WanPipeline", {}, "no autoencoder of diffusers"),
    ],
)
def test_what_can_not_stand_in_is_refused_before_its_weights_are_read(name, config, complaint, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": name, **config}))
    with pytest.raises(ValueError, match=f"of {name}, .*{complaint}.*; name the folder of a saved"):
        load_video_autoencoder(tmp_path)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("AutoencoderVidTok", {"regularizer": "fsq", "double_z": False, "z_channels": 6}),
        (
            "AutoencoderKLCosmos",
            {"encoder_block_out_channels": (8,) * 4, "decode_block_out_channels": (8,) * 4},
        ),
    ],
)
def test_a_latent_without_a_gaussian_is_refused(name, config):
    small = {"ch": 8, "ch_mult": [1, 1, 1]} if name == "AutoencoderVidTok" else {}
    vae = getattr(diffusers, name)(**small, **config)
    with pytest.raises(
        ValueError, match="has no Gaussian latent .*: take one that was trained with a KL term"
    ):
        adapter.latent_layout(vae, 9, 16, 16)


def test_weights_that_are_missing_or_of_another_shape_are_refused(tmp_path):
    folder = tmp_path / "wan"
    build_of("AutoencoderKLWan").save_pretrained(folder)
    assert not load_video_autoencoder(folder).training
    file = folder / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    missing = {key: value for key, value in weights.items() if key != "quant_conv.weight"}
    for wrong, complaint in (
        (missing, "1 tensors that config.json wants are missing: quant_conv.weight"),
        (
            missing | {"quant_conv.weight": torch.zeros(7)},
            "can't be loaded, .*quant_conv.*; copy the folder again",
        ),
    ):
        save_file(wrong, file, metadata={"format": "pt"})
        with pytest.raises(ValueError, match=complaint):
            load_video_autoencoder(folder)
    for other in ("diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.bin"):
        there = file.rename(file.with_name(other))
        with pytest.raises(ValueError, match=f"is missing; there is {other}: save it anew, without variant"):
            load_video_autoencoder(folder)
        there.rename(file)
    file.unlink()
    with pytest.raises(ValueError, match="is missing; copy the whole folder"):
        load_video_autoencoder(folder)
    with pytest.raises(ValueError, match="nowhere does not exist; name the folder"):
        load_video_autoencoder(tmp_path / "nowhere")


def test_a_released_checkpoint_is_told_how_it_becomes_a_folder(tmp_path):
    (checkpoint := tmp_path / "released.ckpt").touch()
    for load in (load_video_autoencoder, partial(export_autoencoder, out=tmp_path / "out")):
        with pytest.raises(ValueError, match=r"released\.ckpt is a file; `python -m autoencoder convert`"):
            load(checkpoint)


def test_ours_is_called_as_it_is(tiny_latents):
    vae = load_video_autoencoder(tiny_latents.vae_dir)
    assert isinstance(vae, AutoencoderVidTwin) and adapter.is_ours(vae)
    assert adapter.requested_size(vae, None, 16, None) == (4, 16, 16) == adapter.clip_size(vae, vae.layout)
    assert adapter.latent_layout(vae, 4, 16, 16) is vae.layout
    with pytest.raises(ValueError, match=r"takes clips of 4x16x16 \(frames, height, width\), not 5x16x16"):
        adapter.latent_layout(vae, 5, 16, 16)
    config = vae.config
    assert adapter.whitening(vae, None, None) == (config.latents_mean, config.latents_std)
    assert adapter.whitening(vae, [1.0], [2.0]) == ([1.0], [2.0])
    with torch.no_grad():
        clips = torch.rand(1, 3, 4, 16, 16)
        posterior = adapter.encode(vae, clips)
        assert torch.equal(posterior.mean, vae.encode(clips).latent_dist.mean)
        assert torch.equal(adapter.decode(vae, posterior.mean, vae.layout), vae.decode(posterior.mean).sample)


@pytest.fixture(scope="module")
def wan_run(few_videos, tmp_path_factory):
    """A folder with a Wan autoencoder, its latents of few videos, and a run of train_dit on them."""
    out = tmp_path_factory.mktemp("wan")
    build_of("AutoencoderKLWan").save_pretrained(out / "vae")
    encode = ["encode", "--vae", out / "vae", "--data", few_videos, "--stride", 2, "--num_workers", 0]
    size = ["--num_frames", 5, "--height", 16, "--width", 16]
    vidtwin_gen([str(word) for word in [*encode, *size, "--out", out / "latents"]])
    flags = {"vae": out / "vae", "latents": out / "latents", "output_dir": out / "dit"}
    short = {"max_train_steps": 2, "checkpointing_steps": 2, "validation_steps": 2, "patch_size": 1}
    train_dit.main(command_line(DIT_FLAGS | short | flags))
    return out


def test_the_statistics_are_ours_and_stand_beside_the_latents(wan_run):
    rows, metadata = load_latents(wan_run / "latents")
    assert (metadata["num_frames"], metadata["height"], metadata["width"]) == (5, 16, 16)
    assert metadata["autoencoder_class"] == "AutoencoderKLWan"
    config = json.loads((wan_run / "vae/config.json").read_text())
    assert (
        config["latents_mean"] == WAN_CONFIG["latents_mean"]
        and config["latents_std"] == WAN_CONFIG["latents_std"]
    )

    layout = LatentLayout.from_config(metadata["layout"])
    columns = rows["train"].with_format("torch")[:]
    white = layout.whiten(columns["mean"], metadata["latents_mean"], metadata["latents_std"])
    per_channel = layout.split(white)["video"].flatten(0, -2)
    assert per_channel.mean(0).abs().max() < 1e-3
    # of a posterior sample, as for ours
    noise = layout.split(columns["logvar"].exp())["video"].flatten(0, -2).mean(0)
    means = layout.split(columns["mean"])["video"].flatten(0, -2)
    spread = (means.var(0, correction=0) + noise).sqrt()
    torch.testing.assert_close(spread, torch.tensor(metadata["latents_std"]), atol=1e-4, rtol=1e-4)
    assert adapter.whitening(load_video_autoencoder(wan_run / "vae"), None, None) == (None, None)
    # what train_dit hands on to the pipeline
    index = json.loads((wan_run / "dit/pipeline/model_index.json").read_text())
    assert index["vae"] == ["diffusers", "AutoencoderKLWan"]
    assert index["latents_mean"] == metadata["latents_mean"]
    assert index["latents_std"] == metadata["latents_std"]


def test_the_pipeline_loads_in_silence_and_decodes_raw_latents(wan_run, caplog):
    with caplog.at_level(logging.WARNING):
        logging.getLogger("diffusers").addHandler(caplog.handler)
        pipe = DiffusionPipeline.from_pretrained(wan_run / "dit/pipeline")
        logging.getLogger("diffusers").removeHandler(caplog.handler)
    assert caplog.messages == [] and isinstance(pipe, VidTwinPipeline)
    rows, metadata = load_latents(wan_run / "latents")
    layout = pipe.transformer.layout
    raw = rows["test"].with_format("torch")[:2]["mean"]
    white = layout.whiten(raw, metadata["latents_mean"], metadata["latents_std"])
    with torch.no_grad():
        expected = pipe.vae.decode(layout.split(raw)["video"].movedim(-1, 1)).sample
        torch.testing.assert_close(pipe.decode_latents(white), expected, atol=1e-4, rtol=1e-4)
    pipe.set_progress_bar_config(disable=True)
    frames = pipe("PulsingRing", num_inference_steps=2, output_type="pt").frames
    assert frames.shape == (1, 5, 3, 16, 16)
    card = (wan_run / "dit/pipeline/README.md").read_text(encoding="utf-8")
    assert "| clip | 5×16×16, " in card and "no other length or size than 5×16×16." in card


def test_a_video_of_another_size_is_refused_though_its_latent_is_as_long():
    vae = build_of("AutoencoderKLWan")
    layout = adapter.latent_layout(vae, 5, 16, 32)
    transformer = LatentTransformer(layout.to_config(), 2, hidden_size=16, num_layers=1, num_heads=2)
    pipe = VidTwinPipeline(vae, transformer, FlowMatchEulerDiscreteScheduler())
    assert pipe.encode_video(torch.zeros(1, 5, 3, 16, 32)).shape == (1, layout.num_elements)
    for size in ((5, 32, 16), (6, 16, 32)):
        with pytest.raises(ValueError, match="must be of"):
            pipe.encode_video(torch.zeros(1, size[0], 3, *size[1:]))


@torch.no_grad()
def test_a_compiled_model_is_the_class_inside_it():
    vae = build_of("AutoencoderVidTok")
    layout, clips = adapter.latent_layout(vae, 5, 16, 16), clips_of(5)
    compiled = torch.compile(vae, backend="eager")
    assert adapter.clip_size(compiled, layout) == (5, 16, 16)
    assert torch.equal(adapter.encode(compiled, clips).mean, adapter.encode(vae, clips).mean)


def test_commands_take_it(wan_run, few_videos, tmp_path, capsys):
    generate = ["generate", "--pipeline", wan_run / "dit/pipeline", "--out", tmp_path / "generated"]
    generate += ["--num_videos_per_class", 1, "--num_inference_steps", 2, "--format", "gif"]
    pipelines([str(word) for word in generate])
    assert load_file(tmp_path / "generated/clips.safetensors")["frames"].shape == (2, 5, 16, 16, 3)

    recon = ["recon", "--vae", wan_run / "vae", "--data", few_videos, "--stride", 2, "--num_clips", 2]
    recon += ["--out", tmp_path / "recon.json", "--no-lpips"]
    evaluate([str(word) for word in [*recon, "--num_frames", 5, "--height", 16, "--width", 16]])
    record = json.loads((tmp_path / "recon.json").read_text())
    assert record["resolution"] == "5x16x16" and record["both"]["psnr"]["mean"] > 0
    assert record["autoencoder_class"] == "AutoencoderKLWan" and "structure" not in record

    capsys.readouterr()
    with pytest.raises(SystemExit):
        evaluate([str(word) for word in [*recon, "--num_frames", 5]])
    assert "takes clips of more than one size: give --height --width" in capsys.readouterr().err


def test_encode_needs_a_size_where_there_is_none_and_takes_no_other(
    wan_run, few_videos, tiny_latents, tmp_path, capsys
):
    encode = ["encode", "--data", few_videos, "--stride", 2, "--out", tmp_path / "latents"]
    for flags, complaint in (
        (["--vae", wan_run / "vae"], "of more than one size: give --num_frames --height --width"),
        (
            ["--vae", wan_run / "vae", "--num_frames", 0, "--height", 1, "--width", 1],
            "--num_frames: must be positive, got 0",
        ),
        (["--vae", tiny_latents.vae_dir, "--width", 32], "--width 32: this AutoencoderVidTwin has 16; leave"),
    ):
        with pytest.raises(SystemExit):
            vidtwin_gen([str(word) for word in [*encode, *flags]])
        assert complaint in capsys.readouterr().err
    assert not (tmp_path / "latents").exists()
