"""Measure and train on a GPU, in parts: python -m benchmarks.gpu smoke | speed | train | measure.

    python -m benchmarks.gpu speed --out runs/gpu
    python -m benchmarks.gpu train --out runs/gpu --data ucf101-10

Each part writes <out>/<part>.json row by row, and the same command goes on with the rows that are missing.
`--device cpu --tiny` rehearses a part.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from pkgutil import resolve_name

import torch

from benchmarks.gpu.rows import Rows
from benchmarks.gpu.sizes import TINY, Sizes
from vidtwin_gen.files import first_line
from vidtwin_gen.flags import folder_to_write

# imported one at a time: the others read videos, for which speed needs no library
PARTS = {
    "smoke": "benchmarks.gpu.smoke:smoke",
    "speed": "benchmarks.gpu.speed:measure_speed",
    "train": "benchmarks.gpu.train:train",
    "measure": "benchmarks.gpu.train:measure",
}


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    top.add_argument("part", choices=PARTS)
    top.add_argument("--out", type=folder_to_write, required=True, help="folder of the results")
    top.add_argument("--work", type=Path, help="folder of what is trained; left out: <out>/work")
    top.add_argument("--data", type=Path, help="a data set in UCF-101's layout; not for speed")
    top.add_argument("--device", default="cuda")
    top.add_argument("--seconds", type=float, default=450.0, help="after which no further row is begun")
    top.add_argument("--tiny", action="store_true", help="a rehearsal, as small as may be")
    return top


def main(argv: Sequence[str] | None = None) -> None:
    top = parser()
    args = top.parse_args(argv)
    args.out = Path(args.out)
    try:
        device = torch.device(args.device)
    except RuntimeError as error:
        top.error(f"--device {args.device}: {first_line(error)}")
    if device.type == "cuda" and not torch.cuda.is_available():
        top.error("--device cuda: torch finds no GPU; rehearse with --device cpu --tiny")
    if args.part != "speed" and (args.data is None or not args.data.is_dir()):
        top.error(f"--data {args.data}: {args.part} needs a folder of videos, <data>/<class>/<video>")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    settings = {"tiny": args.tiny, "data": str(args.data) if args.data else None}
    try:
        rows = Rows(args.out / f"{args.part}.json", device, args.seconds, settings)
    except ValueError as error:
        top.error(str(error))
    run = resolve_name(PARTS[args.part])
    if args.part == "speed":
        run(rows, TINY if args.tiny else Sizes(), device)
    else:
        run(rows, args.data, args.work or args.out / "work", tiny=args.tiny)
    rows.finish()


if __name__ == "__main__":
    main()
