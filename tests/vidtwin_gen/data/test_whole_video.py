"""A whole video, window by window: the right frames of every kind of file, and a padded end."""

import psutil
import pytest
import torch

from tests.builders.videos import ffmpeg, frame_numbers, numbered_frames
from vidtwin_gen.data.decoding.guarded import UnreadableVideoError, VideoTooShortError
from vidtwin_gen.data.video import read_clip
from vidtwin_gen.data.whole_video import VideoWindows
from vidtwin_gen.data.writing import write_video


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The same numbered frames as decord seeks in them, and as it does not: B-frames in an AVI, a cut without
    re-encoding that hides the first 23."""
    folder = tmp_path_factory.mktemp("videos")
    source = folder / "whole.mp4"
    write_video(source, numbered_frames(60), fps=25, quality=10)
    ffmpeg("-i", source, "-c:v", "mpeg4", "-q:v", 1, "-bf", 2, "-vtag", "DX50", folder / "b.avi")
    ffmpeg("-ss", 23 / 25, "-i", source, "-c", "copy", folder / "cut.mp4")
    return folder


def read(windows):
    """The numbers of the frames shown, padding included, and how many of each window are real."""
    clips, nums_real = zip(*windows, strict=True)
    return frame_numbers(torch.cat(clips, dim=1)), list(nums_real)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("whole.mp4", {}, range(60)),
        ("b.avi", {}, range(60)),
        ("cut.mp4", {}, range(23, 60)),
        ("whole.mp4", {"stride": 7}, range(0, 60, 7)),
        ("b.avi", {"stride": 7}, range(0, 60, 7)),
        ("whole.mp4", {"fps": 10}, [(5 * k + 1) // 2 for k in range(24)]),
        ("b.avi", {"fps": 10}, [(5 * k + 1) // 2 for k in range(24)]),
        # shown twice, also where the second time begins a window
        ("cut.mp4", {"fps": 50}, [23 + (k + 1) // 2 for k in range(73)]),
    ],
)
def test_every_frame_comes_once_and_the_end_repeats_the_last(files, name, options, expected):
    windows = VideoWindows(files / name, 8, size=(24, 32), **options)
    expected = list(expected)
    padding = -len(expected) % 8
    assert read(windows) == (expected + expected[-1:] * padding, [8] * (len(windows) - 1) + [8 - padding])
    assert len(windows) == (len(expected) + padding) // 8
    assert windows.fps == pytest.approx(options.get("fps", 25 / options.get("stride", 1)))
    assert all(clip.shape == (3, 8, 24, 32) for clip, _ in windows)  # and again from the beginning


def test_a_window_is_what_read_clip_reads(files):
    for k, (clip, _) in enumerate(VideoWindows(files / "whole.mp4", 12, size=20, stride=2)):
        if k < 2:
            assert torch.equal(clip, read_clip(files / "whole.mp4", 12, size=20, stride=2, start=24 * k))


def test_a_video_of_exactly_whole_windows_has_no_padding(files):
    assert read(VideoWindows(files / "whole.mp4", 20, size=16)) == (list(range(60)), [20] * 3)
    assert read(VideoWindows(files / "whole.mp4", 60, size=16)) == (list(range(60)), [60])


def test_what_gives_no_window_is_refused(files, tmp_path):
    with pytest.raises(
        VideoTooShortError, match=r"whole\.mp4: holds 60 frames, 60 at stride=1.*window is 61"
    ):
        VideoWindows(files / "whole.mp4", 61, size=16)
    with pytest.raises(VideoTooShortError, match=r"holds 60 frames, 3 at fps=1 of 25"):
        VideoWindows(files / "whole.mp4", 4, size=16, fps=1)
    with pytest.raises(ValueError, match="not both"):
        VideoWindows(files / "whole.mp4", 4, size=16, fps=5, stride=2)
    with pytest.raises(ValueError, match="inf"):
        VideoWindows(files / "whole.mp4", 4, size=16, fps=float("inf"))
    with pytest.raises(UnreadableVideoError, match="no such file"):
        VideoWindows(tmp_path / "absent.mp4", 4, size=16)


def test_one_window_is_in_memory_however_long_the_video_is(tmp_path):
    process = psutil.Process()
    for num_frames in (8, 160):  # the short one first, whose few windows the decoder and the allocator keep
        big = ["-f", "lavfi", "-i", "testsrc=size=1280x720", "-frames:v", num_frames, "-c:v", "libx264"]
        ffmpeg(*big, "-preset", "ultrafast", "-pix_fmt", "yuv420p", tmp_path / f"{num_frames}.mp4")
        before = most = process.memory_info().rss
        for _ in VideoWindows(tmp_path / f"{num_frames}.mp4", 4, size=16):
            most = max(most, process.memory_info().rss)
    frame = 1280 * 720 * 3
    assert most - before < 100 * frame  # of 160
