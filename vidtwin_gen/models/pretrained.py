"""Saved models of transformers: where one is, that it is whole, and the colours that it was trained on."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import snapshot_download

from vidtwin_gen.files import file_sha256, first_line
from vidtwin_gen.weights import HUB_TIMEOUT_S, MissingWeightsError

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
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise MissingWeightsError(f"{name} is no folder, and no name of a model on the hub, e.g. {example}")
    try:
        patterns = ["config.json", *PROCESSORS, "*.safetensors"]
        fetched = snapshot_download(
            name, revision=revision, allow_patterns=patterns, etag_timeout=HUB_TIMEOUT_S
        )
    except Exception as error:  # of the hub's own classes, of httpx and of the disk
        reason = first_line(error.__cause__ or error)
        raise MissingWeightsError(
            f"the model {name} (revision {revision or 'main'}) is not on this machine and the hub did not "
            f"give it ({type(error).__name__}: {reason}): correct the name, let this machine reach the hub, "
            "or name a folder that holds the model"
        ) from error
    return Path(fetched), f"{name}@{Path(fetched).name}"  # the cache keeps a commit in a folder of its name


def weights_digest(folder: Path) -> str:
    """The sha256 of the folder's one safetensors file; of several, that of the lines "<sha256>  <name>" by
    name, as sha256sum prints them. Raises ValueError where there is none."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(
            f"{folder} has no weights in safetensors; other formats can run code when they are read. Load "
            "the model where it is trusted and write it with save_pretrained"
        )
    digests = [file_sha256(file) for file in files]
    if len(files) == 1:
        return digests[0]
    lines = "".join(f"{digest}  {file.name}\n" for digest, file in zip(digests, files, strict=True))
    return hashlib.sha256(lines.encode()).hexdigest()


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
