"""The flags of `python -m eval diagnose`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from eval.flags import result_flag
from eval.recon.flags import AutoencoderFlags
from vidtwin_gen.flags import flag, path_ending, positive
from vidtwin_gen.records import DiagnoseResult


@dataclass(kw_only=True)
class DiagnoseFlags(AutoencoderFlags):
    figure: Path | None = flag(
        "also draw the latent's channels, and the swaps in a second picture, NAME_swap.png",
        type=path_ending(".png"),
    )
    num_pairs: int = flag("pairs of clips that swap parts (default 8)", 8, type=positive)
    lpips: bool | None = flag(
        "require LPIPS; left out: measured if its weights are found", action=argparse.BooleanOptionalAction
    )
    fvd: bool = flag("rFVD and tFVD (default: yes)", True, action=argparse.BooleanOptionalAction)
    out: Path = result_flag(DiagnoseResult, required=True)
