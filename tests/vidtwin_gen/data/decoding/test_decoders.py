"""Every decoder gives the same frames, and one that is not there is not needed, or named."""

import subprocess
import sys

import numpy as np
import pytest

from benchmarks.codecs import IDCT, encode, pattern
from tests.builders.videos import numbered_frames
from vidtwin_gen.data.decoding.frames import random_access
from vidtwin_gen.data.decoding.video_index import video_index
from vidtwin_gen.data.video import read_frames
from vidtwin_gen.data.writing import write_video
from vidtwin_gen.flags import Decoder

SEEKABLE = ("x264", "x264, closed GOPs", "x265, closed GOPs", "MPEG-4 in avi", "VP8", "VP9", "Motion JPEG")


@pytest.mark.parametrize("name", SEEKABLE)
def test_all_decoders_give_the_same_frames(name, tmp_path):
    path = encode(name, pattern("64x48", 40), tmp_path)
    if path is None:
        pytest.skip(f"this ffmpeg has no encoder for {name}")
    assert video_index(path).seekable
    for start in (0, 13, 31):
        expected = read_frames(path, 5, stride=2, start=start, decoder="pyav").frames.astype(int)
        for decoder in filter(is_installed, ("decord", "torchcodec")):
            frames = read_frames(path, 5, stride=2, start=start, decoder=decoder).frames
            difference = np.abs(frames - expected).max()
            assert difference <= (IDCT if "MPEG-4" in name else 0), (decoder, start)


def is_installed(decoder: Decoder) -> bool:
    try:
        return random_access(decoder) is not None
    except ValueError:
        return False


def test_a_name_with_a_colon_is_no_protocol(tmp_path, monkeypatch):
    """From the folder of the file, or from that of its folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("12:30.mp4", "rec:1/-clip.mp4", "-clip.mp4"):
        write_video(name, numbered_frames(12), fps=25, quality=10)
        for decoder in filter(is_installed, ("decord", "torchcodec", "pyav")):
            assert len(read_frames(name, 4, decoder=decoder).frames) == 4


def test_a_frame_is_given_twice_where_the_rate_is_above_the_videos_own(tmp_path):
    write_video(tmp_path / "clip.mp4", numbered_frames(12), fps=25, quality=10)
    expected = read_frames(tmp_path / "clip.mp4", 4, fps=50, start=7, decoder="pyav").frames
    assert np.array_equal(read_frames(tmp_path / "clip.mp4", 4, fps=50, start=7).frames, expected)


def test_without_decord_pyav_reads_all(tmp_path):
    write_video(tmp_path / "clip.mp4", numbered_frames(12), fps=25, quality=10)
    program = """
import sys
sys.modules["decord"] = None  # as where it has no wheels
from vidtwin_gen.data.decoding.frames import random_access, read_frames_at
from vidtwin_gen.data.decoding.video_index import video_index
print(read_frames_at(sys.argv[1], video_index(sys.argv[1]), range(5, 9))[:, 0, 0, 0].tolist())
try:
    random_access("decord")
except ValueError as error:
    print(error)
"""
    command = [sys.executable, "-c", program, tmp_path / "clip.mp4"]
    frames, error = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert frames == str(read_frames(tmp_path / "clip.mp4", 4, start=5).frames[:, 0, 0, 0].tolist())
    assert error == "--decoder decord is not installed: pip install decord, or --decoder pyav"


def test_an_unknown_decoder_is_refused():
    with pytest.raises(ValueError, match="auto, decord, pyav or torchcodec, got 'opencv'"):
        random_access("opencv")
