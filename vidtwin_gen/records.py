"""Results: what a measurement writes as JSON and a report, a model card or a table reads again.

Every kind of result is a dataclass here that knows its `kind`, so that no reader guesses from keys.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from vidtwin_gen.files import read_json, write_json


@dataclass(frozen=True, kw_only=True)
class Result:
    """A result and its JSON, an object whose `kind` names its class and whose other keys are its fields."""

    kind: ClassVar[str]
    written_by: ClassVar[str]  # the command
    optional: ClassVar[tuple[str, ...]] = ()  # fields that the JSON leaves out where they are None

    def to_json(self) -> dict[str, Any]:
        fields = dataclasses.asdict(self)
        left_out = {name for name in self.optional if fields[name] is None}
        return {"kind": self.kind, **{name: fields[name] for name in fields if name not in left_out}}

    def write(self, path: str | Path) -> None:
        write_json(path, self.to_json())

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """The result in a file.

        Raises:
            ValueError: no such file, no JSON object, one of another kind, or one whose fields are others.
        """
        way_out = f"write it anew with `{cls.written_by}`"
        value = read_json(path, way_out)
        kind = value.pop("kind", None)
        if kind != cls.kind:
            raise ValueError(f"{path} holds a result of kind {kind!r}, expected {cls.kind!r}; {way_out}")
        return cls.from_json(value, f"{path}", way_out)

    @classmethod
    def from_json(cls, value: dict[str, Any], where: str, way_out: str) -> Self:
        """Raises ValueError where a field is missing or unknown."""
        fields = {field.name: field for field in dataclasses.fields(cls)}
        needed = {name for name, field in fields.items() if field.default is dataclasses.MISSING}
        missing, unknown = sorted(needed - value.keys()), sorted(value.keys() - fields.keys())
        if missing or unknown:
            told = [f"no {name}" for name in missing] + [f"an unknown {name}" for name in unknown]
            raise ValueError(f"{where} has {', '.join(told)}; {way_out}")
        return cls(**value)


def read_result(path: str | Path) -> Result | None:
    """The result in a file, of the class that its `kind` names; None where it names none.

    Raises:
        ValueError: no such file, no JSON object, or fields that are not those of its kind.
    """
    kind = read_json(path, "name a JSON file of a result").get("kind")
    found = next((result for result in _subclasses(Result) if getattr(result, "kind", None) == kind), None)
    return found.read(path) if found and kind else None


def _subclasses(result: type[Result]) -> Iterator[type[Result]]:
    for subclass in result.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


@dataclass(frozen=True, kw_only=True)
class GeneratedRecord(Result):
    """How the clips of a folder were generated: its generated.json.

    Args:
        pipeline: name of the pipeline's folder. scheduler: its class.
        class_names, class_labels: of the classes that clips were made of, in the order of the clips.
        num_videos_per_class: None where `labels_from`, the name of a file, said how many.
        num_videos: of all classes.
    """

    kind: ClassVar[str] = "generated"
    written_by: ClassVar[str] = "python -m pipelines generate"

    pipeline: str
    scheduler: str
    guidance_scale: float
    guidance_interval: list[float]
    num_inference_steps: int
    seed: int
    fps: float
    class_names: list[str]
    class_labels: list[int]
    num_videos_per_class: int | None
    labels_from: str | None
    num_videos: int


@dataclass(frozen=True, kw_only=True)
class FVDProtocol:
    """Everything a Fréchet distance depends on besides the generator. Two numbers compare only if their
    protocols agree; it is written beside each of them.

    Args:
        name: e.g. "quick-32"; a published protocol keeps its name whole.
        num_real, num_generated: clips on each side. feature_dim: length of a feature.
        num_frames, height, width: of the clips before the extractor's own resize.
        split, fold: which real videos; fold is None for the split "all", which all folds share.
        stride: source frames per clip frame; None where `fps` rules.
        real_selection, generated_selection: which clips of each side. seed: of the draw.
        clip_resize: how clips of both sides came to height and width.
        resize, feature_extractor, weights_sha256: the extractor's.
    """

    name: str
    num_real: int
    num_generated: int
    num_frames: int
    height: int
    width: int
    split: str
    resize: str
    feature_extractor: str
    weights_sha256: str
    feature_dim: int
    fold: int | None = None
    stride: int | None = 1
    fps: float | None = None
    real_selection: str = ""
    seed: int = 0
    generated_selection: str = ""
    clip_resize: str = ""
    quantisation: str = "round"
    codec: str = "none"
    covariance_divisor: str = "N-1"

    @property
    def rank_deficient(self) -> bool:
        """Whether a covariance is singular because a side has no more clips than a feature has numbers: such
        a value is biased upwards and compares only within one script and one N."""
        return min(self.num_real, self.num_generated) <= self.feature_dim

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def distance_json(value: float, protocol: FVDProtocol) -> dict[str, Any]:
    """One measured distance: the value is never without its N, its flag and its protocol."""
    return {
        "fvd": value,
        "num_real": protocol.num_real,
        "num_generated": protocol.num_generated,
        "rank_deficient": protocol.rank_deficient,
        "protocol": protocol.to_json(),
    }


@dataclass(frozen=True, kw_only=True)
class FVDResult(Result):
    """The distance of generated clips from real ones, or the `reason` why it was not measured; all but
    `fvd`, `reason` and `install` is then None.

    Args:
        fvd: mean over the `generated` sets, `std` over them where there are several.
        protocol: an `FVDProtocol`. floor: real clips against other real ones. floors: that, and
            reconstructions against real ones, each with what it was measured on or its own `reason`.
        install: the line to type where weights are missing.
    """

    kind: ClassVar[str] = "fvd"
    written_by: ClassVar[str] = "python -m eval fvd"

    fvd: float | None
    num_real: int | None = None
    num_generated: int | None = None
    rank_deficient: bool | None = None
    protocol: dict[str, Any] | None = None
    std: float | None = None
    num_seeds: int | None = None
    num_seeds_of_protocol: int | None = None
    generated: list[dict[str, Any]] | None = None
    generated_size: list[int] | None = None
    num_real_videos: int | None = None
    floor: float | None = None
    floors: dict[str, dict[str, Any]] | None = None
    class_counts: dict[str, int] | None = None
    skipped_videos: list[str] | None = None
    reason: str | None = None
    install: str | None = None

    def __post_init__(self) -> None:
        needed = (self.num_real, self.num_generated, self.protocol)
        if self.fvd is not None and any(value is None for value in needed):
            raise ValueError(f"the FVD {self.fvd} stands without its N and protocol; {self.written_by}")

    def to_json(self) -> dict[str, Any]:
        left_out = {"reason", "install"} if self.fvd is not None else set()
        if self.fvd is None:
            left_out = {name for name, value in vars(self).items() if value is None and name != "fvd"}
        return {name: value for name, value in super().to_json().items() if name not in left_out}


@dataclass(frozen=True, kw_only=True)
class SensitivityResult(Result):
    """How the distance of real clips from themselves grows with what is done to one side.

    distortions: by kind `unit`, `undistorted` (the strength that changes nothing), `fvd` (pairs of strength
    and distance) and whether they are `monotone`.
    """

    kind: ClassVar[str] = "sensitivity"
    written_by: ClassVar[str] = "python -m eval sensitivity"

    num_clips: int
    rank_deficient: bool
    identical: float
    distortions: dict[str, dict[str, Any]]
    protocol: dict[str, Any]
    skipped_videos: list[str]


@dataclass(frozen=True, kw_only=True)
class SelftestResult(Result):
    """passed: None where no check failed and some were left out."""

    kind: ClassVar[str] = "selftest"
    written_by: ClassVar[str] = "python -m eval selftest"

    passed: bool | None
    checks: list[dict[str, Any]]
    weights_sha256: dict[str, str]
    device: str
    torch: str


@dataclass(frozen=True, kw_only=True)
class AccuracyResult(Result):
    """How often a classifier trained on real clips recognises generated ones, beside real held-out ones.

    generated, real: `accuracy`, `num_clips` and `confusion` (a row a class asked for, a column a class seen).
    """

    kind: ClassVar[str] = "accuracy"
    written_by: ClassVar[str] = "python -m eval accuracy"

    class_names: list[str]
    num_train: int
    seed: int
    fold: int
    resolution: str
    frame_rate: str
    num_steps: int
    horizontal_flip: bool
    generated: dict[str, Any]
    real: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class AutoencoderResult(Result):
    """What results of an autoencoder on real clips share: how they were measured.

    split, fold: of a data set; `videos` in their place are the files that were named.
    source_sizes: "height x width" of the files, and how many clips came from files of that size.
    lpips: whether it was `measured`, with which weights, or the `reason` why not.
    rfvd: of reconstructions, None where it was not asked for.
    """

    optional: ClassVar[tuple[str, ...]] = ("fold", "videos", "rfvd")

    split: str | None
    fold: int | None = None
    videos: list[str] | None = None
    autoencoder_class: str
    vae_sha256: str
    resolution: str
    frame_rate: str
    seed: int
    latent: str
    data_range: str
    psnr_at_most: float
    interval: str
    resize: str
    source_sizes: dict[str, int]
    skipped_videos: list[str]
    lpips: dict[str, Any]
    rfvd: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class ReconResult(AutoencoderResult):
    """both: the reconstruction; structure, dynamics: each part alone, of our latents. Each has `psnr`, `ssim`
    and `lpips` with `mean`, `ci95`, `num_clips` and `per_frame`."""

    kind: ClassVar[str] = "recon"
    written_by: ClassVar[str] = "python -m eval recon"
    optional: ClassVar[tuple[str, ...]] = (*AutoencoderResult.optional, "structure", "dynamics")

    both: dict[str, dict[str, Any]]
    structure: dict[str, dict[str, Any]] | None = None
    dynamics: dict[str, dict[str, Any]] | None = None


@dataclass(frozen=True, kw_only=True)
class DiagnoseResult(AutoencoderResult):
    """Whether a latent is fit to be generated.

    tfvd: as `rfvd` with interior steps in time replaced by midpoints. channels: by grid. noise: `psnr` by
    `level`. swap: `distances` of clips with a part of another's latent.
    """

    kind: ClassVar[str] = "diagnose"
    written_by: ClassVar[str] = "python -m eval diagnose"
    optional: ClassVar[tuple[str, ...]] = (*AutoencoderResult.optional, "tfvd")

    num_clips: int
    layout: list[dict[str, Any]]
    reconstruction_psnr: dict[str, Any]
    midpoints_psnr: dict[str, Any]
    tfvd: dict[str, Any] | None = None
    tfvd_minus_rfvd: float | None = None
    channels: dict[str, dict[str, Any]]
    dead_below_nats: float
    noise: list[dict[str, Any]]
    swap: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class CostRow:
    """What a DiT of one size costs on the latents of one tokenizer.

    FLOPs and memory are for a whole batch of `batch_size`. `training_flops` is forward and backward, with
    what checkpointing computes again; `formula_flops` is the formula's for the same batch. `num_codes` is how
    many values a position of discrete latents has. `figure_5` is what the counter of the paper's Figure 5
    gives for its own network on one clip of these latents, padded and floored, where the patch is one number.
    `measured` is the same step as it was made, `peak_bytes` and `seconds`, or the `reason` why it was not.
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

    @property
    def peak_bytes(self) -> int:
        """Of a training step, predicted."""
        return self.training_memory_bytes["peak"]

    @property
    def measured_bytes(self) -> int | None:
        return (self.measured or {}).get("peak_bytes")

    def to_json(self) -> dict[str, Any]:
        row = dataclasses.asdict(self)
        return row if self.measured is not None else {k: v for k, v in row.items() if k != "measured"}


@dataclass(frozen=True, kw_only=True)
class CostResult(Result):
    """rows: the tokenizers under each DiT. paper_size_rows: VidTwin's setting 1 and MAGVIT-v2 at the paper's
    clip. not_counted, not_published: the tokenizers that have no row, each with the reason."""

    kind: ClassVar[str] = "cost"
    written_by: ClassVar[str] = "python -m eval cost"
    optional: ClassVar[tuple[str, ...]] = ("paper_size_rows", "not_counted", "not_published")

    command: str
    rows: list[CostRow]
    paper_size_rows: list[CostRow] | None = None
    not_counted: list[dict[str, Any]] | None = None
    not_published: list[dict[str, Any]] | None = None

    def to_json(self) -> dict[str, Any]:
        value = super().to_json()
        for name in ("rows", "paper_size_rows"):
            if name in value:
                value[name] = [row.to_json() for row in getattr(self, name)]
        return value

    @classmethod
    def from_json(cls, value: dict[str, Any], where: str, way_out: str) -> Self:
        try:
            for name in ("rows", "paper_size_rows"):
                if name in value:
                    value[name] = [CostRow(**row) for row in value[name]]
        except TypeError as error:
            raise ValueError(f"{where}: {name} are no rows of costs ({error}); {way_out}") from None
        return super().from_json(value, where, way_out)


@dataclass(frozen=True, kw_only=True)
class AutoencoderCostResult(Result):
    """encode, decode, training_step: `seconds`, `frames_per_second`, `flops_per_second`, `of_matmul_rate`
    and `peak_memory_bytes`, the model included; `flops` of each."""

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
