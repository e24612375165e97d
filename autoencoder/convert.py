"""The released VidTwin checkpoint (microsoft/VidTok, MIT) in this package's names."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

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


def convert_released_state_dict(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict of the released code -> that of `AutoencoderVidTwin`. Values are views, never changed.

    The fused projection (3 D, D) of the release becomes queries, keys and values. What the autoencoder does
    not use is dropped: the loss's networks, positional tables, `encoder.final_layer`, `decoder.x_embedder`.

    Raises:
        ValueError: a key that the release does not have.
    """
    converted: dict[str, torch.Tensor] = {}
    unknown = []
    for key, value in state_dict.items():
        if DROPPED.fullmatch(key):
            continue
        prefix = next((prefix for prefix in PREFIXES if key.startswith(prefix)), None)
        if prefix is None:
            unknown.append(key)
            continue
        match = BLOCK.fullmatch(key)
        if match is None:
            converted[PREFIXES[prefix] + key.removeprefix(prefix)] = value
        elif match["layer"] in FUSED:
            attention = f"{match['block']}.{FUSED[match['layer']]}"
            for name, part in zip(("to_q", "to_k", "to_v"), value.chunk(3), strict=True):
                converted[f"{attention}.{name}.{match['kind']}"] = part
        elif match["layer"] in BLOCK_LAYERS:
            converted[f"{match['block']}.{BLOCK_LAYERS[match['layer']]}.{match['kind']}"] = value
        else:
            unknown.append(key)
    if unknown:
        raise ValueError(
            f"{len(unknown)} keys are not of the released VidTwin: {', '.join(unknown[:5])}"
            f"{' ...' if len(unknown) > 5 else ''}; expected the `state_dict` of its checkpoint"
        )
    return converted
