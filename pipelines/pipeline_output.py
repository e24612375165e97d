"""What VidTwinPipeline returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import PIL.Image
import torch
from diffusers.utils import BaseOutput

OUTPUT_TYPES = ("pil", "np", "pt", "latent")

Frames = torch.Tensor | np.ndarray | list[list[PIL.Image.Image]]


@dataclass
class VidTwinPipelineOutput(BaseOutput):
    """`frames`: for `"pil"` a list of images per video; for `"np"` (B, F, H, W, C) and for `"pt"`
    (B, F, C, H, W) in [0, 1]; for `"latent"` the whitened latents (B, L)."""

    __module__ = "vidtwin_gen"

    frames: Frames
