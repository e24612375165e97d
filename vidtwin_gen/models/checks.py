"""What a model must be before it is used: sizes that a machine has, weights that are whole and finite."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from safetensors import safe_open

LARGEST_SIZE = 2**16
MOST_LAYERS = 1000
LARGEST_TABLE = 2**31  # numbers that a model may compute before it has weights: positions of its tokens


def check_arguments(model_class: type, config: Mapping[str, Any]) -> None:
    """Raises ValueError where an argument of a model's constructor is of another type than it is annotated
    with, not finite, or a size that no machine has; what fits together is the model's own question."""
    for name, parameter in inspect.signature(model_class).parameters.items():
        kind, value = parameter.annotation, config.get(name)
        if kind == "int":
            least = 0 if name.endswith("_down_blocks") else 1
            most = MOST_LAYERS if name.endswith(("_layers", "_blocks")) else LARGEST_SIZE
            fits = type(value) is int and least <= value <= most
            expected = f"a whole number from {least} to {most}"
        elif kind == "float":
            fits = type(value) in (int, float) and 0 <= value < math.inf  # type: ignore[operator]
            expected = "a number from 0 on"
        elif kind in ("bool", "str"):
            fits, expected = type(value).__name__ == kind, {"bool": "true or false", "str": "a word"}[kind]
        else:
            continue
        if not fits:
            raise ValueError(f"{name} must be {expected}, got {value!r}")


def check_table(what: str, *sizes: int) -> None:
    """Raises ValueError where a table of these sizes would have more than LARGEST_TABLE numbers."""
    if math.prod(sizes) > LARGEST_TABLE:
        raise ValueError(
            f"{what} would have {' x '.join(map(str, sizes))} numbers, which no machine computes"
        )


def check_finite(tensors: Iterable[tuple[str, torch.Tensor]], where: str) -> None:
    """Raises ValueError with the name of the first tensor that holds NaN or infinity."""
    for name, tensor in tensors:
        if tensor.is_floating_point() and not tensor.is_meta and not torch.isfinite(tensor).all():
            raise ValueError(
                f"{where}: {name} holds NaN or infinity: the training failed, or the file is bad"
            )


class CheckedWeights:
    """For a `ModelMixin`: `from_pretrained` refuses weights that are missing, left over, not of floating
    point, or not finite, with a ValueError that names the tensor.

    diffusers itself fills in what is missing, leaves out what is left over, and casts whole numbers; with
    `ignore_mismatched_sizes=True` it still does.
    """

    @classmethod
    def _load_pretrained_model(
        cls, model: Any, state_dict: Any, files: Any, path: Any, loaded_keys: Any, **options: Any
    ) -> Any:
        result = super()._load_pretrained_model(model, state_dict, files, path, loaded_keys, **options)  # type: ignore[misc]
        if options.get("ignore_mismatched_sizes"):
            return result
        if options.get("hf_quantizer") is None:  # whose tensors are its own
            _, missing, unexpected, *_ = result
            for kind, names in (
                ("missing", missing),
                ("unknown", unexpected),
                ("whole numbers", _whole(files)),
            ):
                if names:
                    raise ValueError(f"{path}: tensors are {kind}: {', '.join(sorted(names)[:5])}")
        check_finite(model.state_dict().items(), str(path))
        return result


def _whole(files: Iterable[Any] | None) -> list[str]:
    """Tensors in these files that are not of floating point, from their headers."""
    found = []
    for path in files or ():
        if str(path).endswith(".safetensors"):
            with safe_open(path, framework="pt") as file:
                names = file.keys()
                found += [name for name in names if "F" not in file.get_slice(name).get_dtype()]
    return found
