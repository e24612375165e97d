"""Attention and positional tables, shared by the autoencoder's trunk and the generator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.embeddings import (
    apply_rotary_emb,
    get_1d_sincos_pos_embed_from_grid,
    get_2d_sincos_pos_embed_from_grid,
)
from einops import rearrange
from torch import nn


class AttnProcessor:
    """Multi-head attention through diffusers' dispatcher, so that every backend is one argument."""

    _attention_backend: Any = None
    _parallel_config: Any = None

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        if attn.fused_projections and encoder_hidden_states is None:
            query, key, value = attn.to_qkv(hidden_states).chunk(3, dim=-1)
        else:
            context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
            query, key, value = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        order = "b n" if attn.batch_first else "n b"
        query, key, value = (
            rearrange(x, f"{order} (heads d) -> b n heads d", heads=attn.heads) for x in (query, key, value)
        )
        query, key = attn.norm_q(query).to(value.dtype), attn.norm_k(key).to(value.dtype)
        if rotary_emb is not None:
            query, key = (apply_rotary_emb(x, rotary_emb, sequence_dim=1) for x in (query, key))
        out = dispatch_attention_fn(
            query,
            key,
            value,
            is_causal=attn.is_causal,
            backend=self._attention_backend,
            # context parallelism divides tokens, and every process has the whole context
            parallel_config=self._parallel_config if encoder_hidden_states is None else None,
        )
        out = rearrange(out, f"b n heads d -> {order} (heads d)").to(hidden_states.dtype)
        return attn.to_out[1](attn.to_out[0](out))


class Attention(nn.Module, AttentionModuleMixin):
    """Multi-head attention, self or cross.

    Args:
        dim: width of the tokens. heads: number of heads; `dim` must be a multiple.
        context_dim: width of the tokens attended to, where they are not the same ones.
        qk_norm: LayerNorm without bias of queries and keys, per head (ViT-22B, arXiv 2302.05442, section 2).
        is_causal: a token sees itself and what precedes it.
        batch_first: False for tokens (N, B, dim), which kernels read where they lie.

    Shapes: (B, N, dim) and optionally (B, M, context_dim) -> (B, N, dim); `rotary_emb`: cosines and sines
    (N, dim / heads) by which queries and keys turn.
    """

    to_qkv: nn.Linear  # made by fuse_projections()
    processor: Callable[..., torch.Tensor]
    _default_processor_cls = AttnProcessor
    _available_processors = [AttnProcessor]

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        context_dim: int | None = None,
        qk_norm: bool = False,
        is_causal: bool = False,
        batch_first: bool = True,
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"the width must be a multiple of the number of heads, got {dim} and {heads}")
        self.heads = heads
        self.is_causal = is_causal
        self.batch_first = batch_first
        self.use_bias = True
        self.is_cross_attention = context_dim is not None
        self.to_q = nn.Linear(dim, dim)
        self.to_k = nn.Linear(context_dim or dim, dim)
        self.to_v = nn.Linear(context_dim or dim, dim)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim), nn.Dropout(0.0)])
        self.norm_q = nn.LayerNorm(dim // heads, eps=1e-6, bias=False) if qk_norm else nn.Identity()
        self.norm_k = nn.LayerNorm(dim // heads, eps=1e-6, bias=False) if qk_norm else nn.Identity()
        self.processor = self._default_processor_cls()

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        return self.processor(self, hidden_states, encoder_hidden_states, rotary_emb)


def init_relu_stack(*modules: nn.Module) -> None:
    """He initialisation (arXiv 1502.01852) of linear layers and convolutions: keeps the signal's scale."""
    for module in modules:
        for layer in module.modules():
            if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)


def init_blend(module: nn.Module) -> None:
    """For layers that blend non-negative inputs along an axis, with one matrix for all channels, before a
    ReLU: non-negative weights, each output near the mean of the inputs. With weights of either sign an
    output, say a whole frame, can be negative for all channels and positions; then it is dead for good."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv1d):
            nn.init.uniform_(layer.weight, 0.0, 2.0 / layer.weight.shape[1])
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)


def init_interpolation(module: nn.Module) -> None:
    """For linear layers along an axis of non-negative inputs: each output is interpolated between the inputs
    nearest to its place. Unlike `init_blend`, it uses where each output lies."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            at_inputs = torch.eye(layer.in_features)[None]
            weight = F.interpolate(at_inputs, size=layer.out_features, mode="linear")[0].T
            with torch.no_grad():
                layer.weight.copy_(weight)
            nn.init.zeros_(layer.bias)


def sincos_1d(dim: int, length: int) -> torch.Tensor:
    """(length, dim) table: sines of the position at dim/2 frequencies, then the cosines (Vaswani, 2017)."""
    return get_1d_sincos_pos_embed_from_grid(dim, torch.arange(length)).float()


def sincos_2d(dim: int, height: int, width: int) -> torch.Tensor:
    """(height * width, dim) table, row-major: half of the channels is the column, half the row."""
    grid = torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy")
    return get_2d_sincos_pos_embed_from_grid(dim, torch.stack(grid)).float()
