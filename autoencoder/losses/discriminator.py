"""PatchGAN: judges overlapping patches of single frames (Isola et al., arXiv 1611.07004)."""

from __future__ import annotations

import torch
from torch import nn


class PatchDiscriminator(nn.Module):
    """Frames (N, 3, H, W) in [-1, 1] -> logits (N, 1, h, w), positive for what looks real.

    The released model's discriminator with one change: it normalises groups of channels within a frame, where
    that one has batch normalisation. So the verdict on a frame does not depend on which other frames, of the
    same clip or of others, are judged with it, and no running statistics are moved by the generator's step.

    Args:
        base_channels: after the first convolution; doubled by each of the next, up to eight times.
        num_layers: convolutions of stride 2. A side needs 3 * 2**num_layers pixels.

    Raises:
        ValueError: channels of a layer that 32 groups do not divide.
    """

    def __init__(self, base_channels: int = 64, num_layers: int = 3) -> None:
        super().__init__()
        self.min_size = 3 * 2**num_layers
        channels = [base_channels * min(2**i, 8) for i in range(num_layers + 1)]
        if base_channels < 1 or any(width % min(32, width) for width in channels[1:]):
            raise ValueError(
                f"the discriminator's channels would be {channels}, and from 33 on they are normalised in 32 "
                "groups: take a power of 2 or a multiple of 16 as --discriminator_channels"
            )
        self.layers = nn.Sequential(nn.Conv2d(3, base_channels, 4, stride=2, padding=1), nn.LeakyReLU(0.2))
        for i in range(num_layers):
            stride = 2 if i < num_layers - 1 else 1
            self.layers.extend(
                [
                    nn.Conv2d(channels[i], channels[i + 1], 4, stride=stride, padding=1, bias=False),
                    nn.GroupNorm(min(32, channels[i + 1]), channels[i + 1]),
                    nn.LeakyReLU(0.2),
                ]
            )
        self.layers.append(nn.Conv2d(channels[-1], 1, 4, padding=1))
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        if min(frames.shape[-2:]) < self.min_size:
            raise ValueError(
                f"the discriminator needs frames of at least {self.min_size} pixels a side, got "
                f"{tuple(frames.shape)}: fewer of its layers, or train without it"
            )
        return self.layers(frames)
