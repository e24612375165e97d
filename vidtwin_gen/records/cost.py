"""What a step costs: of DiTs over the latents of tokenizers, and of an autoencoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from vidtwin_gen.records.result import Result, make

OWN = "this run"  # the size of a run's DiT; in brackets, the end of the name of its latents


@dataclass(frozen=True, kw_only=True)
class CostRow:
    """What a DiT of one size costs on the latents of one tokenizer.

    FLOPs and memory are for a whole batch of `batch_size`. `training_flops` is forward and backward, with
    what checkpointing computes again; `formula_flops` is the formula's for the same batch. `num_codes` is how
    many values a position of discrete latents has. `figure_5` is what the counter of the paper's Figure 5
    gives for its own network on one clip of these latents, padded and floored, where the patch is one number.
    `measured` is the same step as it was made, `peak_bytes` and `seconds`, or the `reason` why it was not.
    `own_dit` marks a pipeline's DiT as it is (earlier versions did not).
    `grids` is the layout: of each grid the name, axes, shape and channels, its elements and its tokens.
    """

    size: str
    tokenizer: str
    source: str
    clip_shape: Sequence[int]
    frames_taken: int | None
    num_elements: int
    compression_rate: float
    printed_rate: float | None
    verdict: str | None
    remark: str | None
    num_codes: int | None
    bit_rate: float | None
    num_tokens: int
    patch_size: Any
    hidden_size: int
    num_layers: int
    num_heads: int
    mlp_ratio: float
    conditioning: str
    batch_size: int
    attention: str
    gradient_checkpointing: bool
    num_parameters: int
    forward_flops: int
    formula_flops: int
    training_flops: int
    training_memory_bytes: dict[str, int]
    figure_5: dict[str, Any] | None
    measured: dict[str, Any] | None = None
    grids: list[dict[str, Any]] | None = None
    own_dit: bool | None = None

    @property
    def peak_bytes(self) -> int:
        """Of a training step, predicted."""
        return self.training_memory_bytes["peak"]

    @property
    def measured_bytes(self) -> int | None:
        return (self.measured or {}).get("peak_bytes")

    def to_json(self) -> dict[str, Any]:
        row = dataclasses.asdict(self)
        return {k: v for k, v in row.items() if v is not None or k not in ("measured", "grids", "own_dit")}


@dataclass(frozen=True, kw_only=True)
class Crossover:
    """From which size of square clips on the latents of one autoencoder are fewer tokens than another's.

    cheaper_from: the side in pixels, from which on it is so up to `largest`; None: at no size up to there.
    num_tokens: of the two at that side, or at `largest`. num_frames, patch_size: of all sizes.
    """

    tokenizer: str
    other: str
    num_frames: int
    patch_size: int
    largest: int
    cheaper_from: int | None
    num_tokens: list[int]

    def __str__(self) -> str:
        side = self.cheaper_from or self.largest
        where = "for clips from {0}×{0} on" if self.cheaper_from else "at no size of clip up to {0}×{0}"
        ours, theirs = self.num_tokens
        return (
            f"{self.tokenizer}, down-sampled as it is, is cheaper than {self.other} {where.format(side)} "
            f"({self.num_frames} frames, patch {self.patch_size}; {ours:,} and {theirs:,} tokens there), "
            "whatever the DiT: fewer tokens are fewer FLOPs"
        )


@dataclass(frozen=True, kw_only=True)
class CostResult(Result):
    """rows: the tokenizers under each DiT. paper_size_rows: VidTwin's setting 1 and MAGVIT-v2 at the paper's
    clip. not_counted, not_published: the tokenizers that have no row, each with the reason. crossovers: at
    which sizes of clips VidTwin's latents are the cheaper ones."""

    kind: ClassVar[str] = "cost"
    written_by: ClassVar[str] = "python -m eval cost"
    optional: ClassVar[tuple[str, ...]] = ("paper_size_rows", "not_counted", "not_published", "crossovers")

    command: str
    rows: list[CostRow]
    paper_size_rows: list[CostRow] | None = None
    not_counted: list[dict[str, Any]] | None = None
    not_published: list[dict[str, Any]] | None = None
    crossovers: list[Crossover] | None = None

    def to_json(self) -> dict[str, Any]:
        value = super().to_json()
        for name in ("rows", "paper_size_rows"):
            if name in value:
                value[name] = [row.to_json() for row in getattr(self, name)]
        return value

    @classmethod
    def from_json(cls, value: dict[str, Any], where: str, way_out: str) -> Self:
        for name, kind in (("rows", CostRow), ("paper_size_rows", CostRow), ("crossovers", Crossover)):
            if isinstance(rows := value.get(name), list):
                value[name] = [make(kind, row, f"{where}, {name}", way_out) for row in rows]
        return super().from_json(value, where, way_out)


@dataclass(frozen=True, kw_only=True)
class AutoencoderCostResult(Result):
    """encode, decode, training_step: `seconds`, `frames_per_second`, `flops_per_second`, `of_matmul_rate`
    and `peak_memory_bytes`, the model included, None where the system does not tell it; `flops` of each."""

    kind: ClassVar[str] = "autoencoder_cost"
    written_by: ClassVar[str] = "python -m eval cost --autoencoder"
    optional: ClassVar[tuple[str, ...]] = ("training_step",)

    command: str
    autoencoder: str
    device: str
    num_threads: int
    torch: str
    dtype: str
    batch_size: int
    gradient_checkpointing: bool
    clip_shape: Sequence[int]
    num_parameters: int
    latent_elements: int
    compression_rate: float
    flops: dict[str, int]
    encode: dict[str, Any]
    decode: dict[str, Any]
    training_step: dict[str, Any] | None = None
