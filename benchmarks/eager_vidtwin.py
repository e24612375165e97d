"""VidTwin's passes the plain way, one operation after the other: the baseline of `benchmarks.speed`.

Written from the description of the architecture (arXiv 2412.17726, section 3, and the released code), not
from our model: pure functions of a model's state dict and config, attention with its scores in memory, the
causal mask as a tensor, the Q-Former by hand. Nothing is fused and nothing is clever, which is the point: a
model that computes the same must be faster than this, and equal.

`Weights` are `state_dict()` of an `AutoencoderVidTwin`, `Config` is its `config`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat

Weights = Mapping[str, torch.Tensor]
Config = Mapping[str, Any]


def encode(weights: Weights, config: Config, clips: torch.Tensor) -> torch.Tensor:
    """Clips (B, C, F, H, W) in [-1, 1] -> (B, 2 L): the flat latent's means, then its log-variances."""
    patch = (1, config["patch_size"], config["patch_size"])
    z = F.conv3d(clips, weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], stride=patch)
    z = trunk(weights, config, "encoder", z)  # (B, D, F, h, w)
    parts = (encode_structure(weights, config, z), *encode_dynamics(weights, config, z))
    halves = [part.chunk(2, dim=-1) for part in parts]
    return torch.cat([part.flatten(1) for half in zip(*halves, strict=True) for part in half], dim=1)


def decode(weights: Weights, config: Config, latents: torch.Tensor) -> torch.Tensor:
    """Flat latents (B, L) -> clips (B, C, F, H, W)."""
    side = config["patch_size"]
    grid = config["height"] // side, config["width"] // side
    q, f = config["num_queries"], config["num_frames"]
    s_h, s_w = (_halved(size, config["structure_down_blocks"]) for size in grid)
    d_h, d_w = (_halved(size, config["dynamics_down_blocks"]) for size in grid)
    d_s, d_d = config["structure_channels"], config["dynamics_channels"]
    sizes = [q * s_h * s_w * d_s, f * d_w * d_d, f * d_h * d_d]
    structure, dynamics_x, dynamics_y = latents.split(sizes, dim=1)
    u = decode_structure(weights, config, structure.reshape(-1, q, s_h, s_w, d_s))
    dynamics_x, dynamics_y = dynamics_x.reshape(-1, f, d_w, d_d), dynamics_y.reshape(-1, f, d_h, d_d)
    u = u + decode_dynamics(weights, dynamics_x, dynamics_y)
    x = rearrange(trunk(weights, config, "decoder", u), "b d f h w -> b f h w d")
    shift, scale = weights["patch_output.scale_shift_table"]
    x = linear(weights, "patch_output.linear", normalize(x) * (1 + scale) + shift)
    return rearrange(x, "b f h w (p q c) -> b c f (h p) (w q)", p=side, q=side)


def trunk(weights: Weights, config: Config, name: str, z: torch.Tensor) -> torch.Tensor:
    """The space-time transformer, (B, D, F, h, w) -> (B, D, F, h, w)."""
    _, d, f, h, w = z.shape
    columns = repeat(sine_cosine(d // 2, w), "w d -> (h w) d", h=h)
    rows = repeat(sine_cosine(d // 2, h), "h d -> (h w) d", w=w)
    x = rearrange(z, "b d f h w -> b f (h w) d") + torch.cat([columns, rows], dim=-1).to(z)
    time = sine_cosine(d, f)[:, None].to(z)  # (F, 1, D)
    for i in range(config["num_layers"]):
        x = block(weights, config, f"{name}.blocks.{i}", x, time if i == 0 else None)
    return rearrange(x, "b f (h w) d -> b d f h w", h=h)


def block(
    weights: Weights, config: Config, name: str, x: torch.Tensor, time: torch.Tensor | None
) -> torch.Tensor:
    """Attention over a frame, attention over time, MLP: (B, F, S, D) -> (B, F, S, D)."""
    b, heads = len(x), config["num_heads"]
    shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = weights[f"{name}.scale_shift_table"]
    spatial = rearrange(normalize(x) * (1 + scale_attn) + shift_attn, "b f s d -> (b f) s d")
    spatial = self_attention(weights, f"{name}.attn", spatial, heads, causal=False)
    x = x + gate_attn * rearrange(spatial, "(b f) s d -> b f s d", b=b)
    temporal = rearrange(x if time is None else x + time, "b f s d -> (b s) f d")
    temporal = self_attention(weights, f"{name}.attn_temporal", temporal, heads, causal=config["causal"])
    x = x + gate_attn * rearrange(temporal, "(b s) f d -> b f s d", b=b)
    hidden = linear(weights, f"{name}.mlp.net.0.proj", normalize(x) * (1 + scale_mlp) + shift_mlp)
    return x + gate_mlp * linear(weights, f"{name}.mlp.net.2", F.gelu(hidden, approximate="tanh"))


def self_attention(
    weights: Weights, name: str, x: torch.Tensor, num_heads: int, *, causal: bool
) -> torch.Tensor:
    """(N, n, D) -> (N, n, D)."""
    query, key, value = (linear(weights, f"{name}.to_{letter}", x) for letter in "qkv")
    mask = x.new_ones(x.shape[1], x.shape[1], dtype=torch.bool).tril() if causal else None
    return linear(weights, f"{name}.to_out.0", attention(query, key, value, num_heads, mask))


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    num_heads: int,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """softmax(q k^T / sqrt(d)) v by head, (N, n, D) and twice (N, m, D) -> (N, n, D). The mask (n, m) is True
    where a query sees a key."""
    query, key, value = (rearrange(x, "b n (h d) -> b h n d", h=num_heads) for x in (query, key, value))
    scores = torch.einsum("bhnd,bhmd->bhnm", query, key) / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    out = torch.einsum("bhnm,bhmd->bhnd", scores.softmax(dim=-1), value)
    return rearrange(out, "b h n d -> b n (h d)")


def encode_structure(weights: Weights, config: Config, z: torch.Tensor) -> torch.Tensor:
    """(B, D, F, h, w) -> (B, n_q, h_S, w_S, 2 d_S)."""
    b, _, _, h, w = z.shape
    frames = rearrange(z, "b d f h w -> (b h w) f d")
    queries = repeat(weights["structure_encoder.query_embeds"], "q c -> n q c", n=len(frames))
    queries = qformer(weights, config, "structure_encoder.qformer", queries, frames)
    images = rearrange(queries, "(b h w) q c -> (b q) c h w", b=b, h=h, w=w)
    images = conv(weights, "structure_encoder.conv_in", images)
    for i in range(config["structure_down_blocks"]):
        images = F.relu(conv(weights, f"structure_encoder.down.{2 * i}", images, stride=2))
    return rearrange(conv(weights, "structure_encoder.bottleneck", images), "(b q) c h w -> b q h w c", b=b)


def qformer(
    weights: Weights, config: Config, name: str, queries: torch.Tensor, frames: torch.Tensor
) -> torch.Tensor:
    """BLIP-2's layers, normalised after every branch: (N, n_q, d_q) queries of (N, F, D) -> (N, n_q, d_q)."""

    def attend(branch: str, h: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        query = linear(weights, f"{branch}.attention.query", h)
        key, value = (linear(weights, f"{branch}.attention.{part}", context) for part in ("key", "value"))
        out = linear(weights, f"{branch}.output.dense", attention(query, key, value, config["qformer_heads"]))
        return _layer_norm(weights, f"{branch}.output.LayerNorm", out + h)

    h = _layer_norm(weights, f"{name}.layernorm", queries)
    for i in range(config["qformer_layers"]):
        layer = f"{name}.encoder.layer.{i}"
        h = attend(f"{layer}.attention", h, h)
        if i % 2 == 0:
            h = attend(f"{layer}.crossattention", h, frames)
        hidden = F.gelu(linear(weights, f"{layer}.intermediate_query.dense", h))
        out = linear(weights, f"{layer}.output_query.dense", hidden)
        h = _layer_norm(weights, f"{layer}.output_query.LayerNorm", out + h)
    return h


def decode_structure(weights: Weights, config: Config, structure: torch.Tensor) -> torch.Tensor:
    """(B, n_q, h_S, w_S, d_S) -> (B, D, F, h, w)."""
    b = len(structure)
    h, w = config["height"] // config["patch_size"], config["width"] // config["patch_size"]
    images = rearrange(structure, "b q h w c -> (b q) c h w")
    images = F.relu(conv(weights, "structure_decoder.bottleneck.0", images))
    for i in range(config["structure_down_blocks"]):
        images = F.relu(conv(weights, f"structure_decoder.up.{3 * i}", images))
        images = F.interpolate(images, scale_factor=2, mode="nearest")
    images = conv(weights, "structure_decoder.conv_out", images)
    top, left = (images.shape[-2] - h) // 2, (images.shape[-1] - w) // 2
    queries = rearrange(images[..., top : top + h, left : left + w], "(b q) c h w -> (b h w) q c", b=b)
    queries = F.relu(linear(weights, "structure_decoder.expand.0", queries))  # (B h w, n_q, D)
    mixing, bias = (weights[f"structure_decoder.to_frames.0.{part}"] for part in ("weight", "bias"))
    frames = F.relu(F.conv1d(queries, mixing, bias))  # (B h w, F, D)
    return rearrange(frames, "(b h w) f d -> b d f h w", b=b, h=h)


def encode_dynamics(weights: Weights, config: Config, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, D, F, h, w) -> x (B, F, w_D, 2 d_D) and y (B, F, h_D, 2 d_D)."""
    frames = rearrange(z, "b d f h w -> (b f) d h w")
    for i in range(config["dynamics_down_blocks"]):
        frames = F.relu(conv(weights, f"dynamics_encoder.down.{2 * i}", frames, stride=2))
    frames = rearrange(frames, "(b f) d h w -> b d f h w", b=len(z))
    dynamics_x = conv(weights, "dynamics_encoder.head", frames.mean(dim=-2))
    dynamics_y = conv(weights, "dynamics_encoder.head", frames.mean(dim=-1))
    return rearrange(dynamics_x, "b c f w -> b f w c"), rearrange(dynamics_y, "b c f h -> b f h c")


def decode_dynamics(weights: Weights, dynamics_x: torch.Tensor, dynamics_y: torch.Tensor) -> torch.Tensor:
    """x (B, F, w_D, d_D) and y (B, F, h_D, d_D) -> (B, D, F, h, w)."""
    # a square grid has one module for both axes, another has two
    rows = "1" if "dynamics_decoder.up.1.0.weight" in weights else "0"
    streams = []
    for stream, up in ((dynamics_x, "0"), (dynamics_y, rows)):
        u = F.relu(linear(weights, "dynamics_decoder.expand.0", stream))
        u = rearrange(F.relu(linear(weights, "dynamics_decoder.expand.2", u)), "b f n d -> b d f n")
        if "dynamics_decoder.up.0.0.weight" in weights:
            u = F.relu(linear(weights, f"dynamics_decoder.up.{up}.0", u))
            u = F.relu(linear(weights, f"dynamics_decoder.up.{up}.2", u))
        streams.append(u)
    return streams[0][..., None, :] + streams[1][..., :, None]


def linear(weights: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def conv(weights: Weights, name: str, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
    return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], stride=stride, padding=1)


def normalize(x: torch.Tensor) -> torch.Tensor:
    """LayerNorm without scale and shift."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def sine_cosine(dim: int, length: int) -> torch.Tensor:
    """(length, dim) float64: sin(p w_k), then cos(p w_k), w_k = 10000^(-k / (dim / 2)) (Vaswani, 2017)."""
    frequencies = 10000.0 ** (-torch.arange(dim // 2, dtype=torch.float64) / (dim / 2))
    angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def _layer_norm(weights: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps=1e-12)


def _halved(size: int, times: int) -> int:
    for _ in range(times):
        size = math.ceil(size / 2)
    return size
