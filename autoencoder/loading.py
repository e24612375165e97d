"""A saved autoencoder by its path, checked before it is loaded: what does not fit is one clear error."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from accelerate import init_empty_weights
from diffusers.models.modeling_utils import ModelMixin

from autoencoder.model.vidtwin import AutoencoderVidTwin
from vidtwin_gen.data.names import some
from vidtwin_gen.files import loading, read_json
from vidtwin_gen.weights import model_folder

CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"
COPY = "copy the whole folder that save_pretrained wrote, config.json and weights"
WANTED = (
    "name the folder of a saved AutoencoderVidTwin, the one that train_vae writes or a pipeline's vae/, or a "
    "released checkpoint, a .ckpt or .safetensors file"
)
ANY_VIDEO = (
    "name the folder of a saved AutoencoderVidTwin, or of a video autoencoder of diffusers such as "
    "AutoencoderKLWan (of a saved pipeline: its vae/)"
)
OF_RELEASED = "`python -m autoencoder convert` makes a folder of a released checkpoint"
A_CONFIG = (
    "name a JSON file of a video autoencoder's class, as _class_name, and its constructor's arguments, such "
    "as autoencoder/configs/wan.json, or a saved autoencoder's folder"
)


def load_autoencoder(path: str | Path, dtype: torch.dtype = torch.float32) -> AutoencoderVidTwin:
    """A folder of `save_pretrained`, or a file that is the released checkpoint; in evaluation mode, with
    weights of this type.

    Raises:
        ValueError: it is neither, or as `load_folder` and `autoencoder.released.load_released`.
    """
    if Path(path).is_file():
        return AutoencoderVidTwin.from_released(path).to(dtype)
    return load_folder(path, dtype)


def load_folder(folder: str | Path, dtype: torch.dtype = torch.float32) -> AutoencoderVidTwin:
    """What `save_pretrained` wrote, in evaluation mode, with weights of this type.

    Raises:
        ValueError: no such folder, a model of another class, sizes that the architecture cannot take, or
            weights that are missing, truncated or of another architecture.
    """
    folder = Path(folder)
    config = read_json(folder / CONFIG, WANTED)
    name = config.get("_class_name")
    if name != AutoencoderVidTwin.__name__:
        raise ValueError(f"{folder / CONFIG} is of {name}, not of an AutoencoderVidTwin; {WANTED}")
    try:
        # A trial, whose refusal names the file. It draws from torch's generator, too: without it a DiT, made
        # after its autoencoder is loaded, would start from other weights than before.
        with init_empty_weights():
            AutoencoderVidTwin.from_config(config)
    except (ValueError, TypeError) as error:  # a size that does not fit the others, or is no number
        raise ValueError(f"{folder / CONFIG}: {error}; it should be as it was saved") from None
    _check_weight_files(folder)
    with loading(folder, COPY):
        return AutoencoderVidTwin.from_pretrained(folder, dtype=dtype).eval()


def _check_weight_files(folder: Path) -> None:
    """Raises ValueError where weights are missing, the one file or, of a very large model, one of its parts:
    diffusers would look for a pickle then."""
    index = folder / f"{WEIGHTS}.index.json"
    names = set(read_json(index, COPY)["weight_map"].values()) if index.is_file() else {WEIGHTS}
    for name in sorted(names):
        if not (folder / name).is_file():
            others = sorted(file.name for file in folder.glob("diffusion_pytorch_model*"))
            way_out = COPY
            if others and not index.is_file():
                way_out = f"there is {some(others)}: save it anew, without variant and as safetensors"
            raise ValueError(f"{folder / name} is missing; {way_out}")


def load_video_autoencoder(folder: str | Path, dtype: torch.dtype = torch.float32) -> ModelMixin:
    """Ours or any video autoencoder of diffusers, whichever the config in a folder, or in a model of the hub
    (see `model_folder`), names; in evaluation mode, with weights of this type.

    Raises:
        ValueError: as `load_folder` and `model_folder`; a class that is no video autoencoder, or whose
            decoder takes more than a latent or draws noise of its own; weights that are missing or do not
            fit.
    """
    folder = model_folder(folder)
    config = read_json(folder / CONFIG, OF_RELEASED if folder.is_file() else ANY_VIDEO)
    name = config.get("_class_name")
    if name == AutoencoderVidTwin.__name__:
        return load_folder(folder, dtype)
    model_class = _class_of(config, folder / CONFIG, ANY_VIDEO)
    _check_weight_files(folder)
    with loading(f"{folder}: the {name}", "copy the folder again"):
        model, report = model_class.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, output_loading_info=True
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise ValueError(
            f"{folder}: {len(missing)} tensors that {CONFIG} wants are missing: {some(missing)}; keep the "
            "two files that were saved together"
        )
    return model.eval()


def build_video_autoencoder(path: str | Path) -> ModelMixin:
    """One with random weights, ours or any video autoencoder of diffusers: `path` is a JSON file of its
    constructor's arguments with its class as `_class_name`, as a saved folder's config.json is.

    Raises:
        ValueError: as `load_video_autoencoder` for the class; an argument that its constructor does not have;
            sizes that do not go together.
    """
    config = read_json(path, A_CONFIG)
    is_own = config.get("_class_name") == AutoencoderVidTwin.__name__
    model_class = AutoencoderVidTwin if is_own else _class_of(config, path, A_CONFIG)
    # of an exported one auto_map says where its code is
    arguments = {k: value for k, value in config.items() if not k.startswith("_") and k != "auto_map"}
    known = list(inspect.signature(model_class.__init__).parameters)[1:]
    if unknown := [name for name in arguments if name not in known]:
        raise ValueError(f"{path}: {model_class.__name__} has no {unknown[0]}; it has {', '.join(known)}")
    try:
        return model_class(**arguments)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {model_class.__name__} can't have these sizes: {error}") from None


def _class_of(config: Mapping[str, Any], path: str | Path, way_out: str) -> Any:
    """Diffusers' class that a config names. Raises ValueError for one that can't stand in for ours."""
    name = config.get("_class_name")
    model_class = getattr(diffusers, str(name), None)
    if objection := _objection(model_class, config):
        raise ValueError(f"{path} is of {name}, {objection}; {way_out}")
    return model_class


def _objection(model_class: Any, config: Mapping[str, Any]) -> str | None:
    """Why a class named by a config can't stand in for ours."""
    is_model = inspect.isclass(model_class) and issubclass(model_class, ModelMixin)
    if not (is_model and hasattr(model_class, "encode") and hasattr(model_class, "decode")):
        return "no autoencoder of diffusers"
    _, _, *others = inspect.signature(model_class.decode).parameters.values()
    needed = [parameter.name for parameter in others if parameter.default is parameter.empty]
    if config.get("timestep_conditioning"):  # LTX
        needed.append("temb")
    if needed:
        return f"whose decode needs {', '.join(needed)} beside the latent"
    if any(config.get("decoder_inject_noise") or ()):  # LTX
        return "whose decoder draws noise, so that a latent would not say which clip it is"
    if issubclass(model_class, diffusers.AutoencoderKLAllegro):
        return "which encodes in tiles alone, and decodes to frames before channels"
    try:
        with init_empty_weights():
            model = model_class.from_config(config)
    except (ValueError, TypeError, RuntimeError) as error:
        return f"whose sizes do not go: {error}"
    # all of diffusers' video autoencoders that encode a clip at once have three-dimensional convolutions
    if all(parameter.ndim < 5 for parameter in model.parameters()):
        return "which does not work on videos"
    return None
