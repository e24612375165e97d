"""Temporal tiling: clips longer than the autoencoder's, in windows that are blended where they overlap."""

import pytest
import torch

from autoencoder import adapter
from autoencoder.model import tiling
from tests.builders.autoencoders import ABLATIONS, build_autoencoder, random_clips, random_latents


def random_windows(num_windows, num_frames, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, num_frames, 2, 2, generator=draw) for _ in range(num_windows)]


def blended_frame_by_frame(windows, stride):
    """Two windows at most in a frame: the share of the later one is 1/(o+1), 2/(o+1) ... o/(o+1)."""
    num_frames = windows[0].shape[2]
    overlap = num_frames - stride
    frames = []
    for t in range(num_frames + (len(windows) - 1) * stride):
        k = min(t // stride, len(windows) - 1)
        late = t - k * stride  # frame of the last window that has it
        frame = windows[k][:, :, late]
        if k > 0 and late < overlap:
            share = (late + 1) / (overlap + 1)
            frame = share * frame + (1 - share) * windows[k - 1][:, :, late + stride]
        frames.append(frame)
    return torch.stack(frames, dim=2)


@pytest.mark.parametrize(("num_frames", "stride"), [(8, 6), (8, 4), (5, 5), (4, 3)])
def test_blending_is_linear_in_the_overlap(num_frames, stride):
    for num_windows in (1, 2, 4):
        windows = random_windows(num_windows, num_frames)
        expected = blended_frame_by_frame(windows, stride)
        torch.testing.assert_close(tiling.blend_windows(windows, stride), expected)


@pytest.mark.parametrize("stride", range(1, 7))
@pytest.mark.parametrize("num_windows", [1, 2, 5])
def test_weights_sum_to_one_whatever_overlaps(num_windows, stride):
    constant = [torch.full((1, 1, 6, 1, 1), 0.7)] * num_windows
    blended = tiling.blend_windows(constant, stride)
    torch.testing.assert_close(blended, torch.full((1, 1, 6 + (num_windows - 1) * stride, 1, 1), 0.7))
    assert (tiling.blend_weights(num_windows, 6, stride) > 0).all()


def test_windows_of_a_clip_are_blended_to_the_clip():
    clip = torch.randn(1, 2, 20, 1, 3, generator=torch.Generator().manual_seed(0))
    for stride in (2, 3, 4, 6):
        windows = tiling.temporal_windows(clip, 8, stride)
        assert len(windows) == 1 + 12 // stride
        torch.testing.assert_close(tiling.blend_windows(windows, stride), clip)


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, ABLATIONS["a"]], ids=["VidTwin", "no Dynamics"])
def test_a_single_window_is_what_it_was_to_the_bit(changes):
    model = build_autoencoder(**changes)
    x, latents = random_clips(model), random_latents(model)
    plain, decoded = model(x), model.decode(latents).sample
    structure = model.decode_structure(latents).sample
    model.enable_tiling()
    assert model.use_tiling and model.tile_sample_stride_num_frames == 3
    tiled = model(x)
    assert torch.equal(tiled.sample, plain.sample)
    assert torch.equal(tiled.latent_dist.parameters, plain.latent_dist.parameters)
    assert torch.equal(model.decode(latents).sample, decoded)
    assert torch.equal(model.decode_structure(latents).sample, structure)
    assert adapter.is_ours(model) and adapter.clip_size(model, model.layout) == (4, 16, 16)
    model.disable_tiling()
    with pytest.raises(ValueError, match=r"takes clips \(B, 3, 4, 16, 16\), got \(2, 3, 7, 16, 16\)"):
        model(torch.cat([x, x[:, :, 1:]], dim=2))


@torch.no_grad()
@pytest.mark.parametrize("sliced", [False, True])
def test_a_long_clip_is_its_windows(sliced):
    model = build_autoencoder()
    x = torch.rand(2, 3, 8, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    starts = (0, 2, 4)
    windows = [x[:, :, start : start + 4] for start in starts]
    posteriors = [model.encode(window).latent_dist for window in windows]
    model.enable_tiling(tile_sample_stride_num_frames=2)
    if sliced:
        model.enable_slicing()
    output = model(x)
    close = {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(output.latent_dist.mean, torch.cat([p.mean for p in posteriors], 1), **close)
    torch.testing.assert_close(
        output.latent_dist.logvar, torch.cat([p.logvar for p in posteriors], 1), **close
    )
    assert output.latent_dist.kl().shape == (2,) and output.sample.shape == x.shape

    z = output.latent_dist.sample(torch.Generator().manual_seed(0))
    model.disable_tiling()
    for name in ("decode", "decode_structure", "decode_dynamics"):
        decode = getattr(model, name)
        alone = [decode(part).sample for part in z.chunk(3, dim=1)]
        model.enable_tiling()
        assert model.tile_sample_stride_num_frames == 2  # as it was set before
        torch.testing.assert_close(decode(z).sample, blended_frame_by_frame(alone, 2), **close)
        assert torch.equal(decode(z, return_dict=False)[0], decode(z).sample)
        model.disable_tiling()


def test_gradients_reach_every_window():
    model = build_autoencoder()
    model.enable_tiling()
    x = torch.rand(1, 3, 10, 16, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    output = model(x)
    output.sample.square().mean().backward()
    assert (x.grad.abs().amax(dim=(0, 1, 3, 4)) > 0).all()
    latents = random_latents(model).repeat(1, 3).requires_grad_()
    model.decode(latents).sample[:, :, 3].sum().backward()  # a frame of the first two windows
    first, second, third = latents.grad.chunk(3, dim=1)
    assert first.any() and second.any() and not third.any()


def test_lengths_and_strides_that_do_not_fit():
    model = build_autoencoder()
    model.enable_tiling(3)
    for num_frames, message in (
        (9, "takes clips of 4 [+] k x 3 frames, such as 7 or 10, got 9"),
        (2, "such as 4 or 7 or 10, got 2"),
    ):
        with pytest.raises(ValueError, match=message):
            model.encode(torch.zeros(1, 3, num_frames, 16, 16))
    with pytest.raises(ValueError, match=r"takes clips \(B, 3, 7, 16, 16\), got \(1, 3, 7, 16, 24\)"):
        model.encode(torch.zeros(1, 3, 7, 16, 24))
    length = model.layout.num_elements
    for shape in ((1, 0), (1, length + 1), (length,)):
        with pytest.raises(ValueError, match=rf"\(B, n x {length}\) of n windows, got"):
            model.decode(torch.zeros(shape))
    for stride in (0, 5, 2.5, -1):
        with pytest.raises(ValueError, match=f"is from 1 to the 4 frames of a window, got {stride}"):
            model.enable_tiling(tile_sample_stride_num_frames=stride)
    assert model.tile_sample_stride_num_frames == 3
