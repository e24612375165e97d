"""The modules that a configuration of `AutoencoderVidTwin` asks for: encoders and decoders of its latents."""

from __future__ import annotations

from typing import Any

from torch import nn

from autoencoder.model.ablations import (
    ConvolutionalStructureEncoder,
    FrameStructureDecoder,
    FrameStructureEncoder,
    QueryDynamicsDecoder,
    QueryDynamicsEncoder,
)
from autoencoder.model.dynamics import DynamicsDecoder, DynamicsEncoder
from autoencoder.model.structure import StructureDecoder, StructureEncoder

Pair = tuple[type[nn.Module], type[nn.Module]]

# structure_type: an encoder, (B, D, F, h, w) -> means and log-variances of the Structure grid, along its last
# axis; and a decoder, the grid -> its share of the tokens, (B, D, F, h, w)
STRUCTURE: dict[str, Pair] = {
    "qformer": (StructureEncoder, StructureDecoder),
    "convolution": (ConvolutionalStructureEncoder, StructureDecoder),
    "frame_qformer": (FrameStructureEncoder, FrameStructureDecoder),
}
# dynamics_type: the same for the grids of Dynamics, of which an encoder gives a tuple
DYNAMICS: dict[str, Pair | None] = {
    "average": (DynamicsEncoder, DynamicsDecoder),
    "qformer": (QueryDynamicsEncoder, QueryDynamicsDecoder),
    "none": None,
}


def check_types(config: Any) -> None:
    """Raises ValueError for a type of Structure or Dynamics that there is not."""
    for name, choices in (("structure_type", STRUCTURE), ("dynamics_type", DYNAMICS)):
        if config[name] not in choices:
            raise ValueError(f"{name} is one of {', '.join(choices)}; got {config[name]!r}")
