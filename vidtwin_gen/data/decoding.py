"""decord, and what it takes to trust it: typed errors, a time limit, and the frames that were asked for."""

from __future__ import annotations

import gc
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import decord
import numpy as np

Result = TypeVar("Result")

# A reader that the parent has dropped but not yet collected (an exception's traceback held it) must not be
# collected in a forked data worker: decord's destructor joins a thread that the fork did not copy: abort.
os.register_at_fork(after_in_child=gc.freeze)

# What ffmpeg would print of a damaged file says neither which file it is nor what to do; the errors below do.
decord.logging.set_level(decord.logging.QUIET)

# A clip takes milliseconds to decode. decord can spin for ever in native code on a file that holds fewer
# frames than it announces (dmlc/decord issues 269, 373, 375), and a training run must not stop there.
DECODE_TIMEOUT_S = 60.0
DECODE_ERRORS = (
    decord.DECORDError,
    decord.DECORDLimitReachedError,
    RuntimeError,
    AssertionError,
    StopIteration,
    OSError,
)

NATIVE_LINE = re.compile(r"\[\d\d:\d\d:\d\d\] \S+:\d+: ")  # the time, a line of decord's source


class VideoError(ValueError):
    """A file that gives no clip. `path` names it, `reason` says what was seen and the way out."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"{os.fspath(path)}: {reason}")
        self.path = os.fspath(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type[VideoError], tuple[str, str]]:
        return type(self), (self.path, self.reason)  # two arguments: the default would not unpickle


class UnreadableVideoError(VideoError):
    """Missing, empty, truncated, corrupt, or without a video stream."""


class VideoTooShortError(VideoError):
    """Readable, but with fewer frames than the clip spans."""


def guarded(path: str | os.PathLike[str], read: Callable[[], Result]) -> Result:
    """The result of `read`, or the VideoError that explains why there is none, within DECODE_TIMEOUT_S."""
    if not os.path.isfile(path):
        raise UnreadableVideoError(path, "no such file; check the path")
    if os.path.getsize(path) == 0:
        raise UnreadableVideoError(path, "the file is empty; fetch it again or remove it")
    results: list[Result] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(read())
        except Exception as error:  # handed to the caller's thread below
            errors.append(error)

    # A thread, because native code cannot be interrupted; decord releases the GIL. One that never comes back
    # is left behind: it costs a core, and as a daemon it does not keep the process alive.
    thread = threading.Thread(target=run, name="decode", daemon=True)
    thread.start()
    thread.join(DECODE_TIMEOUT_S)
    if results:
        return results[0]
    if not errors:
        reason = f"decoding did not end in {DECODE_TIMEOUT_S:g} s; re-encode the file or remove it"
        raise UnreadableVideoError(path, reason)
    if isinstance(errors[0], DECODE_ERRORS):
        raise UnreadableVideoError(path, _explain(errors[0])) from errors[0]
    raise errors[0]


def _explain(error: Exception) -> str:
    message = NATIVE_LINE.sub("", str(error))
    if "cannot find video stream" in message:
        return "holds no video stream (sound only, or a broken header); remove it"
    if isinstance(error, decord.DECORDLimitReachedError):
        return "damaged: frames of this clip would be copies of their neighbours; fetch it again or remove it"
    return f"cannot be decoded, truncated or not a video ({message.splitlines()[0] if message else error!r})"


@contextmanager
def native_stderr_discarded() -> Iterator[None]:
    """Of a file that it cannot open decord prints a line from native code, besides the error: for a command
    whose own line is to stand alone. Of the whole process, so not for one with other threads at work."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def open_reader(path: str | os.PathLike[str]) -> tuple[decord.VideoReader, int, bool]:
    """The reader, how many frames it can show, and whether decord's random access can be trusted."""
    # One thread: the loader's workers are the parallelism. fault_tol: by default decord fills in for a frame
    # that it cannot decode with a neighbour and says nothing; this little lets it replace none.
    reader = decord.VideoReader(os.fspath(path), num_threads=1, fault_tol=1e-9)
    times = reader.get_frame_timestamp(range(len(reader)))[:, 0]
    # Packets from before the start are there to be decoded but never shown (an edit list: what `ffmpeg -ss
    # -c copy` leaves). decord counts them. A time that is absent is about -1e17: AVI files with B-frames,
    # about one in fifteen of UCF-101's. In both cases decord seeks to the wrong frame.
    num_hidden = int(((times < -1e-3) & (times > -1e6)).sum())
    seekable = bool(times[0] > -1e-3 and (np.diff(times) > 0).all())
    return reader, len(reader) - num_hidden, seekable


def frames_at(reader: decord.VideoReader, indices: Iterable[int], seekable: bool) -> Iterator[np.ndarray]:
    """uint8 (H, W, C): the frame at each of `indices`, which do not decrease, of a reader just opened."""
    last = -1
    for index in indices:
        if index == last:
            pass  # shown again: the target rate is above the video's own
        elif seekable:  # one by one costs what get_batch costs, which also hangs where this does not
            frame = _pixels(reader[index])
        else:  # in the order of the file, from its beginning: slower, and right
            for _ in range(index - last):
                passing = reader.next()
            frame = _pixels(passing)
        last = index
        yield frame


def _pixels(frame: Any) -> np.ndarray:
    """uint8 (H, W, C). At a few small widths (8, 16, 24, 48) decord takes the padding that ffmpeg puts at the
    end of each line for further channels."""
    height, width = frame.shape[:2]
    lines = frame.asnumpy().reshape(height, -1)[:, : 3 * width]
    return lines.reshape(height, width, 3)
