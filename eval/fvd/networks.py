"""The networks whose features are compared, by name."""

from __future__ import annotations

from pathlib import Path

import torch

from eval.flags import ExtractionFlags, ExtractorName
from eval.fvd.features import FeatureExtractor
from eval.fvd.i3d import load_i3d
from vidtwin_gen.devices import find_device


def load_extractor(
    name: ExtractorName,
    weights: str | Path | None = None,
    device: str | torch.device = "cpu",
    *,
    weights_sha256: str | None = None,
    revision: str | None = None,
) -> FeatureExtractor:
    """An extractor with its weights.

    Args:
        name: "i3d", with which FVD is defined, or "videomae", for the content-debiased distance.
        weights: for I3D a file; left out, it is looked for as `vidtwin_gen.weights` says. For VideoMAE a
            folder or the name of a model on the hub; left out, what VIDTWIN_GEN_VIDEOMAE names.
        weights_sha256: the digest that they must have, in place of a published one.
        revision: of a model on the hub.

    Raises:
        MissingWeightsError: no weights. ValueError: other weights, or an unknown name.
    """
    if name == "i3d":
        return load_i3d(weights, device, weights_sha256)
    if name == "videomae":
        # imported where it is asked for: transformers takes seconds
        from eval.fvd.videomae import load_videomae

        return load_videomae(weights, device, weights_sha256, revision)
    raise ValueError(f"no extractor is named {name!r}: i3d or videomae")


def extractor_of(flags: ExtractionFlags) -> FeatureExtractor:
    """The extractor that flags name, on their device. Raises as `load_extractor` and `find_device`."""
    return load_extractor(
        flags.extractor,
        flags.weights,
        find_device(flags.device),
        weights_sha256=flags.weights_sha256,
        revision=flags.weights_revision,
    )
