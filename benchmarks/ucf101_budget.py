"""What training and measuring on all of UCF-101 would take on H100s: python -m benchmarks.ucf101_budget

Nothing is run: FLOPs that `eval cost` counts, rates that were measured on an H200, and assumptions, which are
flags. The stages are those of the presets `base` and `B`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from vidtwin_gen.flags import add_flags, flag, positive

# benchmarks/2026-11-28_h200.md
MATMUL = 717e12  # FLOP/s of a large bf16 product
STAGE_1_STEP = 0.4191  # seconds, 6 clips, whole loss, compiled, LPIPS under autocast
STAGE_2_STEP = 0.1074  # seconds, DiT-B, 64 clips, 1,008 tokens, compiled
AUTOENCODER_FLOPS = 35.9e12 / 6 / 3  # of a clip there and back; a training step is three times a forward pass
DIT_FLOPS = 208.9e9  # DiT-B, forward, a clip: docs/performance.md
I3D_FLOPS = 55.6e9  # of 16 frames, as torch counts them

GPUS = (1, 8)
VIDEOS = 13_320
STAGE_1_CLIPS = 200_000 * 6  # the defaults of train_vae.py
STAGE_2_CLIPS = 100_000 * 256  # the preset B of train_dit.py
FVD_CLIPS, FVD_SEEDS = 10_000, 4  # the protocol magvit-10k, of generated clips; the real ones come once


@dataclass
class BudgetFlags:
    price: float = flag("dollars of a GPU for an hour", 3.0, type=float)
    speed: float = flag("of an H100 over the H200, whose memory is 1.4 times as fast", 0.85, type=float)
    scaling: float = flag("share of the ideal that several GPUs reach", 0.9, type=float)
    utilisation: float = flag("of the matrix products' rate where nothing was timed", 0.25, type=float)
    steps: int = flag("sampling steps, each of both halves of guidance", 50, type=positive)


def hours(flags: BudgetFlags) -> dict[str, float]:
    """Of each part on one GPU."""
    untimed = MATMUL * flags.utilisation
    generated = FVD_SEEDS * FVD_CLIPS * (2 * flags.steps * DIT_FLOPS + AUTOENCODER_FLOPS / 2)
    features = (FVD_SEEDS + 1) * FVD_CLIPS * I3D_FLOPS
    on_h200 = {
        f"stage 1, {STAGE_1_CLIPS:,} clips": STAGE_1_CLIPS / 6 * STAGE_1_STEP,
        f"encode, {VIDEOS:,} videos": VIDEOS * AUTOENCODER_FLOPS / 2 / untimed,
        f"stage 2, {STAGE_2_CLIPS:,} clips": STAGE_2_CLIPS / 64 * STAGE_2_STEP,
        f"FVD, {FVD_SEEDS} times {FVD_CLIPS:,} clips": (generated + features) / untimed,
    }
    return {name: seconds / 3600 / flags.speed for name, seconds in on_h200.items()}


def table(flags: BudgetFlags) -> str:
    titles = ["", *(f"hours on {count}, dollars" for count in GPUS)]
    rows = [titles, ["---"] * len(titles)]
    parts = hours(flags)
    for name, alone in (parts | {"all": sum(parts.values())}).items():
        times = [alone / count / (flags.scaling if count > 1 else 1) for count in GPUS]
        costs = [time * count * flags.price for time, count in zip(times, GPUS, strict=True)]
        rows.append([name, *(f"{t:.2f}, {c:,.2f}" for t, c in zip(times, costs, strict=True))])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ucf101_budget", description=__doc__)
    add_flags(parser, BudgetFlags)
    print(table(BudgetFlags(**vars(parser.parse_args(argv)))))


if __name__ == "__main__":
    main()
