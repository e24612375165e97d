"""Published latent geometries, each with its source, as layouts that the cost counters and the DiT take."""

from __future__ import annotations

from dataclasses import dataclass

from vidtwin_gen.latents import LatentGrid, LatentLayout


@dataclass(frozen=True)
class Tokenizer:
    """The latents of one clip under one autoencoder.

    Args:
        name: as printed in tables. layout: the latents of one clip.
        clip_shape: (num_frames, height, width) of the RGB clip they stand for.
        source: where the geometry is published, or how it follows from what is.
    """

    name: str
    layout: LatentLayout
    clip_shape: tuple[int, int, int]
    source: str

    @property
    def compression_rate(self) -> float:
        """Latent numbers per pixel number (VidTwin, Table 1)."""
        return self.layout.compression_rate(*self.clip_shape)


def vidtwin(setting: int | str = 1) -> Tokenizer:
    """VidTwin at 16 x 224 x 224: setting 1, 2 or 3 of the paper (arXiv 2412.17726, Table 8), or "released",
    the published checkpoint, whose Structure has 8 channels instead of 4."""
    geometries = {
        # Structure n_q, h_S, w_S, d_S; Dynamics h_D, w_D, d_D
        "1": ((16, 7, 7, 4), (7, 7, 8)),
        "2": ((16, 7, 7, 4), (4, 4, 16)),
        "3": ((12, 7, 7, 4), (7, 7, 8)),
        "released": ((16, 7, 7, 8), (7, 7, 8)),
    }
    if str(setting) not in geometries:
        raise ValueError(f"VidTwin's settings are {', '.join(geometries)}; got {setting!r}")
    (queries, h_s, w_s, d_s), (h_d, w_d, d_d) = geometries[str(setting)]
    layout = LatentLayout(
        (
            LatentGrid("structure", ("query", "height", "width"), (queries, h_s, w_s), d_s),
            LatentGrid("dynamics_x", ("time", "width"), (16, w_d), d_d),
            LatentGrid("dynamics_y", ("time", "height"), (16, h_d), d_d),
        )
    )
    released = str(setting) == "released"
    return Tokenizer(
        name="VidTwin (released checkpoint)" if released else f"VidTwin (setting {setting})",
        layout=layout,
        clip_shape=(16, 224, 224),
        source="microsoft/VidTok, configs/vidtwin" if released else "arXiv 2412.17726, Table 8",
    )


def magvit_v2(num_frames: int = 16, height: int = 224, width: int = 224) -> Tokenizer:
    """MAGVIT-v2 as VidTwin's paper counts it (arXiv 2412.17726, appendix C.1): one position for 4 x 8 x 8
    pixels, 5 channels; 4 x 28 x 28 positions at 16 x 224 x 224. Other clip sizes scale by the same factors.

    Raises:
        ValueError: a clip that the factors do not divide.
    """
    if num_frames % 4 or height % 8 or width % 8:
        raise ValueError(
            f"MAGVIT-v2 divides a clip by 4 x 8 x 8; {num_frames} x {height} x {width} is not a multiple: "
            "compare at a clip size that is"
        )
    shape = (num_frames // 4, height // 8, width // 8)
    layout = LatentLayout((LatentGrid("video", ("time", "height", "width"), shape, 5),))
    scaled = (num_frames, height, width) != (16, 224, 224)
    return Tokenizer(
        name="MAGVIT-v2 (factors scaled to this clip)" if scaled else "MAGVIT-v2 (as VidTwin counts it)",
        layout=layout,
        clip_shape=(num_frames, height, width),
        source="arXiv 2412.17726, appendix C.1: 4 x 8 x 8 pixels a position, 5 channels",
    )
