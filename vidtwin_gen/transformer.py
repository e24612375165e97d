"""LatentTransformer: a class-conditional diffusion transformer over any latent layout."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from diffusers.models.attention import AttentionMixin, FeedForward
from diffusers.models.cache_utils import CacheMixin
from diffusers.models.embeddings import TimestepEmbedding, Timesteps, get_1d_sincos_pos_embed_from_grid
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.normalization import AdaLayerNormContinuous
from torch import nn

from vidtwin_gen.latents import LatentGrid, LatentLayout
from vidtwin_gen.layers import Attention

TIME_CHANNELS = 256  # frequencies of the timestep, as in DiT
INDEX_AXIS = "query"  # the one axis that counts and does not measure


def patch_centres(size: int, patch: int, reference: int) -> torch.Tensor:
    """(ceil(size / patch),) where along an axis its patches are centred.

    The unit is one position of an axis of length `reference` that spans the same extent, so that grids of
    different resolution agree on what is where; for size = reference and patch = 1 it is 0, 1, 2, ...
    """
    index = torch.arange(math.ceil(size / patch), dtype=torch.float64)
    return (index + 0.5) * patch * reference / size - 0.5


class LatentPositions(nn.Module):
    """Adds to every token where it is: the sum over its axes of one embedding each, plus one for its grid.

    A coordinate (time, height, width) is a sine-cosine table followed by a linear map that belongs to the
    axis; grids that have the axis share it, which is how they learn to agree. The query axis is a mere index
    and has an embedding per index.

    Shape: (B, N, dim) -> (B, N, dim), the tokens of all grids in layout order.
    """

    def __init__(self, layout: LatentLayout, patch_sizes: Mapping[str, Sequence[int]], dim: int) -> None:
        super().__init__()
        self.layout_grids = layout.grids
        self.grids = nn.Embedding(len(layout.grids), dim)
        self.axes = nn.ModuleDict()
        axes = [
            (grid, i, axis, size, patch_sizes[grid.name][i])
            for grid in layout.grids
            for i, (axis, size) in enumerate(zip(grid.axes, grid.shape, strict=True))
        ]
        for axis in dict.fromkeys(axis for _, _, axis, _, _ in axes):
            same = [(size, patch) for _, _, other, size, patch in axes if other == axis]
            if axis == INDEX_AXIS:
                self.axes[axis] = nn.Embedding(max(math.ceil(size / patch) for size, patch in same), dim)
            else:
                self.axes[axis] = nn.Linear(dim, dim, bias=False)
        for grid, i, axis, size, patch in axes:
            if axis == INDEX_AXIS:
                table = torch.arange(math.ceil(size / patch))
            else:
                longest = max(other_size for _, _, other, other_size, _ in axes if other == axis)
                table = get_1d_sincos_pos_embed_from_grid(dim, patch_centres(size, patch, longest)).float()
            self.register_buffer(_table_name(grid, i), table, persistent=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        kinds = self.grids(torch.arange(len(self.layout_grids), device=tokens.device))  # (grids, D)
        positions = []
        for total, grid in zip(kinds, self.layout_grids, strict=True):
            for i, axis in enumerate(grid.axes):
                table = getattr(self, _table_name(grid, i))
                table = table.to(tokens.dtype) if table.is_floating_point() else table
                along = self.axes[axis](table)  # (n_i, D)
                total = total.unsqueeze(-2) + along if i else total + along  # (n_0, ..., n_i, D)
            positions.append(total.flatten(0, -2))  # (n, D)
        return tokens + torch.cat(positions).to(tokens.dtype)  # (B, N, D)


def _table_name(grid: LatentGrid, axis: int) -> str:
    return f"{grid.name}_{axis}"


class LatentTransformerBlock(nn.Module):
    """Attention and MLP, each shifted, scaled and gated by the conditioning: adaLN-Zero (DiT, section 3.2).

    Shapes: tokens (B, N, dim), conditioning (B, dim) -> (B, N, dim).
    """

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.modulation = nn.Linear(dim, 6 * dim)
        self.norm1 = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)
        self.attn = Attention(dim, num_heads, qk_norm=True)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)
        self.ff = FeedForward(dim, inner_dim=int(dim * mlp_ratio), activation_fn="gelu-approximate")

    def forward(self, hidden_states: torch.Tensor, conditioning: torch.Tensor) -> torch.Tensor:
        modulation = self.modulation(F.silu(conditioning)).unsqueeze(1)  # (B, 1, 6 D)
        shift_attn, scale_attn, gate_attn, shift_ff, scale_ff, gate_ff = modulation.chunk(6, dim=-1)
        attended = self.attn(self.norm1(hidden_states) * (1 + scale_attn) + shift_attn)
        hidden_states = hidden_states + gate_attn * attended
        return hidden_states + gate_ff * self.ff(self.norm2(hidden_states) * (1 + scale_ff) + shift_ff)


class LatentTransformer(ModelMixin, ConfigMixin, AttentionMixin, CacheMixin):
    """A DiT (arXiv 2212.09748) whose input is a flat latent and whose tokens are the grids inside it.

    It knows layouts and no autoencoder: one input and one output projection per grid, positions shared along
    axes of one name, a plain adaLN-Zero trunk over the concatenated tokens. At initialisation it returns 0.

    Args:
        layout: what is inside the flat latent, `LatentLayout.to_config()`.
        num_classes: number of classes; the label `null_class` = `num_classes` means no class.
        patch_size: positions per token along each axis, for all grids or by grid name.
        hidden_size: width, even and a multiple of `num_heads`. mlp_ratio: width of the MLPs over it.

    Raises:
        ValueError: sizes that do not fit together.
    """

    __module__ = "vidtwin_gen"  # where users find it, and what a saved pipeline records

    _supports_gradient_checkpointing = True
    _no_split_modules = ["LatentTransformerBlock", "LatentPositions"]
    _repeated_blocks = ["LatentTransformerBlock"]
    _skip_layerwise_casting_patterns = ["proj_in", "positions", "time_embed", "class_embed", "norm"]

    @register_to_config
    def __init__(
        self,
        layout: list[dict[str, Any]],
        num_classes: int,
        patch_size: int | dict[str, Any] = 1,
        hidden_size: int = 384,
        num_layers: int = 12,
        num_heads: int = 6,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be positive, got {num_classes}")
        if hidden_size % 2:
            raise ValueError(f"hidden_size must be even, half sines and half cosines, got {hidden_size}")
        self.layout = LatentLayout.from_config(layout)
        self.patch_sizes = self.layout.patch_sizes(patch_size)
        token_channels = self.layout.token_channels(self.patch_sizes)
        self.num_tokens = {
            grid.name: math.prod(grid.token_shape(self.patch_sizes[grid.name])) for grid in self.layout.grids
        }

        self.proj_in = nn.ModuleDict(
            {name: nn.Linear(channels, hidden_size) for name, channels in token_channels.items()}
        )
        self.positions = LatentPositions(self.layout, self.patch_sizes, hidden_size)
        self.time_proj = Timesteps(TIME_CHANNELS, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embed = TimestepEmbedding(TIME_CHANNELS, hidden_size)
        self.class_embed = nn.Embedding(num_classes + 1, hidden_size)
        self.transformer_blocks = nn.ModuleList(
            LatentTransformerBlock(hidden_size, num_heads, mlp_ratio) for _ in range(num_layers)
        )
        self.norm_out = AdaLayerNormContinuous(hidden_size, hidden_size, elementwise_affine=False, eps=1e-6)
        self.proj_out = nn.ModuleDict(
            {name: nn.Linear(hidden_size, channels) for name, channels in token_channels.items()}
        )
        self.gradient_checkpointing = False
        self.initialize_weights()

    @property
    def null_class(self) -> int:
        """The label that means no class: the unconditional half of guidance, and a dropped label."""
        return self.config.num_classes

    def initialize_weights(self) -> None:
        """DiT's initialisation: Xavier linears, N(0, 0.02) embeddings, and zeros wherever a branch ends."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for embedding in (self.positions, self.time_embed, self.class_embed):
            for name, parameter in embedding.named_parameters():
                if name.endswith("weight"):
                    nn.init.normal_(parameter, std=0.02)
        block_ends = [block.modulation for block in self.transformer_blocks]
        for linear in (*block_ends, self.norm_out.linear, *self.proj_out.values()):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    def enable_cache(self, config: Any) -> None:
        """Step caches: first block, pyramid attention broadcast, Taylor, ... (`CacheMixin`)."""
        # Here and not at import: the first registration makes diffusers import every transformer it has.
        TransformerBlockRegistry.register(LatentTransformerBlock, TransformerBlockMetadata(0, None))
        super().enable_cache(config)

    def forward(
        self,
        hidden_states: torch.Tensor,
        timestep: torch.Tensor,
        class_labels: torch.Tensor,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[torch.Tensor]:
        """Whitened noisy latents (B, L), timestep (B,) in [0, 1000], class_labels (B,) in [0, num_classes]
        -> `sample` (B, L), what the objective asks for (the velocity, by default)."""
        tokens = self.layout.tokens(hidden_states, self.patch_sizes)  # name: (B, n, patch)
        x = torch.cat([self.proj_in[name](part) for name, part in tokens.items()], dim=1)  # (B, N, D)
        x = self.positions(x)
        conditioning = self.time_embed(self.time_proj(timestep).to(x.dtype))  # (B, D)
        conditioning = conditioning + self.class_embed(class_labels)
        for block in self.transformer_blocks:
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                x = self._gradient_checkpointing_func(block, x, conditioning)
            else:
                x = block(x, conditioning)
        x = self.norm_out(x, conditioning)
        parts = x.split(list(self.num_tokens.values()), dim=1)  # (B, n, D) each
        outputs = {
            name: self.proj_out[name](part) for name, part in zip(self.layout.names, parts, strict=True)
        }
        sample = self.layout.untokens(outputs, self.patch_sizes)  # (B, L)
        return Transformer2DModelOutput(sample=sample) if return_dict else (sample,)
