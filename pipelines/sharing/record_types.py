"""What a pipeline's `training` may be, as `pipelines.sharing.training_record` writes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vidtwin_gen.records.json_types import check_type

TYPES: dict[str, Any] = {
    "data": dict[str, Any],
    "flags": dict[str, Any],
    "num_processes": int | None,
    "num_steps": int | None,
    "sampling": dict[str, Any],
    "metrics": dict[str, dict[str, Any]],
    "license": str | None,
}


def check_record(training: Mapping[str, Any] | None) -> None:
    """Raises ValueError where a field is of another type. All may be left out, and others be there, as a
    later version may write."""
    try:
        check_type("training", training, dict[str, Any] | None)
        for name, hint in TYPES.items():
            if training and name in training:
                check_type(f"training.{name}", training[name], hint)
    except ValueError as error:
        raise ValueError(
            f"{error}: correct it in model_index.json, or put null there for the whole of training"
        ) from None
