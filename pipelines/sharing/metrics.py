"""The metrics of a model card: taken from results, as JSON in the pipeline's config, and in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vidtwin_gen.records import AccuracyResult, FVDResult, ReconResult, Result
from vidtwin_gen.records.json_types import check_type

SCALAR = (str, int, float, bool, type(None))


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A value, the protocol that it was measured by, and what else is known of it.

    Args:
        ci95: half of its 95 % confidence interval. std: over `num_seeds` sets of generated clips.
        floor: the same distance of real clips from real ones. reconstructions: of the autoencoder's.
        rank_deficient: it is biased upwards for want of clips.
    """

    value: float
    protocol: dict[str, Any]
    ci95: float | None = None
    std: float | None = None
    num_seeds: int | None = None
    floor: float | None = None
    reconstructions: float | None = None
    rank_deficient: bool | None = None

    @classmethod
    def from_json(cls, name: str, saved: dict[str, Any]) -> Metric:
        """What `to_json` gave, without the fields that a later version has. Raises ValueError for what is
        none, in words that name it."""
        try:
            check_type(f"training.metrics.{name}", saved, cls)
        except ValueError as error:
            raise ValueError(f"{error}: correct or remove this metric in model_index.json") from None
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{field: value for field, value in saved.items() if field in known})

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    def __str__(self) -> str:
        words = f"{self.value:.4g}" + (f" ± {self.ci95:.2g} (95 %)" if self.ci95 else "")
        words += f" ± {self.std:.2g} over {self.num_seeds} seeds" if self.std is not None else ""
        words += f"; real against real {self.floor:.4g}" if self.floor is not None else ""
        words += f"; reconstructions {self.reconstructions:.4g}" if self.reconstructions is not None else ""
        return words + ("; rank-deficient, so biased upwards" if self.rank_deficient else "")


def metrics_of(result: Result | None) -> dict[str, Metric]:
    """What a card shows of a result, by name: nothing of other kinds and of an FVD that was not measured."""
    match result:
        case FVDResult(fvd=float()):
            return _distances(result.to_json(), "generated")
        case AccuracyResult():
            sides = {"generated": result.generated, "real": result.real}
            return {
                f"class accuracy, {side} clips": Metric(
                    value=measured["accuracy"],
                    protocol={"num_clips": measured["num_clips"], **_scalars(result)},
                )
                for side, measured in sides.items()
            }
        case ReconResult():
            return _reconstruction(result)
    return {}


def _distances(measured: Mapping[str, Any], side: str) -> dict[str, Metric]:
    """FVD and KVD of generated clips, or of reconstructions, which have no floors; KVD where it was measured,
    which is not biased."""
    several = measured.get("std") is not None
    floors: Mapping[str, Any] = measured.get("floors") or {}
    protocol = {name: value for name, value in measured["protocol"].items() if value is not None}
    return {
        f"{name.upper()}, {side}": Metric(
            value=measured[name],
            protocol=protocol,
            std=measured.get(std),
            num_seeds=measured["num_seeds"] if several else None,
            floor=floor,
            reconstructions=floors.get("reconstructions", {}).get(name),
            rank_deficient=(name == "fvd" and measured.get("rank_deficient")) or None,
        )
        for name, std, floor in (
            ("fvd", "std", measured.get("floor")),
            ("kvd", "kvd_std", floors.get("real", {}).get("kvd")),
        )
        if measured.get(name) is not None
    }


def _reconstruction(result: ReconResult) -> dict[str, Metric]:
    metrics = {
        f"{name.upper()}, reconstructed": Metric(
            value=measured["mean"],
            ci95=measured.get("ci95"),
            protocol={"num_clips": measured["num_clips"], **_scalars(result)},
        )
        for name, measured in result.both.items()
    }
    if result.rfvd and result.rfvd["fvd"] is not None:
        metrics |= _distances(result.rfvd, "reconstructed")
    return metrics


def _scalars(result: Result) -> dict[str, Any]:
    """How a result was measured: its plain fields."""
    values = result.to_json().items()
    return {name: value for name, value in values if isinstance(value, SCALAR) and name != "kind"}
