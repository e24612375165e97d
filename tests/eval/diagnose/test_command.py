"""`python -m eval diagnose`: latents changed on purpose, the statistics of channels, the command."""

import json
import math

import pytest
import torch
from diffusers import AutoencoderKLWan
from PIL import Image
from torch.distributions import Normal, kl_divergence

from autoencoder.model.posterior import FlatGaussian
from autoencoder.model.vidtwin import AutoencoderVidTwin
from eval.__main__ import main
from eval.diagnose.channel_statistics import DEAD_BELOW, channel_statistics, posterior_moments
from eval.diagnose.latent_edits import num_interior_steps, swaps, with_midpoints, with_noise
from eval.fvd import networks
from tests.builders.autoencoders import TRAINED_AUTOENCODER, WAN_CONFIG
from vidtwin_gen.data.writing import write_video
from vidtwin_gen.latents import LatentGrid, LatentLayout

TWIN = LatentLayout(
    (
        LatentGrid("structure", ("query", "height", "width"), (3, 2, 2), 2),
        LatentGrid("dynamics_x", ("time", "width"), (5, 2), 3),
        LatentGrid("dynamics_y", ("height", "time"), (2, 4), 1),
    )
)
FLAT = LatentLayout((LatentGrid("video", ("time", "height", "width"), (5, 2, 3), 4),))


class Colours:
    """Each clip's mean colour in its first, middle and last frame: an extractor of ours, and quick."""

    name, dim, resize, weights_sha256 = "colours", 9, "none", "none"
    min_frames, max_frames = 3, None

    def __init__(self, *_):
        self.num_clips = 0

    def __call__(self, clips):
        self.num_clips += len(clips)
        return clips[:, [0, clips.shape[1] // 2, -1]].float().mean((2, 3)).flatten(1)


def noise(layout, batch=3, seed=0):
    return torch.randn(batch, layout.num_elements, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("layout", [TWIN, FLAT], ids=["VidTwin", "flat"])
def test_midpoints_leave_what_is_linear_in_time_the_ends_and_what_has_no_time(layout):
    linear, z = {}, noise(layout)
    changed, own = layout.split(with_midpoints(z, layout)), layout.split(z)
    for grid in layout.grids:
        start, slope = noise(LatentLayout((grid,)), seed=1), noise(LatentLayout((grid,)), seed=2)
        start, slope = (part.view(-1, *grid.shape, grid.channels) for part in (start, slope))
        if "time" not in grid.axes:
            linear[grid.name] = start
            assert torch.equal(changed[grid.name], own[grid.name])
            continue
        axis = 1 + grid.axes.index("time")
        steps = torch.arange(grid.shape[axis - 1]).view(-1, *[1] * (len(grid.shape) + 1 - axis))
        still = start.narrow(axis, 0, 1), slope.narrow(axis, 0, 1)
        linear[grid.name] = still[0] + steps * still[1]
        for end in (0, -1):
            assert torch.equal(changed[grid.name].select(axis, end), own[grid.name].select(axis, end))
        inner = changed[grid.name].narrow(axis, 1, grid.shape[axis - 1] - 2)
        assert not torch.isclose(inner, own[grid.name].narrow(axis, 1, inner.shape[axis])).any()
    flat = layout.join(linear)
    torch.testing.assert_close(with_midpoints(flat, layout), flat)


def test_a_midpoint_is_of_the_neighbours_as_they_were():
    layout = LatentLayout((LatentGrid("video", ("time",), (5,), 1),))
    z = torch.tensor([[0.0, 1.0, 4.0, 9.0, 16.0]])
    assert with_midpoints(z, layout).tolist() == [[0, 2, 5, 10, 16]]
    assert z.tolist() == [[0, 1, 4, 9, 16]]
    for short in (1, 2):
        layout = LatentLayout((LatentGrid("video", ("time",), (short,), 1),))
        assert torch.equal(with_midpoints(z[:, :short], layout), z[:, :short])
        assert num_interior_steps(layout) == {"video": 0}
    assert num_interior_steps(TWIN) == {"structure": 0, "dynamics_x": 3, "dynamics_y": 2}


def test_a_swap_takes_one_part_and_leaves_the_rest():
    z, other = noise(TWIN), noise(TWIN, seed=1)
    swapped = {name: TWIN.split(latents) for name, latents in swaps(z, other, TWIN).items()}
    own, partner = TWIN.split(z), TWIN.split(other)
    for grid in TWIN.names:
        taken, kept = ("structure", "dynamics") if grid == "structure" else ("dynamics", "structure")
        assert torch.equal(swapped[taken][grid], partner[grid])
        assert torch.equal(swapped[kept][grid], own[grid])


def test_one_grid_alone_swaps_the_later_half_of_its_time():
    z, other = noise(FLAT), noise(FLAT, seed=1)
    ((name, latents),) = swaps(z, other, FLAT).items()
    mixed, own, partner = (FLAT.split(part)["video"] for part in (latents, z, other))
    assert name == "second half"
    assert torch.equal(mixed[:, :3], own[:, :3]) and torch.equal(mixed[:, 3:], partner[:, 3:])
    still = LatentLayout((LatentGrid("image", ("height",), (4,), 2),))
    assert swaps(noise(still), noise(still, seed=1), still) == {}


def test_noise_is_in_units_of_each_channel():
    layout = LatentLayout((LatentGrid("a", ("time",), (4000,), 2), LatentGrid("b", ("time",), (4000,), 1)))
    std, zeros = torch.tensor([0.5, 2.0, 8.0]), torch.zeros(1, layout.num_elements)
    noisy = with_noise(zeros, layout, std, 0.1, torch.Generator().manual_seed(0))
    parts = layout.split(noisy).values()
    measured = torch.cat([part.flatten(0, -2).std(0) for part in parts])
    torch.testing.assert_close(measured, 0.1 * std, rtol=0.05, atol=0)


def test_statistics_are_those_of_the_posterior_in_any_batches():
    mean, logvar = 2 * noise(TWIN, 7) + 1, noise(TWIN, 7, seed=1) - 2
    parts = [
        posterior_moments(FlatGaussian(torch.cat([mean[batch], logvar[batch]], 1)), TWIN)
        for batch in (slice(2), slice(2, 7))
    ]
    statistics = channel_statistics(torch.cat(parts).mean(0), TWIN)
    posterior = Normal(mean.double(), (logvar.double() / 2).exp())
    kl = TWIN.split(kl_divergence(posterior, Normal(0, 1)))
    for name, grid in statistics.items():
        means = TWIN.split(mean.double())[name].flatten(0, -2)
        spread = TWIN.split(posterior.stddev)[name].flatten(0, -2)
        std = (means.var(0, correction=0) + spread.square().mean(0)).sqrt()
        own = kl_divergence(Normal(means, spread), Normal(means.mean(0), std))
        for value, expected in (
            (grid.mean, means.mean(0)),
            (grid.std_of_mean, means.std(0, correction=0)),
            (grid.posterior_std, spread.mean(0)),
            (grid.std, std),
            (grid.kl, kl[name].flatten(0, -2).mean(0)),
            (grid.information, own.mean(0)),
        ):
            torch.testing.assert_close(value, expected)
        assert (grid.information <= grid.kl).all() and not grid.dead.any()
        assert grid.to_json()["kl_per_clip"] == pytest.approx(kl[name].flatten(1).sum(1).mean().item())


def test_a_channel_is_dead_at_its_prior_and_where_it_says_nothing_of_the_clip():
    layout = LatentLayout((LatentGrid("a", ("time",), (6,), 4),))
    mean, logvar = torch.zeros(5, 6, 4), torch.zeros(5, 6, 4)
    mean[..., 1], logvar[..., 1] = 5.0, math.log(0.01)  # far from the prior, and alike in every clip
    mean[..., 2] = noise(layout, 5).view(5, 6, 4)[..., 0] * 0.1  # half a hundredth of a nat
    mean[..., 3] = noise(layout, 5).view(5, 6, 4)[..., 0]
    moments = posterior_moments(FlatGaussian(torch.cat([mean.flatten(1), logvar.flatten(1)], 1)), layout)
    grid = channel_statistics(moments.mean(0), layout)["a"]
    assert grid.dead.tolist() == [True, True, True, False] and grid.to_json()["dead_fraction"] == 0.75
    assert grid.kl[1] > 10 and 0 < grid.kl[2] < DEAD_BELOW < grid.kl[3]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    generator = torch.Generator().manual_seed(0)
    for i in range(5):
        clip = torch.rand(3, 1, 16, 16, generator=generator) * 2 - 1
        clip = clip + torch.rand(3, 9, 16, 16, generator=generator) * 0.6 - 0.3
        write_video(root / f"{i}.mp4", clip.clamp(-1, 1), fps=8)
    return root


def test_our_latent_is_diagnosed(videos, tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    AutoencoderVidTwin(**TRAINED_AUTOENCODER).save_pretrained(tmp_path / "vae")
    extractor = Colours()
    monkeypatch.setattr(networks, "load_extractor", lambda *_, **__: extractor)
    words = ["--vae", str(tmp_path / "vae"), "--videos", str(videos), "--no-lpips", "--batch_size", "2"]
    out, figure = tmp_path / "d" / "diagnose.json", tmp_path / "d" / "diagnose.png"
    main(["diagnose", *words, "--num_pairs", "4", "--out", str(out), "--figure", str(figure)])
    record, told = json.loads(out.read_text()), capsys.readouterr().out
    assert extractor.num_clips == 3 * 5  # the real clips once
    assert record["num_clips"] == 5 and "tFVD" in told and "rank-deficient" in told

    main(["recon", *words, "--fvd", "--out", str(tmp_path / "r.json")])
    recon = json.loads((tmp_path / "r.json").read_text())
    assert record["rfvd"]["fvd"] == pytest.approx(recon["rfvd"]["fvd"])
    assert record["reconstruction_psnr"]["mean"] == pytest.approx(recon["both"]["psnr"]["mean"])
    tfvd = record["tfvd"]
    assert tfvd["protocol"] == record["rfvd"]["protocol"] and tfvd["fvd"] != record["rfvd"]["fvd"]
    assert record["tfvd_minus_rfvd"] == pytest.approx(tfvd["fvd"] - record["rfvd"]["fvd"])
    assert tfvd["kept"] == ["structure"] and tfvd["interior_steps"]["dynamics_x"] == 2

    assert {name: len(grid["kl"]) for name, grid in record["channels"].items()} == {
        "structure": 2,
        "dynamics_x": 2,
        "dynamics_y": 2,
    }
    assert record["swap"]["num_pairs"] == 2  # of five clips
    assert list(record["swap"]["distances"]) == ["nothing", "structure", "dynamics"]
    levels = [row["psnr"]["mean"] for row in record["noise"]]
    assert [row["level"] for row in record["noise"]] == [0, 0.1, 0.2, 0.5] and len(set(levels)) == 4
    assert levels[0] == pytest.approx(record["reconstruction_psnr"]["mean"], abs=1e-4)
    for path in (figure, figure.with_name("diagnose_swap.png")):
        with Image.open(path) as picture:
            assert min(picture.size) > 300 and len(picture.getcolors(1 << 20)) > 50


def test_another_latent_is_diagnosed_as_far_as_it_goes(videos, tmp_path):
    torch.manual_seed(0)
    AutoencoderKLWan(**WAN_CONFIG).save_pretrained(tmp_path / "vae")
    words = ["diagnose", "--vae", str(tmp_path / "vae"), "--out", str(tmp_path / "d.json"), "--no-lpips"]
    words += ["--num_frames", "5", "--height", "16", "--width", "16", "--num_clips", "2"]
    main([*words, "--videos", str(videos), "--no-fvd"])
    record = json.loads((tmp_path / "d.json").read_text())
    assert not {"tfvd", "tfvd_minus_rfvd"} & record.keys() and list(record["channels"]) == ["video"]
    halves = record["swap"]["distances"]["second half"]
    whole = record["swap"]["distances"]["nothing"]
    assert record["swap"]["num_pairs"] == 1 and len(halves["own"]["psnr"]["per_frame"]) == 5
    # Wan decodes step by step: the first frame knows only the first step, which is its own
    assert halves["own"]["psnr"]["per_frame"][0] == pytest.approx(whole["own"]["psnr"]["per_frame"][0])


def test_what_a_latent_or_a_clip_has_no_part_of_is_named(videos, tmp_path, monkeypatch, capsys):
    AutoencoderKLWan(**WAN_CONFIG | {"temperal_downsample": [True, True]}).save_pretrained(tmp_path / "vae")
    monkeypatch.setattr(networks, "load_extractor", lambda *_, **__: Colours())
    words = ["diagnose", "--vae", str(tmp_path / "vae"), "--out", str(tmp_path / "d.json"), "--no-lpips"]
    words += ["--num_frames", "5", "--height", "16", "--width", "16", "--num_clips", "3"]
    main([*words, "--videos", str(videos), "--num_pairs", "1"])
    record = json.loads((tmp_path / "d.json").read_text())
    assert record["layout"][0]["shape"][0] == 2
    assert record["tfvd"]["fvd"] is None and "three steps in time" in record["tfvd"]["reason"]
    assert record["rfvd"]["num_real"] == 3 and record["tfvd_minus_rfvd"] is None
    assert "tFVD: not measured: no grid" in capsys.readouterr().out

    words[words.index("--num_frames") + 1] = "1"
    main([*words, "--videos", str(videos), "--no-fvd"])
    assert "has no part to swap" in json.loads((tmp_path / "d.json").read_text())["swap"]["reason"]
    main([*words, "--videos", str(videos / "0.mp4"), "--no-fvd"])
    assert json.loads((tmp_path / "d.json").read_text())["swap"]["reason"] == "a swap needs two clips"
    with pytest.raises(SystemExit):
        main([*words, "--videos", str(videos / "0.mp4")])
    assert "or leave FVD out, --no-fvd" in capsys.readouterr().err
