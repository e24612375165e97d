"""The forms of a clip, each converted in one place.

Everywhere a clip is float32 (C, F, H, W) in [-1, 1]. Files hold uint8 frames (F, H, W, C), and pipelines of
diffusers take and give videos (B, F, C, H, W) in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange


def to_uint8(clip: torch.Tensor) -> torch.Tensor:
    """(..., C, F, H, W) in [-1, 1] -> uint8 (..., F, H, W, C). Clamped and rounded, never truncated."""
    levels = (clip.detach().float() + 1) * 127.5
    return rearrange(levels.round().clamp(0, 255).to(torch.uint8), "... c f h w -> ... f h w c")


def from_uint8(frames: torch.Tensor) -> torch.Tensor:
    """uint8 (..., F, H, W, C) -> float32 (..., C, F, H, W) in [-1, 1]. The inverse of `to_uint8`."""
    values = rearrange(frames, "... f h w c -> ... c f h w").to(torch.float32, copy=True)
    return values.div_(127.5).sub_(1)  # in place: a clip of the file's own resolution is large


def from_diffusers(videos: torch.Tensor) -> torch.Tensor:
    """A pipeline's videos (B, F, C, H, W) in [0, 1] -> clips (B, C, F, H, W) in [-1, 1]."""
    return rearrange(videos, "b f c h w -> b c f h w") * 2 - 1


def to_diffusers(clips: torch.Tensor) -> torch.Tensor:
    """Clips (B, C, F, H, W) in [-1, 1] -> videos (B, F, C, H, W) in [0, 1]. The inverse of
    `from_diffusers`."""
    return rearrange(clips, "b c f h w -> b f c h w") / 2 + 0.5


def covering_size(frame: Sequence[int], size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a frame (h, w) that is resized, its shape kept, until it just covers `size`."""
    scale = max(size[0] / frame[0], size[1] / frame[1])
    return max(size[0], round(frame[0] * scale)), max(size[1], round(frame[1] * scale))


def cover(clip: torch.Tensor, size: int | tuple[int, int]) -> torch.Tensor:
    """(C, F, h, w) -> (C, F, H, W): frames resized (bilinear, antialiased) until they just cover `size`, an
    edge or (height, width), and cropped to its centre; nothing is stretched or padded."""
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise ValueError(f"size must be positive, got {size}")
    covered = covering_size(clip.shape[-2:], (height, width))
    if covered != tuple(clip.shape[-2:]):
        frames = rearrange(clip, "c f h w -> f c h w")
        frames = F.interpolate(frames, covered, mode="bilinear", antialias=True, align_corners=False)
        clip = rearrange(frames, "f c h w -> c f h w")
    top, left = (covered[0] - height) // 2, (covered[1] - width) // 2
    return clip[..., top : top + height, left : left + width].contiguous()
