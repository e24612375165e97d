"""Two-stage latent video diffusion on VidTwin's decoupled latents.

    from vidtwin_gen import VidTwinPipeline

Importing this package makes its classes known to diffusers: `DiffusionPipeline.from_pretrained` and
`AutoModel.from_pretrained` load what it saved. The classes themselves are imported when first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vidtwin_gen._registration import register_with_diffusers

if TYPE_CHECKING:
    from autoencoder.model.vidtwin import AutoencoderVidTwin
    from pipelines.pipeline_output import VidTwinPipelineOutput
    from pipelines.pipeline_vidtwin import VidTwinPipeline
    from vidtwin_gen.latents import LatentGrid, LatentLayout
    from vidtwin_gen.models.transformer import LatentTransformer

__version__ = "0.2.0.dev0"

__all__ = [
    "AutoencoderVidTwin",
    "LatentGrid",
    "LatentLayout",
    "LatentTransformer",
    "VidTwinPipeline",
    "VidTwinPipelineOutput",
]

_HOME = {
    "AutoencoderVidTwin": "autoencoder.model.vidtwin",
    "LatentGrid": "vidtwin_gen.latents",
    "LatentLayout": "vidtwin_gen.latents",
    "LatentTransformer": "vidtwin_gen.models.transformer",
    "VidTwinPipeline": "pipelines.pipeline_vidtwin",
    "VidTwinPipelineOutput": "pipelines.pipeline_output",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_with_diffusers(
    __name__, components=["AutoencoderVidTwin", "LatentTransformer"], pipelines=["VidTwinPipeline"]
)
