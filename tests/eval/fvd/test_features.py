"""The I3D of FVD: the contract of an extractor, and the files that its weights come in. test_selftest.py has
the original's numbers."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from eval.fvd.i3d import I3D, SameConv3d, ScriptedI3D, load_i3d
from eval.fvd.i3d_files import fold_batch_norm, port_name
from eval.fvd.networks import load_extractor
from vidtwin_gen.weights import MissingWeightsError


@pytest.fixture(scope="module")
def i3d() -> I3D:
    try:
        network = load_i3d()
    except MissingWeightsError as error:
        pytest.skip(str(error))
    if not isinstance(network, I3D):
        pytest.skip("a TorchScript module is the one found here")
    return network


@pytest.fixture(scope="module")
def drawn() -> I3D:
    """With weights of its own."""
    torch.manual_seed(0)
    return I3D().eval().requires_grad_(False)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def clips_of(num_clips: int, num_frames: int = 9) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (num_clips, num_frames, 24, 40, 3), dtype=torch.uint8, generator=generator)


def test_a_clip_does_not_depend_on_its_batch(i3d: I3D) -> None:
    clips = clips_of(2)
    together = i3d(clips)
    assert together.shape == (2, 400) and together.dtype == torch.float32
    torch.testing.assert_close(together[1:], i3d(clips[1:]), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("clips", "words"),
    [
        (torch.zeros(1, 16, 8, 8, 3), "uint8"),
        (torch.zeros(1, 8, 8, 8, 3, dtype=torch.uint8), "at least 9 frames"),
        (torch.zeros(1, 3, 16, 8, 8, dtype=torch.uint8), r"\(B, F, H, W, 3\)"),
    ],
)
def test_a_wrong_clip_is_refused_before_any_work(clips: torch.Tensor, words: str, drawn: I3D) -> None:
    with pytest.raises(ValueError, match=words):
        drawn(clips)


def in_the_ports_form(model: I3D) -> dict[str, torch.Tensor]:
    """A state dict as the PyTorch port has it, whose folded layers are those of `model`."""
    generator = torch.Generator().manual_seed(1)
    head = model.Logits
    port = {"logits.conv3d.weight": head.weight[:, :, None, None, None], "logits.conv3d.bias": head.bias}
    for name, layer in model.named_modules():
        if not isinstance(layer, SameConv3d):
            continue
        gamma, mean, var = 0.5 + torch.rand(3, layer.out_channels, generator=generator)
        scale = gamma / (var + 1e-3).sqrt()
        path = port_name(name)
        port[f"{path}.conv3d.weight"] = layer.weight / scale[:, None, None, None, None]
        port[f"{path}.bn.weight"] = gamma
        port[f"{path}.bn.bias"] = layer.bias + mean * scale
        port[f"{path}.bn.running_mean"] = mean
        port[f"{path}.bn.running_var"] = var
        port[f"{path}.bn.num_batches_tracked"] = torch.tensor(3)
    return {name: x.contiguous() for name, x in port.items()}


def test_every_kind_of_file_gives_the_same_network(drawn: I3D, tmp_path: Path) -> None:
    ours = {name: x.contiguous() for name, x in drawn.state_dict().items()}
    port = in_the_ports_form(drawn)
    assert {"Mixed_3b.b0.conv3d.weight", "Mixed_5c.b2b.bn.bias", "Mixed_4f.b3b.bn.running_var"} <= set(port)
    save_file(ours, tmp_path / "ours.safetensors")
    torch.save(port, tmp_path / "port.pt")
    for name in ("ours.safetensors", "port.pt"):
        path = tmp_path / name
        loaded = load_extractor("i3d", path, weights_sha256=sha256(path))
        assert isinstance(loaded, I3D) and loaded.weights_sha256 == sha256(path)
        torch.testing.assert_close(loaded.state_dict(), ours, atol=1e-5, rtol=1e-5)


def test_the_batch_norm_is_folded_in() -> None:
    torch.manual_seed(0)
    convolution, norm = nn.Conv3d(2, 3, 2, bias=False), nn.BatchNorm3d(3, eps=1e-3).eval()
    for x in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        nn.init.uniform_(x, 0.5, 2)
    with torch.no_grad():
        layer = fold_batch_norm(
            "a", convolution.weight, norm.bias, norm.running_mean, norm.running_var, norm.weight
        )
        x = torch.randn(1, 2, 4, 4, 4)
        torch.testing.assert_close(F.conv3d(x, layer["a.weight"], layer["a.bias"]), norm(convolution(x)))


def test_a_file_without_an_i3d_is_refused(tmp_path: Path) -> None:
    for name, state in (("x", {"x": torch.zeros(1)}), ("half", {"Logits.weight": torch.zeros(400, 1024)})):
        path = tmp_path / f"{name}.safetensors"
        save_file(state, path)
        with pytest.raises(ValueError, match="holds no I3D"):
            load_i3d(path, sha256=sha256(path))
    path = tmp_path / "code.pt"
    torch.save({"x": Path}, path)
    with pytest.raises(ValueError, match="tensors alone: it is damaged, or holds more than tensors$"):
        load_i3d(path, sha256=sha256(path))
    (tmp_path / "damaged.safetensors").write_bytes(b"\x08")
    with pytest.raises(ValueError, match="no file of tensors alone"):
        load_i3d(tmp_path / "damaged.safetensors", sha256=sha256(tmp_path / "damaged.safetensors"))


def test_weights_that_are_not_finite_are_named(tmp_path: Path) -> None:
    state = I3D().state_dict()
    state["Logits.bias"][3] = float("nan")
    path = tmp_path / "i3d.safetensors"
    save_file(state, path)
    with pytest.raises(ValueError, match=r"i3d.safetensors: Logits.bias holds NaN"):
        load_i3d(path, sha256=sha256(path))


class Classifier(nn.Module):
    """Called as the TorchScript I3D is, and of one number a clip."""

    def forward(
        self, x: torch.Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False
    ) -> torch.Tensor:
        return x.flatten(1).mean(1, keepdim=True)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Classifier(), r"gives features of \(2, 1\), finite ones of \(2, 400\)"),
        (nn.ReLU(), "is no I3D as StyleG"),
    ],
)
def test_a_torchscript_file_of_another_network(tmp_path: Path, network: nn.Module, message: str) -> None:
    path = tmp_path / "other.pt"
    torch.jit.script(network).save(str(path))
    with pytest.raises(ValueError, match=f"other.pt {message}"):
        load_i3d(path, sha256=sha256(path))(clips_of(2, num_frames=10))


class Detector(nn.Module):
    """What the TorchScript I3D is called with, in a network of one line."""

    def forward(
        self, x: torch.Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False
    ) -> torch.Tensor:
        if resize:
            frames = x.transpose(1, 2).flatten(0, 1)
            frames = F.interpolate(frames, [224, 224], mode="bilinear", align_corners=False)
            x = frames.unflatten(0, [x.shape[0], x.shape[2]]).transpose(1, 2)
        if rescale:
            x = x / 127.5 - 1
        features = F.adaptive_avg_pool3d(x, [2, 10, 20]).mean(1).flatten(1)
        return features if return_features else features.softmax(1)


def test_a_torchscript_file_is_called_by_its_contract(tmp_path: Path) -> None:
    path = tmp_path / "i3d_torchscript.pt"
    torch.jit.script(Detector()).save(str(path))
    with pytest.raises(ValueError, match="no published file of the I3D weights"):
        load_i3d(path)  # a program: not even opened
    extractor = load_i3d(path, sha256=sha256(path))
    assert isinstance(extractor, ScriptedI3D) and extractor.weights_sha256 == sha256(path)
    clips = clips_of(2, num_frames=10)
    features = extractor(clips)
    x = clips.permute(0, 4, 1, 2, 3).float()
    with torch.inference_mode():
        expected = torch.jit.load(str(path))(x, rescale=True, resize=True, return_features=True)
    assert features.shape == (2, 400) and features.dtype == torch.float32
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="at least 10 frames"):
        extractor(clips[:, :9])


def test_another_extractor_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="no extractor is named 'c3d': i3d or videomae"):
        load_extractor("c3d")  # type: ignore[arg-type]
