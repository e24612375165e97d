"""What is compared: a row a technique, as the flags that it adds to a preset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

BASE = "base"  # the preset as it is, whose processor time is every row's budget


@dataclass(frozen=True)
class Sampling:
    """How clips are drawn from a pipeline; with `fvd` their FVD is measured, too, which costs most."""

    guidance_scale: float = 1.0
    internal_guidance_scale: float = 1.0
    fvd: bool = False

    @property
    def name(self) -> str:
        scales = {"cfg": self.guidance_scale, "internal": self.internal_guidance_scale}
        return ", ".join(f"{name} {scale:g}" for name, scale in scales.items() if scale != 1) or "unguided"

    @property
    def passes(self) -> int:
        """Of the network in a step."""
        return 2 if self.guidance_scale > 1 else 1


GUIDED = (Sampling(), Sampling(4.0, fvd=True))
INTERNAL = (Sampling(), Sampling(1.0, 1.6, fvd=True), Sampling(4.0), Sampling(4.0, 1.6, fvd=True))


@dataclass(frozen=True)
class Row:
    """A training.

    Args:
        flags: what it adds to the preset. source: of the technique.
        samplings: of what it trains, where that is a generator.
        needs: the key that latents.json must have, or "".
    """

    flags: str = ""
    source: str = ""
    samplings: tuple[Sampling, ...] = GUIDED
    needs: str = ""

    @property
    def comparable(self) -> bool:
        """Whether its validation loss is that of the base's noise levels. x_0 has the velocity's loss there,
        but for the few levels below 0.05."""
        return "--shift" not in self.flags


# The presets train with what won. So a row takes a part of that away, or adds what is not in it. Contrastive
# flow matching is in `cpu` alone: one of its two rows is the base.
STAGE_1: dict[str, Row] = {
    BASE: Row(),
    "adamw": Row("--optimizer adamw", "arXiv 2510.19376"),
    "128x1": Row("--hidden_size 128 --num_layers 1"),
    "128x1+adamw": Row("--hidden_size 128 --num_layers 1 --optimizer adamw --ema_decay 0.99"),
    "constant-lr": Row("--lr_scheduler constant_with_warmup"),
    "no-ema": Row("--no_use_ema"),
    "mse-0": Row("--mse_weight 0"),
    "mse-100": Row("--mse_weight 100"),
    "kl-0.001": Row("--kl_weight 0.001"),
    "kl-0.02": Row("--kl_weight 0.02"),
    "predicted-0.25": Row("--predicted_share 0.25", "arXiv 2605.02134"),
}

STAGE_2: dict[str, Row] = {
    BASE: Row(),
    "velocity": Row("--prediction velocity", "arXiv 2605.27102"),
    "adamw": Row("--optimizer adamw", "arXiv 2510.19376"),
    "velocity+adamw": Row("--prediction velocity --optimizer adamw"),
    "shift-1": Row("--shift 1", "arXiv 2403.03206"),
    "shift-auto": Row("--shift auto", "arXiv 2510.11690"),
    "plain": Row(
        "--block_type dit --prediction velocity --optimizer adamw --shift 1 --train_batch_size 16 "
        "--ema_decay 0.995"
    ),
    "internal": Row("--internal_guidance", "arXiv 2512.24176", INTERNAL),
    "contrastive": Row("--contrastive_weight 0.05", "arXiv 2506.05350"),
    "no-contrastive": Row("--contrastive_weight 0"),
    "dit": Row("--block_type dit", "arXiv 2501.01423"),
    "repa": Row("--repa_weight 0.5 --repa_dim 256", "arXiv 2410.06940", needs="features"),
}
STAGES = {1: STAGE_1, 2: STAGE_2}

# Added to the preset where a run is a rehearsal; a row's own flags come after it.
TINY = {
    1: "--num_frames 16 --height 16 --width 16 --patch_size 4 --hidden_size 16 --num_heads 2 --num_queries 3 "
    "--query_hidden_size 8 --qformer_layers 1 --qformer_heads 2 --qformer_intermediate_size 16 "
    "--structure_base_channels 8 --train_batch_size 2 --num_validation_videos 2",
    2: "--patch_size 1 --hidden_size 16 --num_layers 2 --num_heads 2 --train_batch_size 4 "
    "--num_sample_classes 1 --num_inference_steps 1",
}
TINY_STEPS = 3


def chosen_rows(
    table: Mapping[str, Row], names: Sequence[str] | None, latents: Mapping[str, Any]
) -> dict[str, Row]:
    """The rows of these names, all without names, in the table's order.

    Args:
        latents: what latents.json says; of stage 1 nothing.

    Raises:
        ValueError: no such row, or one that trains on what these latents lack.
    """
    if unknown := [name for name in names or () if name not in table]:
        raise ValueError(f"--rows {unknown[0]}: there are {', '.join(table)}")
    lacking = {name: row.needs for name, row in table.items() if row.needs and row.needs not in latents}
    if asked := [name for name in names or () if name in lacking]:
        raise ValueError(
            f"--rows {asked[0]}: the latents have no {lacking[asked[0]]}: name an encoder with --features, "
            "or with --latents a folder that has them, or leave the row out"
        )
    return {name: row for name, row in table.items() if name in (names or table) and name not in lacking}
