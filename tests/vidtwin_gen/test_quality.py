"""PSNR, SSIM and LPIPS of clips."""

from __future__ import annotations

import math

import pytest
import torch

from vidtwin_gen.quality import (
    PSNR_AT_MOST,
    lpips_per_frame,
    psnr,
    psnr_per_frame,
    ssim,
    ssim_per_frame,
    summarize,
)


def clips(seed: int = 0) -> torch.Tensor:
    return torch.rand(2, 3, 4, 16, 20, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_psnr_is_its_definition_averaged_over_frames() -> None:
    original = clips() * 0.5
    reconstruction = original.clone()
    reconstruction[0, :, 0] += 0.2  # an offset of 0.1 on [0, 1]: 20 dB
    reconstruction[0, :, 1:] += 0.02  # 40 dB
    reconstruction[1] += 0.2
    torch.testing.assert_close(psnr(reconstruction, original), torch.tensor([35.0, 20.0]), atol=1e-3, rtol=0)


def test_frames_are_measured_one_by_one() -> None:
    """A frame's value does not depend on the others, nor on which clip of a batch it is in."""
    original, noisy = clips(), clips() * 0.7
    for measure in (psnr_per_frame, ssim_per_frame):
        together = measure(noisy, original)
        assert together.shape == (2, 4)
        for clip in range(2):
            alone = measure(noisy[clip : clip + 1, :, 2:3], original[clip : clip + 1, :, 2:3])
            torch.testing.assert_close(together[clip, 2:3], alone[0])


def test_lpips_asks_the_network_clip_by_clip_in_its_range() -> None:
    original = clips() * 2  # beyond [-1, 1]: clamped
    asked = []

    def network(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        asked.append((first, second))
        return (first - second).abs().mean((1, 2, 3))

    values = lpips_per_frame(original.flip(0), original, network)
    expected = (original.clamp(-1, 1).flip(0) - original.clamp(-1, 1)).abs().mean((1, 3, 4))
    torch.testing.assert_close(values, expected)
    assert [tuple(first.shape) for first, _ in asked] == [(4, 3, 16, 20)] * 2
    assert max(frames.abs().max() for pair in asked for frames in pair) <= 1


def test_equal_clips_have_ssim_one_and_noise_lowers_both() -> None:
    original = clips()
    assert psnr(original, original).tolist() == [PSNR_AT_MOST] * 2  # and not infinity
    torch.testing.assert_close(ssim(original, original), torch.ones(2))
    noisy = [original + amount * clips(1) for amount in (0.05, 0.3)]
    assert (ssim(noisy[0], original) > ssim(noisy[1], original)).all()
    assert (psnr(noisy[0], original) > psnr(noisy[1], original)).all()


def test_ssim_is_its_definition_over_the_windows_inside_the_frame() -> None:
    original, noisy = clips(2).double(), (clips(2) + 0.4 * clips(3)).double()
    a, b = ((x.clamp(-1, 1)[1, :, 3] + 1) / 2 for x in (noisy, original))  # (C, H, W)
    at = torch.arange(11.0, dtype=torch.float64) - 5
    window = torch.exp(-(at[:, None] ** 2 + at**2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for top in range(16 - 10):
        for left in range(20 - 10):
            x, y = (frame[:, top : top + 11, left : left + 11] for frame in (a, b))
            mean_x, mean_y = ((window * part).sum((1, 2)) for part in (x, y))
            var_x, var_y = ((window * part**2).sum((1, 2)) for part in (x, y))
            var_x, var_y = var_x - mean_x**2, var_y - mean_y**2
            covariance = (window * x * y).sum((1, 2)) - mean_x * mean_y
            luminance = (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
            values.append(luminance * (2 * covariance + 0.03**2) / (var_x + var_y + 0.03**2))
    expected = torch.stack(values).mean().float()
    torch.testing.assert_close(ssim_per_frame(noisy, original)[1, 3], expected, atol=1e-5, rtol=0)


def test_ssim_of_a_frame_of_one_window_and_of_a_flat_clip() -> None:
    flat = torch.full((1, 3, 2, 11, 11), 0.25)
    assert ssim_per_frame(flat, flat).tolist() == [[1.0, 1.0]]
    assert ssim_per_frame(-flat, flat).max() < 1


def test_uint8_and_float_are_one_scale() -> None:
    levels = [((clips(seed) + 1) * 127.5).round().to(torch.uint8) for seed in (0, 1)]
    floats = [level / 127.5 - 1 for level in levels]
    torch.testing.assert_close(psnr(*levels), psnr(*floats), atol=1e-4, rtol=0)
    torch.testing.assert_close(ssim(*levels), ssim(*floats), atol=1e-5, rtol=0)


def test_a_mix_of_types_or_shapes_is_refused() -> None:
    with pytest.raises(ValueError, match="both uint8"):
        psnr(clips(), clips().to(torch.uint8))
    wide = ((clips() + 1) * 127.5).long()  # from 0 to 255, not in [-1, 1]
    for measure in (psnr, ssim):
        with pytest.raises(ValueError, match="both uint8, got torch.int64 and torch.int64"):
            measure(wide, wide)
    with pytest.raises(ValueError, match="two equal shapes"):
        ssim(clips(), clips()[:1])
    with pytest.raises(ValueError, match="at least 11x11, got 10x20"):
        ssim(clips()[..., :10, :], clips()[..., :10, :])


def test_a_summary_has_the_interval_of_its_clips() -> None:
    summary = summarize(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert summary["mean"] == 2.5 and summary["num_clips"] == 4
    assert summary["ci95"] == pytest.approx(1.96 * math.sqrt(5 / 3) / 2)
    assert summarize(torch.ones(1))["ci95"] is None
    # of frames: the interval is that of the clips' means, however many frames there are
    frames = torch.tensor([[0.0, 2.0], [1.0, 3.0], [2.0, 4.0], [3.0, 5.0]])
    assert summarize(frames) == summary | {"per_frame": [1.5, 3.5]}
    with pytest.raises(ValueError, match="no clip"):
        summarize(torch.ones(0))
