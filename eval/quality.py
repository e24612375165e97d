"""PSNR and SSIM of reconstructions, per clip."""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure


def psnr(reconstruction: torch.Tensor, original: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio in dB of each clip: the mean over its frames. Infinite for equal frames.

    Shapes: (B, C, F, H, W) twice, both float in [-1, 1] (what is beyond is clamped) or both uint8 -> (B,).
    Measured on [0, 1], data_range 1.
    """
    a, b = _frames(reconstruction, original)
    values = peak_signal_noise_ratio(a, b, data_range=1.0, reduction="none", dim=(1, 2, 3))
    return rearrange(values, "(b f) -> b f", b=len(original)).mean(1)


def ssim(reconstruction: torch.Tensor, original: torch.Tensor) -> torch.Tensor:
    """Structural similarity (Wang et al., 2004; Gaussian window 11, sigma 1.5) of each clip: the mean over
    its frames. Arguments as for `psnr`; measured on [0, 1], data_range 1: SSIM depends on the offset."""
    a, b = _frames(reconstruction, original)
    values = structural_similarity_index_measure(a, b, data_range=1.0, reduction="none")
    return rearrange(values, "(b f) -> b f", b=len(original)).mean(1)


def summarize(values: torch.Tensor) -> dict[str, float | int | None]:
    """(N,) one value a clip -> mean, half width of its 95 % confidence interval over clips (normal
    approximation, 1.96 s / sqrt(N); None for one clip), and N."""
    values = values.double().flatten()
    count = len(values)
    if count == 0:
        raise ValueError("no clip was measured: there is nothing to summarize")
    half_width = 1.96 * values.std().item() / math.sqrt(count) if count > 1 else None
    return {"mean": values.mean().item(), "ci95": half_width, "num_clips": count}


def _frames(reconstruction: torch.Tensor, original: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    if reconstruction.shape != original.shape or original.ndim != 5:
        raise ValueError(
            "expected two equal shapes (B, C, F, H, W), got "
            f"{tuple(reconstruction.shape)} and {tuple(original.shape)}"
        )
    if (reconstruction.dtype == torch.uint8) != (original.dtype == torch.uint8):
        raise ValueError(
            f"expected both float in [-1, 1] or both uint8, got {reconstruction.dtype} and {original.dtype}"
        )
    a, b = (rearrange(_unit_range(x), "b c f h w -> (b f) c h w") for x in (reconstruction, original))
    return a, b


def _unit_range(clips: torch.Tensor) -> torch.Tensor:
    if clips.dtype == torch.uint8:
        return clips.float() / 255
    return (clips.float().clamp(-1, 1) + 1) / 2
