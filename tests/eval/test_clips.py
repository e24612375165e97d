"""A clip on its way to what is compared: its size, and the codec that a protocol has it go through."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eval.clips import CODECS, MP4_FPS, RESIZE, fit, preparation, prepare
from tests.builders.clips import drifting_clips
from vidtwin_gen.data.pixels import cover, from_uint8, to_uint8
from vidtwin_gen.data.writing import write_video


@pytest.mark.parametrize(
    ("size", "covered"), [((10, 10), (10, 15)), ((40, 52), (40, 60)), ((16, 30), (20, 30))]
)
def test_lanczos_is_that_of_pil(size: tuple[int, int], covered: tuple[int, int]) -> None:
    """Frames of 16 x 24, made smaller and larger, and cropped at the sides or above and below."""
    clip = drifting_clips(1, 0, (3, 16, 24))[0]
    top, left = (covered[0] - size[0]) // 2, (covered[1] - size[1]) // 2
    lanczos = fit(clip, size, "lanczos")
    for frame, expected in zip(lanczos, clip, strict=True):
        whole = Image.fromarray(expected.numpy()).resize(covered[::-1], Image.Resampling.LANCZOS)
        cropped = np.asarray(whole)[top : top + size[0], left : left + size[1]]
        assert np.array_equal(frame.numpy(), cropped)
    bilinear = fit(clip, size)
    assert torch.equal(bilinear, to_uint8(cover(from_uint8(clip), size)))
    assert not torch.equal(lanczos, bilinear)
    assert torch.equal(fit(clip, (16, 24), "lanczos"), clip)


def test_mp4_changes_pixels_a_little_and_no_frame_its_place() -> None:
    clip = drifting_clips(1, 1, (17, 32, 32))[0]
    through = prepare(clip, (32, 32), codec="mp4")
    assert through.shape == clip.shape and through.dtype == torch.uint8
    assert torch.equal(prepare(clip, (32, 32)), clip)
    distance = (through[:, None].float() - clip[None].float()).abs().mean((2, 3, 4))  # (F, F)
    assert torch.equal(distance.argmin(1), torch.arange(17))
    assert 0 < distance.diagonal().max() < 8  # mostly of colour, which 4:2:0 halves
    assert torch.equal(prepare(clip, (32, 32), codec="mp4"), through)
    small = prepare(clip, (16, 16), "lanczos", "mp4")
    assert torch.equal(small, prepare(fit(clip, (16, 16), "lanczos"), (16, 16), codec="mp4"))


def test_the_codec_is_what_records_say(tmp_path: Path) -> None:
    """x264 leaves its settings in the file."""
    write_video(tmp_path / "clip.mp4", drifting_clips(1, 0, (2, 16, 16))[0], MP4_FPS)
    assert b"crf=10.0" in (tmp_path / "clip.mp4").read_bytes()
    assert "h264 yuv420p, -crf 10 at 25 fps" in CODECS["mp4"]


def test_features_of_before_are_found_where_no_codec_was() -> None:
    assert preparation("bilinear", "none") == {"resize": RESIZE}
    others = [preparation("lanczos", "none"), preparation("bilinear", "mp4")]
    assert others[0]["resize"] != RESIZE and others[1] == {"resize": RESIZE, "codec": CODECS["mp4"]}
