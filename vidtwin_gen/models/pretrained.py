"""Saved models of transformers: where one is, that it is whole, and the colours that it was trained on."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vidtwin_gen.flags import is_hub_id
from vidtwin_gen.weights import MissingWeightsError, hub_folder

# VideoMAE has an image processor, V-JEPA 2 a video processor
PROCESSORS = ("preprocessor_config.json", "video_preprocessor_config.json")
# ImageNet's colours, with which transformers' processors of video models begin
DEFAULT_MEAN = (0.485, 0.456, 0.406)
DEFAULT_STD = (0.229, 0.224, 0.225)


class Colours(NamedTuple):
    """What becomes of colours 0..255: times `scale`, minus `mean`, over `std`."""

    scale: float = 1 / 255
    mean: tuple[float, ...] = DEFAULT_MEAN
    std: tuple[float, ...] = DEFAULT_STD


def find_pretrained(name: str, revision: str | None = None, *, example: str) -> tuple[Path, str]:
    """The folder of a saved model, and what records call it: a folder by its name, without the path; a model
    of the hub with its commit.

    Args:
        name: a folder, or OWNER/NAME on the hub, out of whose cache it comes once it was fetched.
        revision: on the hub. example: a name there, for messages.

    Raises:
        MissingWeightsError: it is neither, or not to be had.
    """
    if Path(name).is_dir():
        return Path(name), Path(name).resolve().name
    if not is_hub_id(name):
        raise MissingWeightsError(f"{name} is no folder, and no name of a model on the hub, e.g. {example}")
    folder = hub_folder(name, (*PROCESSORS, "*.safetensors"), example, revision)
    return folder, f"{name}@{folder.name}"  # the cache keeps a commit in a folder of its name


def model_type(folder: Path, known: Collection[str], *, example: str) -> str:
    """What config.json says. Raises ValueError where it is not one of `known`."""
    path = folder / "config.json"
    kind = json.loads(path.read_text(encoding="utf-8")).get("model_type") if path.is_file() else "missing"
    if kind not in known:
        raise ValueError(
            f"{path}: model_type is {kind}, expected {' or '.join(known)}; name the folder of such a model "
            f"that save_pretrained wrote, or one of the hub, e.g. {example}"
        )
    return str(kind)


def load_frozen(model_class: Any, folder: Path) -> Any:
    """A model of transformers in evaluation mode, float32, without gradients. Raises ValueError where weights
    of it are missing: they would be random numbers."""
    model, found = model_class.from_pretrained(folder, use_safetensors=True, output_loading_info=True)
    missing = sorted(found["missing_keys"]) + sorted(found["mismatched_keys"])
    if missing:
        raise ValueError(
            f"{folder} lacks {len(missing)} tensors of {model_class.__name__}, the first {missing[0]}: they "
            "would be random numbers. Name a whole model, e.g. what its save_pretrained writes (of published "
            "VideoMAE models transformers before 5.19 leaves out biases)"
        )
    return model.eval().requires_grad_(False).float()


def pair(side: int | Sequence[int]) -> tuple[int, int]:
    """Height and width as a config has them, one number where they are the same."""
    return (side, side) if isinstance(side, int) else (side[0], side[1])


def colours(folder: Path) -> Colours | None:
    """As the model's processor has them; None where no processor was saved with it."""
    path = next((folder / name for name in PROCESSORS if (folder / name).is_file()), None)
    if path is None:
        return None
    said: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    scale = said.get("rescale_factor", 1 / 255) if said.get("do_rescale", True) else 1.0
    if not said.get("do_normalize", True):
        return Colours(scale, (0.0,) * 3, (1.0,) * 3)
    return Colours(
        scale, tuple(said.get("image_mean", DEFAULT_MEAN)), tuple(said.get("image_std", DEFAULT_STD))
    )
