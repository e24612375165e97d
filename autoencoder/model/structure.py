"""The Structure latent: what a clip shows and how it slowly changes (arXiv 2412.17726, section 3.2)."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from autoencoder.model.layout import token_grid
from autoencoder.model.posterior import init_posterior_head
from vidtwin_gen.models.layers import init_blend, init_relu_stack


class QFormerEncoder(nn.Module):
    """Learned queries that BLIP-2's Q-Former answers from a sequence of tokens."""

    def add_qformer(self, config: Any, num_queries: int) -> None:
        """Of the sizes in the config and otherwise its own defaults, as in the released model."""
        self.query_embeds = nn.Parameter(torch.randn(num_queries, config.query_hidden_size))
        qformer = Blip2QFormerConfig(
            hidden_size=config.query_hidden_size,
            encoder_hidden_size=config.hidden_size,
            num_hidden_layers=config.qformer_layers,
            num_attention_heads=config.qformer_heads,
            intermediate_size=config.qformer_intermediate_size,
            hidden_dropout_prob=config.qformer_dropout,
            attention_probs_dropout_prob=config.qformer_dropout,
        )
        self.qformer = Blip2QFormerModel(qformer)

    def queries(self, tokens: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """(N, T, D) -> (N, n_q, d_q) of this dtype, the trunk's: under autocast tokens may be narrower."""
        embeds = self.query_embeds.to(dtype).expand(len(tokens), -1, -1)
        output = self.qformer(query_embeds=embeds, encoder_hidden_states=tokens)
        return output.last_hidden_state.to(dtype)


class SpatialBottleneck(nn.Module):
    """The second half of a structure encoder: each query's grid of positions is an image, which convolutions
    make smaller."""

    def add_bottleneck(self, config: Any) -> None:
        channels = config.structure_base_channels
        self.conv_in = nn.Conv2d(config.query_hidden_size, channels, 3, padding=1)
        self.down = nn.Sequential()
        for _ in range(config.structure_down_blocks):
            self.down.extend([nn.Conv2d(channels, channels * 2, 3, stride=2, padding=1), nn.ReLU()])
            channels *= 2
        self.bottleneck = nn.Conv2d(channels, 2 * config.structure_channels, 3, padding=1)
        init_relu_stack(self.conv_in, self.down, self.bottleneck)
        init_posterior_head(self.bottleneck)

    def squeeze(self, queries: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """(B h w, n_q, d_q) -> (B, n_q, h_S, w_S, 2 d_S): mean and log-variance along the last axis."""
        num_queries = queries.shape[1]
        images = rearrange(queries, "(b h w) q c -> (b q) c h w", h=height, w=width)
        images = self.down(self.conv_in(images))  # (B n_q, c 2^k, h_S, w_S)
        return rearrange(self.bottleneck(images), "(b q) c h w -> b q h w c", q=num_queries)


class StructureEncoder(QFormerEncoder, SpatialBottleneck):
    """A temporal Q-Former per position, then a spatial bottleneck.

    (B, D, F, h, w) -> (B, n_q, h_S, w_S, 2 d_S): mean and log-variance along the last axis.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.add_qformer(config, config.num_queries)
        self.add_bottleneck(config)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        # laid out anew, once: every layer of the Q-Former projects these
        frames = rearrange(z, "b d f h w -> (b h w) f d").contiguous()
        return self.squeeze(self.queries(frames, z.dtype), *z.shape[-2:])


class StructureDecoder(nn.Module):
    """(B, n_q, h_S, w_S, d_S) -> (B, D, F, h, w), non-negative: the Structure's share of the tokens."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.grid_height, self.grid_width = token_grid(config)
        channels = config.structure_base_channels * 2**config.structure_down_blocks
        self.bottleneck = nn.Sequential(
            nn.Conv2d(config.structure_channels, channels, 3, padding=1), nn.ReLU()
        )
        self.up = nn.Sequential()
        for _ in range(config.structure_down_blocks):
            conv = nn.Conv2d(channels, channels // 2, 3, padding=1)
            self.up.extend([conv, nn.ReLU(), nn.Upsample(scale_factor=2)])
            channels //= 2
        self.conv_out = nn.Conv2d(channels, config.query_hidden_size, 3, padding=1)
        self.expand = nn.Sequential(nn.Linear(config.query_hidden_size, config.hidden_size), nn.ReLU())
        # one (F x n_q) mixing matrix for every channel: each frame is a blend of the queries
        self.to_frames = nn.Sequential(nn.Conv1d(config.num_queries, config.num_frames, 1), nn.ReLU())
        init_relu_stack(self)
        init_blend(self.to_frames)

    def forward(self, structure: torch.Tensor) -> torch.Tensor:
        b = structure.shape[0]
        images = self.up(self.bottleneck(rearrange(structure, "b q h w c -> (q b) c h w")))
        images = self.crop(self.conv_out(images))  # (n_q B, d_q, h, w)
        queries = self.expand(rearrange(images, "(q b) c h w -> q (b h w) c", b=b))  # (n_q, B h w, D)
        frames = self.to_frames(rearrange(queries, "q n d -> q (n d)"))  # (F, B h w D)
        return rearrange(frames, "f (b h w d) -> b d f h w", b=b, h=self.grid_height, w=self.grid_width)

    def crop(self, images: torch.Tensor) -> torch.Tensor:
        """Down-sampling rounds up, so the way back may overshoot: keep the centre."""
        top = (images.shape[-2] - self.grid_height) // 2
        left = (images.shape[-1] - self.grid_width) // 2
        return images[..., top : top + self.grid_height, left : left + self.grid_width]
