"""VideoMAE as a feature extractor, for the content-debiased video distance."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from huggingface_hub import snapshot_download
from transformers import VideoMAEConfig, VideoMAEForVideoClassification, VideoMAEModel

from eval.fvd.features import check_length, resize_name, resized
from vidtwin_gen.files import file_sha256
from vidtwin_gen.weights import HUB_TIMEOUT_S, MissingWeightsError

VARIABLE = "VIDTWIN_GEN_VIDEOMAE"
EXAMPLE = "MCG-NJU/videomae-base-finetuned-ssv2"
# ImageNet's colours, which the published VideoMAE models were trained with.
DEFAULT_MEAN = (0.485, 0.456, 0.406)
DEFAULT_STD = (0.229, 0.224, 0.225)


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
        config = _config(folder)
        classifies = VideoMAEForVideoClassification.__name__ in (config.architectures or ())
        cls = VideoMAEForVideoClassification if classifies else VideoMAEModel
        model, found = cls.from_pretrained(folder, use_safetensors=True, output_loading_info=True)
        missing = sorted(found["missing_keys"]) + sorted(found["mismatched_keys"])
        if missing:
            raise ValueError(
                f"{folder} lacks {len(missing)} tensors of {cls.__name__}, the first {missing[0]}: they "
                "would be random numbers. Name a whole model, e.g. what its save_pretrained writes"
            )
        model = model.eval().requires_grad_(False).float().to(self.device)
        self.backbone = model.videomae if classifies else model
        self.norm = model.fc_norm if classifies else None
        size = config.image_size
        self.size = (size, size) if isinstance(size, int) else (size[0], size[1])
        self.scale, self.mean, self.std = _colours(folder)
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
    if Path(named).is_dir():
        folder, model_id = Path(named), Path(named).resolve().name
    else:
        folder = _snapshot(named, revision)
        model_id = f"{named}@{folder.name}"  # the hub's cache keeps a commit in a folder of its name
    digest = weights_digest(folder)
    if sha256 and sha256.lower() != digest:
        raise ValueError(
            f"the weights of {named} have sha256 {digest}, not {sha256} as was named for them: correct the "
            "digest, or the model"
        )
    return VideoMAEFeatures(folder, model_id, device)


def weights_digest(folder: Path) -> str:
    """The sha256 of the folder's one safetensors file; of several, that of the lines "<sha256>  <name>" by
    name, as sha256sum prints them. Raises ValueError where there is none."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(
            f"{folder} has no weights in safetensors; other formats can run code when they are read. Load "
            "the model where it is trusted and write it with save_pretrained"
        )
    digests = [file_sha256(file) for file in files]
    if len(files) == 1:
        return digests[0]
    lines = "".join(f"{digest}  {file.name}\n" for digest, file in zip(digests, files, strict=True))
    return hashlib.sha256(lines.encode()).hexdigest()


def _config(folder: Path) -> VideoMAEConfig:
    path = folder / "config.json"
    kind = json.loads(path.read_text(encoding="utf-8")).get("model_type") if path.is_file() else "missing"
    if kind != "videomae":
        raise ValueError(
            f"{path}: model_type is {kind}, expected videomae; name the folder of a VideoMAE that "
            f"save_pretrained wrote, or one of the hub, e.g. {EXAMPLE}"
        )
    return VideoMAEConfig.from_pretrained(folder)


def _colours(folder: Path) -> tuple[float, tuple[float, ...], tuple[float, ...]]:
    """What the model's image processor does to colours 0..255: the factor, then mean and std."""
    path = folder / "preprocessor_config.json"
    said: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    scale = said.get("rescale_factor", 1 / 255) if said.get("do_rescale", True) else 1.0
    if not said.get("do_normalize", True):
        return scale, (0.0,) * 3, (1.0,) * 3
    return scale, tuple(said.get("image_mean", DEFAULT_MEAN)), tuple(said.get("image_std", DEFAULT_STD))


def _snapshot(name: str, revision: str | None) -> Path:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise MissingWeightsError(f"{name} is no folder, and no name of a model on the hub, e.g. {EXAMPLE}")
    try:
        patterns = ["config.json", "preprocessor_config.json", "*.safetensors"]
        fetched = snapshot_download(
            name, revision=revision, allow_patterns=patterns, etag_timeout=HUB_TIMEOUT_S
        )
    except Exception as error:  # of the hub's own classes, of httpx and of the disk
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise MissingWeightsError(
            f"the model {name} (revision {revision or 'main'}) is not on this machine and the hub did not "
            f"give it ({type(error).__name__}: {reason}): correct the name, let this machine reach the hub, "
            "or name a folder that holds the model"
        ) from error
    return Path(fetched)
