"""What it takes to trust a decoder: typed errors, a time limit, and a file opened."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from vidtwin_gen.data.decoding.process import DecoderDiedError, decoder_process, tell_progress

FilePath = str | os.PathLike[str]
Result = TypeVar("Result")

# Without progress: a clip takes milliseconds to decode, all frames of a long video minutes. decord can spin
# for ever in native code on a damaged file (dmlc/decord issues 269, 373, 375), and a training run must not
# stop there.
DECODE_TIMEOUT_S = 60.0
# ffmpeg's containers of video. A playlist is none: it names other files, and a stranger who uploads one to
# the studio would be shown them.
FORMATS = (
    "3gp,apng,asf,av1,avi,dv,flv,gif,h261,h263,h264,hevc,ivf,m4v,matroska,mjpeg,mov,mpeg,mpegts,mpegvideo,mxf,"
    "nut,obu,ogg,rm,vc1,webm,yuv4mpegpipe"
)
DECODE_ERRORS = (av.error.FFmpegError, RuntimeError, AssertionError, StopIteration, OSError)


class VideoError(ValueError):
    """A file that gives no clip. `path` names it, `reason` says what was seen and the way out."""

    def __init__(self, path: FilePath, reason: str) -> None:
        super().__init__(f"{os.fspath(path)}: {reason}")
        self.path = os.fspath(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type[VideoError], tuple[str, str]]:
        return type(self), (self.path, self.reason)  # two arguments: the default would not unpickle


class UnreadableVideoError(VideoError):
    """Missing, empty, truncated, corrupt, or without a video stream."""


class DecoderLostError(UnreadableVideoError):
    """The decoder ended its process, twice, or came no further for DECODE_TIMEOUT_S."""


class VideoTooShortError(VideoError):
    """Readable, but with fewer frames than the clip spans."""


def guarded(path: FilePath, read: Callable[..., Result], *args: Any) -> Result:
    """`read(*args)` in a process that decodes, which has DECODE_TIMEOUT_S from one `tell_progress` to the
    next. Raises the VideoError that explains why there is no result, and else what `read` raised."""
    _check(path)
    try:
        try:
            return cast(Result, _result(path, read, args))
        except DecoderDiedError:  # whoever is short of memory may have ended it
            return cast(Result, _result(path, read, args))
    except (DecoderDiedError, TimeoutError) as error:
        raise _lost(path, error) from None


def guarded_each(path: FilePath, read: Callable[..., Iterator[Result]], *args: Any) -> Iterator[Result]:
    """What `read(*args)` yields, likewise, a few ahead of what is taken."""
    _check(path)
    with decoder_process() as process:
        try:
            yield from process.results(DECODE_TIMEOUT_S, _each, path, read, args)
        except (DecoderDiedError, TimeoutError) as error:
            raise _lost(path, error) from None


def _check(path: FilePath) -> None:
    if os.path.isdir(path):
        raise UnreadableVideoError(path, "it is a folder; name a video file in it")
    if not os.path.isfile(path):
        raise UnreadableVideoError(path, "no such file; check the path")
    if os.path.getsize(path) == 0:
        raise UnreadableVideoError(path, "the file is empty; fetch it again or remove it")
    if not os.access(path, os.R_OK):
        raise UnreadableVideoError(path, "no permission to read it; give it, or leave the file out")


def _lost(path: FilePath, error: DecoderDiedError | TimeoutError) -> DecoderLostError:
    seen = f"decoding it ended the decoder's process ({error})"
    if isinstance(error, TimeoutError):
        seen = f"decoding came no further for {DECODE_TIMEOUT_S:g} s"
    return DecoderLostError(path, f"{seen}; re-encode the file or remove it")


def _result(path: FilePath, read: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    with decoder_process() as process:
        (result,) = process.results(DECODE_TIMEOUT_S, _once, path, read, args)
    return result


def _once(path: FilePath, read: Callable[..., Any], args: tuple[Any, ...]) -> Iterator[Any]:
    with _explained(path):
        yield read(*args)


def _each(path: FilePath, read: Callable[..., Iterator[Any]], args: tuple[Any, ...]) -> Iterator[Any]:
    with _explained(path):
        yield from read(*args)


@contextmanager
def _explained(path: FilePath) -> Iterator[None]:
    try:
        yield
    except DECODE_ERRORS as error:
        seen = getattr(error, "strerror", None) or str(error) or repr(error)
        reason = f"cannot be decoded, truncated or not a video ({seen.splitlines()[0]})"
        raise UnreadableVideoError(path, reason) from error


@contextmanager
def opened(path: FilePath, most_pixels: int | None = None) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The file and its video stream, as the package's own ffmpeg reads them. No frame of more than
    `most_pixels` is decoded, whatever the header says: to open a file may be to decode its first one.

    Raises:
        UnreadableVideoError: no video stream, of a codec without a decoder, or of larger frames.
    """
    # a decoder's own frame is a little larger, by whole blocks
    limit = {} if most_pixels is None else {"max_pixels": str(most_pixels + most_pixels // 8)}
    options = {"format_whitelist": FORMATS, **limit}
    place = os.path.abspath(path)  # ffmpeg takes what stands before a colon for a protocol
    with av.open(place, metadata_errors="replace", options=options) as container:
        stream = container.streams.best("video")
        if not isinstance(stream, VideoStream):
            raise UnreadableVideoError(
                path, "holds no video stream (sound only, or a broken header); remove it"
            )
        if stream.codec_context is None:
            raise UnreadableVideoError(
                path, "is of a codec that is not known here; re-encode it: ffmpeg -i IN -c:v libx264 OUT.mp4"
            )
        if most_pixels is not None:
            _refuse_large(path, stream, most_pixels)
            stream.codec_context.options = limit
        stream.codec_context.thread_count = 1  # the loader's workers are the parallelism
        yield container, stream


def _refuse_large(path: FilePath, stream: VideoStream, most_pixels: int) -> None:
    """ffmpeg reports a size above its limit as 0x0."""
    width, height = stream.codec_context.width, stream.codec_context.height
    width = round(width * (stream.sample_aspect_ratio or 1))  # as it is shown
    if 0 < width * height <= most_pixels:
        return
    seen = f"are {width}x{height}, and at most {most_pixels:,} pixels are read"
    unseen = f"have more than {most_pixels:,} pixels, or a size that its header does not tell"
    reason = f"its frames {seen if width else unseen}: make them smaller: ffmpeg -i IN -vf scale=-2:720 OUT"
    raise UnreadableVideoError(path, reason)


def each_packet(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """All of the stream, in the order of the file. Each is progress."""
    for packet in container.demux(stream):
        tell_progress()
        yield packet


def codec_name(path: FilePath) -> str:
    """Codec and pixel format, such as "h264 yuv420p". Errors as `opened`."""
    with opened(path) as (_, stream):
        return f"{stream.codec.canonical_name} {stream.codec_context.pix_fmt}"
