"""What a tokenizer makes of a clip: the layout of its latents, where that is published, and their rates."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vidtwin_gen.latents import LatentGrid, LatentLayout


@dataclass(frozen=True)
class Tokenizer:
    """The latents of one clip under one autoencoder.

    Args:
        name: as printed in tables. layout: the latents of one clip.
        clip_shape: (num_frames, height, width) of the RGB clip they stand for.
        source: where the geometry is published, or how it follows from what is.
        codebook_size: the values that a position can have; None: the latents are continuous.
        frames_taken: where this is more than the clip has. A causal tokenizer of stride s takes s n + 1
            frames, so that 16 of them need the latents of 17; they are counted for the 16.
        printed_rate: the compression rate in the paper's Table 1. verdict: what was found about it.
        remark: what else the numbers depend on.
    """

    name: str
    layout: LatentLayout
    clip_shape: tuple[int, int, int]
    source: str
    codebook_size: int | None = None
    frames_taken: int | None = None
    printed_rate: float | None = None
    verdict: str | None = None
    remark: str | None = None

    @property
    def compression_rate(self) -> float:
        """Latent numbers per pixel number (VidTwin, Table 1), whether continuous or of a discrete code."""
        return self.layout.compression_rate(*self.clip_shape)

    @property
    def bit_rate(self) -> float | None:
        """Bits of the codes per bit of the pixels, 8 for each number; None for continuous latents."""
        if self.codebook_size is None:
            return None
        positions = sum(grid.num_positions for grid in self.layout.grids)
        return positions * math.log2(self.codebook_size) / (math.prod(self.clip_shape) * 3 * 8)

    def paper_tokens(self, patch_size: int) -> tuple[int, int]:
        """Tokens with both Dynamics joined, z_D as one frame of f x (h + w) (arXiv 2412.17726, section 3.5):
        with the last patch of an axis padded, and with it left out, which is what a strided convolution does.

        Our DiT keeps the grids apart and pads each of them, which at patch 2 is a few tokens more."""
        joined = self.layout
        projections = [grid for grid in joined.grids if len(grid.axes) == 2 and grid.axes[0] == "time"]
        if len(projections) > 1:  # put beside one another along the other axis
            first = projections[0]
            shape = (first.shape[0], sum(grid.shape[1] for grid in projections))
            others = [grid for grid in joined.grids if grid not in projections]
            beside = LatentGrid("projections", ("time", "place"), shape, first.channels)
            joined = LatentLayout((*others, beside))
        return joined.num_tokens(patch_size), sum(
            math.prod(size // patch_size for size in grid.shape) for grid in joined.grids
        )


@dataclass(frozen=True)
class Unpublished:
    """A tokenizer to compare with for which no number of tokens of a clip is published; `missing` says why,
    in words that follow "it has"."""

    name: str
    source: str
    missing: str
