"""The I3D of FVD against the numbers that are known of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from einops import rearrange
from safetensors.torch import load_file

from eval.features import I3D, load_i3d
from vidtwin_gen.weights import MissingWeightsError

GOLDEN = Path(__file__).parents[2] / "shared" / "golden" / "metrics.safetensors"


@pytest.fixture(scope="module")
def i3d() -> I3D:
    try:
        return load_i3d()
    except MissingWeightsError as error:
        pytest.skip(str(error))


def test_real_clips_give_the_logits_of_the_original(i3d: I3D) -> None:
    if not GOLDEN.is_file():
        pytest.skip(f"{GOLDEN.name} is not at hand")
    golden = load_file(GOLDEN)
    clips = rearrange(golden["clip_uint8"], "b c f h w -> b f h w c")
    torch.testing.assert_close(i3d(clips), golden["i3d_logits"], atol=1e-3, rtol=0)


def test_black_against_white_is_the_published_self_test(i3d: I3D) -> None:
    # 30 frames, all 0 against all 255: 151.392 with the right weights, padding and range
    black, white = (i3d(torch.full((1, 30, 8, 8, 3), value, dtype=torch.uint8)) for value in (0, 255))
    assert (black - white).square().sum().item() == pytest.approx(151.392, abs=0.01)


def test_a_clip_does_not_depend_on_its_batch(i3d: I3D) -> None:
    clips = torch.randint(
        256, (2, 9, 24, 40, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
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
def test_a_wrong_clip_is_refused_before_any_work(clips: torch.Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        I3D()(clips)
