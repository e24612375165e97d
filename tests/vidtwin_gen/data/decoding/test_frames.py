"""Which frames a file gives where its container makes that hard, and files that are not to be trusted."""

import struct
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from benchmarks.codecs import ENCODINGS, decode_in_order, encode, pattern
from benchmarks.codecs import ffmpeg as run_ffmpeg
from tests.builders.videos import ffmpeg, frame_numbers, numbered_frames
from vidtwin_gen.data.decoding.guarded import UnreadableVideoError, codec_name
from vidtwin_gen.data.decoding.video_index import distrust_seeking, video_index
from vidtwin_gen.data.video import frame_indices, read_clip, read_frames
from vidtwin_gen.data.whole_video import VideoWindows
from vidtwin_gen.data.writing import write_video


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """60 numbered frames, 30 a second."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_video(path, numbered_frames(60), fps=30, quality=10)
    return path


def read_numbers(path: Path, num_frames: int, **options) -> list[int]:
    return frame_numbers(read_clip(path, num_frames, size=(32, 48), **options))


def test_a_variable_rate_is_sampled_by_time(clip, tmp_path):
    # as a phone films: 30 a second, in the dark 10; frame k >= 30 is number 3 * k - 60 of the clip
    slow = tmp_path / "phone.mp4"
    kept = "select=lt(n\\,30)+not(mod(n\\,3))"
    ffmpeg("-i", clip, "-vf", kept, "-fps_mode", "vfr", "-c:v", "libx264", "-qp", 1, slow)
    assert video_index(slow).num_frames == 40
    expected = [0, 4, 8, 11, 15, 19, 23, 26, 30, 33, 39, 42, 45, 48, 54, 57]  # the nearest to k / 8 s
    assert read_numbers(slow, 16, fps=8, start=0) == expected
    windows = VideoWindows(slow, 4, size=(32, 48), fps=8)
    assert frame_numbers(torch.cat([window for window, _ in windows], dim=1)) == expected
    windows = VideoWindows(slow, 4, size=(32, 48), fps=10)  # the last instant is that of the last frame
    assert frame_numbers(torch.cat([window for window, _ in windows], dim=1)) == [*range(0, 60, 3)]
    assert read_numbers(slow, 4, stride=2, start=26) == [26, 28, 30, 36]
    with pytest.raises(UnreadableVideoError.__base__, match=r"span 2\.12 s, the video 1\.9 s"):
        read_clip(slow, 18, size=32, fps=8)


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".mp4"])
def test_the_rate_is_that_of_the_frames_and_not_the_headers(suffix, clip, tmp_path):
    """Matroska's header says 30 a second where every other frame was left out."""
    half = tmp_path / f"half{suffix}"
    codec = ["-c:v", "libvpx", "-b:v", "2M"] if suffix == ".webm" else ["-c:v", "libx264", "-qp", 1]
    ffmpeg("-i", clip, "-vf", "select=not(mod(n\\,2))", "-fps_mode", "vfr", *codec, half)
    assert video_index(half).fps == pytest.approx(15, rel=0.03)
    assert read_numbers(half, 4, fps=5, start=0) == [0, 6, 12, 18]


@pytest.mark.parametrize("fps", [7, 8, 24, 25, 30, 60])
def test_even_times_give_what_the_rate_alone_gives(fps):
    times = np.arange(90) / 29.97
    for start in (0, 17, "center"):
        by_rate, by_time = (
            frame_indices(90, 29.97, 9, fps=fps, start=start, times=given) for given in (None, times)
        )
        assert np.abs(np.array(by_rate) - by_time).max() <= (1 if start == "center" else 0)


@pytest.mark.parametrize(
    ("flags", "turn"),
    [
        (["-display_rotation", 90], lambda frames: np.rot90(frames, 1, (1, 2))),
        (["-display_rotation", 180], lambda frames: np.rot90(frames, 2, (1, 2))),
        (["-display_hflip"], lambda frames: frames[:, :, ::-1]),
        (["-display_rotation", 90, "-display_hflip"], lambda frames: np.rot90(frames, 1, (1, 2))[:, :, ::-1]),
    ],
)
def test_a_frame_is_turned_and_mirrored_as_it_is_shown(tmp_path, flags, turn):
    path, turned = encode("x264", pattern("64x48", 8), tmp_path), tmp_path / "turned.mp4"
    ffmpeg(*flags, "-i", path, "-c", "copy", turned)
    expected = turn(read_frames(path, 8).frames)
    assert np.array_equal(read_frames(turned, 8).frames, expected)
    info = video_index(turned)
    assert (info.height, info.width) == expected.shape[1:3]


def test_pixels_that_are_not_square_are_made_so(tmp_path):
    path = encode("x264", [*pattern("64x48", 8), "-vf", "setsar=4/3"], tmp_path)
    raw = run_ffmpeg("-i", path, "-vf", "scale=85:48", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    assert np.array_equal(read_frames(path, 8).frames, np.frombuffer(raw, np.uint8).reshape(8, 48, 85, 3))
    almost = encode("x264", [*pattern("64x48", 8), "-vf", "setsar=4096/4083"], tmp_path)
    assert video_index(almost).width == 64
    absurd = encode("x264", [*pattern("64x48", 8), "-vf", "setsar=20"], tmp_path)
    with pytest.raises(UnreadableVideoError, match="20 times as wide as high"):
        video_index(absurd)


@pytest.mark.parametrize(
    ("name", "pixels"),
    [("x265, 10 bits", "yuv420p10le"), ("VP9, 10 bits", "yuv420p10le"), ("x265, 10 bits", "yuv420p12le")],
)
def test_pixels_of_more_than_8_bits_become_what_ffmpeg_makes_of_them(name, pixels, tmp_path, monkeypatch):
    suffix, words, _ = ENCODINGS[name]
    monkeypatch.setitem(ENCODINGS, name, (suffix, [*words, "-pix_fmt", pixels], None))
    path = encode(name, pattern("64x48", 20), tmp_path)
    if path is None:
        pytest.skip(f"this ffmpeg has no encoder for {name}")
    assert codec_name(path).endswith(pixels) and not video_index(path).seekable
    assert np.array_equal(read_frames(path, 6, start=9).frames, decode_in_order(path, 48, 64)[9:15])


@pytest.mark.parametrize("table", [b"stts", b"stsz"])
def test_a_table_that_announces_two_thousand_million_frames(clip, tmp_path, table):
    content = bytearray(clip.read_bytes())
    at = content.index(table) + {b"stts": 12, b"stsz": 12}[table]
    content[at : at + 4] = struct.pack(">I", 2**31 - 1)
    (tmp_path / "crafted.mp4").write_bytes(content)
    if table == b"stts":  # decord makes room for them and aborts; the packets are there, and whole
        assert read_numbers(tmp_path / "crafted.mp4", 3, start=40) == [40, 41, 42]
    else:
        with pytest.raises(UnreadableVideoError, match="not a video"):
            video_index(tmp_path / "crafted.mp4")


def test_an_unknown_codec_is_named_as_such(clip, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(clip.read_bytes().replace(b"avc1", b"zzzz").replace(b"avcC", b"zzzC"))
    with pytest.raises(UnreadableVideoError, match="codec that is not known here; re-encode"):
        video_index(tmp_path / "clip.mp4")


def test_names_in_a_file_need_not_be_utf8(clip, tmp_path):
    content = clip.read_bytes()
    assert b"VideoHandler" in content
    (tmp_path / "clip.mp4").write_bytes(content.replace(b"VideoHandler", b"\xff\xfeHandlers!!"))
    assert read_numbers(tmp_path / "clip.mp4", 2, start=7) == [7, 8]


def test_a_decode_begins_at_idr_pictures_only(tmp_path):
    """At other key frames a decoder may lack what later pictures refer to."""
    for name, starts in (("x264, open GOPs", (0,)), ("x264, closed GOPs", (0, 15, 30))):
        path = encode(name, pattern("64x48", 40), tmp_path)
        assert video_index(path).starts == starts
        path.unlink()


def test_a_file_cut_short_is_refused_whatever_is_read_of_it(clip, tmp_path):
    (tmp_path / "short.mp4").write_bytes(clip.read_bytes()[:-200])
    with pytest.raises(UnreadableVideoError, match=r"lists 60 frames, \d+ are there"):
        read_clip(tmp_path / "short.mp4", 2, size=32, start=0)


def test_a_frame_that_is_decoded_in_part_is_damaged(tmp_path):
    """ffmpeg conceals what is missing, and marks the frame; the others of the file are as they were."""
    noise = torch.randint(0, 256, (40, 32, 32, 3), generator=torch.Generator().manual_seed(0))
    path = tmp_path / "noise.mp4"
    write_video(path, noise.to(torch.uint8), fps=10)
    before = read_frames(path, 20, start=0).frames
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][30]
    content = bytearray(path.read_bytes())
    content[packet.pos + 300 : packet.pos + packet.size] = bytes(packet.size - 300)
    path.write_bytes(content)
    assert np.array_equal(read_frames(path, 20, start=0, decoder="pyav").frames, before)
    with pytest.raises(UnreadableVideoError, match="damaged at frame 30"):
        read_frames(path, 3, start=29, decoder="pyav")


def test_a_file_that_decord_hangs_on_is_read_without_it(clip, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(clip.read_bytes())
    assert video_index(tmp_path / "clip.mp4").seekable
    distrust_seeking(tmp_path / "clip.mp4")
    assert not video_index(tmp_path / "clip.mp4").seekable
    assert read_numbers(tmp_path / "clip.mp4", 4, start=50) == [50, 51, 52, 53]


def test_a_changed_file_is_looked_at_again(clip, tmp_path):
    write_video(tmp_path / "clip.mp4", numbered_frames(9), fps=30)
    assert video_index(tmp_path / "clip.mp4").num_frames == 9
    (tmp_path / "clip.mp4").write_bytes(clip.read_bytes())
    assert video_index(tmp_path / "clip.mp4").num_frames == 60
