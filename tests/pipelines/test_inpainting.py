"""A part of a given clip is kept and the rest made to go with it; parts of two clips are joined."""

import json

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    UniPCMultistepScheduler,
)
from PIL import Image
from torch.nn.modules.module import register_module_forward_pre_hook

from autoencoder.adapter import latent_layout
from pipelines.__main__ import main
from pipelines.inpainting import KnownRegion, grids_to_keep, keep_mask
from pipelines.noise_levels import add_noise, set_timesteps
from pipelines.pipeline_vidtwin import VidTwinPipeline
from tests.builders.autoencoders import build_of
from tests.builders.forked import files_below
from tests.builders.gaussian import FLOW, ODE_SOLVERS, RHO, STOCHASTIC, UNGUIDED, X0, build_gaussian
from tests.builders.pipelines import HEIGHT, NUM_FRAMES, WIDTH, build_pipeline, generate, seeded
from tests.builders.processes import command_in_processes
from vidtwin_gen.data.decoding.video_index import video_index
from vidtwin_gen.data.writing import write_video
from vidtwin_gen.latents import LatentGrid, LatentLayout
from vidtwin_gen.models.transformer import LatentTransformer

ONE_GRID = LatentLayout((LatentGrid("video", ("time", "height", "width"), (2, 4, 4), 3),))


@pytest.fixture(scope="module")
def video():
    return torch.rand(1, 8, 3, 16, 16, generator=seeded(9)[0])


def test_parts_are_names_of_grids(pipe):
    layout = pipe.vae.layout
    assert grids_to_keep(layout, "structure") == ("structure",)
    assert grids_to_keep(layout, "dynamics") == layout.names[1:] and len(layout.names) == 3
    assert grids_to_keep(layout, [layout.names[2], "structure"]) == ("structure", layout.names[2])
    mask = keep_mask(layout, "dynamics")
    parts = layout.split(mask[None])
    assert [bool(part.all()) for part in parts.values()] == [False, True, True]
    assert not parts["structure"].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keep": "structure"}, "no video, no known_latents"),
        ({"video": torch.zeros(1, 8, 3, 16, 16)}, "keep=None"),
        ({"video": 0, "known_latents": torch.zeros(1, 2), "keep": "structure"}, "a video, some known"),
        ({"video": torch.zeros(1, 8, 3, 16, 16), "keep": "motion"}, "'structure' or 'dynamics'.*'motion'"),
        ({"video": torch.zeros(1, 8, 3, 16, 16), "keep": []}, r"got \[\]"),
        ({"video": torch.zeros(1, 8, 3, 16, 16), "keep": ["structure", "dynamics"]}, "leaves nothing"),
        ({"video": torch.zeros(1, 8, 3, 16, 24), "keep": "structure"}, "16, 16.*16, 24"),
        ({"video": torch.zeros(3, 8, 3, 16, 16), "keep": "structure"}, "one per label .2.*got 3"),
        ({"known_latents": torch.zeros(1, 7), "keep": "structure"}, "known_latents.*7"),
        ({"known_latents": [[0.0]], "keep": "structure"}, "known_latents is a torch.Tensor, got list"),
        ({"known_latents": torch.full((1, 192), float("inf")), "keep": "structure"}, "must be finite"),
        ({"known_latents": torch.ones(1, 192).long(), "keep": "structure"}, "numbers, got torch.int64"),
        ({"video": [], "keep": "structure"}, "video holds no clip"),
        ({"video": torch.zeros(0, 8, 3, 16, 16), "keep": "structure"}, r"no clip or no frame, got \(0, 8"),
        ({"video": [torch.zeros(n, 3, 16, 16) for n in (8, 7)], "keep": "structure"}, "of one size, got .*7"),
        ({"known_latents": torch.zeros(1, 192), "keep": 3}, "got 3"),
        ({"known_latents": torch.zeros(1, 192), "keep": [[]]}, r"got \[\[\]\]"),
        ({"known_latents": torch.zeros(1, 7), "keep": "structure", "num_resamples": -1}, "num_resamples"),
    ],
)
def test_what_cannot_be_kept_is_refused(pipe, arguments, message):
    pipe.transformer.register_forward_pre_hook(lambda *_: pytest.fail("a step was taken"))
    with pytest.raises(ValueError, match=message):
        generate(pipe, [0, 1], **arguments)


def test_a_latent_of_one_grid_has_no_parts():
    with pytest.raises(ValueError, match="one grid, 'video'"):
        grids_to_keep(ONE_GRID, "structure")


@pytest.mark.parametrize(
    ("name", "keep"),
    [(name, "structure") for name in (*ODE_SOLVERS, *STOCHASTIC)]
    + [("flow euler", "dynamics"), ("dpm", "dynamics")],
)
def test_the_kept_part_is_the_clips_own_and_the_rest_goes_with_it(name, keep):
    """With the exact denoiser of correlated parts, the other part given the kept one has RHO times its mean;
    25 steps come near. Holding alone, without resampling, reaches 0.34 and not 0.8."""
    prediction_type, scheduler, *_ = (ODE_SOLVERS | STOCHASTIC)[name]
    pipe = build_gaussian(scheduler, prediction_type)
    layout = pipe.transformer.layout
    known = 1.5 * torch.randn(1, layout.num_elements, generator=seeded(3)[0])
    options = UNGUIDED | {"num_inference_steps": 25}
    clips = generate(
        pipe, 0, num_videos_per_class=48, known_latents=known, keep=keep, num_resamples=2, **options
    )
    mask = keep_mask(layout, keep)
    assert torch.equal(clips[:, mask], known[:, mask].expand(48, -1))
    made = clips[:, ~mask]
    assert (made[0] - made[1]).norm() > 0.5 * made[0].norm()
    structure = layout.grids[0].num_elements
    paired = min(structure, layout.num_elements - structure)
    partner = known[0, mask][:paired]
    slope = (made[:, :paired].mean(0) @ partner) / (partner @ partner)
    assert 0.55 < slope < RHO
    assert made[:, :paired].var(0).mean() == pytest.approx(1 - RHO**2, abs=0.22)


def test_every_resampling_brings_it_closer():
    pipe = build_gaussian(FlowMatchEulerDiscreteScheduler())
    known = torch.ones(1, pipe.transformer.layout.num_elements)
    options = UNGUIDED | {"num_inference_steps": 10, "known_latents": known, "keep": "structure"}
    calls = []
    pipe.transformer.register_forward_pre_hook(lambda *_: calls.append(1))
    mask = keep_mask(pipe.transformer.layout, "structure")
    means = []
    for num_resamples in (0, 1, 3):
        calls.clear()
        clips = generate(pipe, 0, num_videos_per_class=16, num_resamples=num_resamples, **options)
        means.append(clips[:, ~mask].mean())
        assert len(calls) == 10 * (1 + num_resamples)
    assert means[0] < means[1] < means[2]


def test_a_step_of_second_order_is_resampled_once():
    """Before its first call: between the two the solver has the latents that it made itself."""
    pipe = build_gaussian(FlowMatchHeunDiscreteScheduler())
    known, calls = torch.ones(1, pipe.transformer.layout.num_elements), []
    pipe.transformer.register_forward_pre_hook(lambda *_: calls.append(1))
    generate(pipe, 0, known_latents=known, keep="structure", **UNGUIDED | {"num_inference_steps": 6})
    assert len(calls) == (2 * 6 - 1) + 6


def test_resampling_draws_half_of_the_noise_anew_and_leaves_its_variance():
    scheduler = FlowMatchEulerDiscreteScheduler()
    set_timesteps(scheduler, 10, torch.device("cpu"))
    x0, noise = torch.randn(2, 1, 20_000, generator=seeded(0)[0])
    latents = add_noise(scheduler, x0, noise, 4)
    region = KnownRegion(x0, noise, torch.zeros(20_000, dtype=torch.bool))
    resampled = region.resample(latents, noise - x0, scheduler, 4, seeded(1)[0])
    left = (resampled - add_noise(scheduler, x0, torch.zeros_like(x0), 4)) / scheduler.sigmas[4]
    assert left.std().item() == pytest.approx(1, abs=0.02)
    assert (left * noise).mean().item() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("name", [*ODE_SOLVERS, *STOCHASTIC])
def test_the_model_sees_the_kept_part_at_the_noise_of_its_time(name):
    """At each of its calls the kept part is data_share known + noise_share noise."""
    prediction_type, scheduler, *_ = (ODE_SOLVERS | STOCHASTIC)[name]
    pipe = build_gaussian(scheduler, prediction_type)
    layout = pipe.transformer.layout
    known, noise = torch.randn(2, 1, layout.num_elements, generator=seeded(0)[0])
    mask = keep_mask(layout, "structure")
    seen = []

    def look(_, args, kwargs):
        if prediction_type == "flow_prediction":
            noise_share = kwargs["timestep"][:, None] / 1000
            data_share = 1 - noise_share
        else:
            alphas = DDIMScheduler().alphas_cumprod[kwargs["timestep"].long()][:, None]
            data_share, noise_share = alphas.sqrt(), (1 - alphas).sqrt()
        seen.append(float((args[0] - data_share * known - noise_share * noise)[:, mask].abs().max()))

    pipe.transformer.register_forward_pre_hook(look, with_kwargs=True)
    generate(
        pipe, 0, latents=noise, known_latents=known, keep="structure", **UNGUIDED | {"num_inference_steps": 6}
    )
    assert len(seen) >= 11 and max(seen) < 0.01


def test_a_clip_is_encoded_to_the_mean_of_its_posterior(pipe, video):
    white = pipe.encode_video(video)
    config = pipe.vae.config
    with torch.no_grad():
        mean = pipe.vae.encode(video.transpose(1, 2) * 2 - 1).latent_dist.mean
    torch.testing.assert_close(pipe.vae.layout.unwhiten(white, config.latents_mean, config.latents_std), mean)
    torch.testing.assert_close(pipe.encode_video(video.permute(0, 1, 3, 4, 2).numpy()), white)
    images = [Image.fromarray((frame * 255).round().byte().permute(1, 2, 0).numpy()) for frame in video[0]]
    torch.testing.assert_close(pipe.encode_video([images]), white, atol=0.05, rtol=0.05)


def test_rounding_below_black_changes_nothing_and_another_range_is_refused(pipe, video):
    black = video.clone()
    black[0, 0, 0, 0, 0] = 0.0
    rounded = black.clone()
    rounded[0, 0, 0, 0, 0] = -1e-7  # what resizing leaves; diffusers takes such a clip for one in [-1, 1]
    expected = pipe.encode_video(black)
    assert torch.equal(pipe.encode_video(rounded), expected)
    assert torch.equal(pipe.encode_video(rounded.permute(0, 1, 3, 4, 2).numpy()), expected)
    assert torch.equal(pipe.encode_video([rounded[0]]), expected)
    with pytest.raises(ValueError, match=r"got values from -0.99.*pass video / 2 \+ 0.5"):
        pipe.encode_video(video * 2 - 1)
    with pytest.raises(ValueError, match="got values from 0 to 25.*pass video / 255"):
        pipe.encode_video((video * 255).byte())
    with pytest.raises(
        ValueError, match=r"must be of \(8, 16, 16\) \(frames, height, width\), got \(7, 16, 16\)"
    ):
        pipe.encode_video(video[:, 1:])


def test_clips_of_images_must_be_of_one_length_and_size(pipe):
    clip, small = [Image.new("RGB", (16, 16))] * 8, [Image.new("RGB", (8, 8))] * 8
    for other in (clip[1:], small, [image.convert("L") for image in clip]):
        with pytest.raises(ValueError, match="clips of a video must be of one length, size and mode"):
            generate(pipe, [0, 1], video=[clip, other], keep="structure")


def test_a_clip_may_be_kept_for_every_label_and_video(pipe, video):
    clips = torch.cat([video, 1 - video])
    known = pipe.encode_video(clips)
    mask = keep_mask(pipe.vae.layout, "structure")
    options = {"output_type": "latent", "keep": "structure", "num_videos_per_class": 2}
    per_label = generate(pipe, [0, 1], video=clips, **options)
    assert torch.equal(per_label[:, mask], known[[0, 0, 1, 1]][:, mask])
    per_video = generate(pipe, [0], video=clips, **options)
    assert torch.equal(per_video[:, mask], known[:, mask])
    torch.testing.assert_close(
        generate(pipe, [0, 1], known_latents=known, **options), per_label, atol=1e-5, rtol=1e-5
    )
    frames = generate(pipe, 0, video=video, keep="dynamics")
    assert frames.shape == (1, 8, 3, 16, 16)


@pytest.mark.parametrize(
    "scheduler", [FlowMatchEulerDiscreteScheduler(), UniPCMultistepScheduler(**FLOW)], ids=["euler", "unipc"]
)
def test_an_edited_clip_does_not_depend_on_its_batch(pipe, video, scheduler):
    pipe.scheduler = scheduler
    options = {"video": video, "keep": "structure", "output_type": "latent"}
    together = generate(pipe, [0, 1, 2], generator=seeded(5, 6, 7), **options)
    alone = generate(pipe, 1, generator=seeded(6), **options)
    torch.testing.assert_close(together[1], alone[0], atol=1e-4, rtol=1e-4)


def test_clips_are_mixed_and_decoded(pipe):
    a, b = generate(pipe, [0, 1], output_type="latent").split(1)
    layout = pipe.vae.layout
    mixed = layout.split(pipe.mix(structure_of=a, dynamics_of=b))
    assert torch.equal(mixed["structure"], layout.split(a)["structure"])
    for name in layout.names[1:]:
        assert torch.equal(mixed[name], layout.split(b)[name])
    torch.testing.assert_close(pipe.decode(a, "pt"), generate(pipe, [0, 1])[:1], atol=1e-5, rtol=1e-5)
    assert isinstance(pipe.decode(pipe.mix(a, b))[0][0], Image.Image)
    with pytest.raises(ValueError, match="expected flat latents"):
        pipe.mix(a[:, :5], b)
    with pytest.raises(ValueError, match="'dynamics_x' is .2, .* got .1, "):
        pipe.mix(torch.cat([a, b]), b)
    with pytest.raises(ValueError, match=r"latents must be .* got \(0, 192\)"):
        pipe.decode(a[:0])
    with pytest.raises(ValueError, match="latents must be finite"):
        pipe.decode(a / 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"keep": "structure"},
        {"keep": "nonsense", "known_latents": torch.zeros(1, 1)},
        {"known_latents": torch.zeros(1, 1)},
    ],
)
def test_a_refused_call_draws_nothing(pipe, wrong):
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    with pytest.raises(ValueError):
        pipe(0, generator=generator, **wrong)
    assert torch.equal(generator.get_state(), before)


def test_the_noise_of_a_scheduler_of_ddpm_is_diffusers_own():
    scheduler = DDIMScheduler(**X0, clip_sample=False)
    set_timesteps(scheduler, 5, torch.device("cpu"))
    x0, noise = torch.randn(2, 3, 4, generator=seeded(0)[0])
    expected = scheduler.add_noise(x0, noise, scheduler.timesteps[2].expand(3))
    assert torch.equal(add_noise(scheduler, x0, noise, 2), expected)
    assert torch.equal(add_noise(scheduler, x0, noise, 5), x0)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("editing")
    build_pipeline().save_pretrained(folder / "pipeline")
    clip = torch.rand(3, 20, 24, 32, generator=seeded(2)[0]) * 2 - 1
    write_video(folder / "clip.mp4", clip, 8)
    return folder


def command(verb, saved, out, *options):
    flags = ["--pipeline", str(saved / "pipeline"), "--out", str(out), "--num_inference_steps", "2"]
    return [verb, *flags, "--device", "cpu", *options]


def test_the_edit_command(saved, tmp_path, capsys):
    options = ["--video", str(saved / "clip.mp4"), "--keep", "structure", "--class_labels", "archery", "2"]
    options += ["--num_videos_per_class", "2", "--stride", "2", "--start", "3", "--format", "both"]
    main(command("edit", saved, tmp_path / "out", *options))
    assert "8 frames a second, of which 4 are taken, and" in capsys.readouterr().out
    rows = ["given", "reconstruction"]
    rows += [f"{name}_000{number}" for name in ("Archery", "Basketball") for number in (0, 1)]
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {f"{row}.{suffix}" for row in rows for suffix in ("mp4", "gif")} | {
        "filmstrip.png",
        "edited.json",
    }
    record = json.loads((tmp_path / "out" / "edited.json").read_text())
    assert record["rows"] == rows and record["keep"] == "structure" and record["class_labels"] == [0, 2]
    assert Image.open(tmp_path / "out" / "filmstrip.png").size == (8 * 18 - 2, 6 * 18 - 2)
    info = video_index(tmp_path / "out" / "Archery_0001.mp4")
    assert (info.num_frames, info.height, info.width) == (8, 16, 16)
    main(command("edit", saved, tmp_path / "out", *options))
    assert "is done already" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(command("edit", saved, tmp_path / "out", *options, "--start", "4"))
    assert "of another command (--start was 3, is 4)" in capsys.readouterr().err


def test_an_edited_video_is_read_at_the_rate_of_the_pipelines_clips(saved, tmp_path, capsys):
    pipe = build_pipeline()
    assert pipe.config.fps == 8
    clip = torch.rand(3, 24, 24, 32, generator=seeded(2)[0]) * 2 - 1
    write_video(tmp_path / "fast.mp4", clip, 24)
    video = ["--video", str(tmp_path / "fast.mp4"), "--keep", "structure", "--class_labels", "0"]
    main(command("edit", saved, tmp_path / "rate", *video))
    assert "another speed" not in capsys.readouterr().out
    main(command("edit", saved, tmp_path / "stride", *video, "--stride", "3"))
    given = [(tmp_path / name / "given.mp4").read_bytes() for name in ("rate", "stride")]
    assert given[0] == given[1]
    record = json.loads((tmp_path / "rate" / "edited.json").read_text())
    assert (record["stride"], record["video_fps"]) == (None, 8)
    write_video(tmp_path / "slow.mp4", clip, 5)
    slow = ["--video", str(tmp_path / "slow.mp4"), *video[2:]]
    main(command("edit", saved, tmp_path / "slow", *slow))
    told = capsys.readouterr().out
    assert "5 frames a second, of which some are taken twice for 8" in told and "another speed" not in told

    pipe.register_to_config(fps=None)
    pipe.save_pretrained(tmp_path / "pipeline")
    main(command("edit", tmp_path, tmp_path / "every", *video, "--fps", "8"))
    main(command("edit", saved, tmp_path / "one", *video, "--stride", "1"))
    assert (tmp_path / "every/given.mp4").read_bytes() == (tmp_path / "one/given.mp4").read_bytes()


def test_two_processes_edit_as_one(saved, tmp_path):
    options = ["--video", str(saved / "clip.mp4"), "--keep", "dynamics", "--class_labels", "0", "2", "1"]
    options += ["--num_videos_per_class", "1", "--format", "gif", "--batch_size", "1"]
    main(command("edit", saved, tmp_path / "one", *options))
    command_in_processes(2, main, command("edit", saved, tmp_path / "two", *options))
    assert files_below(tmp_path / "two") == files_below(tmp_path / "one")


def test_the_mix_command(saved, tmp_path):
    options = ["--class_labels", "Archery", "Archery", "--num_videos_per_class", "2"]
    main(command("mix", saved, tmp_path / "out", *options))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "mix_0000.mp4",
        "mix_0001.mp4",
        "filmstrip.png",
        "mixed.json",
    }
    record = json.loads((tmp_path / "out" / "mixed.json").read_text())
    assert record["columns"][2] == "Structure of Archery with Dynamics of Archery"
    info = video_index(tmp_path / "out" / "mix_0000.mp4")
    assert (info.num_frames, info.height, info.width) == (8, 16, 4 * 18 - 2)
    strip = Image.open(tmp_path / "out" / "filmstrip.png").convert("RGB")
    first, second = (strip.crop((0, top, strip.width, top + 16)).tobytes() for top in (0, 18))
    assert first != second  # two clips of one class


def test_a_latent_without_parts_is_not_sampled_to_be_mixed(tmp_path, capsys):
    vae = build_of("AutoencoderKLWan")
    layout = latent_layout(vae, NUM_FRAMES - 3, HEIGHT, WIDTH)
    transformer = LatentTransformer(layout.to_config(), 2, hidden_size=32, num_layers=1, num_heads=2)
    pipe = VidTwinPipeline(vae, transformer, FlowMatchEulerDiscreteScheduler())
    pipe.save_pretrained(tmp_path / "pipeline")
    called = []
    hook = register_module_forward_pre_hook(lambda module, _: called.append(type(module)))
    with pytest.raises(SystemExit), hook:
        main(command("mix", tmp_path, tmp_path / "out", "--class_labels", "0", "1"))
    assert LatentTransformer not in called
    assert "this latent is one grid" in capsys.readouterr().err


def test_the_commands_say_what_is_wrong(saved, tmp_path, capsys):
    clip = ["--video", str(saved / "clip.mp4"), "--keep", "structure", "--class_labels"]
    write_video(tmp_path / "fast.mp4", torch.zeros(3, 24, 24, 32), 24)
    fast = ["--video", str(tmp_path / "fast.mp4"), *clip[2:]]
    for options, message in (
        ([*clip, "Archry"], "--class_labels: no class is called 'Archry'"),
        ([*clip, "Archery", "--stride", "9"], "9"),
        ([*fast, "Archery", "--start", "13"], "--stride 1 takes every frame"),
        ([*clip, "Archery", "--start", "1000"], "1000"),
        (["--video", str(tmp_path / "no.mp4"), *clip[2:], "Archery"], "no.mp4"),
        ([*clip, "Archery", "0"], "--class_labels Archery 0 names a class twice"),
        ([*clip, "Archery", "--guidance_interval", "1", "0"], "guidance_interval"),
        ([*clip, "Archery", "--internal_guidance_scale", "1.2"], "train one with train_dit.py --internal_"),
    ):
        with pytest.raises(SystemExit):
            main(command("edit", saved, tmp_path / "out", *options))
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
