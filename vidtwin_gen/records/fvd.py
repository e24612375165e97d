"""Fréchet and kernel video distances: the protocol of a number, the number, and what says how far to trust
it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypedDict

from vidtwin_gen.records.result import Result


@dataclass(frozen=True, kw_only=True)
class FVDProtocol:
    """Everything a distance depends on besides the generator. Two numbers compare only if their
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
        codec, real_codec: that generated and real clips went through, the codec of the data's files apart.
        generated_stride: of generated videos, None where as of real ones.
        not_published: what of a published protocol is our choice.
        autoencoder_dtype: of its weights and arithmetic, where reconstructions are compared.

    The fields `later` than the first records are in a JSON only where they differ from their defaults, so
    that numbers of earlier versions still compare.
    """

    later: ClassVar[tuple[str, ...]] = (
        "real_codec",
        "generated_stride",
        "not_published",
        "autoencoder_dtype",
    )

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
    real_codec: str = "none"
    generated_stride: int | None = None
    not_published: str = ""
    autoencoder_dtype: str = "float32"

    @property
    def rank_deficient(self) -> bool:
        """Whether a covariance is singular because a side has no more clips than a feature has numbers: such
        a value is biased upwards and compares only within one script and one N."""
        return min(self.num_real, self.num_generated) <= self.feature_dim

    def to_json(self) -> dict[str, Any]:
        fields = dataclasses.asdict(self)
        left_out = {name for name in self.later if fields[name] == getattr(FVDProtocol, name)}
        return {name: value for name, value in fields.items() if name not in left_out}


class _Needed(TypedDict):
    fvd: float | None


class _Distance(_Needed, total=False):
    kvd: float | None  # records of earlier versions have none
    protocol: Protocol


Protocol = Annotated[dict[str, Any], FVDProtocol]
# One that was measured, with its protocol, or None and the reason.
Distance = Annotated[dict[str, Any], _Distance]


def distance_json(fvd: float, protocol: FVDProtocol, kvd: float | None = None) -> dict[str, Any]:
    """The distances that were measured: the values are never without their N, flag and protocol."""
    return {
        "fvd": fvd,
        "kvd": kvd,
        "num_real": protocol.num_real,
        "num_generated": protocol.num_generated,
        "rank_deficient": protocol.rank_deficient,
        "protocol": protocol.to_json(),
    }


def not_measured(reason: str) -> dict[str, Any]:
    """In place of distances."""
    return {"fvd": None, "kvd": None, "reason": reason}


def kvd_text(kvd: float, std: float | None = None) -> str:
    """A kernel distance for people, of several sets with its `std` over them. Small ones, which may be below
    0, have more decimals."""
    decimals = 1 if max(abs(kvd), std or 0) >= 10 else 3
    return f"{kvd:.{decimals}f}" + (f" ± {std:.{decimals}f}" if std is not None else "")


@dataclass(frozen=True, kw_only=True)
class FVDResult(Result):
    """The distances of generated clips from real ones, or the `reason` why they were not measured; all but
    `fvd`, `reason` and `install` is then None.

    Args:
        fvd, kvd: mean over the `generated` sets, `std` and `kvd_std` over them where there are several.
        protocol: an `FVDProtocol`. floor: FVD of real clips against other real ones. floors: both distances
            of those, and of reconstructions against real ones, each with what it was measured on or its own
            `reason`.
        kvd_reason: why there is an FVD and no KVD.
        install: the line to type where weights are missing. note: what a codec of the generated clips does.
    """

    kind: ClassVar[str] = "fvd"
    written_by: ClassVar[str] = "python -m eval fvd"
    optional: ClassVar[tuple[str, ...]] = ("kvd_reason", "note")

    fvd: float | None
    kvd: float | None = None
    num_real: int | None = None
    num_generated: int | None = None
    rank_deficient: bool | None = None
    protocol: Protocol | None = None
    std: float | None = None
    kvd_std: float | None = None
    kvd_reason: str | None = None
    num_seeds: int | None = None
    num_seeds_of_protocol: int | None = None
    generated: list[dict[str, Any]] | None = None
    generated_size: list[int] | None = None
    num_real_videos: int | None = None
    floor: float | None = None
    floors: dict[str, Distance] | None = None
    class_counts: dict[str, int] | None = None
    skipped_videos: list[str] | None = None
    reason: str | None = None
    install: str | None = None
    note: str | None = None

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
    """How the distances of real clips from themselves grow with what is done to one side.

    identical: the FVD where nothing is done. distortions: by kind `unit`, `undistorted` (the strength that
    changes nothing), `fvd` and `kvd` (pairs of strength and distance; earlier versions have no `kvd`), and
    whether the first is `monotone`.
    """

    kind: ClassVar[str] = "sensitivity"
    written_by: ClassVar[str] = "python -m eval sensitivity"

    num_clips: int
    rank_deficient: bool
    identical: float
    distortions: dict[str, dict[str, Any]]
    protocol: Protocol
    skipped_videos: list[str]

    def in_words(self) -> dict[str, str]:
        """What was found, for people: the name of a number, and the number."""
        flag = ", rank-deficient" if self.rank_deficient else ""
        words = {f"{self.num_clips} real clips against themselves": f"{self.identical:.2g}{flag}"}
        for name, curve in self.distortions.items():
            points = ", ".join(f"{value:.1f} at {level:g}" for level, value in curve["fvd"])
            words[f"{name}, {curve['unit']}"] = points + ("" if curve["monotone"] else "; NOT monotone")
            if "kvd" in curve:
                points = ", ".join(f"{kvd_text(value)} at {level:g}" for level, value in curve["kvd"])
                words[f"{name}, KVD"] = points
        return words


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
