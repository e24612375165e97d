"""PSNR, SSIM and LPIPS of reconstructions, per frame and per clip."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange, reduce
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

# dB: a squared error of 1e-10 on [0, 1]; without a bound one frame without error makes every mean infinite.
PSNR_AT_MOST = 100.0
SSIM_SIDE = 11  # of the window, in pixels
SSIM_WINDOWS = f"{SSIM_SIDE}x{SSIM_SIDE} Gaussian, sigma 1.5, those inside the frame ('valid')"
# Frames (N, 3, H, W) twice, float in [-1, 1] -> (N,) distances.
PerceptualNetwork = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def psnr_per_frame(reconstruction: torch.Tensor, original: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio in dB of each frame, at most PSNR_AT_MOST, also for equal ones.

    Shapes: (B, C, F, H, W) twice, both float in [-1, 1] (what is beyond is clamped) or both uint8 -> (B, F).
    Measured on [0, 1], data_range 1.
    """
    a, b = _frames(reconstruction, original)
    values = peak_signal_noise_ratio(a, b, data_range=1.0, reduction="none", dim=(1, 2, 3))
    return rearrange(values.clamp(max=PSNR_AT_MOST), "(b f) -> b f", b=len(original))


def ssim_per_frame(reconstruction: torch.Tensor, original: torch.Tensor) -> torch.Tensor:
    """Structural similarity (Wang et al., 2004) of each frame, the mean over colours and over `SSIM_WINDOWS`,
    as the original and VidTwin's script have it. Arguments as for `psnr_per_frame`; measured on [0, 1],
    data_range 1: SSIM depends on the offset.

    Raises:
        ValueError: also for frames smaller than a window.
    """
    a, b = _frames(reconstruction, original)
    if min(a.shape[-2:]) < SSIM_SIDE:
        raise ValueError(
            f"SSIM needs frames of at least {SSIM_SIDE}x{SSIM_SIDE}, got {a.shape[-2]}x{a.shape[-1]}"
        )
    _, padded = structural_similarity_index_measure(
        a, b, data_range=1.0, sigma=1.5, reduction="none", return_full_image=True
    )  # (B F, C, H, W), the frame mirrored at its borders
    inside = slice(SSIM_SIDE // 2, -(SSIM_SIDE // 2))
    return reduce(padded[..., inside, inside], "(b f) c h w -> b f", "mean", b=len(original))


@torch.no_grad()
def lpips_per_frame(
    reconstruction: torch.Tensor, original: torch.Tensor, network: PerceptualNetwork
) -> torch.Tensor:
    """Perceptual distance (Zhang et al., arXiv 1801.03924) of each frame, 0 for equal ones. Arguments as for
    `psnr_per_frame`; `network` is the one with the published weights, and sees the frames of one clip at a
    time, since its own features are a hundred times as large."""
    a, b = (2 * frames - 1 for frames in _frames(reconstruction, original))
    clips = (part.split(original.shape[2]) for part in (a, b))
    return torch.stack([network(first, second) for first, second in zip(*clips, strict=True)])


def psnr(reconstruction: torch.Tensor, original: torch.Tensor) -> torch.Tensor:
    """(B,): of each clip, the mean over its frames of `psnr_per_frame`."""
    return psnr_per_frame(reconstruction, original).mean(1)


def ssim(reconstruction: torch.Tensor, original: torch.Tensor) -> torch.Tensor:
    """(B,): of each clip, the mean over its frames of `ssim_per_frame`."""
    return ssim_per_frame(reconstruction, original).mean(1)


def summarize(values: torch.Tensor) -> dict[str, Any]:
    """(N,), one value a clip, or (N, F), one a frame -> mean, half width of its 95 % confidence interval,
    and N; of frames also `per_frame`, F means over clips.

    The interval is over clips (normal approximation, 1.96 s / sqrt(N); None for one clip), also where values
    are of frames: those of one clip are alike, so that N F of them are no larger a sample than N clips.
    """
    values = values.double()
    clips = values if values.ndim == 1 else values.mean(1)
    count = len(clips)
    if count == 0:
        raise ValueError("no clip was measured: there is nothing to summarize")
    half_width = 1.96 * clips.std().item() / math.sqrt(count) if count > 1 else None
    summary: dict[str, Any] = {"mean": clips.mean().item(), "ci95": half_width, "num_clips": count}
    return summary if values.ndim == 1 else summary | {"per_frame": values.mean(0).tolist()}


def _frames(reconstruction: torch.Tensor, original: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    if reconstruction.shape != original.shape or original.ndim != 5:
        raise ValueError(
            "expected two equal shapes (B, C, F, H, W), got "
            f"{tuple(reconstruction.shape)} and {tuple(original.shape)}"
        )
    floating = reconstruction.is_floating_point() and original.is_floating_point()
    if not floating and not reconstruction.dtype == original.dtype == torch.uint8:
        raise ValueError(
            f"expected both float in [-1, 1] or both uint8, got {reconstruction.dtype} and {original.dtype}"
        )
    a, b = (rearrange(_unit_range(x), "b c f h w -> (b f) c h w") for x in (reconstruction, original))
    return a, b


def _unit_range(clips: torch.Tensor) -> torch.Tensor:
    if clips.dtype == torch.uint8:
        return clips.float() / 255
    return (clips.float().clamp(-1, 1) + 1) / 2
