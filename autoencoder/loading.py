"""A saved autoencoder by its path, checked before it is loaded: what does not fit is one clear error."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from accelerate import init_empty_weights
from safetensors import SafetensorError, safe_open

from autoencoder.vidtwin import AutoencoderVidTwin

CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"
WANTED = (
    "name the folder of a saved AutoencoderVidTwin, the one that train_vae writes or a pipeline's vae/, or a "
    "released checkpoint, a .ckpt or .safetensors file"
)


def load_autoencoder(path: str | Path) -> AutoencoderVidTwin:
    """A folder of `save_pretrained`, or a file that is the released checkpoint; in evaluation mode.

    Raises:
        ValueError: it is neither, or as `load_folder` and `autoencoder.convert.load_released`.
    """
    if Path(path).is_file():
        return AutoencoderVidTwin.from_released(path)
    return load_folder(path)


def load_folder(folder: str | Path) -> AutoencoderVidTwin:
    """What `save_pretrained` wrote, in evaluation mode.

    Of the weights only the names and shapes are read before `from_pretrained`, whose own errors would name
    neither the file nor a way out, and which goes on where tensors are missing.

    Raises:
        ValueError: no such folder, a model of another class, sizes that the architecture cannot take, or
            weights that are missing, truncated or of another architecture.
    """
    folder = Path(folder)
    config_path = folder / CONFIG
    if not config_path.is_file():
        seen = f"{folder} holds no {CONFIG}" if folder.is_dir() else f"{folder} does not exist"
        raise ValueError(f"{seen}; {WANTED}")
    expected = _expected_shapes(config_path)
    found: dict[str, Sequence[int]] = {}
    for path in _weight_files(folder):
        found |= _stored_shapes(path)
    try:
        check_shapes(found, expected)
    except ValueError as error:
        raise ValueError(
            f"{folder}: the weights do not fit {CONFIG}: {error}; keep the two files that were saved together"
        ) from None
    return AutoencoderVidTwin.from_pretrained(folder).eval()


def check_shapes(found: Mapping[str, Sequence[int]], expected: Mapping[str, Sequence[int]]) -> None:
    """Whether a checkpoint has the tensors of a model, no others, and of the same shapes, by their names.

    Raises:
        ValueError: tensors that are missing, unknown or of another shape, named.
    """
    missing = [key for key in expected if key not in found]
    unknown = [key for key in found if key not in expected]
    wrong = [
        f"{key} {list(found[key])}, expected {list(expected[key])}"
        for key in expected
        if key in found and list(found[key]) != list(expected[key])
    ]
    for kind, keys in (("missing", missing), ("unknown", unknown), ("of another shape", wrong)):
        if keys:
            raise ValueError(
                f"{len(keys)} tensors are {kind}: {', '.join(keys[:5])}{' ...' * (len(keys) > 5)}"
            )


def _expected_shapes(config_path: Path) -> dict[str, Sequence[int]]:
    """Of the tensors that a model of this config has."""
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
    except ValueError as error:  # of JSON or of UTF-8
        raise ValueError(f"{config_path} can't be read as JSON: {error}; copy the folder again") from None
    name = config.get("_class_name") if isinstance(config, dict) else None
    if name != AutoencoderVidTwin.__name__:
        raise ValueError(f"{config_path} is of {name}, not of an AutoencoderVidTwin; {WANTED}")
    try:
        with init_empty_weights():
            model = AutoencoderVidTwin.from_config(config)
    except (ValueError, TypeError) as error:  # a size that does not go, or is no number
        raise ValueError(f"{config_path}: {error}; it should be as it was saved") from None
    return {key: value.shape for key, value in model.state_dict().items()}


def _weight_files(folder: Path) -> list[Path]:
    """The one file, or the parts that `save_pretrained` makes of a very large model."""
    index = folder / f"{WEIGHTS}.index.json"
    names = {WEIGHTS}
    if index.is_file():
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    for name in names:
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name} is missing; copy the whole folder that save_pretrained wrote")
    return [folder / name for name in sorted(names)]


def _stored_shapes(path: Path) -> dict[str, Sequence[int]]:
    """Read from the header, which also says how long the file should be."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} can't be read as safetensors, truncated or another format: {error}; copy it again"
        ) from None
