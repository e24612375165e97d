"""How fast the card is, and how much of that the autoencoder and the DiT make use of: the rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch

from benchmarks.gpu.attention import temporal_attention
from benchmarks.gpu.autoencoder import autoencoder_flops, autoencoder_pass, autoencoder_training, lpips_pass
from benchmarks.gpu.dit import beside_sampling, beside_training, dit_training, make_dit
from benchmarks.gpu.rows import Rows
from benchmarks.gpu.sizes import Sizes
from benchmarks.gpu.timing import copy_rate, matrix_product

LPIPS_FRAMES = 96  # of a batch of 6 clips


def measure_speed(rows: Rows, sizes: Sizes, device: torch.device) -> None:
    """All rows; those that say most come first: compiled as the presets train, sampling, then the parts."""
    rows.run("matmul bf16", lambda: matrix_product(sizes, device, torch.bfloat16))
    rows.run("copy", lambda: copy_rate(sizes, device))
    ceiling = rows.rows.get("matmul bf16", {}).get("flops_per_second", math.nan)
    flops = autoencoder_flops(sizes)
    speed = Speed(rows, sizes, device, ceiling)
    step = partial(speed.autoencoder_training, flops["training_step"])
    others = [name for name in sizes.training if name != "B"]

    step("whole loss compiled", whole=True, compiled=True)
    step("whole loss compiled, its networks too", whole=True, compiled=True, networks_compiled=True)
    speed.dit_beside("B", compiled=True)
    speed.dit_beside("B")
    for name in ("encode", "decode"):
        rows.run(f"autoencoder {name}", partial(autoencoder_pass, name, sizes, flops[name], device, ceiling))
    for name in others:
        speed.dit_training(name, compiled=True)
        speed.dit_beside(name, compiled=True)
    speed.lpips()
    rows.run("attention along time, by kernel", partial(temporal_attention, sizes, device))
    step("L1 and KL compiled", compiled=True)
    step("whole loss compiled, LPIPS in float32", whole=True, compiled=True, lpips_autocast=False)
    speed.dit_training("B", compiled=True)

    step("whole loss", whole=True)
    step("L1 and KL")
    for name in ("B", *others):
        speed.dit_training(name)
    for name in others:
        speed.dit_beside(name)
    step("L1 and KL checkpointing", checkpointing=True)
    step("whole loss checkpointing", whole=True, checkpointing=True)
    rows.run("matmul float32", lambda: matrix_product(sizes, device, torch.float32))
    step("L1 and KL: kernels", kernels=True)
    step("whole loss: kernels", whole=True, kernels=True)


@dataclass(frozen=True)
class Speed:
    """What is measured in several variants, a row each; with compiled blocks only where `sizes` asks for it.

    Args:
        ceiling: FLOP/s of a large matrix product.
    """

    rows: Rows
    sizes: Sizes
    device: torch.device
    ceiling: float

    def autoencoder_training(self, flops: int, variant: str, **options: bool) -> None:
        """A row of the base autoencoder's training step, which has these FLOPs."""
        if self.sizes.compiled or not options.get("compiled"):
            measure = partial(autoencoder_training, self.sizes, flops, self.device, self.ceiling, **options)
            self.rows.run(f"autoencoder training, {variant}", measure)

    def dit_training(self, name: str, *, compiled: bool = False) -> None:
        """Training steps of a DiT. Where blocks are not compiled, checkpointing and the larger batch are of B
        alone."""
        if compiled and not self.sizes.compiled:
            return
        plain, checkpointed = self.sizes.training[name]
        make = partial(make_dit, self.sizes.layout, self.sizes.dits[name])
        for batch, checkpointing in ((plain, False), (checkpointed, True), (checkpointed, False)):
            if not compiled and name != "B" and batch == checkpointed:
                continue
            variant = " checkpointing" * checkpointing + " compiled" * compiled
            options = {"checkpointing": checkpointing, "compiled": compiled}
            self.rows.run(
                f"DiT-{name} training, batch {batch}{variant}",
                partial(dit_training, make, batch, self.device, self.ceiling, self.sizes.repeats, **options),
            )

    def dit_beside(self, name: str, *, compiled: bool = False) -> None:
        """Sampling and training of a DiT in turns with diffusers'."""
        if compiled and not self.sizes.compiled:
            return
        train, sample = self.sizes.beside[name]
        for task, batch, measure in (
            ("sampling", sample, beside_sampling),
            ("training", train, beside_training),
        ):
            self.rows.run(
                f"DiT-{name} beside diffusers' DiT, {task}, batch {batch}{' compiled' * compiled}",
                partial(measure, self.sizes, name, batch, self.device, self.ceiling, compiled=compiled),
            )

    def lpips(self) -> None:
        """The perceptual term alone."""
        frames = LPIPS_FRAMES if self.device.type == "cuda" else 1
        for variant, options in (
            ("float32", {"in_bf16": False}),
            ("autocast", {}),
            ("autocast channels_last", {"channels_last": True}),
            ("autocast compiled", {"compiled": True}),
        ):
            if self.sizes.compiled or not options.get("compiled"):
                measure = partial(lpips_pass, self.sizes, frames, self.device, **options)
                self.rows.run(f"LPIPS forward and backward {variant}", measure)
