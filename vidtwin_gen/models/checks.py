"""What a model must be before it is used: sizes that a machine has, weights that are whole and finite."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping
from typing import Any, get_type_hints

import torch
from diffusers.models.model_loading_utils import load_state_dict

from vidtwin_gen.records.json_types import check_type

LARGEST_SIZE = 2**16
MOST_LAYERS = 1000
LARGEST_TABLE = 2**31  # numbers that a model may compute before it has weights: positions of its tokens


def check_arguments(model_class: type, config: Mapping[str, Any]) -> None:
    """Raises ValueError where an argument of a constructor is of another type than it is annotated with, or
    not finite; of a model's sizes also where no machine has them. What fits together is the class's own
    question."""
    hints = get_type_hints(model_class.__init__)  # type: ignore[misc]
    for name, parameter in inspect.signature(model_class).parameters.items():
        value = config.get(name, parameter.default)
        if name not in hints or (type(value) is type(parameter.default) and value == parameter.default):
            continue
        check_type(name, value, hints[name])
        if not issubclass(model_class, torch.nn.Module):
            continue
        low, high = 0, LARGEST_SIZE
        if hints[name] is int:
            low = 0 if name.endswith("_down_blocks") else 1
            high = MOST_LAYERS if name.endswith(("_layers", "_blocks")) else LARGEST_SIZE
        if type(value) in (int, float) and not low <= value <= high:
            kind = "whole number" if hints[name] is int else "number"
            raise ValueError(f"{name} must be a {kind} from {low} to {high}, got {value!r}")


def check_table(what: str, *sizes: int) -> None:
    """Raises ValueError where a table of these sizes would have more than LARGEST_TABLE numbers."""
    if math.prod(sizes) > LARGEST_TABLE:
        raise ValueError(
            f"{what} would have {' x '.join(map(str, sizes))} numbers, which no machine computes"
        )


def check_finite(tensors: Iterable[tuple[str, torch.Tensor]], where: str) -> None:
    """Raises ValueError with the name of the first tensor that holds NaN or infinity."""
    for name, tensor in tensors:
        if not tensor.is_floating_point() or tensor.is_meta:
            continue
        if not torch.isfinite(tensor.float() if tensor.element_size() == 1 else tensor).all():
            raise ValueError(
                f"{where}: {name} holds NaN or infinity: the training failed, or the file is bad"
            )


def check_tensors(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """Whether a checkpoint has the tensors of a model, no others, of the same shapes and of floating point.
    Raises ValueError with the names of those that it has not, or that are otherwise."""
    both = [name for name in expected if name in found]
    faults = {
        "missing": [name for name in expected if name not in found],
        "unknown": [name for name in found if name not in expected],
        "of another shape": [
            f"{name} {list(found[name].shape)}, expected {list(expected[name].shape)}"
            for name in both
            if found[name].shape != expected[name].shape
        ],
        "whole numbers": [name for name in both if not found[name].is_floating_point()],
    }
    for kind, names in faults.items():
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            raise ValueError(f"{len(names)} tensors are {kind}: {', '.join(names[:5])}{more}")


class CheckedWeights:
    """For a `ModelMixin`: `from_pretrained` refuses weights that are missing, left over, of another shape,
    not of floating point, or not finite, with a ValueError that names the tensor.

    diffusers itself fills in what is missing, leaves out what is left over, and casts whole numbers; with
    `ignore_mismatched_sizes=True` it still does.
    """

    @classmethod
    def _load_pretrained_model(
        cls, model: Any, state_dict: Any, files: Any, path: Any, loaded_keys: Any, **options: Any
    ) -> Any:
        checked = not options.get("ignore_mismatched_sizes")
        if checked and options.get("hf_quantizer") is None:  # whose tensors are its own
            parts = [state_dict] if state_dict is not None else map(load_state_dict, files)
            found = {name: tensor for part in parts for name, tensor in part.items()}
            try:
                check_tensors(found, model.state_dict())
            except ValueError as error:
                wrapped = any(".base_layer." in name for name in found)  # by peft
                why = "; with a LoRA, fuse_lora and unload_lora_weights go before saving" if wrapped else ""
                raise ValueError(f"{path}: the weights do not fit config.json: {error}{why}") from None
        result = super()._load_pretrained_model(model, state_dict, files, path, loaded_keys, **options)  # type: ignore[misc]
        if checked:
            check_finite(model.state_dict().items(), str(path))
        return result
