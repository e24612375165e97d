"""A frozen video encoder of transformers: the features that a DiT's tokens are aligned with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from transformers import VideoMAEModel, VJEPA2Model

from vidtwin_gen.models.pretrained import (
    PROCESSORS,
    colours,
    find_pretrained,
    load_frozen,
    model_type,
    pair,
)
from vidtwin_gen.weights import weights_digest

EXAMPLE = "facebook/vjepa2-vitl-fpc64-256"


class _Kind(NamedTuple):
    """model: its class. side: the name of the frames' size in its config. options: of its forward pass."""

    model: Any
    side: str
    options: dict[str, Any]


KINDS = {
    "vjepa2": _Kind(VJEPA2Model, "crop_size", {"skip_predictor": True}),
    "videomae": _Kind(VideoMAEModel, "image_size", {}),
}


class VideoEncoder:
    """A V-JEPA 2 (arXiv 2506.09985) or VideoMAE (arXiv 2203.12602), whose last hidden states are averaged to
    a small grid.

    Shapes: clips (B, 3, F, H, W) in [-1, 1] -> (B, P E) float32, flat in the order (time, height, width, E).
    A frame is resized as a whole to the encoder's size, without its processor's crop, so that features and
    latents agree on what is where; colours are standardised as the processor does. The last frame is shown
    again where the encoder's tokens, two frames long, do not divide a clip.

    Args:
        name: a folder that save_pretrained wrote, or a model on the hub.
        num_frames: F. most: the largest grid (time, height, width).

    Attributes:
        name: as records have it. weights_sha256: see `weights_digest`. grid: (time, height, width). dim: E.

    Raises:
        MissingWeightsError: there is no such model. ValueError: it is none of the two, not whole, has no
            processor's configuration, or takes no clips of so many frames.
    """

    def __init__(
        self, name: str, num_frames: int, most: Sequence[int], device: str | torch.device = "cpu"
    ) -> None:
        folder, self.name = find_pretrained(name, example=EXAMPLE)
        kind = KINDS[model_type(folder, KINDS, example=EXAMPLE)]
        found = colours(folder)
        if found is None:
            raise ValueError(
                f"{folder} has no {' or '.join(PROCESSORS)}, which says how colours are standardised: put "
                "the one that was published with the model there"
            )
        self.scale, *statistics = found
        self.mean, self.std = (torch.tensor(x, device=device).view(3, 1, 1) for x in statistics)
        self.model = load_frozen(kind.model, folder).to(device)
        self.options, config = kind.options, self.model.config
        if config.model_type == "videomae" and config.num_frames != num_frames:
            raise ValueError(
                f"--features {name} takes clips of {config.num_frames} frames, got {num_frames}: encode such "
                f"clips, or name a V-JEPA 2, which takes any number, e.g. {EXAMPLE}"
            )
        self.size, patch = pair(getattr(config, kind.side)), pair(config.patch_size)
        self.padding = -num_frames % config.tubelet_size
        time = (num_frames + self.padding) // config.tubelet_size
        self.tokens = (time, self.size[0] // patch[0], self.size[1] // patch[1])
        self.grid = tuple(map(min, self.tokens, most))
        self.dim: int = config.hidden_size
        self.weights_sha256 = weights_digest(folder)

    @torch.inference_mode()
    def __call__(self, clips: torch.Tensor) -> torch.Tensor:
        frames = rearrange(clips.to(self.mean.device).float(), "b c f h w -> (b f) c h w")
        frames = F.interpolate(frames, self.size, mode="bilinear", antialias=True)
        frames = ((frames + 1) * 127.5 * self.scale - self.mean) / self.std
        frames = rearrange(frames, "(b f) c h w -> b f c h w", b=len(clips))
        frames = torch.cat([frames, frames[:, -1:].expand(-1, self.padding, -1, -1, -1)], dim=1)
        # TF32, cuDNN's default, rounds the patches' convolution otherwise than a CPU does
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            tokens = self.model(frames, **self.options).last_hidden_state  # (B, t h w, E)
        t, h, w = self.tokens
        tokens = rearrange(tokens, "b (t h w) e -> b e t h w", t=t, h=h, w=w)
        return rearrange(F.adaptive_avg_pool3d(tokens, self.grid), "b e t h w -> b (t h w e)")

    def about(self) -> dict[str, Any]:
        """What latents.json says of the features."""
        sizes = {"grid": list(self.grid), "dim": self.dim}
        return {"encoder": self.name, "encoder_sha256": self.weights_sha256, **sizes}
