"""The autoencoder that is measured: uint8 clips to latents and back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.models.modeling_utils import ModelMixin

from autoencoder import adapter
from autoencoder.adapter import ClipSize
from autoencoder.loading import load_video_autoencoder
from autoencoder.model.posterior import FlatGaussian
from autoencoder.parts import decode_parts, part_names
from vidtwin_gen.data.pixels import from_uint8, to_uint8
from vidtwin_gen.devices import find_dtype
from vidtwin_gen.latents import LatentLayout
from vidtwin_gen.weights import weights_sha256


@dataclass(frozen=True)
class MeasuredAutoencoder:
    """`shape` is (num_frames, height, width) of its clips, `layout` that of their latents, `dtype` the type
    it computes in; what it gives is float32."""

    vae: ModelMixin
    sha256: str
    shape: ClipSize
    layout: LatentLayout
    dtype: str = "float32"

    @classmethod
    def load(
        cls,
        folder: Path,
        device: torch.device,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        *,
        own_size: bool = False,
        dtype: str = "float32",
    ) -> MeasuredAutoencoder:
        """A saved autoencoder, ours or of diffusers, for clips of this size. One of ours has a size of its
        own, which `own_size` takes whatever is asked for.

        Raises:
            ValueError: no autoencoder, or a size that it does not take, or a dtype that the device does not.
        """
        vae = load_video_autoencoder(folder, find_dtype(dtype, device)).to(device)
        asked = (None, None, None) if own_size and adapter.is_ours(vae) else (num_frames, height, width)
        shape = adapter.requested_size(vae, *asked)
        return cls(vae, weights_sha256(folder), shape, adapter.latent_layout(vae, *shape), dtype)

    def pixels(self, frames: torch.Tensor) -> torch.Tensor:
        """(B, F, H, W, C) uint8 -> (B, C, F, H, W) in [-1, 1], on its device."""
        return from_uint8(frames.to(self.vae.device))

    def encode(self, pixels: torch.Tensor) -> FlatGaussian:
        """(B, C, F, H, W) -> the posterior over (B, L)."""
        return FlatGaussian(adapter.encode(self.vae, pixels.to(self.vae.dtype)).parameters.float())

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """(B, L) -> (B, C, F, H, W)."""
        return adapter.decode(self.vae, latents.to(self.vae.device, self.vae.dtype), self.layout).float()

    @property
    def parts(self) -> tuple[str, ...]:
        """The keys of `decode_parts`."""
        return part_names(self.vae, self.layout)

    def decode_parts(self, latents: torch.Tensor) -> dict[str, torch.Tensor]:
        """`both` is the reconstruction; ours also decodes each part alone."""
        parts = decode_parts(self.vae, latents.to(self.vae.device, self.vae.dtype), self.layout)
        return {name: clips.float() for name, clips in parts.items()}

    @torch.no_grad()
    def reconstruct(self, frames: torch.Tensor) -> torch.Tensor:
        """(B, F, H, W, C) uint8 -> the same, on the CPU."""
        return to_uint8(self.decode(self.encode(self.pixels(frames)).mode())).cpu()
