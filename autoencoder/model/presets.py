"""The paper's models by name: three sizes of the trunk, three settings of the latents, the released one."""

from __future__ import annotations

from typing import Any

# arXiv 2412.17726, Table 4
SIZES: dict[str, dict[str, Any]] = {
    "small": {"hidden_size": 512, "num_layers": 12, "num_heads": 8},
    "base": {"hidden_size": 768, "num_layers": 16, "num_heads": 12},
    "large": {"hidden_size": 1536, "num_layers": 16, "num_heads": 12},
}

# arXiv 2412.17726, the recommended settings (Table 5; in the CVPR version Table 8)
SETTINGS: dict[str, dict[str, Any]] = {
    "1": {"num_queries": 16, "structure_channels": 4, "dynamics_channels": 8, "dynamics_down_blocks": 1},
    "2": {"num_queries": 16, "structure_channels": 4, "dynamics_channels": 16, "dynamics_down_blocks": 2},
    "3": {"num_queries": 12, "structure_channels": 4, "dynamics_channels": 8, "dynamics_down_blocks": 1},
}

# The arguments of AutoencoderVidTwin that differ from its defaults or name what they are: "base-1" is the
# size base at setting 1, all of them at 16 x 224 x 224; "released" is the published checkpoint's.
PRESETS: dict[str, dict[str, Any]] = {
    f"{size}-{setting}": SIZES[size] | SETTINGS[setting] for size in SIZES for setting in SETTINGS
} | {"released": SIZES["base"] | SETTINGS["1"] | {"structure_channels": 8}}


def preset(name: str) -> dict[str, Any]:
    """The arguments of `AutoencoderVidTwin` for a model of the paper; "small", "base" and "large" alone are
    at setting 1. Raises ValueError for a name that there is not."""
    full = f"{name}-1" if name in SIZES else name
    if full not in PRESETS:
        raise ValueError(f"no preset {name!r} of the autoencoder; there are {', '.join(PRESETS)}")
    return dict(PRESETS[full])
