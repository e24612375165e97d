"""How fast the card is, and how much of that the autoencoder and the DiT make use of: the rows."""

from __future__ import annotations

import math
from functools import partial

import torch

from benchmarks.gpu.autoencoder import autoencoder_flops, autoencoder_pass, autoencoder_training, lpips_pass
from benchmarks.gpu.dit import beside_sampling, beside_training, dit_training, make_dit
from benchmarks.gpu.rows import Rows
from benchmarks.gpu.sizes import Sizes
from benchmarks.gpu.timing import copy_rate, matrix_product

LPIPS_FRAMES = 96  # of a batch of 6 clips


def measure_speed(rows: Rows, sizes: Sizes, device: torch.device) -> None:
    """All rows; those that say most come first."""
    rows.run("matmul bf16", lambda: matrix_product(sizes, device, torch.bfloat16))
    rows.run("copy", lambda: copy_rate(sizes, device))
    ceiling = rows.rows.get("matmul bf16", {}).get("flops_per_second", math.nan)

    for name, (plain, checkpointed) in sizes.training.items():
        make = partial(make_dit, sizes.layout, sizes.dits[name])
        for batch, options in (
            (plain, {}),
            (plain, {"compiled": True}),
            (checkpointed, {"checkpointing": True}),
            (checkpointed, {"checkpointing": True, "compiled": True}),
            (checkpointed, {}),
            (checkpointed, {"compiled": True}),
        ):
            if options.get("compiled") and not sizes.compiled:
                continue
            if name != "B" and batch == checkpointed and not options.get("compiled"):
                continue
            told = " ".join(["", *options])
            rows.run(
                f"DiT-{name} training, batch {batch}{told}",
                partial(dit_training, make, batch, device, ceiling, sizes.repeats, **options),
            )
        if name == "B":
            measure_autoencoder(rows, sizes, device, ceiling)
        train, sample = sizes.beside[name]
        for compiled in (False, True) if sizes.compiled else (False,):
            told = " compiled" if compiled else ""
            rows.run(
                f"DiT-{name} beside diffusers' DiT, sampling, batch {sample}{told}",
                partial(beside_sampling, sizes, name, sample, device, ceiling, compiled),
            )
            rows.run(
                f"DiT-{name} beside diffusers' DiT, training, batch {train}{told}",
                partial(beside_training, sizes, name, train, device, ceiling, compiled),
            )
    rows.run("matmul float32", lambda: matrix_product(sizes, device, torch.float32))


def measure_autoencoder(rows: Rows, sizes: Sizes, device: torch.device, ceiling: float) -> None:
    """The base autoencoder: encode, decode, its training step with and without its networks, and where the
    time of a step goes."""
    flops = autoencoder_flops(sizes)
    measure = partial(autoencoder_training, sizes, flops["training"], device, ceiling)
    for name in ("encode", "decode"):
        rows.run(f"autoencoder {name}", partial(autoencoder_pass, name, sizes, flops[name], device, ceiling))
    rows.run("autoencoder training, whole loss", partial(measure, whole=True))
    rows.run("autoencoder training, L1 and KL", measure)
    rows.run("autoencoder training, L1 and KL checkpointing", partial(measure, checkpointing=True))
    rows.run(
        "autoencoder training, whole loss checkpointing", partial(measure, whole=True, checkpointing=True)
    )
    if sizes.compiled:
        rows.run("autoencoder training, L1 and KL compiled", partial(measure, compiled=True))
        rows.run("autoencoder training, whole loss compiled", partial(measure, whole=True, compiled=True))
        rows.run(
            "autoencoder training, whole loss compiled, its networks too",
            partial(measure, whole=True, compiled=True, networks_compiled=True),
        )
        rows.run(
            "autoencoder training, whole loss compiled, LPIPS in float32",
            partial(measure, whole=True, compiled=True, lpips_autocast=False),
        )
    frames = LPIPS_FRAMES if device.type == "cuda" else 1
    for told, options in (
        ("float32", {"in_bf16": False}),
        ("autocast", {}),
        ("autocast channels_last", {"channels_last": True}),
        ("autocast compiled", {"compiled": True}),
    ):
        if options.get("compiled") and not sizes.compiled:
            continue
        rows.run(f"LPIPS forward and backward {told}", partial(lpips_pass, sizes, frames, device, **options))
    rows.run("autoencoder training, L1 and KL: kernels", partial(measure, kernels=True))
    rows.run("autoencoder training, whole loss: kernels", partial(measure, whole=True, kernels=True))
