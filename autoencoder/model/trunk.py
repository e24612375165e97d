"""The space-time transformer at both ends of VidTwin (arXiv 2412.17726, section 3.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention import FeedForward
from einops import rearrange
from torch import nn

from autoencoder.model.layout import token_grid
from vidtwin_gen.models.layers import Attention, sincos_1d, sincos_2d

LAYER_NORM_EPS = 1e-6


def modulate(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """LN(x) (1 + scale) + shift, in one kernel: scale and shift are the parameters that LN itself has not."""
    return F.layer_norm(x, x.shape[-1:], weight=1 + scale, bias=shift, eps=LAYER_NORM_EPS)


class MLP(FeedForward):
    """Linear, GELU (its tanh approximation), linear: (..., D) -> (..., D).

    Without gradients the hidden tokens are activated where they are: at the paper's size fresh memory for
    them takes as long as the activation.
    """

    def __init__(self, config: Any) -> None:
        inner_dim = int(config.hidden_size * config.mlp_ratio)
        super().__init__(config.hidden_size, inner_dim=inner_dim, activation_fn="gelu-approximate")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        activation, _, output = self.net
        hidden = activation.proj(x)  # (..., mlp_ratio D)
        gelu = F.gelu if hidden.requires_grad else torch.ops.aten.gelu_
        return output(gelu(hidden, approximate="tanh"))


class SpaceTimeBlock(nn.Module):
    """Attention within each frame, attention along time at each position, MLP.

    The shifts, scales and gates are one learned table per block: adaLN-single without a condition. As in the
    released model the temporal branch reads the residual stream as it is, neither normalised nor modulated,
    and shares the spatial branch's gate.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        d, heads = config.hidden_size, config.num_heads
        self.scale_shift_table = nn.Parameter(torch.randn(6, d) / d**0.5)
        self.attn = Attention(d, heads)
        self.attn_temporal = Attention(d, heads, is_causal=config.causal, batch_first=False)
        self.mlp = MLP(config)

    def forward(self, x: torch.Tensor, temporal_embedding: torch.Tensor | None = None) -> torch.Tensor:
        """(F, B, S, D) -> (F, B, S, D). `temporal_embedding` (F, 1, D) goes into the temporal branch only."""
        f, b = x.shape[:2]
        shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = self.scale_shift_table
        spatial = rearrange(modulate(x, shift_attn, scale_attn), "f b s d -> (f b) s d")
        spatial = rearrange(self.attn(spatial), "(f b) s d -> f b s d", f=f)
        x = torch.addcmul(x, gate_attn, spatial)
        temporal = rearrange(x, "f b s d -> f (b s) d")
        temporal = temporal if temporal_embedding is None else temporal + temporal_embedding
        temporal = rearrange(self.attn_temporal(temporal), "f (b s) d -> f b s d", b=b)
        x = torch.addcmul(x, gate_attn, temporal)
        return torch.addcmul(x, gate_mlp, self.mlp(modulate(x, shift_mlp, scale_mlp)))


class SpaceTimeTrunk(nn.Module):
    """The stack of blocks with its computed positions: (B, D, F, h, w) -> (B, D, F, h, w)."""

    spatial: torch.Tensor
    temporal: torch.Tensor
    _gradient_checkpointing_func: Callable[..., torch.Tensor]  # set by enable_gradient_checkpointing()

    def __init__(self, config: Any) -> None:
        super().__init__()
        d = config.hidden_size
        self.blocks = nn.ModuleList([SpaceTimeBlock(config) for _ in range(config.num_layers)])
        self.register_buffer("spatial", sincos_2d(d, *token_grid(config)), persistent=False)
        self.register_buffer("temporal", sincos_1d(d, config.num_frames)[:, None], persistent=False)
        self.gradient_checkpointing = False
        self.apply(_init)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height = x.shape[-2]
        # time first: then attention within frames and attention along time are both views of the tokens
        x = rearrange(x, "b d f h w -> f b (h w) d").contiguous()
        x = x + self.spatial.to(x.dtype)
        temporal_embedding: torch.Tensor | None = self.temporal.to(x.dtype)
        # compiled blocks are one graph only if all of them get one
        no_embedding = torch.zeros_like(self.temporal, dtype=x.dtype) if self._is_compiled() else None
        for block in self.blocks:
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                x = self._gradient_checkpointing_func(block, x, temporal_embedding)
            else:
                x = block(x, temporal_embedding)
            temporal_embedding = no_embedding
        return rearrange(x, "f b (h w) d -> b d f h w", h=height)

    def _is_compiled(self) -> bool:
        return any(block._compiled_call_impl is not None for block in self.blocks)


class PatchConv(nn.Conv3d):
    """A convolution whose kernel is as large as its stride, one frame long, computed as the linear layer over
    patches that it is: cuDNN is slow with such a convolution in bfloat16 (pytorch issue 166643)."""

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        _, p, q = self.kernel_size
        patches = rearrange(sample, "b c f (h p) (w q) -> b f h w (c p q)", p=p, q=q)
        tokens = F.linear(patches, self.weight.flatten(1), self.bias)  # (B, F, h, w, D)
        return rearrange(tokens, "b f h w d -> b d f h w")


class PatchEmbed(nn.Module):
    """Pixels to tokens, frame by frame: (B, C, F, H, W) -> (B, D, F, h, w)."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        patch = (1, config.patch_size, config.patch_size)
        self.proj = PatchConv(config.in_channels, config.hidden_size, kernel_size=patch, stride=patch)
        nn.init.xavier_uniform_(self.proj.weight.view(config.hidden_size, -1))

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        return self.proj(sample)


class PatchOutput(nn.Module):
    """Tokens to pixels: (B, D, F, h, w) -> (B, C, F, H, W), unbounded."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        d, self.patch_size = config.hidden_size, config.patch_size
        self.scale_shift_table = nn.Parameter(torch.randn(2, d) / d**0.5)
        self.linear = nn.Linear(d, config.patch_size**2 * config.in_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shift, scale = self.scale_shift_table
        x = modulate(rearrange(x, "b d f h w -> b f h w d"), shift, scale)
        p = self.patch_size
        return rearrange(self.linear(x), "b f h w (p q c) -> b c f (h p) (w q)", p=p, q=p)


def _init(module: nn.Module) -> None:
    """For `apply`, which visits children first: Xavier-uniform linear layers; queries, keys and values with
    the bound of the one fused layer of the release; time enters only as training asks for it."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, Attention):
        for linear in (module.to_q, module.to_k, module.to_v):
            nn.init.xavier_uniform_(linear.weight, gain=0.5**0.5)
    elif isinstance(module, SpaceTimeBlock):
        nn.init.zeros_(module.attn_temporal.to_out[0].get_parameter("weight"))
