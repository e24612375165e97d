"""Clips longer than an autoencoder's: overlapping windows in time, and their reconstructions blended."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def check_stride(stride: int, num_frames: int) -> int:
    """The stride, in frames from one window's start to the next one's. Raises ValueError unless it is a whole
    number from 1 to `num_frames`; beyond that, frames would be left out."""
    if stride != int(stride) or not 1 <= stride <= num_frames:
        raise ValueError(
            f"tile_sample_stride_num_frames is from 1 to the {num_frames} frames of a window, got {stride}"
        )
    return int(stride)


def temporal_windows(x: torch.Tensor, num_frames: int, stride: int) -> list[torch.Tensor]:
    """Clips (B, C, num_frames + k stride, H, W) -> k + 1 views (B, C, num_frames, H, W), the first first.
    Raises ValueError for another number of frames."""
    last, rest = divmod(x.shape[2] - num_frames, stride)
    if last < 0 or rest:
        fitting = [num_frames + k * stride for k in ((0, 1, 2) if last < 0 else (last, last + 1))]
        raise ValueError(
            f"with tiling this autoencoder takes clips of {num_frames} + k x {stride} frames, such as "
            f"{' or '.join(map(str, fitting))}, got {x.shape[2]}; or choose another "
            "enable_tiling(tile_sample_stride_num_frames=...)"
        )
    return [x[:, :, k * stride : k * stride + num_frames] for k in range(last + 1)]


def split_latents(z: torch.Tensor, num_elements: int) -> list[torch.Tensor]:
    """Latents of windows one after the other, (B, n L) -> n views (B, L) with L = `num_elements`. Raises
    ValueError where they are not a whole number of windows."""
    if z.ndim != 2 or z.shape[1] < num_elements or z.shape[1] % num_elements:
        raise ValueError(
            f"with tiling expected flat latents (B, n x {num_elements}) of n windows, got {tuple(z.shape)}"
        )
    return list(z.split(num_elements, dim=1))


def join_moments(windows: Sequence[torch.Tensor]) -> torch.Tensor:
    """Mean and log-variance of n windows, (B, 2 L) each -> (B, 2 n L): all means, then all log-variances."""
    halves = [window.chunk(2, dim=1) for window in windows]
    return torch.cat([part for moment in zip(*halves, strict=True) for part in moment], dim=1)


def blend_weights(num_windows: int, num_frames: int, stride: int) -> torch.Tensor:
    """(n, num_frames) weight of each window's frames in the whole; over the windows of a frame they sum to 1.

    A window's weight rises linearly over its overlap with the one before and falls over that with the next:
    1, 2, 3 ... 3, 2, 1 over the sum of what all windows have there. A stride below half a window lets more
    than two of these triangles overlap.
    """
    ramp = torch.arange(1, num_frames + 1, dtype=torch.float32)
    ramp = torch.minimum(ramp, ramp.flip(0))
    total = torch.zeros(num_frames + (num_windows - 1) * stride)
    for k in range(num_windows):
        total[k * stride : k * stride + num_frames] += ramp
    return ramp / total.unfold(0, num_frames, stride)


def blend_windows(windows: Sequence[torch.Tensor], stride: int) -> torch.Tensor:
    """n clips (B, C, F, H, W), each `stride` frames after the one before -> (B, C, F + (n - 1) stride, H, W).

    Weighted by `blend_weights`, so that frames which only one window has stay as they are.
    """
    if len(windows) == 1:
        return windows[0]
    b, c, num_frames, h, w = windows[0].shape
    weights = blend_weights(len(windows), num_frames, stride).to(windows[0])
    blended = windows[0].new_zeros(b, c, num_frames + (len(windows) - 1) * stride, h, w)
    for k, (window, weight) in enumerate(zip(windows, weights, strict=True)):
        blended[:, :, k * stride : k * stride + num_frames] += weight.view(-1, 1, 1) * window
    return blended
