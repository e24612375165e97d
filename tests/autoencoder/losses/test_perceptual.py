"""LPIPS against the published number, and what holds of any distance."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors.torch import load_file

from autoencoder.losses.perceptual import LPIPS, load_lpips
from vidtwin_gen.weights import MissingWeightsError

GOLDEN = Path(__file__).parents[4] / "shared" / "golden" / "metrics.safetensors"


@pytest.fixture(scope="module")
def lpips():
    try:
        return load_lpips()
    except MissingWeightsError as error:
        pytest.skip(str(error))


@pytest.fixture
def untrained():
    torch.manual_seed(0)
    model = LPIPS()
    for head in model.heads:
        torch.nn.init.uniform_(head)
    return model.eval()


@torch.no_grad()
def test_real_frames_have_the_published_distance(lpips):
    if not GOLDEN.is_file():
        pytest.skip(f"{GOLDEN.name} is not at hand")
    golden = load_file(GOLDEN)
    frames = rearrange(golden["clip_uint8"][0, :, :4], "c f h w -> f c h w") / 127.5 - 1
    coarse = F.interpolate(F.avg_pool2d(frames, 4), scale_factor=4, mode="nearest")
    torch.testing.assert_close(lpips(frames, coarse), golden["lpips_vgg"], atol=1e-5, rtol=0)


@torch.no_grad()
def test_it_is_a_distance_between_frames(untrained):
    frames = torch.rand(3, 3, 16, 24) * 2 - 1
    other = frames.roll(1, dims=0)
    distance = untrained(frames, other)
    assert distance.shape == (3,) and (distance > 0).all()
    torch.testing.assert_close(distance, untrained(other, frames))
    assert untrained(frames, frames).tolist() == [0, 0, 0]
    torch.testing.assert_close(distance[1:2], untrained(frames[1:2], other[1:2]))


@torch.no_grad()
def test_features_that_are_all_zero_are_no_nan(untrained):
    for parameter in untrained.parameters():
        torch.nn.init.zeros_(parameter)
    frames = torch.rand(2, 3, 16, 16) * 2 - 1
    assert untrained(frames, -frames).tolist() == [0, 0]


@torch.no_grad()
def test_differences_are_in_float32_under_autocast(untrained):
    seen = []
    for stage in untrained.stages:
        stage.register_forward_hook(lambda *call: seen.append(call[-1].float().chunk(2)))
    frames = torch.rand(2, 3, 16, 16) * 2 - 1
    with torch.autocast("cpu", torch.bfloat16):
        distance = untrained(frames, frames + 0.01)
    by_hand = torch.zeros(2)
    for (a, b), head in zip(seen, untrained.heads, strict=True):
        difference = F.normalize(a, dim=1, eps=1e-10) - F.normalize(b, dim=1, eps=1e-10)
        by_hand += (difference.square() * head[:, None, None]).sum(1).mean((1, 2))
    torch.testing.assert_close(distance, by_hand, rtol=1e-5, atol=0)


def test_it_teaches_the_frame_and_not_itself(lpips):
    frames = torch.zeros(1, 3, 16, 16, requires_grad=True)
    lpips(frames, torch.ones(1, 3, 16, 16) * 0.5).sum().backward()
    assert frames.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in lpips.parameters())


@pytest.mark.parametrize("shape", [(1, 3, 8, 32), (1, 1, 32, 32), (3, 32, 32)])
def test_other_shapes_are_refused(untrained, shape):
    with pytest.raises(ValueError, match="sides of at least 16"):
        untrained(torch.zeros(shape), torch.zeros(shape))
