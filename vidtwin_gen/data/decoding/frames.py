"""The frames of a video, as a decode from the beginning numbers them: by random access where that is known to
be right, else by PyAV from a frame where decoding may begin."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import chain
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vidtwin_gen.data.decoding.guarded import (
    DecoderLostError,
    FilePath,
    UnreadableVideoError,
    each_packet,
    guarded,
    opened,
)
from vidtwin_gen.data.decoding.process import tell_progress
from vidtwin_gen.data.decoding.video_index import VideoIndex, display_matrix, distrust_seeking
from vidtwin_gen.files import first_line
from vidtwin_gen.flags import Decoder

try:
    import decord
except ImportError:  # there are wheels for x86-64 alone
    decord = None
else:
    # ffmpeg's messages about a damaged file name neither the file nor a remedy; our errors name both.
    decord.logging.set_level(decord.logging.QUIET)

ByRandomAccess = Callable[[FilePath, VideoIndex, Sequence[int]], np.ndarray]
TICK = Fraction(1, 1000)  # a filter needs a time base; any will do here


class OtherFramesError(UnreadableVideoError):
    """Random access does not see the frames of a decode from the beginning."""


def read_frames_at(
    path: FilePath, index: VideoIndex, numbers: Sequence[int], decoder: Decoder = "auto"
) -> np.ndarray:
    """uint8 (F, H, W, C): the frame at each of `numbers`, which do not decrease.

    Where random access fails, PyAV decides: a frame is damaged only if a decode in order finds it so. A frame
    that ffmpeg decodes in part and marks as corrupt is damaged for PyAV alone; decord returns it.

    Raises:
        UnreadableVideoError: one of them cannot be decoded.
        ValueError: as `random_access`.
    """
    read = random_access(decoder) if index.seekable else None
    if read is not None:
        try:
            return guarded(path, read, path, index, numbers)
        except (DecoderLostError, OtherFramesError):
            distrust_seeking(path)
        except UnreadableVideoError:
            pass
    return guarded(path, _in_order, path, index, numbers)


def _in_order(path: FilePath, index: VideoIndex, numbers: Sequence[int]) -> np.ndarray:
    return np.stack(list(frames_at(path, index, numbers)))


def random_access(decoder: Decoder) -> ByRandomAccess | None:
    """What reads the frames of a seekable file at some numbers, which do not decrease: uint8 (F, H, W, C);
    None where PyAV reads all files. "auto" is decord where it is installed, else PyAV.

    Raises:
        ValueError: the decoder is not installed, or unknown.
    """
    if decoder == "pyav" or (decoder == "auto" and decord is None):
        return None
    if decoder == "torchcodec":
        _import_torchcodec()
        return by_torchcodec
    if decoder not in ("auto", "decord"):
        raise ValueError(f"--decoder is auto, decord, pyav or torchcodec, got {decoder!r}")
    if decord is None:
        raise ValueError("--decoder decord is not installed: pip install decord, or --decoder pyav")
    return by_decord


def by_decord(path: FilePath, index: VideoIndex, numbers: Sequence[int]) -> np.ndarray:
    try:
        # One thread: the loader's workers are the parallelism. fault_tol: by default decord silently replaces
        # a frame that it cannot decode by a neighbour; with so small a share it replaces none.
        reader = decord.VideoReader(os.path.abspath(path), num_threads=1, fault_tol=1e-9)
        times = reader.get_frame_timestamp(range(len(reader)))[:, 0]
        if len(reader) != index.num_frames or times[0] < -1e-3 or (np.diff(times) <= 0).any():
            raise OtherFramesError(path, "decord sees other frames in it")
        frames: list[np.ndarray] = []
        for i, number in enumerate(numbers):  # one by one costs what get_batch costs, which also hangs
            tell_progress()
            again = i > 0 and number == numbers[i - 1]  # if the target rate is above the video's own
            frames.append(frames[-1] if again else _pixels(reader[number]))
    except (decord.DECORDError, decord.DECORDLimitReachedError) as error:
        raise RuntimeError(str(error)) from error
    return np.stack(frames)


def _pixels(frame: Any) -> np.ndarray:
    """uint8 (H, W, C). At a few small widths (8, 16, 24, 48) decord mistakes the padding that ffmpeg puts at
    the end of each line for more channels."""
    height, width = frame.shape[:2]
    lines = frame.asnumpy().reshape(height, -1)[:, : 3 * width]
    return lines.reshape(height, width, 3)


def by_torchcodec(path: FilePath, index: VideoIndex, numbers: Sequence[int]) -> np.ndarray:
    reader = _import_torchcodec().VideoDecoder(
        os.path.abspath(path), dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact"
    )
    if len(reader) != index.num_frames:
        raise OtherFramesError(path, "torchcodec sees other frames in it")
    return reader.get_frames_at(list(numbers)).data.numpy()


def _import_torchcodec() -> Any:
    try:
        from torchcodec import decoders
    except (ImportError, OSError, RuntimeError) as error:  # no such package, or no libraries of ffmpeg
        reason = first_line(error)
        raise ValueError(
            f"--decoder torchcodec can't be loaded ({reason}): pip install the torchcodec that goes with "
            "this torch, and ffmpeg's shared libraries, or take --decoder pyav"
        ) from None
    return decoders


def frames_at(
    path: FilePath, index: VideoIndex, numbers: Sequence[int], most_pixels: int | None = None
) -> Iterator[np.ndarray]:
    """uint8 (H, W, C), one after the other: the frame at each of `numbers`, which do not decrease. One frame
    is in memory at a time, however long the video is. `most_pixels`: as `opened`.

    Raises:
        UnreadableVideoError: the decoder meets damage on the way to one of them.
    """
    frames, last, graph = _numbered(path, index, numbers[0], most_pixels), -1, None
    for number in numbers:
        if number != last:
            last, frame = next((item for item in frames if item[0] >= number), (-1, None))
            if frame is None or last != number:
                raise UnreadableVideoError(path, f"damaged at frame {number}; fetch it again or remove it")
            graph = graph or _conversion(frame, index)
            graph.vpush(frame)
            picture = graph.vpull().to_ndarray()
        yield picture


def _numbered(
    path: FilePath, index: VideoIndex, begin: int, most_pixels: int | None
) -> Iterator[tuple[int, VideoFrame]]:
    """Frames with their numbers, from `begin` or some before it up to the first that is damaged."""
    start = index.start_before(begin)
    if start and index.stamps is not None:
        numbers = {stamp: number for number, stamp in enumerate(index.stamps.tolist())}
        with opened(path, most_pixels) as (container, stream):
            container.seek(int(index.stamps[start]), stream=stream)
            frames = _undamaged(container, stream)
            first = next(frames, None)
            if first is not None and numbers.get(first.pts, -1) <= start:  # else the seek went astray
                yield from ((numbers.get(frame.pts, -1), frame) for frame in chain([first], frames))
                return
    with opened(path, most_pixels) as (container, stream):
        yield from enumerate(_undamaged(container, stream))


def _undamaged(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """The frames up to the first that is damaged; later ones may refer to it."""
    for packet in each_packet(container, stream):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            yield from stream.codec_context.decode(None)  # what was complete before
            return
        for frame in frames:
            if frame.is_corrupt:
                return
            yield frame


def _conversion(frame: VideoFrame, index: VideoIndex) -> Graph:
    """What makes RGB of such frames, of the size in the index: upright, with square pixels."""
    graph, matrix = Graph(), display_matrix(frame)
    graph.threads = 1
    nodes = [graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=TICK)]
    if matrix is not None:
        mirrored, flipped = (matrix.sum(0) < 0).tolist()  # one number of each column is 0
        nodes += [graph.add("transpose", "0")] if not matrix[0, 0] else []  # x for y, y for x
        nodes += [graph.add("hflip")] if mirrored else []
        nodes += [graph.add("vflip")] if flipped else []
    nodes += [graph.add("scale", f"{index.width}:{index.height}"), graph.add("format", "rgb24")]
    graph.link_nodes(*nodes, graph.add("buffersink")).configure()
    return graph
