"""The flags of `python -m eval fvd`, `reference`, `sensitivity` and `selftest`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from eval.flags import (
    CLIPS_FILE,
    DATA,
    SPLITS,
    ExtractionFlags,
    LPIPSFlags,
    RateFlags,
    RealFlags,
    Split,
    data_folder,
    generated_path,
    generated_stride_flag,
    pipeline_folder,
    result_flag,
    vae_folder,
)
from eval.fvd.protocols import PROTOCOLS
from vidtwin_gen.flags import DEVICE, flag, json_to_write, path_ending, positive, whole
from vidtwin_gen.records import FVDResult, SelftestResult, SensitivityResult

SELFTEST_PARTS = ("frechet", "i3d", "lpips")
GOLDEN_KEYS = {"clip_uint8", "i3d_logits", "lpips_vgg"}
PROTOCOL = f"{', '.join(PROTOCOLS)}, or quick-N: N clips a side, at the clips' own size"


@dataclass(kw_only=True)
class ProtocolFlags(RateFlags, ExtractionFlags):
    """What is left out is the protocol's or the reference's."""

    data: Path | None = flag(DATA, type=data_folder)
    split: Split | None = flag(
        "split of the real clips; left out: the protocol's, or train for quick-N", choices=SPLITS
    )
    fold: int | None = flag("official split (default 1)", type=int, choices=(1, 2, 3))
    seed: int | None = flag("seed that draws the clips (default 0)", type=whole)


@dataclass(kw_only=True)
class FVDFlags(ProtocolFlags):
    generated: list[Path] = flag(
        f"the {CLIPS_FILE} of `python -m pipelines generate`, or a folder of videos of any generator, "
        "<class>/<video> or without classes, read as the real ones; several, of different seeds, give a mean",
        type=generated_path,
        required=True,
        nargs="+",
    )
    num_frames: int | None = flag(
        "frames of a clip, for videos of --generated; left out: the protocol's, or all", type=positive
    )
    generated_stride: int | None = generated_stride_flag()
    reference: Path | None = flag(
        "file that `python -m eval reference` wrote, in place of reading --data", type=Path
    )
    protocol: str | None = flag(f"{PROTOCOL}; left out: quick-N, or the reference's")
    num_samples: int | None = flag(
        "short for --protocol quick-N: N clips a side; left out: all generated clips", type=positive
    )
    vae: Path | None = flag(
        "autoencoder whose reconstructions of real clips are measured, too",
        type=vae_folder,
        excludes="floors",
    )
    pipeline: Path | None = flag(
        "the same, with the autoencoder of the pipeline that generated",
        type=pipeline_folder,
        excludes="floors",
    )
    no_floors: bool = flag(
        "measure only the generated clips, not real ones and reconstructions beside them",
        False,
        action="store_true",
    )
    out: Path = result_flag(FVDResult, required=True)


def _is_reference(path: Path) -> bool:
    try:
        with safe_open(path, framework="np") as file:
            about = file.metadata() or {}
    except (OSError, SafetensorError):
        return False
    return "protocol" in about.get("reference", about)  # of earlier versions each by itself


@dataclass(kw_only=True)
class ReferenceFlags(ProtocolFlags):
    data: Path = flag(DATA, type=data_folder, required=True)
    protocol: str = flag(PROTOCOL, required=True)
    num_frames: int | None = flag("frames of a clip, for quick-N, which fixes no size", type=positive)
    height: int | None = flag("height of a clip, for quick-N, which fixes no size", type=positive)
    width: int | None = flag("width of a clip, for quick-N, which fixes no size", type=positive)
    no_floors: bool = flag("do not measure the distance to other real clips", False, action="store_true")
    out: Path = flag(
        "safetensors file to write", type=path_ending(".safetensors", ours=_is_reference), required=True
    )


@dataclass(kw_only=True)
class SensitivityFlags(RealFlags, ExtractionFlags):
    split: Split = flag("split of the videos", "test", choices=SPLITS)
    num_clips: int = flag("real clips, 2 or more (default 32)", 32, type=positive)
    num_frames: int = flag("frames of a clip (default 16)", 16, type=positive)
    height: int = flag("height of a clip (default 128)", 128, type=positive)
    width: int = flag("width of a clip (default 128)", 128, type=positive)
    figure: Path | None = flag("picture to draw, .png or .svg", type=path_ending(".png", ".svg"))
    out: Path = result_flag(SensitivityResult, required=True)

    def __post_init__(self) -> None:
        if self.num_clips < 2:
            raise ValueError("--num_clips 1: a distance takes 2 or more")


def _golden_file(text: str) -> Path:
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(
            f"{text} is no file; leave it out to check without real clips, or name the safetensors that "
            f"holds {', '.join(sorted(GOLDEN_KEYS))}"
        )
    return Path(text)


@dataclass(kw_only=True)
class SelftestFlags(LPIPSFlags):
    golden: Path | None = flag(
        "safetensors file with real clips and the originals' numbers for them", type=_golden_file
    )
    only: Sequence[str] = flag(
        "checks to run; left out: all of them", SELFTEST_PARTS, nargs="+", choices=SELFTEST_PARTS
    )
    weights: str | None = flag("file of I3D's weights; left out: looked for as by the other verbs")
    weights_sha256: str | None = flag("sha256 that it must have, if not a published one")
    device: str | None = flag(DEVICE)
    out: Path | None = flag(
        "JSON file to write; `passed` is null where checks were left out",
        type=json_to_write(SelftestResult.kind),
    )
