"""VideoMAE as a feature extractor, for the content-debiased video distance."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from einops import rearrange
from transformers import VideoMAEConfig, VideoMAEForVideoClassification, VideoMAEModel

from eval.fvd.features import check_length, resize_name, resized
from vidtwin_gen.models.pretrained import (
    Colours,
    colours,
    find_pretrained,
    load_frozen,
    model_type,
    pair,
)
from vidtwin_gen.weights import MissingWeightsError, weights_digest

VARIABLE = "VIDTWIN_GEN_VIDEOMAE"
EXAMPLE = "MCG-NJU/videomae-base-finetuned-ssv2"


class VideoMAEFeatures:
    """Features of a VideoMAE in transformers' format (Tong et al., arXiv 2203.12602), in which the Fréchet
    distance says more about motion and less about content than in I3D's (Ge et al., arXiv 2404.12391).

    Shapes: (B, F, H, W, 3) uint8 clips, F as the model was trained, 16 -> (B, hidden size) float32: the mean
    of the last layer's tokens, normalised by the classifier's own layer norm where the model has one, which
    is what goes into the classifier. Frames are resized inside as for I3D, the whole frame to the model's
    size, then standardised as preprocessor_config.json says, or else as ImageNet's colours.

    This is not the number that the package cd-fvd prints. That one takes a VideoMAE V2 ViT-g trained on
    Something-Something V2, which is not published in transformers' format, gives it colours in [0, 1] without
    standardising them, and divides the covariance by N. Compare only under one protocol, which the name and
    the digest here are part of.

    Args:
        folder: of a saved model, safetensors. model_id: its name for the records.

    Raises:
        ValueError: no VideoMAE, or one with weights missing; a clip of another length or type.
    """

    def __init__(self, folder: Path, model_id: str, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        model_type(folder, ("videomae",), example=EXAMPLE)
        config = VideoMAEConfig.from_pretrained(folder)
        classifies = VideoMAEForVideoClassification.__name__ in (config.architectures or ())
        model = load_frozen(VideoMAEForVideoClassification if classifies else VideoMAEModel, folder)
        model = model.to(self.device)
        self.backbone = model.videomae if classifies else model
        self.norm = model.fc_norm if classifies else None
        self.size = pair(config.image_size)
        self.scale, self.mean, self.std = colours(folder) or Colours()
        self.name = f"videomae {model_id}"
        self.dim = config.hidden_size
        self.min_frames = self.max_frames = config.num_frames
        self.resize = (
            f"{resize_name(self.size)}; times {self.scale:.6g}, mean {list(self.mean)}, std {list(self.std)}"
        )
        self.weights_sha256 = weights_digest(folder)

    @torch.inference_mode()
    def __call__(self, clips: torch.Tensor) -> torch.Tensor:
        frames = resized(clips, self.size, self.device)  # (B, F, 3, h, w)
        check_length(self, clips.shape[1])
        mean, std = (
            rearrange(torch.tensor(x, device=self.device), "c -> c 1 1") for x in (self.mean, self.std)
        )
        x = (frames * self.scale - mean) / std
        # TF32, cuDNN's default, rounds the patches' convolution otherwise than a CPU does
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            tokens = self.backbone(pixel_values=x).last_hidden_state  # (B, n, dim)
        pooled = tokens.mean(1)  # (B, dim)
        return pooled if self.norm is None else self.norm(pooled)


def load_videomae(
    weights: str | Path | None = None,
    device: str | torch.device = "cpu",
    sha256: str | None = None,
    revision: str | None = None,
) -> VideoMAEFeatures:
    """A VideoMAE from a folder, or by its name on the hub; left out, what VIDTWIN_GEN_VIDEOMAE names.

    Args:
        sha256: the digest that `weights_digest` must give. No model is the only right one, so without it any
            is taken, and recorded.
        revision: of the model on the hub; the commit is part of the recorded name either way.

    Raises:
        MissingWeightsError: nothing named, or not to be had. ValueError: not this digest, or no VideoMAE.
    """
    named = str(weights or os.environ.get(VARIABLE) or "")
    if not named:
        raise MissingWeightsError(
            f"VideoMAE wants a model: name a folder or a model of the hub, e.g. {EXAMPLE}, by --weights or "
            f"by {VARIABLE}"
        )
    folder, model_id = find_pretrained(named, revision, example=EXAMPLE)
    digest = weights_digest(folder)
    if sha256 and sha256.lower() != digest:
        raise ValueError(
            f"the weights of {named} have sha256 {digest}, not {sha256} as was named for them: correct the "
            "digest, or the model"
        )
    return VideoMAEFeatures(folder, model_id, device)
