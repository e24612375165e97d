"""What a video file holds, learnt from its packets: how many frames, when each is shown, where decoding may
begin, and whether a decoder's random access can be trusted with it."""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import av
import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame

from vidtwin_gen.data.decoding.guarded import (
    DecoderLostError,
    FilePath,
    UnreadableVideoError,
    each_packet,
    guarded,
    opened,
)

# Of these a packet is a frame and says when it is shown. In AVI that holds without B-frames only.
TRUE_TIMES = ("mov", "matroska", "flv", "avi")
# MPEG-4 part 2 marks a dropped frame by a packet of at most so many bytes, which shows nothing.
NO_PICTURE = 8
# Gaps between frames that differ by no more than what containers round to, a millisecond each way.
SAME_GAP = 2.5e-3  # seconds
# Pixels less off square than this are an encoder's rounding (4096:4083 in some of UCF-101's files).
SQUARE = 0.02
MAX_ASPECT = 10  # 3 to 4 are seen in anamorphic video; the frame is made as wide
MAX_KNOWN = 64 * 2**20  # bytes, of the indices that a process remembers


@dataclass(frozen=True)
class VideoIndex:
    """What a file holds.

    Attributes:
        num_frames: frames that a decode from the beginning shows.
        fps: the average frame rate (hertz), NaN where the file has none.
        height, width: of the picture as it is shown: turned upright, with square pixels.
        stamps: (F,) int64, rising: when each frame is shown, in units of `time_base` (seconds); None where
            only the order in which a decoder gives the frames is known.
        starts: rising numbers of frames, 0 among them: a decode that begins there gives this frame and all
            that are shown after it as a decode from the beginning does.
        seekable: whether the random access of decord and torchcodec gives the frames of a decode from the
            beginning.
    """

    num_frames: int
    fps: float
    height: int
    width: int
    stamps: np.ndarray | None
    time_base: float
    starts: tuple[int, ...]
    seekable: bool

    @property
    def times(self) -> np.ndarray | None:
        """(F,) seconds from the first frame on, where the frame rate varies."""
        if self.stamps is None:
            return None
        times = (self.stamps - self.stamps[0]) * self.time_base
        gaps = np.diff(times)
        return times if len(gaps) and np.ptp(gaps) > SAME_GAP else None

    @property
    def nbytes(self) -> int:
        """What remembering it takes, about."""
        return 1000 + 36 * len(self.starts) + (0 if self.stamps is None else self.stamps.nbytes)

    def start_before(self, frame: int) -> int:
        """The last of `starts` that is not after `frame`."""
        return self.starts[bisect_right(self.starts, frame) - 1]


_Key = tuple[str, int, int]
_known: dict[_Key, VideoIndex | DecoderLostError] = {}
_known_bytes = 0


def video_index(path: FilePath, most_pixels: int | None = None) -> VideoIndex:
    """What the file holds; found out once in a process, as long as its size and time stay. `most_pixels`: as
    `opened`.

    Remembered is what is true of the file whatever is read of it, so that no clip depends on which process
    reads it.

    Raises:
        UnreadableVideoError: no video that can be decoded.
    """
    global _known_bytes
    key = _key(path)
    known = _known.get(key)
    if known is None:
        try:
            known = _rated(guarded(path, _read_index, path, most_pixels))
        except DecoderLostError as error:
            known = error
        _known_bytes += getattr(known, "nbytes", 1000)
        if _known_bytes > MAX_KNOWN:
            _known.clear()
            _known_bytes = 0
        _known[key] = known
    if isinstance(known, DecoderLostError):
        raise known
    return known


def distrust_seeking(path: FilePath) -> None:
    """From here on this process reads the file by PyAV: random access fails on it or does not come back."""
    _known[_key(path)] = replace(video_index(path), seekable=False)


def _key(path: FilePath) -> _Key:
    try:
        about = os.stat(path)
    except OSError:
        return os.fspath(path), -1, -1  # `guarded` says what is wrong
    return os.fspath(path), about.st_size, about.st_mtime_ns


@dataclass(frozen=True)
class _Packets:
    """All packets in the order of the file, (P,) each. `keys`: key frames; `starts`: those that nothing after
    them refers past; `shown`: gives a picture."""

    stamps: np.ndarray
    sizes: np.ndarray
    keys: np.ndarray
    starts: np.ndarray
    shown: np.ndarray

    @property
    def reordered(self) -> bool:
        return bool((np.diff(self.stamps) < 0).any())

    @property
    def closed(self) -> bool:
        """Whether key frames are starts, and part what is shown before them from what is shown after them."""
        latest = np.maximum.accumulate(self.stamps)
        earliest = np.minimum.accumulate(self.stamps[::-1])[::-1]
        apart = (earliest == self.stamps) & (latest == self.stamps)
        return bool((apart & self.starts)[self.keys].all())


def _rated(index: VideoIndex) -> VideoIndex:
    """With the rate of its frames where it is not what the header says, as may be in Matroska: by more than
    what the last frame, whose end no stamp tells, is to an average."""
    if index.stamps is None or index.num_frames < 2:
        return index
    span = (index.stamps[-1] - index.stamps[0]) * index.time_base
    gap = span / (index.num_frames - 1)
    if abs(gap * index.fps - 1) * (index.num_frames - 1) <= 1.5 * index.fps * gap:
        return index
    return replace(index, fps=float(1 / gap))


@dataclass(frozen=True)
class _Scan:
    """What the header says and all packets together. `rows`: the fields of `_Packets`, one of each packet;
    `first`: the frame that a decoder gives first; `damaged`: a packet is marked as such."""

    codec: str
    kind: str  # of the container
    rows: list[tuple[int | None, int, bool, bool, bool]]
    first: VideoFrame
    damaged: bool
    num_announced: int
    num_listed: int
    fps: float
    aspect: float
    time_base: float


def _scan(path: FilePath, most_pixels: int | None) -> _Scan:
    """Reads every packet and decodes up to the first frame. Raises UnreadableVideoError where there is
    none."""
    rows: list[tuple[int | None, int, bool, bool, bool]] = []
    first: VideoFrame | None = None
    with opened(path, most_pixels) as (container, stream):
        codec, kind = stream.codec.canonical_name, container.format.name.split(",")[0]
        extradata = stream.codec_context.extradata or b""
        damaged = False
        for packet in each_packet(container, stream):
            if packet.dts is not None or packet.size:  # the last one is empty
                start = packet.is_keyframe and (codec != "h264" or _has_idr(bytes(packet), extradata))
                shown = packet.size > 0 and not packet.is_discard  # an edit list hides what is before a cut
                if codec == "vp8":
                    shown = shown and bool(memoryview(packet)[0] & 16)  # or it is there to be referred to
                rows.append((packet.pts, packet.size, packet.is_keyframe, start, shown))
                damaged |= packet.is_corrupt
            first = first or next(iter(decoded(packet)), None)
        if first is None:
            reason = (
                f"holds no frame of {codec} that can be decoded, truncated or not a video; fetch it again"
            )
            raise UnreadableVideoError(path, reason)
        return _Scan(
            codec,
            kind,
            rows,
            first,
            damaged,
            num_announced=stream.frames,
            num_listed=len(stream.index_entries),
            fps=float(stream.average_rate or stream.guessed_rate or "nan"),
            aspect=float(stream.sample_aspect_ratio or 1),
            time_base=float(stream.time_base or 1),
        )


def _refuse_broken(path: FilePath, scan: _Scan) -> None:
    """Raises UnreadableVideoError where frames that the header lists are not there, or pixels are of a shape
    that no camera has."""
    if scan.kind == "mov" and (scan.damaged or len(scan.rows) < scan.num_listed):
        seen = f"its table lists {scan.num_listed} frames, {len(scan.rows) - scan.damaged} are there"
        reason = f"cannot be decoded, truncated or not a video ({seen}); fetch it again"
        raise UnreadableVideoError(path, reason)
    if not 1 / MAX_ASPECT <= scan.aspect <= MAX_ASPECT:
        reason = (
            f"its pixels are {scan.aspect:g} times as wide as high; correct it: ffmpeg -i IN -vf setsar=1 OUT"
        )
        raise UnreadableVideoError(path, reason)


def _read_index(path: FilePath, most_pixels: int | None = None) -> VideoIndex:
    """From the packets alone where they tell all of it, else by decoding the whole file."""
    scan = _scan(path, most_pixels)
    _refuse_broken(path, scan)
    height, width = shape = shown_shape(scan.first, scan.aspect)
    index = VideoIndex(0, scan.fps, height, width, None, scan.time_base, (0,), seekable=False)
    if scan.damaged or scan.kind not in TRUE_TIMES or any(row[0] is None for row in scan.rows):
        return _counted(path, index, most_pixels)
    packets = _Packets(*map(np.array, zip(*scan.rows, strict=True)))
    stamps = np.sort(packets.stamps[packets.shown])
    if (np.diff(stamps) <= 0).any() or not packets.keys[0] or stamps[0] < packets.stamps[0]:
        return _counted(path, index, most_pixels)
    if scan.kind == "avi" and packets.reordered:
        return _counted(path, index, most_pixels)
    starts = np.searchsorted(stamps, packets.stamps[packets.starts & packets.shown])
    index = replace(
        index, num_frames=len(stamps), stamps=stamps, starts=(0, *np.unique(starts[starts > 0]).tolist())
    )
    if scan.codec == "mpeg4" and (packets.reordered or packets.sizes.min() <= NO_PICTURE):
        counted = _counted(path, index, most_pixels)
        one_to_one = counted.stamps is not None and np.array_equal(counted.stamps, stamps)
        return index if one_to_one else replace(counted, starts=(0,))
    return replace(
        index,
        seekable=scan.codec != "av1"
        and scan.num_announced in (0, len(scan.rows))  # decord makes room for what is announced, or aborts
        and shape == (scan.first.height, scan.first.width)
        and display_matrix(scan.first) is None
        and all(part.bits <= 8 for part in scan.first.format.components)  # of more decord makes other RGB
        and bool(packets.shown.all())
        and packets.closed,
    )


def decoded(packet: Packet) -> list[VideoFrame]:
    """The frames that a packet completes; none where it is damaged."""
    try:
        return packet.decode()
    except av.error.InvalidDataError:
        return []


def _counted(path: FilePath, index: VideoIndex, most_pixels: int | None) -> VideoIndex:
    """The index with what only decoding all of the file tells: how many frames there are, and when."""
    with opened(path, most_pixels) as (container, stream):
        times, whole = [], 0
        for frame in chain.from_iterable(map(decoded, each_packet(container, stream))):
            times.append(frame.pts)
            whole = whole if frame.is_corrupt else len(times)
    del times[whole:]  # of a file that ends early the last one may be half there
    if not times:
        raise UnreadableVideoError(path, "holds no whole frame; fetch it again")
    stamps = None if None in times else np.array(times, np.int64)
    if stamps is not None and (np.diff(stamps) <= 0).any():
        stamps = None
    return replace(index, num_frames=len(times), stamps=stamps)


def _has_idr(data: bytes, extradata: bytes) -> bool:
    """Whether an access unit of H.264 holds an IDR picture (NAL unit type 5). At other key frames, recovery
    points, later pictures may refer to earlier ones."""
    if extradata[:1] != b"\x01":  # Annex B: units between start codes
        return any(data[code.end()] & 31 == 5 for code in re.finditer(rb"\x00\x00\x01(?=.)", data, re.DOTALL))
    width, at = (extradata[4] & 3) + 1, 0  # of the unit's length before each
    while at + width < len(data):
        if data[at + width] & 31 == 5:
            return True
        at += width + int.from_bytes(data[at : at + width], "big")
    return False


def display_matrix(frame: VideoFrame) -> np.ndarray | None:
    """(2, 2) int32 by which (x, y) of a picture that is stored turned or mirrored becomes that of the picture
    shown: x' = x m[0, 0] + y m[1, 0]. None where both are the same."""
    side_data: Any = frame.side_data
    if "DISPLAYMATRIX" not in side_data:
        return None
    matrix = np.frombuffer(bytes(side_data["DISPLAYMATRIX"]), np.int32).reshape(3, 3)[:2, :2]
    return None if np.array_equal(np.sign(matrix), np.eye(2)) else matrix


def shown_shape(frame: VideoFrame, aspect: float) -> tuple[int, int]:
    """(height, width) of a frame upright and with square pixels; `aspect` is the stored pixels' width by
    height."""
    shape = frame.height, frame.width if abs(aspect - 1) < SQUARE else round(frame.width * aspect)
    matrix = display_matrix(frame)
    return shape if matrix is None or matrix[0, 0] else shape[::-1]
