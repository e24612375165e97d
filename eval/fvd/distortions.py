"""What a distance of videos should notice: clips made worse in four ways, each by degrees (after Unterthiner
et al., arXiv 1812.01717, section 4)."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange

Distortion = Callable[[torch.Tensor, float], torch.Tensor]


def noise(clips: torch.Tensor, sigma: float) -> torch.Tensor:
    """(B, F, H, W, C) uint8: with Gaussian noise of this standard deviation, in levels of 255."""
    drawn = [torch.randn(clip.shape, generator=_generator(clip)) for clip in clips]
    return (clips + sigma * torch.stack(drawn)).round().clamp(0, 255).to(torch.uint8)


def blur(clips: torch.Tensor, sigma: float) -> torch.Tensor:
    """(B, F, H, W, C) uint8: each frame smoothed by a Gaussian of this width in pixels, edges reflected."""
    radius = min(math.ceil(3 * sigma), min(clips.shape[2:4]) - 1)
    weights = torch.exp(-torch.arange(-radius, radius + 1).square() / (2 * sigma**2))
    weights = weights / weights.sum()
    frames = rearrange(clips, "b f h w c -> (b f c) 1 h w").float()
    frames = F.conv2d(F.pad(frames, (radius, radius, 0, 0), mode="reflect"), weights.view(1, 1, 1, -1))
    frames = F.conv2d(F.pad(frames, (0, 0, radius, radius), mode="reflect"), weights.view(1, 1, -1, 1))
    blurred = rearrange(frames, "(b f c) 1 h w -> b f h w c", b=clips.shape[0], f=clips.shape[1])
    return blurred.round().clamp(0, 255).to(torch.uint8)


def shuffle(clips: torch.Tensor, num_frames: float) -> torch.Tensor:
    """(B, F, H, W, C) uint8: so many frames, chosen at random, change places, none staying at its own."""
    shuffled = clips.clone()
    for clip, source in zip(shuffled, clips, strict=True):
        places = torch.randperm(len(source), generator=_generator(source))[: int(num_frames)]
        clip[places] = source[places.roll(1)]
    return shuffled


def freeze(clips: torch.Tensor, num_frames: float) -> torch.Tensor:
    """(B, F, H, W, C) uint8: each frame shown stays for so many; for all of them, a still picture."""
    shown = torch.arange(clips.shape[1]) // int(num_frames) * int(num_frames)
    return clips[:, shown]


def _generator(clip: torch.Tensor) -> torch.Generator:
    """Seeded by the clip itself, so that neither its batch nor its place in it changes what is drawn."""
    return torch.Generator().manual_seed(zlib.crc32(clip.contiguous().numpy().tobytes()))


# the distortion, its strengths, their unit, and the strength that changes nothing
DISTORTIONS: dict[str, tuple[Distortion, tuple[float, ...], str, float]] = {
    "Gaussian noise": (noise, (5, 10, 20, 40), "standard deviation, of 255", 0),
    "blur": (blur, (0.5, 1, 2, 4), "standard deviation, pixels", 0),
    "frame shuffle": (shuffle, (4, 8, 12, 16), "frames that change places", 0),
    "freezing": (freeze, (2, 4, 8, 16), "frames that each is held for", 1),
}
