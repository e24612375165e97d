"""The released VidTwin checkpoint (microsoft/VidTok, MIT) in this package's names, and the way back."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar
from zipfile import ZipFile, is_zipfile

import torch
from accelerate import init_empty_weights
from diffusers.models.modeling_utils import ModelMixin
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from safetensors.torch import load_file

from vidtwin_gen.data.names import some
from vidtwin_gen.files import check_readable, first_line
from vidtwin_gen.flags import is_hub_id
from vidtwin_gen.models.checks import check_finite, check_tensors

Model = TypeVar("Model", bound=ModelMixin)

WANTED = "name the .ckpt of VidTwin, or a .safetensors"
RELEASED_FILE = "checkpoints/vidtwin_structure_7_7_8_dynamics_7_8.ckpt"  # in microsoft/vidtwin on the hub

# Not part of the autoencoder: the loss's networks, positions that are computed here, and two layers that the
# release builds at both ends of its transformers and never calls.
DROPPED = re.compile(
    r"loss\..+|(?:encoder|decoder)\.pos_embed(?:_temporal)?|encoder\.final_layer\..+|decoder\.x_embedder\..+"
)

# In order, each applied once at the beginning of a key.
PREFIXES = {
    "encoder.x_embedder.proj.": "patch_embed.proj.",
    "encoder.blocks.": "encoder.blocks.",
    "decoder.blocks.": "decoder.blocks.",
    "decoder.final_layer.": "patch_output.",
    "temporal_qformer.query_embeds": "structure_encoder.query_embeds",
    "temporal_qformer.qformer.": "structure_encoder.qformer.",
    "conv_in.": "structure_encoder.conv_in.",
    "content_downsample_blocks.": "structure_encoder.down.",
    "bottle_down.": "structure_encoder.bottleneck.",
    "bottle_up.": "structure_decoder.bottleneck.",
    "content_upsample_blocks.": "structure_decoder.up.",
    "conv_out.": "structure_decoder.conv_out.",
    "cont_emb.0.": "structure_decoder.expand.0.",
    "cont_emb.2.": "structure_decoder.to_frames.0.",
    "downsample_motion_module.": "dynamics_encoder.down.",
    "motion_head.": "dynamics_encoder.head.",
    "motion_emb.": "dynamics_decoder.expand.",
    "up_motion.": "dynamics_decoder.up.0.",
}

BLOCK = re.compile(r"(?P<block>(?:encoder|decoder)\.blocks\.\d+)\.(?P<layer>.+)\.(?P<kind>weight|bias)")
BLOCK_LAYERS = {
    "attn.proj": "attn.to_out.0",
    "attn_temp.proj": "attn_temporal.to_out.0",
    "mlp.fc1": "mlp.net.0.proj",
    "mlp.fc2": "mlp.net.2",
}
FUSED = {"attn.qkv": "attn", "attn_temp.qkv": "attn_temporal"}
PROJECTIONS = ("to_q", "to_k", "to_v")


def convert_released_state_dict(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict of the released code -> that of `AutoencoderVidTwin`. Values are views, never changed.

    The fused projection (3 D, D) of the release becomes queries, keys and values. What the autoencoder does
    not use is dropped: the loss's networks, positional tables, `encoder.final_layer`, `decoder.x_embedder`.
    Raises ValueError for a key that the release does not have.
    """
    converted: dict[str, torch.Tensor] = {}
    unknown = []
    for key, value in state_dict.items():
        match = BLOCK.fullmatch(key)
        if DROPPED.fullmatch(key):
            continue
        if match and match["layer"] in FUSED:
            attention = f"{match['block']}.{FUSED[match['layer']]}"
            for name, part in zip(PROJECTIONS, value.chunk(3), strict=True):
                converted[f"{attention}.{name}.{match['kind']}"] = part
        elif (renamed := _renamed(key, PREFIXES, BLOCK_LAYERS)) is not None:
            converted[renamed] = value
        else:
            unknown.append(key)
    if unknown:
        raise ValueError(
            f"{len(unknown)} keys are not of the released VidTwin: {some(unknown)}; expected the "
            "`state_dict` of its checkpoint"
        )
    return converted


def to_released_state_dict(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The inverse of `convert_released_state_dict`. What that function drops is not in the result, so the
    released code has to load it with strict=False, as its own scripts do.

    Raises:
        ValueError: a key that the release has no place for, such as a second `dynamics_decoder.up` of a model
            that is not square.
    """
    prefixes = {ours: released for released, ours in PREFIXES.items()}
    layers = {ours: released for released, ours in BLOCK_LAYERS.items()}
    fused = {ours: released for released, ours in FUSED.items()}
    released: dict[str, torch.Tensor] = {}
    for key, value in state_dict.items():
        match = BLOCK.fullmatch(key)
        attention, _, part = match["layer"].rpartition(".") if match else ("", "", "")
        if match and part in PROJECTIONS:
            if part == PROJECTIONS[0]:
                parts = [
                    state_dict[f"{match['block']}.{attention}.{name}.{match['kind']}"] for name in PROJECTIONS
                ]
                released[f"{match['block']}.{fused[attention]}.{match['kind']}"] = torch.cat(parts)
        elif (renamed := _renamed(key, prefixes, layers)) is not None:
            released[renamed] = value
        else:
            raise ValueError(f"{key} has no place in the released VidTwin; is the model square?")
    return released


def _renamed(key: str, prefixes: Mapping[str, str], layers: Mapping[str, str]) -> str | None:
    """A key, not of a fused projection, under its other name; None where it has none."""
    if match := BLOCK.fullmatch(key):
        layer = layers.get(match["layer"])
        return f"{match['block']}.{layer}.{match['kind']}" if layer else None
    prefix = next((prefix for prefix in prefixes if key.startswith(prefix)), None)
    return None if prefix is None else prefixes[prefix] + key.removeprefix(prefix)


def infer_config(
    state_dict: Mapping[str, torch.Tensor], *, num_heads: int | None = None, qformer_heads: int = 8
) -> dict[str, Any]:
    """The constructor's arguments behind a released state dict, from the shapes of its tensors.

    Heads leave no trace in a shape: `num_heads` is by default one for every 64 of the width, as in the
    paper's small and base models. Nor does the causal mask, which the released model uses.

    Raises:
        ValueError: a tensor that the sizes are read from is missing, or is not of a square VidTwin.
    """

    def shape(key: str, dims: int) -> list[int]:
        if key not in state_dict:
            raise ValueError(f"{key} is missing: not a checkpoint of the released VidTwin")
        if state_dict[key].ndim != dims:
            raise ValueError(f"{key} has shape {list(state_dict[key].shape)}, expected {dims} dimensions")
        return list(state_dict[key].shape)

    def count(pattern: str) -> int:
        return len({match[1] for key in state_dict if (match := re.match(pattern, key))})

    width, in_channels, *patch = shape("encoder.x_embedder.proj.weight", 5)
    if patch[0] != 1 or patch[1] != patch[2]:
        raise ValueError(
            f"encoder.x_embedder.proj.weight has patches {patch}, expected one frame and a square"
        )
    positions = shape("encoder.pos_embed", 3)[1]
    side = math.isqrt(positions)
    if side**2 != positions:
        raise ValueError(f"encoder.pos_embed has {positions} positions, expected those of a square grid")
    num_queries, query_width = shape("temporal_qformer.query_embeds", 2)
    qformer_layer = "temporal_qformer.qformer.encoder.layer"
    return {
        "num_frames": shape("cont_emb.2.weight", 3)[0],
        "height": side * patch[1],
        "width": side * patch[1],
        "in_channels": in_channels,
        "patch_size": patch[1],
        "hidden_size": width,
        "num_layers": count(r"encoder\.blocks\.(\d+)\."),
        "num_heads": max(1, width // 64) if num_heads is None else num_heads,
        "mlp_ratio": shape("encoder.blocks.0.mlp.fc1.weight", 2)[0] / width,
        "num_queries": num_queries,
        "query_hidden_size": query_width,
        "qformer_layers": count(rf"{re.escape(qformer_layer)}\.(\d+)\."),
        "qformer_heads": qformer_heads,
        "qformer_intermediate_size": shape(f"{qformer_layer}.0.intermediate_query.dense.weight", 2)[0],
        "structure_channels": shape("bottle_up.0.weight", 4)[1],
        "structure_down_blocks": count(r"content_downsample_blocks\.(\d+)\."),
        "structure_base_channels": shape("conv_in.weight", 4)[0],
        "dynamics_channels": shape("motion_emb.0.weight", 2)[1],
        "dynamics_down_blocks": count(r"downsample_motion_module\.(\d+)\."),
    }


def load_released(
    model_class: type[Model],
    path_or_repo_id: str | Path,
    *,
    num_heads: int | None = None,
    qformer_heads: int = 8,
    **hub_options: Any,
) -> Model:
    """The released checkpoint as an autoencoder in evaluation mode, float32.

    Args:
        model_class: `AutoencoderVidTwin`, whose `from_released` this is, or a class that inherits from it.
        path_or_repo_id: a Lightning .ckpt or a .safetensors file; or a repository on the hub, such as
            microsoft/vidtwin, from which `RELEASED_FILE` is fetched.
        num_heads, qformer_heads: see `infer_config`.
        hub_options: of `huggingface_hub.hf_hub_download`: filename, revision, cache_dir, ...

    Raises:
        ValueError: not such a file, no way to the hub, or a key that is unknown, missing or of another shape.
        TypeError: an option that is none of these.
    """
    path = _find(path_or_repo_id, hub_options)
    state_dict = read_checkpoint(path)
    try:
        converted = convert_released_state_dict(state_dict)
        config = infer_config(state_dict, num_heads=num_heads, qformer_heads=qformer_heads)
        with init_empty_weights():  # but for the positional tables, which are computed
            model = model_class(**config)
        live = {key: value for key, value in state_dict.items() if not DROPPED.fullmatch(key)}
        check_tensors(live, to_released_state_dict(model.state_dict()))
        check_finite(converted.items(), "its weights")
    except (ValueError, RuntimeError) as error:  # of torch for a tensor without dimensions
        raise ValueError(f"{path}: {error}") from None
    model.load_state_dict({key: value.float() for key, value in converted.items()}, assign=True)
    return model.eval()


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """The state dict in a Lightning .ckpt or a .safetensors file. Of a pickle only tensors are read. Raises
    ValueError where the file is neither, or is damaged."""
    try:
        check_readable(path)
        if path.suffix == ".safetensors":
            return load_file(path)
        if is_zipfile(path):  # torch compares no checksums
            with ZipFile(path) as archive:
                if damaged := archive.testzip():
                    raise OSError(f"{damaged} in it is not as it was written")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a pickle that is damaged raises whatever its bytes happen to ask for
        reason = first_line(error)
        raise ValueError(f"{path} can't be read as a checkpoint: {reason}; {WANTED}") from None
    state_dict = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, dict) else None
    if (
        not isinstance(state_dict, dict)
        or not state_dict
        or not all(isinstance(value, torch.Tensor) for value in state_dict.values())
    ):
        raise ValueError(f"{path} holds no state_dict of tensors; expected a Lightning checkpoint")
    for key, value in state_dict.items():
        if not isinstance(key, str) or value.layout != torch.strided or value.is_meta:
            raise ValueError(f"{path}: {key!r} is no dense tensor with a name, as a checkpoint's are")
    return state_dict


def _find(path_or_repo_id: str | Path, hub_options: dict[str, Any]) -> Path:
    path, name = Path(path_or_repo_id), str(path_or_repo_id)
    options = {"filename": RELEASED_FILE, **hub_options}
    inspect.signature(hf_hub_download).bind(name, **options)  # a misspelt one fails for a file, too
    if path.is_file():
        return path
    if path.suffix in (".ckpt", ".safetensors") or not is_hub_id(name):
        raise ValueError(
            f"{name} is no file; expected a .ckpt, a .safetensors or the name of a hub repository"
        )
    try:
        return Path(hf_hub_download(name, **options))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ValueError(
            f"{name} can't be fetched from the hub ({type(error).__name__}); where there is no network, copy "
            f"{RELEASED_FILE} of that repository here and name the file"
        ) from None
