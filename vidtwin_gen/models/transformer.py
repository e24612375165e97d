"""LatentTransformer: a class-conditional diffusion transformer over any latent layout."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.hooks._helpers import (
    AttentionProcessorMetadata,
    AttentionProcessorRegistry,
    TransformerBlockMetadata,
    TransformerBlockRegistry,
)
from diffusers.loaders import PeftAdapterMixin
from diffusers.models._modeling_parallel import ContextParallelInput, ContextParallelOutput
from diffusers.models.attention import AttentionMixin, FeedForward
from diffusers.models.cache_utils import CacheMixin
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.normalization import AdaLayerNormContinuous
from diffusers.utils import apply_lora_scale
from torch import nn

from vidtwin_gen.latents import LatentLayout
from vidtwin_gen.models.checks import CheckedWeights, check_arguments, check_table
from vidtwin_gen.models.layers import Attention, AttnProcessor
from vidtwin_gen.models.objectives import BlockType, Conditioning
from vidtwin_gen.models.parametrization import NUM_TRAIN_TIMESTEPS, PREDICTION_TYPES, velocity_from_x0
from vidtwin_gen.models.positions import LatentPositions, RotaryPositions

TIME_CHANNELS = 256  # frequencies of the timestep, as in DiT
UNFIT_CACHES = {  # found by trying all that diffusers 0.42 has
    "FasterCacheConfig": "fails where guidance begins or ends within a call",
    "SeaCacheConfig": "needs a raw_vision_callback, without which it saves nothing",
    "TextKVCacheConfig": "is of a prompt, and saves nothing where there is no text",
}


class LatentTransformerBlock(nn.Module):
    """Attention and MLP, each shifted, scaled and gated by the conditioning: adaLN-Zero (DiT, section 3.2).
    `lightning`: with RMSNorm and SwiGLU of as many weights (LightningDiT, arXiv 2501.01423, section 4).

    With a `context_dim`, cross-attention to the context stands between the two, as in a text-to-image DiT; it
    is neither modulated nor gated, and starts at zero like the rest.

    Shapes: tokens (B, N, dim), conditioning (B, dim), context (B, M, context_dim) -> (B, N, dim); rotary_emb
    as `RotaryPositions` gives it.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float,
        context_dim: int | None = None,
        lightning: bool = False,
    ) -> None:
        super().__init__()
        norm = nn.RMSNorm if lightning else nn.LayerNorm
        self.modulation = nn.Linear(dim, 6 * dim)
        self.norm1 = norm(dim, eps=1e-6, elementwise_affine=False)
        self.attn = Attention(dim, num_heads, qk_norm=True)
        self.cross_attn: Attention | None = None
        if context_dim is not None:
            self.norm_cross = nn.LayerNorm(dim, eps=1e-6)
            self.cross_attn = Attention(dim, num_heads, context_dim=context_dim, qk_norm=True)
        self.norm2 = norm(dim, eps=1e-6, elementwise_affine=False)
        inner_dim = int(dim * mlp_ratio)
        self.ff = FeedForward(
            dim,
            inner_dim=2 * inner_dim // 3 if lightning else inner_dim,  # SwiGLU has three matrices
            activation_fn="swiglu" if lightning else "gelu-approximate",
        )

    def forward(
        self,
        hidden_states: torch.Tensor,
        conditioning: torch.Tensor,
        context: torch.Tensor | None = None,
        rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        modulation = self.modulation(F.silu(conditioning)).unsqueeze(1)  # (B, 1, 6 D)
        shift_attn, scale_attn, gate_attn, shift_ff, scale_ff, gate_ff = modulation.chunk(6, dim=-1)
        modulated = torch.addcmul(shift_attn, self.norm1(hidden_states), 1 + scale_attn)
        attended = self.attn(modulated, rotary_emb=rotary_emb)
        hidden_states = torch.addcmul(hidden_states, gate_attn, attended)
        if self.cross_attn is not None:
            hidden_states = hidden_states + self.cross_attn(self.norm_cross(hidden_states), context)
        fed = self.ff(torch.addcmul(shift_ff, self.norm2(hidden_states), 1 + scale_ff))
        return torch.addcmul(hidden_states, gate_ff, fed)


# What diffusers' step caches and layer skipping ask of a block and of an attention. Its own way to register
# imports every transformer that it has, which takes seconds.
TransformerBlockRegistry._registry[LatentTransformerBlock] = TransformerBlockMetadata(
    return_hidden_states_index=0, _cls=LatentTransformerBlock
)
AttentionProcessorRegistry._registry[AttnProcessor] = AttentionProcessorMetadata(
    skip_processor_output_fn=lambda attn, hidden_states, *args, **kwargs: hidden_states
)


class GridProjection(nn.ModuleDict):
    """Tokens to the flat latent, by a linear layer per grid: (B, N, D) -> (B, L).

    One module with one output, since that is what a step cache stores in place of it.
    """

    def __init__(self, layout: LatentLayout, patch_sizes: dict[str, tuple[int, ...]], dim: int) -> None:
        channels = layout.token_channels(patch_sizes)
        super().__init__({name: nn.Linear(dim, number) for name, number in channels.items()})
        self.layout, self.patch_sizes = layout, patch_sizes
        self.num_tokens = [math.prod(grid.token_shape(patch_sizes[grid.name])) for grid in layout.grids]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = zip(self.values(), x.split(self.num_tokens, dim=1), strict=True)  # (B, n, D) each
        outputs = dict(zip(self.layout.names, (linear(part) for linear, part in parts), strict=True))
        return self.layout.untokens(outputs, self.patch_sizes)


@dataclass
class LatentTransformerOutput(Transformer2DModelOutput):
    """Attributes: sample (B, L), what is predicted; internal_sample (B, L), what the head of internal
    guidance predicts, or None; hidden (B, N, D), the tokens after the block that was asked for, or None."""

    internal_sample: torch.Tensor | None = None
    hidden: torch.Tensor | None = None


def check_config(config: Any) -> None:
    """Raises ValueError for sizes that do not fit together and for types that there are not."""
    for name, choices in (
        ("conditioning", get_args(Conditioning)),
        ("prediction_type", tuple(PREDICTION_TYPES.values())),
        ("block_type", get_args(BlockType)),
    ):
        if config[name] not in choices:
            raise ValueError(f"{name} is one of {choices}, got {config[name]!r}")
    if config.predicts_x0 and config.prediction_type != "flow_prediction":
        raise ValueError(
            f"predicts_x0 goes with prediction_type flow_prediction, got {config.prediction_type!r}"
        )
    if config.internal_layer is not None and config.internal_layer not in range(1, config.num_layers):
        raise ValueError(
            f"internal_layer is a number of blocks, from 1 to {config.num_layers - 1}, got "
            f"{config.internal_layer!r}"
        )
    if config.hidden_size % 2:
        raise ValueError(f"hidden_size must be even, half sines and half cosines, got {config.hidden_size}")


def context_parallel_plan(*, internal: bool, lightning: bool) -> dict[str, Any]:
    """How diffusers parts the tokens, of which there must be a multiple of the number of devices, among these
    devices; `internal`, `lightning`: whether the transformer has the second head, and rotary positions."""
    gather = ContextParallelOutput(gather_dim=1, expected_dims=3)
    split = ContextParallelInput(split_dim=0, expected_dims=2, split_output=True)
    return {
        "transformer_blocks.0": {"hidden_states": ContextParallelInput(split_dim=1, expected_dims=3)},
        "norm_out": gather,
        **({"norm_internal": gather} if internal else {}),
        **({"rope": {0: split, 1: split}} if lightning else {}),
    }


class LatentTransformer(
    CheckedWeights, ModelMixin, ConfigMixin, PeftAdapterMixin, AttentionMixin, CacheMixin
):
    """A DiT (arXiv 2212.09748) whose input is a flat latent and whose tokens are the grids inside it.

    It knows layouts and no autoencoder: one input and one output projection per grid, positions shared along
    axes of one name, a plain adaLN-Zero trunk over the concatenated tokens. At initialisation the network
    returns 0, with `predicts_x0` as its x_0. `vidtwin_gen.models.sizes` has the usual sizes by name.

    Args:
        layout: what is inside the flat latent, `LatentLayout.to_config()`.
        num_classes: number of classes; the label `null_class` = `num_classes` means no class.
        patch_size: positions per token along each axis, for all grids or by grid name.
        hidden_size: width, even and a multiple of `num_heads`. mlp_ratio: width of the MLPs over it.
        num_layers: number of blocks, at least 1.
        conditioning: where the class comes in: `"adaln"`, added to the timestep's embedding (DiT), or
            `"cross_attention"`, as one vector of `class_dim` numbers that every block attends to (VidTwin,
            appendix D.3). Over a single vector attention has nothing to choose, so its queries and keys
            change nothing and their gradients are zero.
        prediction_type: what the output means, in diffusers' words: `"flow_prediction"`, the velocity, or
            `"sample"`, x_0. Which schedulers fit follows from it.
        predicts_x0: whether the network itself predicts x_0, of which `forward` makes the velocity: what is
            to be learned then lies where the data lie (JiT, arXiv 2511.13720). Of `"flow_prediction"`.
        internal_layer: number of blocks before a second head, which predicts the same; the direction from it
            to the last one guides (arXiv 2512.24176). None: there is no such head.
        block_type: `"dit"`, or `"lightning"`: RMSNorm, SwiGLU and rotary positions (arXiv 2501.01423).

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
        patch_size: int | list[int] | dict[str, Any] = 1,
        hidden_size: int = 384,
        num_layers: int = 12,
        num_heads: int = 6,
        mlp_ratio: float = 4.0,
        conditioning: str = "adaln",
        class_dim: int = 256,
        prediction_type: str = "flow_prediction",
        predicts_x0: bool = False,
        internal_layer: int | None = None,
        block_type: str = "dit",
    ) -> None:
        super().__init__()
        check_arguments(LatentTransformer, self.config)
        check_config(self.config)
        self.layout = LatentLayout.from_config(layout)
        self.patch_sizes = self.layout.patch_sizes(patch_size)
        check_table("the tokens", self.layout.num_tokens(self.patch_sizes), hidden_size)
        token_channels = self.layout.token_channels(self.patch_sizes)
        check_table("a token's projection", max(token_channels.values()), hidden_size)

        self.proj_in = nn.ModuleDict(
            {name: nn.Linear(channels, hidden_size) for name, channels in token_channels.items()}
        )
        self.positions = LatentPositions(self.layout, self.patch_sizes, hidden_size)
        lightning = block_type == "lightning"
        self.rope = (
            RotaryPositions(self.layout, self.patch_sizes, hidden_size // num_heads) if lightning else None
        )
        self.time_proj = Timesteps(TIME_CHANNELS, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embed = TimestepEmbedding(TIME_CHANNELS, hidden_size)
        crossed = conditioning == "cross_attention"
        self.class_embed = nn.Embedding(num_classes + 1, class_dim if crossed else hidden_size)
        self.transformer_blocks = nn.ModuleList(
            LatentTransformerBlock(
                hidden_size, num_heads, mlp_ratio, class_dim if crossed else None, lightning
            )
            for _ in range(num_layers)
        )
        norm_type = "rms_norm" if lightning else "layer_norm"
        norm_out = partial(
            AdaLayerNormContinuous,
            hidden_size,
            hidden_size,
            elementwise_affine=False,
            eps=1e-6,
            norm_type=norm_type,
        )
        self.norm_out = norm_out()
        self.proj_out = GridProjection(self.layout, self.patch_sizes, hidden_size)
        if internal_layer is not None:
            self.norm_internal = norm_out()
            self.proj_internal = GridProjection(self.layout, self.patch_sizes, hidden_size)
        self._cp_plan = context_parallel_plan(internal=internal_layer is not None, lightning=lightning)
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
        branch_ends: list[Any] = [block.modulation for block in self.transformer_blocks]
        crossed = [m for m in self.modules() if isinstance(m, Attention) and m.is_cross_attention]
        branch_ends += [attention.to_out[0] for attention in crossed]
        branch_ends += [m.linear for m in self.modules() if isinstance(m, AdaLayerNormContinuous)]
        branch_ends += [
            m for head in self.modules() if isinstance(head, GridProjection) for m in head.values()
        ]
        for linear in branch_ends:
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    def enable_cache(self, config: Any) -> None:
        """As diffusers' `CacheMixin`. Raises ValueError for a cache that would fail within a call or save
        nothing."""
        name = type(config).__name__
        if name in UNFIT_CACHES and getattr(config, "raw_vision_callback", None) is None:
            raise ValueError(
                f"{name}: its cache {UNFIT_CACHES[name]}: take another, such as FirstBlockCacheConfig"
            )
        super().enable_cache(config)

    @apply_lora_scale("attention_kwargs")
    def forward(
        self,
        hidden_states: torch.Tensor,
        timestep: torch.Tensor,
        class_labels: torch.Tensor,
        attention_kwargs: dict[str, Any] | None = None,
        return_dict: bool = True,
        internal_guidance_scale: float = 1.0,
        hidden_layer: int | None = None,
    ) -> LatentTransformerOutput | tuple[torch.Tensor]:
        """Whitened noisy latents (B, L), timestep (B,) in [0, 1000], class_labels (B,) in [0, num_classes]
        -> `sample` (B, L), the velocity or x_0: see `prediction_type`. `attention_kwargs={"scale": s}` scales
        the LoRA adapters that are loaded; `internal_guidance_scale` s makes the sample D_mid + s (D - D_mid).
        With gradients the output has `internal_sample`, D_mid, too, and with `hidden_layer`, a number of
        blocks, `hidden`, the tokens after so many. Raises ValueError for more blocks than there are, and
        where `internal_guidance_scale` is not 1 and there is no head for it."""
        if internal_guidance_scale != 1 and self.config.internal_layer is None:
            raise ValueError(f"internal_guidance_scale {internal_guidance_scale} needs an internal_layer")
        if hidden_layer is not None and not 1 <= hidden_layer <= len(self.transformer_blocks):
            raise ValueError(f"hidden_layer is from 1 to {len(self.transformer_blocks)}, got {hidden_layer}")
        tokens = self.layout.tokens(hidden_states, self.patch_sizes)  # name: (B, n, patch)
        x = torch.cat([self.proj_in[name](part) for name, part in tokens.items()], dim=1)  # (B, N, D)
        x = self.positions(x)
        conditioning = self.time_embed(self.time_proj(timestep).to(x.dtype))  # (B, D)
        classes = self.class_embed(class_labels)  # (B, D) or (B, class_dim)
        context = None
        if self.config.conditioning == "adaln":
            conditioning = conditioning + classes
        else:
            context = classes.unsqueeze(1)  # (B, 1, class_dim)
        rotary_emb = self.rope() if self.rope is not None else None
        internal = hidden = None
        for number, block in enumerate(self.transformer_blocks, 1):
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                x = self._gradient_checkpointing_func(block, x, conditioning, context, rotary_emb)
            else:
                x = block(x, conditioning, context, rotary_emb)
            if number == hidden_layer:
                hidden = x
            if number == self.config.internal_layer and (
                torch.is_grad_enabled() or internal_guidance_scale != 1
            ):
                internal = self.proj_internal(self.norm_internal(x, conditioning))  # (B, L)
        sample = self.proj_out(self.norm_out(x, conditioning))  # (B, L)
        if self.config.predicts_x0:
            sigma = timestep / NUM_TRAIN_TIMESTEPS
            sample = velocity_from_x0(hidden_states, sample, sigma).to(sample.dtype)
            if internal is not None:
                internal = velocity_from_x0(hidden_states, internal, sigma).to(sample.dtype)
        if internal is not None and internal_guidance_scale != 1:
            sample = torch.lerp(internal, sample, internal_guidance_scale)
        return LatentTransformerOutput(sample, internal, hidden) if return_dict else (sample,)
