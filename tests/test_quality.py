"""PSNR and SSIM of clips."""

from __future__ import annotations

import math

import pytest
import torch

from eval.quality import psnr, ssim, summarize


def clips(seed: int = 0) -> torch.Tensor:
    return torch.rand(2, 3, 4, 16, 20, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_psnr_is_its_definition_averaged_over_frames() -> None:
    original = clips() * 0.5
    reconstruction = original.clone()
    reconstruction[0, :, 0] += 0.2  # an offset of 0.1 on [0, 1]: 20 dB
    reconstruction[0, :, 1:] += 0.02  # 40 dB
    reconstruction[1] += 0.2
    torch.testing.assert_close(psnr(reconstruction, original), torch.tensor([35.0, 20.0]), atol=1e-3, rtol=0)


def test_equal_clips_have_ssim_one_and_noise_lowers_both() -> None:
    original = clips()
    torch.testing.assert_close(ssim(original, original), torch.ones(2))
    noisy = [original + amount * clips(1) for amount in (0.05, 0.3)]
    assert (ssim(noisy[0], original) > ssim(noisy[1], original)).all()
    assert (psnr(noisy[0], original) > psnr(noisy[1], original)).all()


def test_uint8_and_float_are_one_scale() -> None:
    levels = [((clips(seed) + 1) * 127.5).round().to(torch.uint8) for seed in (0, 1)]
    floats = [level / 127.5 - 1 for level in levels]
    torch.testing.assert_close(psnr(*levels), psnr(*floats), atol=1e-4, rtol=0)
    torch.testing.assert_close(ssim(*levels), ssim(*floats), atol=1e-5, rtol=0)


def test_a_mix_of_types_or_shapes_is_refused() -> None:
    with pytest.raises(ValueError, match="both uint8"):
        psnr(clips(), clips().to(torch.uint8))
    with pytest.raises(ValueError, match="two equal shapes"):
        ssim(clips(), clips()[:1])


def test_a_summary_has_the_interval_of_its_clips() -> None:
    summary = summarize(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert summary["mean"] == 2.5 and summary["num_clips"] == 4
    assert summary["ci95"] == pytest.approx(1.96 * math.sqrt(5 / 3) / 2)
    assert summarize(torch.ones(1))["ci95"] is None
    with pytest.raises(ValueError, match="no clip"):
        summarize(torch.ones(0))
