"""python -m eval selftest: whether the metrics give here the numbers that they must give anywhere."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from autoencoder.losses.perceptual import LPIPS_WEIGHTS, load_lpips
from eval.fvd.i3d import load_i3d
from eval.fvd.measuring import write_json
from eval.fvd.selftest import Check, frechet_checks, i3d_checks, lpips_checks
from vidtwin_gen.weights import MissingWeightsError

PARTS = ("frechet", "i3d", "lpips")
GOLDEN_KEYS = {"clip_uint8", "i3d_logits", "lpips_vgg"}


def add_selftest(verbs: Any) -> argparse.ArgumentParser:
    """The verb's flags."""
    verb = verbs.add_parser("selftest", help="do the metrics give the numbers here that they must give?")
    verb.add_argument("--golden", type=_file, help="safetensors with real clips and the originals' numbers")
    verb.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="left out: all of them")
    verb.add_argument("--weights", help="a file of the I3D; left out, looked for as by the other verbs")
    verb.add_argument("--weights_sha256", help="the digest it must have, where it is no published one")
    verb.add_argument("--lpips_weights", help="a file of LPIPS; left out, looked for as by the other verbs")
    verb.add_argument("--lpips_weights_sha256", help="the digest it must have")
    verb.add_argument("--device", default="cpu")
    verb.add_argument("--out", help="JSON file to write; `passed` is null where checks were left out")
    return verb


def run_selftest(args: argparse.Namespace) -> None:
    """Prints a line a check, and ends with status 1 if one failed. `passed` in the JSON is true only where
    all checks could be made and passed, and null where none failed and some were left out."""
    golden = _golden(args.golden) if args.golden else None
    weights: dict[str, str] = {}

    def check_i3d() -> Iterator[Check]:
        extractor = load_i3d(args.weights, args.device, args.weights_sha256)
        weights[extractor.name] = extractor.weights_sha256
        yield from i3d_checks(extractor, golden)

    def check_lpips() -> Iterator[Check]:
        lpips = load_lpips(args.lpips_weights, args.device, args.lpips_weights_sha256)
        found = LPIPS_WEIGHTS.verified(args.lpips_weights, args.lpips_weights_sha256)
        weights["lpips-vgg"] = found.sha256
        yield from lpips_checks(lpips, args.device, golden)

    parts = {"frechet": frechet_checks, "i3d": check_i3d, "lpips": check_lpips}
    checks: list[Check] = []
    for part in PARTS:
        if part in args.only:
            checks += _told(part, parts[part])
    counts = {word: sum(check.verdict == word for check in checks) for word in ("pass", "FAIL", "skip")}
    unknown = ": what was left out is not known to be right" if counts["skip"] else ""
    print(f"{counts['pass']} passed, {counts['FAIL']} failed, {counts['skip']} left out{unknown}")
    if args.out:
        write_json(
            args.out,
            {
                "passed": False if counts["FAIL"] else None if counts["skip"] else True,
                "checks": [{"name": c.name, "passed": c.passed, "detail": c.detail} for c in checks],
                "weights_sha256": weights,
                "device": args.device,
                "torch": torch.__version__,
            },
        )
    if counts["FAIL"]:
        sys.exit(1)


def _told(part: str, checks: Callable[[], Iterator[Check]]) -> list[Check]:
    """Each printed as soon as it is made. Weights that are absent are no failure, refused ones are."""
    made: list[Check] = []

    def tell(check: Check) -> None:
        print(f"{check.verdict}  {check.name}: {check.detail}", flush=True)
        made.append(check)

    try:
        for check in checks():
            tell(check)
    except MissingWeightsError as error:
        tell(Check(f"{part}: weights", None, str(error)))
    except ValueError as error:
        tell(Check(f"{part}: weights", False, str(error)))
    return made


def _golden(path: Path) -> dict[str, torch.Tensor]:
    golden = load_file(path)
    if missing := sorted(GOLDEN_KEYS - set(golden)):
        raise ValueError(f"--golden {path} lacks {', '.join(missing)}; leave it out, or name the right file")
    return golden


def _file(text: str) -> Path:
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(
            f"{text} is no file; leave it out to check without real clips, or name the safetensors that "
            f"holds {', '.join(sorted(GOLDEN_KEYS))}"
        )
    return Path(text)
