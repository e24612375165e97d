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


def test_it_teaches_the_frame_and_not_itself(lpips):
    frames = torch.zeros(1, 3, 16, 16, requires_grad=True)
    lpips(frames, torch.ones(1, 3, 16, 16) * 0.5).sum().backward()
    assert frames.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in lpips.parameters())


@pytest.mark.parametrize("shape", [(1, 3, 8, 32), (1, 1, 32, 32), (3, 32, 32)])
def test_other_shapes_are_refused(untrained, shape):
    with pytest.raises(ValueError, match="sides of at least 16"):
        untrained(torch.zeros(shape), torch.zeros(shape))
