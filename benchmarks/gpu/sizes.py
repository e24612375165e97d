"""What `python -m benchmarks.gpu speed` measures: the card's sizes, and a rehearsal's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from autoencoder.model.presets import preset
from eval.cost.tokenizers import find
from vidtwin_gen.latents import LatentGrid, LatentLayout
from vidtwin_gen.models.sizes import SIZES

# 1,024 tokens, a square as diffusers' DiT takes: VidTwin's latents of 16 x 256 x 256 with 12 queries
SQUARE = LatentLayout(
    (
        LatentGrid("structure", ("query", "height", "width"), (12, 8, 8), 4),
        LatentGrid("dynamics_x", ("time", "width"), (16, 8), 8),
        LatentGrid("dynamics_y", ("time", "height"), (16, 8), 8),
    )
)


@dataclass(frozen=True)
class Sizes:
    """What is measured: the card's, or as small as a rehearsal on a CPU wants it.

    Args:
        training: name of a DiT -> clips per training step without and with checkpointing.
        beside: clips per step where ours and diffusers' DiT are timed in turns, training and sampling.
        layout, square: latents of the DiT, and those with as many tokens as a square has.
        compiled: whether every row is measured with compiled blocks, too.
    """

    autoencoder: dict[str, Any] = field(default_factory=lambda: preset("base"))
    clips: int = 6
    dits: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {name: SIZES[name] for name in ("S", "B", "XL")}
    )
    training: dict[str, tuple[int, int]] = field(
        default_factory=lambda: {"B": (64, 128), "XL": (16, 64), "S": (128, 256)}
    )
    beside: dict[str, tuple[int, int]] = field(
        default_factory=lambda: {"B": (32, 16), "S": (64, 16), "XL": (16, 8)}
    )
    layout: LatentLayout = field(default_factory=lambda: find(["vidtwin-1"])[0].layout)
    square: LatentLayout = SQUARE
    matrix: int = 8192
    copied_bytes: int = 4 * 2**30
    repeats: int = 15
    compiled: bool = True


SMALL = LatentLayout((LatentGrid("video", ("time", "width"), (4, 4), 4),))
TINY_DIT = {"hidden_size": 32, "num_layers": 1, "num_heads": 2}
TINY = Sizes(
    autoencoder={"num_frames": 2, "height": 32, "width": 32, "hidden_size": 32, "num_layers": 1}
    | {"num_heads": 2, "num_queries": 2, "qformer_layers": 1, "qformer_intermediate_size": 32},
    clips=1,
    dits={"B": TINY_DIT},
    training={"B": (1, 1)},
    beside={"B": (1, 1)},
    layout=SMALL,
    square=SMALL,
    matrix=64,
    copied_bytes=2**20,
    repeats=1,
    compiled=False,
)
