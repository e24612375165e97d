"""Inpainting of latents: which grids are known, and how the others are sampled to go with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor

from pipelines.noise_levels import add_noise, forget_last_sample, predicted_x0
from vidtwin_gen.latents import LatentLayout

# Of the noise, drawn anew at a resampling; more follows the known region better and varies too little.
RESAMPLED_SHARE = 0.5
ROUNDING = 1e-3  # by how much resizing and half precision may leave [0, 1]
LATENT_PARTS = ("structure", "dynamics")  # the names of their grids begin so


def grids_to_keep(layout: LatentLayout, keep: str | Sequence[str]) -> tuple[str, ...]:
    """The grids to keep, by their names in layout order.

    Args:
        keep: `"structure"` or `"dynamics"` for all grids whose name begins so, or names of grids.

    Raises:
        ValueError: a latent of a single grid, an unknown name, or nothing left to generate.
    """
    if len(layout.grids) == 1:
        raise ValueError(
            f"this latent is one grid, {layout.names[0]!r}, and has no parts to tell apart; Structure and "
            "Dynamics are those of an AutoencoderVidTwin"
        )
    asked = [keep] if isinstance(keep, str) or not isinstance(keep, Iterable) else list(keep)
    known = {part: [name for name in layout.names if name.startswith(part)] for part in LATENT_PARTS}
    known |= {name: [name] for name in layout.names if name not in LATENT_PARTS}
    unknown = [name for name in asked if not isinstance(name, str) or not known.get(name)]
    if unknown or not asked:
        raise ValueError(f"keep names {' or '.join(map(repr, known))}, one or several, got {keep!r}")
    kept = {name for part in asked for name in known[part]}
    if len(kept) == len(layout.grids):
        raise ValueError(f"keep={keep!r} keeps the whole latent and leaves nothing to generate")
    return tuple(name for name in layout.names if name in kept)


def keep_mask(layout: LatentLayout, keep: str | Sequence[str]) -> torch.Tensor:
    """(L,) bool, true where the latent of a given clip is kept. Raises ValueError as `grids_to_keep`."""
    names = grids_to_keep(layout, keep)
    return torch.cat([torch.full((grid.num_elements,), grid.name in names) for grid in layout.grids])


def check_latents(name: str, latents: Any, layout: LatentLayout) -> None:
    """Raises ValueError unless these are latents (B, L) of finite floating-point numbers: pictures of others
    would be black. On a GPU the host waits for them."""
    if not isinstance(latents, torch.Tensor):
        raise ValueError(f"{name} is a torch.Tensor, got {type(latents).__name__}")
    if latents.ndim != 2 or latents.shape[1] != layout.num_elements or not len(latents):
        raise ValueError(f"{name} must be (B, {layout.num_elements}), got {tuple(latents.shape)}")
    if not latents.is_floating_point():
        raise ValueError(f"{name} must be floating-point numbers, got {latents.dtype}")
    if not torch.isfinite(latents).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity among them")


def repeat_for_videos(
    latents: torch.Tensor, layout: LatentLayout, num_labels: int, num_videos_per_class: int
) -> torch.Tensor:
    """Latents (1, labels or B; L) of given clips -> (B, L), the videos of one label side by side. Raises
    ValueError for another number of clips, or as `check_latents`."""
    batch_size = num_labels * num_videos_per_class
    check_latents("known_latents", latents, layout)
    if len(latents) not in (1, num_labels, batch_size):
        raise ValueError(
            f"keep needs one clip, one per label ({num_labels}) or one per video ({batch_size}), got "
            f"{len(latents)}"
        )
    if len(latents) == num_labels < batch_size:
        latents = latents.repeat_interleave(num_videos_per_class, dim=0)
    return latents.expand(batch_size, -1)


def in_unit_range(video: Any) -> Any:
    """A video with its tensors or arrays clamped to [0, 1], images as they are.

    diffusers' processor takes a tensor with a single value below 0, if by 1e-7, for one in [-1, 1].

    Raises:
        ValueError: values outside of [0, 1] by more than rounding, nothing, or clips of different sizes.
    """
    if isinstance(video, (list, tuple)):
        if not video:
            raise ValueError("video holds no clip or no frame")
        shapes = {tuple(part.shape) for part in video if isinstance(part, (torch.Tensor, np.ndarray))}
        if len(shapes) > 1:
            raise ValueError(f"the clips of a video must be of one size, got {sorted(shapes)}")
        return [in_unit_range(part) for part in video]
    if not isinstance(video, (torch.Tensor, np.ndarray)):
        return video
    if 0 in video.shape:
        raise ValueError(f"video holds no clip or no frame, got {tuple(video.shape)}")
    low, high = float(video.min()), float(video.max())
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):
        way_out = "[0, 255] pass video / 255" if high > 2 else "[-1, 1] pass video / 2 + 0.5"
        raise ValueError(
            f"video must be in [0, 1], got values from {low:g} to {high:g}; for one in {way_out}"
        )
    return video.clamp(0, 1) if isinstance(video, torch.Tensor) else video.clip(0, 1)


@dataclass(frozen=True)
class KnownRegion:
    """The known region of a batch of latents while the unknown one is sampled.

    Before every call of the model the known region is replaced by the known latents at the model's noise
    level (Song et al., arXiv 2011.13456, appendix I.2), always with the noise that the sampling started from,
    so that an ODE sees it move on a straight path.

    Args:
        latents: (B, L) whitened; read inside the mask only.
        noise: (B, L) of unit variance. mask: (L,) bool, true where known.
    """

    latents: torch.Tensor
    noise: torch.Tensor
    mask: torch.Tensor

    def insert_into(self, latents: torch.Tensor, scheduler: Any, index: int) -> torch.Tensor:
        """(B, L) latents -> (B, L) with the known region as noisy as the model expects it at its call
        `index`, and exact after the last."""
        known = add_noise(scheduler, self.latents, self.noise, index)
        return torch.where(self.mask, known.to(latents.dtype), latents)

    def resample(
        self,
        latents: torch.Tensor,
        prediction: torch.Tensor,
        scheduler: Any,
        index: int,
        generator: torch.Generator | list[torch.Generator] | None,
    ) -> torch.Tensor:
        """(B, L) latents at the noise level of call `index` -> (B, L) at the same level, a share of the
        unknown region's noise drawn anew: x0 and the noise that is left are those that the model predicts.

        A Langevin corrector (arXiv 2011.13456, Algorithm 5) whose step keeps the variance of the noise. With
        steps enough it draws the unknown region given the known one, which inserting alone does not: an ODE
        from independent noises only couples the two in its last steps. RePaint (arXiv 2201.09865) goes back
        and forth in time for that, which multistep schedulers cannot.
        """
        forget_last_sample(scheduler)
        x0 = predicted_x0(scheduler, latents, prediction, index)
        noise = randn_tensor(latents.shape, generator=generator, device=latents.device, dtype=latents.dtype)
        nothing = torch.zeros_like(x0)
        data = add_noise(scheduler, x0, nothing, index)
        old_noise = (1 - RESAMPLED_SHARE) * (latents - data)
        new_noise = (1 - (1 - RESAMPLED_SHARE) ** 2) ** 0.5 * add_noise(scheduler, nothing, noise, index)
        return self.insert_into(data + old_noise + new_noise, scheduler, index)
