"""AutoencoderVidTwin: a clip as one flat latent of Structure and Dynamics (arXiv 2412.17726)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.attention import AttentionMixin
from diffusers.models.autoencoders.vae import AutoencoderMixin, DecoderOutput
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from diffusers.utils.accelerate_utils import apply_forward_hook

from autoencoder.model import tiling
from autoencoder.model.components import DYNAMICS, STRUCTURE, check_types
from autoencoder.model.layout import check_config, vidtwin_layout
from autoencoder.model.posterior import FlatGaussian
from autoencoder.model.trunk import PatchEmbed, PatchOutput, SpaceTimeTrunk
from vidtwin_gen.models.checks import CheckedWeights, check_arguments


@dataclass
class AutoencoderVidTwinOutput(BaseOutput):
    """`sample` (B, C, F, H, W): the reconstruction. `latent_dist`: the posterior it was decoded from."""

    sample: torch.Tensor
    latent_dist: FlatGaussian | None = None  # a default, because accelerate rebuilds outputs from a dict


class AutoencoderVidTwin(CheckedWeights, ModelMixin, ConfigMixin, AutoencoderMixin, AttentionMixin):
    """VidTwin: encodes a clip into one flat Gaussian latent and decodes it back.

    The flat latent is the concatenation of its grids, described by `layout`: `structure`
    (n_q, h_S, w_S) x d_S, `dynamics_x` (F, w_D) x d_D and `dynamics_y` (F, h_D) x d_D. The defaults are the
    paper's base model at its setting 1.

    Args:
        num_frames, height, width: the size of every clip; height and width are multiples of `patch_size`.
        in_channels: channels of a clip, 3 for RGB.
        patch_size: pixels per token side; tokens are one frame long.
        hidden_size, num_layers, num_heads, mlp_ratio: of the encoder's and of the decoder's trunk.
        num_queries, query_hidden_size: number and width of the Q-Former's queries (n_q, d_q).
        qformer_layers, qformer_heads, qformer_intermediate_size, qformer_dropout: of the Q-Former.
        structure_channels, structure_down_blocks, structure_base_channels: d_S, halvings of the token grid,
            channels before the first of them.
        dynamics_channels, dynamics_down_blocks: d_D, halvings of the token grid.
        structure_type: how Structure is made: the paper's "qformer", or one of its ablations, "convolution",
            which reduces time without a Q-Former, or "frame_qformer", a Q-Former over whole frames, each of
            `structure_position_channels` channels per position; its grid is `structure` (n_q,) x d_S.
        dynamics_type: how Dynamics is made: the paper's "average", or an ablation, "qformer", a spatial one
            of `dynamics_queries` queries a frame, with one grid `dynamics` (F, n) x d_D, or "none".
        causal: whether a frame's tokens see only earlier frames in the trunk's temporal attention.
        latents_mean, latents_std: whitening of the latent, one number per grid and channel in layout order
            (`layout.whiten`), as a pipeline has it that was trained on latents. None: not known.

    Raises:
        ValueError: a size that the architecture cannot take.
    """

    __module__ = "vidtwin_gen"  # where users find it, whatever folder it lives in

    _supports_gradient_checkpointing = True
    _no_split_modules = ["SpaceTimeBlock", "StructureEncoder", "StructureDecoder", "DynamicsDecoder"]
    _repeated_blocks = ["SpaceTimeBlock"]
    # all children: block by block, what is in none is loaded by `forward`, which encode and decode don't call
    _group_offload_block_modules = [
        "patch_embed",
        "encoder",
        "structure_encoder",
        "dynamics_encoder",
        "structure_decoder",
        "dynamics_decoder",
        "decoder",
        "patch_output",
    ]

    @register_to_config
    def __init__(
        self,
        num_frames: int = 16,
        height: int = 224,
        width: int = 224,
        in_channels: int = 3,
        patch_size: int = 16,
        hidden_size: int = 768,
        num_layers: int = 16,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        num_queries: int = 16,
        query_hidden_size: int = 64,
        qformer_layers: int = 6,
        qformer_heads: int = 8,
        qformer_intermediate_size: int = 768,
        qformer_dropout: float = 0.1,
        structure_channels: int = 4,
        structure_down_blocks: int = 1,
        structure_base_channels: int = 128,
        dynamics_channels: int = 8,
        dynamics_down_blocks: int = 1,
        structure_type: str = "qformer",
        structure_position_channels: int = 32,
        dynamics_type: str = "average",
        dynamics_queries: int = 14,
        causal: bool = True,
        latents_mean: list[float] | None = None,
        latents_std: list[float] | None = None,
    ) -> None:
        super().__init__()
        config = self.config
        check_arguments(AutoencoderVidTwin, config)
        check_config(config)
        check_types(config)
        self.layout = vidtwin_layout(config)
        self.layout.check_whitening(latents_mean, latents_std)
        self.patch_embed = PatchEmbed(config)
        self.encoder = SpaceTimeTrunk(config)
        structure, dynamics = STRUCTURE[config.structure_type], DYNAMICS[config.dynamics_type]
        self.structure_encoder = structure[0](config)
        self.dynamics_encoder = dynamics[0](config) if dynamics else None
        self.structure_decoder = structure[1](config)
        self.dynamics_decoder = dynamics[1](config) if dynamics else None
        self.decoder = SpaceTimeTrunk(config)
        self.patch_output = PatchOutput(config)
        self.use_slicing = False
        self.use_tiling = False
        # a quarter of a window overlaps, as in diffusers' AutoencoderKLHunyuanVideo
        self.tile_sample_stride_num_frames = max(1, 3 * num_frames // 4)

    @classmethod
    def from_released(cls, path_or_repo_id: str | Path, **options: Any) -> AutoencoderVidTwin:
        """Microsoft's checkpoint: a .ckpt or .safetensors file, or "microsoft/vidtwin" for the hub's.

        In float32 and evaluation mode. The options and errors are those of
        `autoencoder.released.load_released`.
        """
        from autoencoder.released import load_released

        return load_released(cls, path_or_repo_id, **options)

    def enable_tiling(self, tile_sample_stride_num_frames: int | None = None) -> None:
        """Longer clips too, in windows of `num_frames` frames that are computed one after the other.

        `encode` then takes num_frames + k stride frames and gives the latents of n = k + 1 windows in a row,
        (B, n L); `decode` takes those and blends linearly where windows overlap. Nothing changes for a single
        window. `layout` and its whitening are still a window's. Height and width stay fixed, since Dynamics
        averages over rows and columns.

        Args:
            tile_sample_stride_num_frames: frames from a window's start to the next one's, at most
                `num_frames`, where nothing overlaps. None: as set before, at first 3/4 of a window.

        Raises:
            ValueError: a stride out of range.
        """
        if tile_sample_stride_num_frames is not None:
            stride = tiling.check_stride(tile_sample_stride_num_frames, self.config.num_frames)
            self.tile_sample_stride_num_frames = stride
        super().enable_tiling()

    @apply_forward_hook
    def encode(self, x: torch.Tensor, return_dict: bool = True) -> AutoencoderKLOutput | tuple[FlatGaussian]:
        """Clips (B, C, F, H, W) in [-1, 1] -> `latent_dist`, a Gaussian over flat latents (B, L).

        Raises:
            ValueError: clips of another size, or with tiling of a length that windows do not fill.
        """
        config, frames = self.config, self.config.num_frames
        if self.use_tiling and x.ndim == 5:
            frames = x.shape[2]
        expected = (config.in_channels, frames, config.height, config.width)
        if x.ndim != 5 or tuple(x.shape[1:]) != expected or x.shape[0] == 0:
            raise ValueError(
                f"this autoencoder takes clips (B, {', '.join(map(str, expected))}), got {tuple(x.shape)}"
            )
        windows = [x]
        if self.use_tiling:
            windows = tiling.temporal_windows(x, config.num_frames, self.tile_sample_stride_num_frames)
        moments = tiling.join_moments([self._sliced(self._encode, window) for window in windows])
        posterior = FlatGaussian(moments)  # over (B, L), with tiling (B, n L)
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    def _encode(self, x: torch.Tensor) -> torch.Tensor:
        z = self.encoder(self.patch_embed(x))  # (B, D, F, h, w)
        latents = [self.structure_encoder(z)]  # (B, n_q, h_S, w_S, 2 d_S)
        if self.dynamics_encoder is not None:
            latents += self.dynamics_encoder(z)  # (B, F, w_D, 2 d_D), (B, F, h_D, 2 d_D)
        halves = [part.chunk(2, dim=-1) for part in latents]
        mean, logvar = (
            self.layout.join(dict(zip(self.layout.names, half, strict=True)))
            for half in zip(*halves, strict=True)
        )
        return torch.cat([mean, logvar], dim=-1)  # (B, 2 L)

    @apply_forward_hook
    def decode(self, z: torch.Tensor, return_dict: bool = True) -> DecoderOutput | tuple[torch.Tensor]:
        """Flat latents (B, L), not whitened -> `sample` (B, C, F, H, W), around [-1, 1] but not clamped.

        Raises:
            ValueError: latents of another length; with tiling, of no whole number of windows.
        """
        return self._decode_windows(z, ("structure", "dynamics"), return_dict)

    @apply_forward_hook
    def decode_structure(
        self, z: torch.Tensor, return_dict: bool = True
    ) -> DecoderOutput | tuple[torch.Tensor]:
        """As `decode`, from the Structure part of z alone (paper, Figure 3)."""
        return self._decode_windows(z, ("structure",), return_dict)

    @apply_forward_hook
    def decode_dynamics(
        self, z: torch.Tensor, return_dict: bool = True
    ) -> DecoderOutput | tuple[torch.Tensor]:
        """As `decode`, from the Dynamics part of z alone (paper, Figure 3).

        Raises:
            ValueError: with `dynamics_type="none"` there is none.
        """
        if self.dynamics_decoder is None:
            raise ValueError("this autoencoder has no Dynamics latent to decode (dynamics_type none)")
        return self._decode_windows(z, ("dynamics",), return_dict)

    def _decode_windows(
        self, z: torch.Tensor, of: tuple[str, ...], return_dict: bool
    ) -> DecoderOutput | tuple[torch.Tensor]:
        if z.shape[0] == 0:
            raise ValueError(f"expected latents of at least one clip, got {tuple(z.shape)}")
        latents = tiling.split_latents(z, self.layout.num_elements) if self.use_tiling else [z]
        windows = [self._sliced(lambda rows: self._decode(rows, of), window) for window in latents]
        sample = tiling.blend_windows(windows, self.tile_sample_stride_num_frames)  # (B, C, F, H, W)
        return DecoderOutput(sample=sample) if return_dict else (sample,)

    def _sliced(self, of_rows: Callable[[torch.Tensor], torch.Tensor], rows: torch.Tensor) -> torch.Tensor:
        if self.use_slicing and rows.shape[0] > 1:
            return torch.cat([of_rows(row) for row in rows.split(1)])
        return of_rows(rows)

    def _decode(self, z: torch.Tensor, of: tuple[str, ...]) -> torch.Tensor:
        structure, *dynamics = self.layout.split(z).values()
        u = z.new_zeros(())
        if "structure" in of:
            u = u + self.structure_decoder(structure)  # (B, D, F, h, w)
        if "dynamics" in of and self.dynamics_decoder is not None:
            u = u + self.dynamics_decoder(*dynamics)  # (B, D, F, h, w)
        return self.patch_output(self.decoder(u))  # (B, C, F, H, W)

    def forward(
        self,
        sample: torch.Tensor,
        sample_posterior: bool = False,
        generator: torch.Generator | None = None,
        return_dict: bool = True,
        latent_noise: torch.Tensor | None = None,
    ) -> AutoencoderVidTwinOutput | tuple[torch.Tensor, FlatGaussian]:
        """Clips (B, C, F, H, W) -> their reconstructions, from the posterior's mean or from a sample of it,
        to which `latent_noise` (B, L) is added.

        The posterior is returned too, so that a training step needs no call past a distributed wrapper.
        """
        posterior = self.encode(sample).latent_dist
        z = posterior.sample(generator) if sample_posterior else posterior.mode()
        if latent_noise is not None:
            z = z + latent_noise
        reconstruction = self.decode(z).sample
        if not return_dict:
            return reconstruction, posterior
        return AutoencoderVidTwinOutput(sample=reconstruction, latent_dist=posterior)
