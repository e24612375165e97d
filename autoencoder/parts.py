"""What each part of a latent holds: a clip from one of them alone, or from the parts of two clips."""

from __future__ import annotations

import torch
from diffusers.models.modeling_utils import ModelMixin

from autoencoder.adapter import decode, is_ours
from vidtwin_gen.latents import LatentLayout


def part_names(vae: ModelMixin, layout: LatentLayout) -> tuple[str, ...]:
    """The keys of `decode_parts`."""
    return ("both", "structure", "dynamics") if is_ours(vae) and len(layout.grids) > 1 else ("both",)


def decode_parts(vae: ModelMixin, z: torch.Tensor, layout: LatentLayout) -> dict[str, torch.Tensor]:
    """Flat latents (B, L) -> name: (B, C, F, H, W), around [-1, 1], in the order in which they are shown.

    `both` is the reconstruction, `structure` and `dynamics` are decoded from one part alone (arXiv
    2412.17726, Figure 3); a model without Dynamics, and one of another class, has `both` only.
    """
    decoded = {"both": decode(vae, z, layout)}
    for part in part_names(vae, layout)[1:]:
        decoded[part] = getattr(vae, f"decode_{part}")(z).sample
    return decoded


def join_parts(layout: LatentLayout, structure_of: torch.Tensor, dynamics_of: torch.Tensor) -> torch.Tensor:
    """Two flat latents (B, L) -> one (B, L) with the Structure of the first and the Dynamics of the second:
    the first clip re-enacted by the second."""
    parts = layout.split(dynamics_of) | {"structure": layout.split(structure_of)["structure"]}
    return layout.join(parts)
