"""Real files, written here and read back: what a clip is, and what becomes of a file that gives none."""

import pickle
import time
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image

from tests.builders.videos import ffmpeg, frame_numbers, numbered_frames
from vidtwin_gen.data.decoding.guarded import UnreadableVideoError, VideoError, VideoTooShortError
from vidtwin_gen.data.decoding.video_index import video_index
from vidtwin_gen.data.pixels import cover, from_uint8, to_uint8
from vidtwin_gen.data.video import common_frame_rate, frame_indices, frame_rates, nearest_frames, read_clip
from vidtwin_gen.data.writing import filmstrip, tile, write_gif, write_video

DATA = Path(__file__).parents[4] / "shared" / "data"


@pytest.fixture(params=[".mp4", ".avi"])
def numbered(request, tmp_path):
    path = tmp_path / f"numbered{request.param}"
    write_video(path, numbered_frames(60), fps=25, quality=10)
    return path


@pytest.mark.parametrize(
    ("video_fps", "fps", "expected"),
    [
        (24, 8, [0, 3, 6, 9, 12]),
        (25, 8, [0, 3, 6, 9, 13]),
        (30, 8, [0, 4, 8, 11, 15]),
        (25, 10, [0, 3, 5, 8, 10]),  # halves go up, never to the even neighbour
        (25, 25, [0, 1, 2, 3, 4]),
        (10, 25, [0, 0, 1, 1, 2]),
    ],
)
def test_a_target_rate_takes_the_nearest_frames(video_fps, fps, expected):
    assert frame_indices(100, video_fps, 5, fps=fps, start=0) == expected
    assert frame_indices(expected[-1] + 1, video_fps, 5, fps=fps) == expected  # the only window that fits
    with pytest.raises(VideoTooShortError):
        frame_indices(expected[-1], video_fps, 5, fps=fps)


def test_a_clip_may_end_half_a_frame_after_the_last_one():
    """By time as by the rate alone: of 10 frames the last, at 0.36 s, is the nearest to 3/8 s."""
    times = np.arange(10) / 25
    assert frame_indices(10, 25, 4, fps=8, times=times) == frame_indices(10, 25, 4, fps=8) == [0, 3, 6, 9]
    for given in (None, times[:9]):
        with pytest.raises(VideoTooShortError):
            frame_indices(9, 25, 4, fps=8, times=given)


def test_a_data_set_has_the_rate_of_most_of_its_videos(tmp_path):
    """Not of the first; those that cannot be read say nothing, as long as another can."""
    paths = [str(tmp_path / f"{number}.mp4") for number in range(7)]
    for path, fps in zip(paths, (60, 25, 30000 / 1001, 25, 30, 25), strict=False):
        write_video(path, numbered_frames(4), fps=fps)
    Path(paths[6]).write_bytes(b"no video")
    rates = frame_rates(paths)
    assert list(rates.values()) == [3, 2, 1] and list(rates) == pytest.approx([25, 29.97, 60], abs=0.01)
    assert common_frame_rate(paths) == 25.0
    assert frame_rates([paths[6]] * 100 + paths[:1]) == {60.0: 1}
    with pytest.raises(UnreadableVideoError, match="6.mp4: .*not a video"):
        common_frame_rate(paths[6:])
    with pytest.raises(ValueError, match="no videos"):
        common_frame_rate([])


def test_resampling_does_not_drift():
    indices = frame_indices(100_000, 30000 / 1001, 8000, fps=8, start=0)
    instants = np.arange(8000) / 8
    assert np.abs(np.array(indices) * 1001 / 30000 - instants).max() <= 0.5 * 1001 / 30000 + 1e-9


def test_starts():
    assert frame_indices(20, 25, 4, stride=3, start="center") == [5, 8, 11, 14]
    assert frame_indices(21, 25, 4, stride=3, start="center")[0] == 5  # of two middles the earlier
    assert frame_indices(20, 25, 4, start=16) == [16, 17, 18, 19]
    generator = torch.Generator().manual_seed(0)
    starts = {frame_indices(20, 25, 4, stride=5, generator=generator)[0] for _ in range(200)}
    assert starts == {0, 1, 2, 3, 4}
    with pytest.raises(VideoTooShortError, match=r"from frame 17.*the video has 20"):
        frame_indices(20, 25, 4, start=17)


def test_of_two_frames_as_near_the_later_is_taken():
    times = np.array([0.0, 1.0, 2.0, 4.0])
    assert nearest_frames(times, np.array([0.49, 0.5, 1.5, 3.0, 9.0])).tolist() == [0, 1, 2, 3, 3]


@pytest.mark.parametrize(
    "arguments", [{"fps": 8, "stride": 2}, {"stride": 0}, {"fps": 0}, {"start": -1}, {"start": "end"}]
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ValueError) as refused:
        frame_indices(100, 25, 4, **arguments)
    assert not isinstance(refused.value, VideoError)  # the user's mistake is not the file's


def test_a_video_without_a_frame_rate():
    assert frame_indices(9, float("nan"), 3, stride=2, start=0) == [0, 2, 4]
    with pytest.raises(UnreadableVideoError, match="nan"):
        frame_indices(9, float("nan"), 3, fps=8)


def test_the_right_frames_are_read(numbered):
    info = video_index(numbered)
    assert (info.num_frames, info.height, info.width) == (60, 32, 48)
    assert info.fps == pytest.approx(25)
    assert frame_numbers(read_clip(numbered, 5, size=32, stride=4, start=41)) == [41, 45, 49, 53, 57]
    assert frame_numbers(read_clip(numbered, 5, size=32, fps=10, start=20)) == [20, 23, 25, 28, 30]
    assert frame_numbers(read_clip(numbered, 4, size=32, fps=50, start=7)) == [7, 8, 8, 9]
    clip = read_clip(numbered, 16, size=32, generator=torch.Generator().manual_seed(3))
    assert clip.shape == (3, 16, 32, 32) and clip.dtype == torch.float32
    assert torch.equal(clip, read_clip(numbered, 16, size=32, generator=torch.Generator().manual_seed(3)))
    with pytest.raises(VideoTooShortError, match=r"numbered.*span 61.*has 60"):
        read_clip(numbered, 61, size=32)


def test_size_covers_and_crops(tmp_path):
    frames = torch.zeros(3, 32, 64, 3, dtype=torch.uint8)
    frames[:, :, 16:48] = 255  # the middle half is white
    write_video(tmp_path / "bar.mp4", frames, fps=8, quality=10)
    read = lambda **options: read_clip(tmp_path / "bar.mp4", 3, **options)  # noqa: E731
    assert read(size=32).mean() > 0.98  # the centre crop is the white half
    assert read(size=16).mean() > 0.9
    whole = read(size=(16, 32))
    assert whole.shape == (3, 3, 16, 32) and abs(float(whole.mean())) < 0.02
    assert read(size=(64, 40)).shape == (3, 3, 64, 40)


def test_pixels_between_those_that_are_left_count():
    """Of four in a row bilinear sampling without antialiasing would see the middle two."""
    frames = torch.tensor([-1.0, 1.0, 1.0, -1.0]).repeat(16).expand(3, 2, 64, 64)
    assert cover(frames, 16)[..., 1:-1].abs().max() < 1e-5


@pytest.mark.parametrize("width", [16, 24, 48, 50, 64])  # decord misreads the first three
def test_a_size_that_matches_is_not_resampled(tmp_path, width):
    noise = torch.randint(0, 256, (2, 16, width, 1), generator=torch.Generator().manual_seed(0))
    noise = noise.to(torch.uint8).expand(-1, -1, -1, 3)
    write_video(tmp_path / "noise.mp4", noise, fps=8, quality=10)
    back = to_uint8(read_clip(tmp_path / "noise.mp4", 2, size=(16, width)))
    assert (back.float() - noise.float()).abs().mean() < 2


def test_uint8_round_trip():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(2, -1, -1, 3)
    assert torch.equal(to_uint8(from_uint8(levels)), levels)
    assert torch.equal(to_uint8(from_uint8(levels[None])), levels[None])
    clip = torch.tensor([-1.5, -1.0, 0.9999, 1.0, 3.0]).view(1, 1, 1, 5)
    assert to_uint8(clip).flatten().tolist() == [0, 0, 255, 255, 255]


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_write_video_round_trip(tmp_path, suffix):
    height, width = 36, 50  # even, divisible by neither 4 nor 16
    grid = torch.stack(
        torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    )
    clip = torch.cat([grid, grid.mean(0, keepdim=True)])[:, None].repeat(1, 6, 1, 1)
    path = tmp_path / "new" / "folder" / f"clip{suffix}"
    write_video(path, clip, fps=12.5, quality=10)
    back = read_clip(path, 6, size=(height, width))
    assert (back - clip).abs().mean() < 0.03
    assert video_index(path).fps == pytest.approx(12.5)
    first = path.read_bytes()
    write_video(path, to_uint8(clip), fps=12.5, quality=10)
    assert path.read_bytes() == first
    write_video(path, clip, fps=12.5, quality=1)
    assert path.stat().st_size < len(first)
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "clip.mp4"
    write_video(path, numbered_frames(4), fps=8)
    first = path.read_bytes()
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: "false")
    with pytest.raises(OSError, match=r"clip\.mp4: ffmpeg ended with status 1"):
        write_video(path, numbered_frames(9), fps=8)
    assert path.read_bytes() == first and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "clip", "named"),
    [
        ("odd.mp4", torch.zeros(3, 2, 32, 33), "32x33"),
        ("clip.mkv", torch.zeros(3, 2, 32, 32), "mkv"),
        ("batch.mp4", torch.zeros(1, 3, 2, 32, 32), "1, 3, 2, 32, 32"),
        ("grey.mp4", torch.zeros(1, 2, 32, 32), "1, 2, 32, 32"),
        ("ints.mp4", torch.zeros(2, 32, 32, 3, dtype=torch.int64), "int64"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, name, clip, named):
    with pytest.raises(ValueError, match=named):
        write_video(tmp_path / name, clip, fps=8)
    assert not list(tmp_path.iterdir())


def test_write_gif(tmp_path):
    frames = torch.zeros(7, 20, 30, 3, dtype=torch.uint8)
    for k in range(7):
        frames[k, :, 4 * k : 4 * k + 4, 0] = 255
    write_gif(tmp_path / "new" / "clip.gif", frames, fps=30)
    with Image.open(tmp_path / "new" / "clip.gif") as gif:
        assert gif.n_frames == 7 and gif.size == (30, 20)
        duration, shown = 0, []
        for k in range(7):
            gif.seek(k)
            duration += gif.info["duration"]
            shown.append(np.array(gif.convert("RGB")))
    assert duration == 230  # 7 frames at 30 per second, to the hundredth
    assert np.abs(np.stack(shown).astype(int) - frames.numpy()).max() < 8
    write_gif(tmp_path / "fast.gif", frames, fps=60)
    with Image.open(tmp_path / "fast.gif") as gif:
        assert gif.n_frames == 4 and gif.info["duration"] == 30  # every second frame, at its own speed
        gif.seek(1)
        assert np.abs(np.array(gif.convert("RGB")).astype(int) - frames[2].numpy()).max() < 8
    with pytest.raises(ValueError, match="frames a second must be above 0, got 0"):
        write_gif(tmp_path / "still.gif", frames, fps=0)


def test_tile_and_filmstrip():
    clips = torch.linspace(-1, 0.5, 5)[:, None, None, None, None].repeat(1, 3, 9, 8, 6)
    clips[:, :, 8] = 0.75  # the last frame
    grid = tile(clips, columns=3)
    assert grid.shape == (3, 9, 18, 22)
    for i, clip in enumerate(clips):
        top, left = 10 * (i // 3), 8 * (i % 3)
        assert torch.equal(grid[:, :, top : top + 8, left : left + 6], clip)
    assert (grid[:, :, 8:10] == 1).all() and (grid[:, :, 10:, 16:] == 1).all()
    assert tile(clips).shape == grid.shape  # 3 columns are the squarest
    strip = np.array(filmstrip(clips, num_frames=4))
    assert strip.shape == (5 * 10 - 2, 4 * 8 - 2, 3)
    assert (strip[:8, :6] == 0).all() and (strip[:8, 24:30] == 223).all()
    with pytest.raises(ValueError, match="one shape"):
        tile([clips[0], clips[0, :, :3]])


def broken_files(folder: Path) -> dict[str, Path]:
    whole = {suffix: folder / f"whole{suffix}" for suffix in (".mp4", ".avi")}
    noise = torch.randint(0, 256, (40, 32, 32, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    for path in whole.values():
        write_video(path, noise, fps=25)
    mp4, avi = (path.read_bytes() for path in whole.values())
    contents = {
        "zero.mp4": b"",
        "zero.avi": b"",
        "text.avi": b"not a video\n" * 400,
        "early_end.mp4": mp4[: len(mp4) // 3],
        "header_only.avi": avi[:300],
        "hole.mp4": mp4[: len(mp4) // 2] + bytes(len(mp4) // 2),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    for name in ("sound.mp4", "sound.avi"):
        ffmpeg("-f", "lavfi", "-i", "sine=duration=1", folder / name)
    (folder / "folder.mp4").mkdir()
    return {
        name: folder / name for name in (*contents, "sound.mp4", "sound.avi", "folder.mp4", "missing.mp4")
    }


def test_broken_files_end_in_the_typed_error_quickly(tmp_path):
    for name, path in broken_files(tmp_path).items():
        begin = time.monotonic()
        with pytest.raises(UnreadableVideoError) as caught:
            read_clip(path, 40, size=32)
        assert time.monotonic() - begin < 5, name
        assert caught.value.path == str(path) and str(path) in str(caught.value)
        if name.startswith("sound"):
            assert "no video stream" in caught.value.reason
    copy = pickle.loads(pickle.dumps(caught.value))  # the way out of a worker process
    assert type(copy) is UnreadableVideoError and str(copy) == str(caught.value)


def test_a_playlist_shows_no_other_file(tmp_path):
    """ffmpeg would follow it: whoever uploads one would see a video that lies here."""
    write_video(tmp_path / "private.mp4", numbered_frames(8), fps=8)
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:3", "#EXTINF:3.0,", tmp_path / "private.mp4", "#EXT-X-ENDLIST"]
    for name in ("a.m3u8", "a.mp4"):
        (tmp_path / name).write_text("\n".join(map(str, lines)))
        with pytest.raises(UnreadableVideoError, match="truncated or not a video"):
            video_index(tmp_path / name)
        with pytest.raises(UnreadableVideoError):
            read_clip(tmp_path / name, 4, size=32)


def test_a_truncated_avi_gives_the_frames_it_has_and_no_others(tmp_path):
    write_video(tmp_path / "whole.avi", numbered_frames(60), fps=25, quality=10)
    content = (tmp_path / "whole.avi").read_bytes()
    (tmp_path / "part.avi").write_bytes(content[: (content.index(b"movi") + content.index(b"idx1")) // 2])
    left = video_index(tmp_path / "part.avi").num_frames
    assert 10 < left < 50
    assert frame_numbers(read_clip(tmp_path / "part.avi", 8, size=32, start=0)) == list(range(8))
    with pytest.raises(VideoTooShortError):
        read_clip(tmp_path / "part.avi", left + 1, size=32)


def test_frames_before_an_edit_lists_start_do_not_count(tmp_path):
    # A cut without re-encoding: 60 frames are stored, the first 23 never shown. decord counts 60, fills in
    # copies for those past the end, and on some windows does not return.
    write_video(tmp_path / "whole.mp4", numbered_frames(60), fps=25, quality=10)
    ffmpeg("-ss", 23 / 25, "-i", tmp_path / "whole.mp4", "-c", "copy", tmp_path / "cut.mp4")
    decord = pytest.importorskip("decord")
    assert len(decord.VideoReader(str(tmp_path / "cut.mp4"))) == 60
    assert video_index(tmp_path / "cut.mp4").num_frames == 37
    assert frame_numbers(read_clip(tmp_path / "cut.mp4", 37, size=32)) == list(range(23, 60))
    assert frame_numbers(read_clip(tmp_path / "cut.mp4", 3, size=32, stride=7, start=20)) == [43, 50, 57]
    with pytest.raises(VideoTooShortError):
        read_clip(tmp_path / "cut.mp4", 38, size=32)


def test_an_avi_with_b_frames_is_read_in_order(tmp_path):
    # Some of its frames carry no time stamp, as in many of UCF-101's files; decord's seek goes astray.
    write_video(tmp_path / "whole.mp4", numbered_frames(60), fps=25, quality=10)
    source, target = tmp_path / "whole.mp4", tmp_path / "b.avi"
    ffmpeg("-i", source, "-c:v", "mpeg4", "-q:v", 1, "-bf", 2, "-vtag", "DX50", target)
    assert frame_numbers(read_clip(target, 5, size=32, stride=4, start=41)) == [41, 45, 49, 53, 57]


def test_real_files_seek_to_the_frame_that_is_there():
    files = sorted((DATA / "ucf101-native").glob("*/*.avi"))[::12]
    if not files:
        pytest.skip("no UCF-101 files in ../shared/data/ucf101-native")
    for path in files:
        info = video_index(path)
        whole = read_clip(path, info.num_frames, size=(240, 320))
        clip = read_clip(path, 4, size=(240, 320), start=info.num_frames - 4)
        assert torch.equal(clip, whole[:, -4:]), path
