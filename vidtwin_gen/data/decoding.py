"""What it takes to trust a decoder: typed errors, a time limit, and a file opened."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import av
from av.container import InputContainer
from av.video.stream import VideoStream

FilePath = str | os.PathLike[str]
Result = TypeVar("Result")

# A clip takes milliseconds to decode. decord can spin for ever in native code on a damaged file (dmlc/decord
# issues 269, 373, 375), and a training run must not stop there.
DECODE_TIMEOUT_S = 60.0
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


class DecodingHangsError(UnreadableVideoError):
    """No end within DECODE_TIMEOUT_S."""


class VideoTooShortError(VideoError):
    """Readable, but with fewer frames than the clip spans."""


def guarded(path: FilePath, read: Callable[[], Result]) -> Result:
    """The result of `read`, or the VideoError that explains why there is none, within DECODE_TIMEOUT_S."""
    if not os.path.isfile(path):
        raise UnreadableVideoError(path, "no such file; check the path")
    if os.path.getsize(path) == 0:
        raise UnreadableVideoError(path, "the file is empty; fetch it again or remove it")
    if not os.access(path, os.R_OK):
        raise UnreadableVideoError(path, "no permission to read it; give it, or leave the file out")
    results: list[Result] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(read())
        except Exception as error:  # handed to the caller's thread below
            errors.append(error)

    # A thread, because native code cannot be interrupted; both decoders release the GIL. One that never comes
    # back is left behind: it costs a core, and as a daemon it does not keep the process alive.
    thread = threading.Thread(target=run, name="decode", daemon=True)
    thread.start()
    thread.join(DECODE_TIMEOUT_S)
    if results:
        return results[0]
    if not errors:
        reason = f"decoding did not end in {DECODE_TIMEOUT_S:g} s; re-encode the file or remove it"
        raise DecodingHangsError(path, reason)
    if isinstance(errors[0], DECODE_ERRORS):
        seen = getattr(errors[0], "strerror", None) or str(errors[0]) or repr(errors[0])
        reason = f"cannot be decoded, truncated or not a video ({seen.splitlines()[0]})"
        raise UnreadableVideoError(path, reason) from errors[0]
    raise errors[0]


@contextmanager
def opened(path: FilePath) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The file and its video stream, as the package's own ffmpeg reads them.

    Raises:
        UnreadableVideoError: no video stream, or of a codec without a decoder.
    """
    with av.open(os.fspath(path), metadata_errors="replace") as container:
        stream = container.streams.best("video")
        if not isinstance(stream, VideoStream):
            raise UnreadableVideoError(
                path, "holds no video stream (sound only, or a broken header); remove it"
            )
        if stream.codec_context is None:
            raise UnreadableVideoError(
                path, "is of a codec that is not known here; re-encode it: ffmpeg -i IN -c:v libx264 OUT.mp4"
            )
        stream.codec_context.thread_count = 1  # the loader's workers are the parallelism
        yield container, stream
