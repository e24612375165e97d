"""The flags of `python -m vidtwin_gen encode`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from vidtwin_gen.flags import DEVICE, Decoder, dtype_flag, flag, positive, rate, share, whole


@dataclass(kw_only=True)
class EncodeFlags:
    """Which videos become latents by which autoencoder, and how the latents are stored."""

    vae: str = flag(
        "the autoencoder, ours or diffusers': a folder, or OWNER/NAME or OWNER/NAME/SUBFOLDER on the hub",
        required=True,
    )
    data: str = flag("folder of videos, or a data set of `datasets`: its folder or OWNER/NAME", required=True)
    out: str = flag("folder for the latents, new or empty", required=True)
    fold: int = flag("official split of UCF-101", 1, type=int, choices=(1, 2, 3))
    stride: int | None = flag(
        "take every n-th frame, as the autoencoder was trained", type=positive, excludes="rate!"
    )
    fps: float | None = flag("or sample this many frames per second", type=rate, excludes="rate!")
    windows_per_video: int = flag("random windows of each training video", 1, type=positive)
    num_frames: int | None = flag("frames per clip, if the autoencoder is not VidTwin", type=positive)
    height: int | None = flag("height of a clip, if the autoencoder is not VidTwin", type=positive)
    width: int | None = flag("width of a clip, if the autoencoder is not VidTwin", type=positive)
    flip: bool = flag("store every training window twice, as it is and mirrored", False, action="store_true")
    dtype: Literal["float32", "float16"] = flag(
        "type of the stored latents; float16 halves the folder and rounds to 11 bits",
        "float32",
        choices=["float32", "float16"],
    )
    features: str | None = flag(
        "store features of every clip beside its latent, for train_dit.py --repa_weight: those of a V-JEPA 2 "
        "or VideoMAE of transformers, a folder or OWNER/NAME on the hub"
    )
    features_grid: Sequence[int] = flag(
        "largest grid of the stored features, to which larger ones are averaged",
        (4, 8, 8),
        nargs=3,
        type=positive,
        metavar=("TIME", "HEIGHT", "WIDTH"),
    )
    windows_per_file: int = flag(
        "clips per file at most; an interruption loses at most one file of each process", 512, type=positive
    )
    max_bad_fraction: float = flag(
        "stop if more than this share of a split's files is unreadable", 0.05, type=share
    )
    batch_size: int = flag("clips per forward pass", 16, type=positive)
    num_workers: int = flag("processes that read videos", 1, type=whole)
    decoder: Decoder = flag(
        "decoder of videos that can be seeked safely; auto: decord if installed, else pyav",
        "auto",
        choices=get_args(Decoder),
    )
    seed: int = flag("seed of the random windows", 0, type=whole)
    device: str | None = flag(DEVICE)
    vae_dtype: str = dtype_flag("the autoencoder")

    @property
    def frame_stride(self) -> int | None:
        """1 where neither flag is given, none by `fps`."""
        return 1 if self.stride is None and self.fps is None else self.stride
