"""What a distance between videos wants of a network: uint8 clips in, a float32 vector each out."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from einops import rearrange


class FeatureExtractor(Protocol):
    """What the distances need of a network: `extractor(clips)` with clips (B, F, H, W, C) uint8 -> (B, dim)
    float32, and the facts a protocol records.

    `name` of the network, `dim` of a feature, `resize`: how frames are brought to the network's size, which
    happens inside, `weights_sha256`, `min_frames` and `max_frames`: the shortest and the longest clip it
    takes, None without a limit.
    """

    name: str
    dim: int
    resize: str
    weights_sha256: str
    min_frames: int
    max_frames: int | None

    def __call__(self, clips: torch.Tensor) -> torch.Tensor: ...


def check_length(extractor: FeatureExtractor, num_frames: int) -> None:
    """Raises ValueError where the network takes no clips of so many frames."""
    least, most = extractor.min_frames, extractor.max_frames
    if num_frames < least or (most is not None and num_frames > most):
        takes = f"at least {least}" if most is None else f"{least}" if least == most else f"{least} to {most}"
        raise ValueError(
            f"{extractor.name} takes clips of {takes} frames, got {num_frames}: read or generate such clips, "
            "or measure with another --extractor"
        )


def resized(clips: torch.Tensor, size: tuple[int, int], device: torch.device) -> torch.Tensor:
    """(B, F, H, W, 3) uint8 -> (B, F, 3, h, w) float32 in [0, 255] on `device`, the way that `resize_name` of
    `size` = (h, w) says.

    Raises:
        ValueError: clips that are not uint8 or not (B, F, H, W, 3).
    """
    if clips.dtype != torch.uint8:
        raise ValueError(
            f"features are defined on uint8 clips, got {clips.dtype}: round to 0..255 first, so that "
            "real and generated clips are quantised alike"
        )
    if clips.ndim != 5 or clips.shape[-1] != 3:
        raise ValueError(f"expected clips (B, F, H, W, 3), got {tuple(clips.shape)}")
    frames = rearrange(clips.to(device).float(), "b f h w c -> (b f) c h w")
    if frames.shape[-2:] != size:
        frames = F.interpolate(frames, size, mode="bilinear", align_corners=False)
    return rearrange(frames, "(b f) c h w -> b f c h w", b=len(clips))


def resize_name(size: tuple[int, int]) -> str:
    """What a protocol says of `resized`."""
    return f"bilinear to {size[0]}x{size[1]}, align_corners=False, no antialias"
