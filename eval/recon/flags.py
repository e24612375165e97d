"""The flags of `python -m eval recon`, and what `diagnose` shares with it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from eval.flags import (
    DATA,
    SPLITS,
    VAE,
    ExtractionFlags,
    LPIPSFlags,
    RateFlags,
    Split,
    data_folder,
    result_flag,
    vae_folder,
)
from vidtwin_gen.flags import dtype_flag, flag, path_ending, positive, text_to_write, whole
from vidtwin_gen.records import ReconResult


@dataclass(kw_only=True)
class AutoencoderFlags(LPIPSFlags, RateFlags, ExtractionFlags):
    """An autoencoder, and the clips it is measured on."""

    vae: Path = flag(VAE, type=vae_folder, required=True)
    num_frames: int | None = flag("frames of a clip, if --vae is not VidTwin", type=positive)
    height: int | None = flag("height of a clip, if --vae is not VidTwin", type=positive)
    width: int | None = flag("width of a clip, if --vae is not VidTwin", type=positive)
    data: Path | None = flag(DATA, type=data_folder, excludes="source!")
    videos: list[str] | None = flag(
        "videos in place of a data set: files, and folders at any depth",
        nargs="+",
        metavar="PATH",
        excludes="source!",
    )
    split: Split | None = flag("split of --data (default test)", choices=SPLITS)
    fold: int | None = flag("official split of --data (default 1)", type=int, choices=(1, 2, 3))
    seed: int = flag("seed that draws the clips (default 0)", 0, type=whole)
    num_clips: int | None = flag("number of clips; left out: one of every video", type=positive)
    dtype: str = dtype_flag("the autoencoder")
    lpips: bool | None = None  # these two are flags of each verb, with a help and a default of its own
    fvd: bool = False

    def __post_init__(self) -> None:
        if self.videos:
            for name in ("split", "fold"):
                if (value := getattr(self, name)) is not None:
                    raise ValueError(
                        f"--{name} {value} is of --data; --videos are all measured, leave it out"
                    )
        else:
            self.split, self.fold = self.split or "test", self.fold or 1


@dataclass(kw_only=True)
class ReconFlags(AutoencoderFlags):
    gif: Path | None = flag(
        "also write originals and reconstructions as rows of a GIF, and a filmstrip .png beside it",
        type=path_ending(".gif", note="; a .png of the same name is also written"),
    )
    gif_clips: int = flag("clips in the GIF (default 8)", 8, type=positive)
    lpips: bool | None = flag(
        "require LPIPS, also of Structure and Dynamics alone; left out: only of the reconstruction, if its "
        "weights are found",
        action=argparse.BooleanOptionalAction,
    )
    fvd: bool = flag(
        "also measure FVD and KVD of the reconstructions (rFVD, rKVD)", False, action="store_true"
    )
    per_clip: Path | None = flag(
        "also write a row for each clip, .csv or .jsonl",
        type=text_to_write({".csv": "path,start_frame,", ".jsonl": '{"path": '}),
    )
    out: Path = result_flag(ReconResult, required=True)
