"""Whether every window of a video is ffmpeg's decode in order: a matrix of codecs and containers.

    python -m benchmarks.codecs [CLIP ...]

Encodes a test pattern, and each clip named, in every way of ENCODINGS, reads every window of every file as
training does, and compares the frames with those that the ffmpeg program decodes from the beginning.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import imageio_ffmpeg
import numpy as np

from vidtwin_gen.data.decoding.frames import frames_at
from vidtwin_gen.data.decoding.guarded import VideoError
from vidtwin_gen.data.decoding.video_index import video_index
from vidtwin_gen.data.video import read_frames
from vidtwin_gen.flags import Decoder, positive

IDCT = 2  # grey levels by which two versions of ffmpeg differ, in MPEG-4 part 2 only
PATTERN = ("-f", "lavfi", "-i", "testsrc2=size={size}:rate=25", "-frames:v", "{frames}")


def pattern(size: str = "160x120", frames: int = 60) -> list[str]:
    """Words of ffmpeg for a moving picture of which no two frames are alike."""
    return [word.format(size=size, frames=frames) for word in PATTERN]


X264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p")
X265 = ("-c:v", "libx265", "-pix_fmt", "yuv420p", "-x265-params")
TEN_BITS = ("-pix_fmt", "yuv420p10le")
B_FRAMES = ("-bf", "2", "-g", "15")
CUT = ("-ss", "0.9")  # without encoding again: frames before it stay in the file, for others' sake

# name: (suffix, how to encode); a third member cuts or puts into another container what that gives
ENCODINGS: dict[str, tuple[str, Sequence[str], tuple[Sequence[str], str] | None]] = {
    "x264": (".mp4", X264, None),
    "x264, closed GOPs": (".mp4", [*X264, "-g", "15"], None),
    "x264, open GOPs": (".mp4", [*X264, "-g", "15", "-x264-params", "open-gop=1:scenecut=0"], None),
    "x264, open GOPs, cut": (".mp4", [*X264, "-g", "15", "-x264-params", "open-gop=1"], (CUT, ".mp4")),
    "x264, intra refresh": (".mp4", [*X264, "-g", "15", "-x264-params", "intra-refresh=1"], None),
    "x264 in ts": (".ts", [*X264, "-g", "15"], None),
    "x264 in fragments": (".mp4", [*X264, "-g", "15", "-movflags", "frag_keyframe+empty_moov"], None),
    "x264 elementary": (".h264", [*X264, "-g", "15"], None),
    "x264, variable rate": (
        ".mp4",
        ["-vf", "select=lt(n\\,20)+not(mod(n\\,3))", "-fps_mode", "vfr", *X264],
        None,
    ),
    "x265": (".mp4", [*X265, "log-level=0"], None),
    "x265, open GOPs": (".mp4", [*X265, "log-level=0", "-g", "15"], None),
    "x265, open GOPs, in mkv": (".mkv", [*X265, "log-level=0", "-g", "15"], None),
    "x265, open GOPs, cut": (".mp4", [*X265, "log-level=0", "-g", "15"], (CUT, ".mp4")),
    "x265, closed GOPs": (".mp4", [*X265, "log-level=0:open-gop=0", "-g", "15"], None),
    "x265, 10 bits": (".mp4", [*X265, "log-level=0:open-gop=0", "-g", "15", *TEN_BITS], None),
    "MPEG-4 in avi": (".avi", ["-c:v", "mpeg4", "-g", "15", "-q:v", "3", "-vtag", "XVID"], None),
    "MPEG-4, B-frames, in avi": (".avi", ["-c:v", "mpeg4", *B_FRAMES, "-q:v", "3", "-vtag", "DX50"], None),
    "MPEG-4, B-frames, in mp4": (".mp4", ["-c:v", "mpeg4", *B_FRAMES, "-q:v", "3"], None),
    "MPEG-4 elementary": (".m4v", ["-c:v", "mpeg4", *B_FRAMES, "-q:v", "3"], None),
    # as HMDB51's files: the container announces more frames than it holds
    "Xvid, packed B-frames": (".avi", ["-c:v", "libxvid", *B_FRAMES, "-q:v", "3"], (CUT, ".avi")),
    "MPEG-1": (".mpg", ["-c:v", "mpeg1video", *B_FRAMES, "-q:v", "3"], None),
    "MPEG-2": (".mp4", ["-c:v", "mpeg2video", *B_FRAMES, "-q:v", "3"], None),
    "MPEG-2 in ts": (".ts", ["-c:v", "mpeg2video", *B_FRAMES, "-q:v", "3"], None),
    "VP8": (".webm", ["-c:v", "libvpx", "-g", "15", "-b:v", "300k", "-deadline", "realtime"], None),
    "VP9": (".webm", ["-c:v", "libvpx-vp9", "-g", "15", "-b:v", "300k", "-deadline", "realtime"], None),
    "VP9, 10 bits": (".webm", ["-c:v", "libvpx-vp9", "-g", "15", "-deadline", "realtime", *TEN_BITS], None),
    "AV1": (".mp4", ["-c:v", "libsvtav1", "-g", "15", "-preset", "12", "-pix_fmt", "yuv420p"], None),
    "Motion JPEG": (".avi", ["-c:v", "mjpeg", "-q:v", "3"], None),
    "WMV": (".wmv", ["-c:v", "wmv2", "-g", "15", "-q:v", "3"], None),
}


@dataclass
class Compared:
    """Windows of a file that were read, and those that differ from the decode in order.

    `num_frames`: what the reader counts; `num_decoded`: what ffmpeg decodes.
    """

    num_frames: int
    num_decoded: int
    seekable: bool
    num_windows: int = 0
    wrong: list[int] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    @property
    def right(self) -> bool:
        return self.num_frames == self.num_decoded and not self.wrong and not self.refused


def ffmpeg(*words: object) -> bytes:
    """What the program writes to its standard output. Raises RuntimeError with its complaint."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *map(str, words)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.decode(errors="replace"))
    return done.stdout


def encode(name: str, source: Sequence[object], folder: Path) -> Path | None:
    """A file of an encoding, made of what ffmpeg reads from `source`; None where it lacks the encoder."""
    suffix, words, then = ENCODINGS[name]
    path = folder / f"encoded{suffix}"
    try:
        ffmpeg(*source, "-an", *words, path)
    except RuntimeError as error:
        if "Unknown encoder" in str(error):
            return None
        raise
    if then is None:
        return path
    before, suffix = then
    ffmpeg(*before, "-i", path, "-c", "copy", folder / f"copied{suffix}")
    return folder / f"copied{suffix}"


def decode_in_order(path: Path, height: int, width: int) -> np.ndarray:
    """uint8 (F, H, W, C): all frames as the ffmpeg program decodes them from the beginning."""
    raw = ffmpeg("-i", path, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


def compare(path: Path, window: int, decoder: Decoder = "auto") -> Compared:
    """Every window of `window` frames, and the pass over the whole video, with the decode in order."""
    index = video_index(path)
    truth = decode_in_order(path, index.height, index.width)
    compared = Compared(index.num_frames, len(truth), index.seekable)
    for start in range(len(truth) - window + 1):
        compared.num_windows += 1
        try:
            frames = read_frames(path, window, start=start, decoder=decoder).frames
        except VideoError as error:
            compared.refused.append(error.reason)
            continue
        if _differ(frames, truth[start : start + window]):
            compared.wrong.append(start)
    whole = frames_at(path, index, range(min(index.num_frames, len(truth))))
    if any(_differ(frame, true) for frame, true in zip(whole, truth, strict=False)):
        compared.wrong.append(-1)
    return compared


def _differ(frames: np.ndarray, truth: np.ndarray) -> bool:
    return bool((np.abs(frames.astype(np.int16) - truth) > IDCT).any())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.codecs", description=__doc__)
    parser.add_argument("clips", nargs="*", help="videos to encode besides the test pattern")
    parser.add_argument("--window", type=positive, default=16, help="frames of a window")
    parser.add_argument("--decoder", choices=get_args(Decoder), default="auto", help="of seekable files")
    flags = parser.parse_args(arguments)
    sources = {"pattern": pattern(), **{Path(clip).name: ["-i", clip] for clip in flags.clips}}
    print(f"| source | encoding | frames | read by | windows of {flags.window} | wrong | refused |")
    print("|---|---|---|---|---|---|---|")
    all_right = True
    for source, words in sources.items():
        for name in ENCODINGS:
            with TemporaryDirectory() as folder:
                path = encode(name, words, Path(folder))
                if path is None:
                    print(f"| {source} | {name} | this ffmpeg has no such encoder |")
                    continue
                row = compare(path, flags.window, flags.decoder)
            frames = f"{row.num_frames}" + f" of {row.num_decoded}" * (row.num_frames != row.num_decoded)
            reader = flags.decoder if row.seekable else "pyav"
            counts = f"{row.num_windows} | {len(row.wrong)} | {len(row.refused)}"
            print(f"| {source} | {name} | {frames} | {reader} | {counts} |", flush=True)
            all_right &= row.right
    return 0 if all_right else 1


if __name__ == "__main__":
    sys.exit(main())
