"""What a visitor's file may take."""

from __future__ import annotations

import pytest

from eval.app.videos import MOST_PIXELS, read_upload
from tests.builders.videos import ffmpeg, write_apng
from vidtwin_gen.data.decoding.video_index import video_index

SIZE = (8, 32, 32)
LARGE = 4224  # squared, more than MOST_PIXELS


def test_frames_too_large_are_refused_before_one_is_decoded(tmp_path):
    write_apng(tmp_path / "whole.mp4", LARGE, LARGE, 3)
    begun = (tmp_path / "whole.mp4").read_bytes()[:1000]  # no frame of it is there
    (tmp_path / "begun.mp4").write_bytes(begun)
    for name in ("whole.mp4", "begun.mp4"):
        with pytest.raises(ValueError, match=f"^{name}: its frames have more than {MOST_PIXELS:,} pixels"):
            read_upload(str(tmp_path / name), SIZE)


def test_pixels_that_make_frames_too_large_when_they_are_shown(tmp_path):
    path = tmp_path / "wide.mp4"
    ffmpeg("-f", "lavfi", "-i", "color=size=3000x3000,setsar=2", "-frames:v", 1, "-c:v", "mpeg4", path)
    with pytest.raises(ValueError, match="^wide.mp4: its frames are 6000x3000, and at most"):
        read_upload(str(path), SIZE)


def test_frames_larger_than_the_header_says_are_not_decoded(tmp_path):
    joined = tmp_path / "joined.h264"
    with joined.open("wb") as file:
        for size in (64, LARGE):
            part = tmp_path / f"{size}.h264"
            source = f"color=size={size}x{size}:rate=10"
            ffmpeg(
                "-f", "lavfi", "-i", source, "-frames:v", 8, "-c:v", "libx264", "-preset", "ultrafast", part
            )
            file.write(part.read_bytes())
    assert video_index(joined).num_frames == 16
    joined.touch()  # so that it is looked at again
    assert read_upload(str(joined), SIZE).num_total == 8
