"""Processes that decode for this one. Native code that aborts takes its process with it, and some that never
comes back cannot be interrupted: here either costs a file, not the run.

A process is started where none is idle, takes a third of a second, and stays for the next call. It imports
no torch. What goes to it and back is pickled, the frames themselves as they lie in memory.
"""

from __future__ import annotations

import atexit
import math
import os
import pickle
import queue
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from vidtwin_gen.program.signals import blocked_signals

PROGRESS_S = 0.2  # between two words of it
SLICE_S = 1.0  # of waiting


class DecoderDiedError(RuntimeError):
    """The process ended in the middle of a call; says by which signal, or with which exit status."""


# What is called at each word of progress while this thread waits for a decoder, at least every PROGRESS_S:
# what it raises ends the call and the decoder's process.
while_waiting: ContextVar[Callable[[], object] | None] = ContextVar("while_waiting", default=None)


class Channel:
    """Objects over a socket, arrays among them without a copy on this side."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def send(self, value: Any) -> None:
        buffers: list[pickle.PickleBuffer] = []
        head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
        parts = [memoryview(head), *(buffer.raw() for buffer in buffers)]
        self.connection.settimeout(None)
        self.connection.sendall(struct.pack(f"!Q{len(parts)}Q", len(parts), *map(len, parts)))
        for part in parts:
            self.connection.sendall(part)

    def receive(self, timeout: float | None = None) -> Any:
        """Raises EOFError where the other side is gone, TimeoutError where it says nothing for so many
        seconds, of which one at most is of the time in which this process was stopped, as by Ctrl-Z."""
        slices = math.ceil(timeout / SLICE_S) if timeout else 1
        self.connection.settimeout(timeout and timeout / slices)
        (count,) = struct.unpack("!Q", self._read(8, slices))
        sizes = struct.unpack(f"!{count}Q", self._read(8 * count, slices))
        head, *buffers = [self._read(size, slices) for size in sizes]
        return pickle.loads(head, buffers=buffers)

    def _read(self, size: int, slices: int) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            try:
                received = self.connection.recv_into(view)
            except TimeoutError:
                slices -= 1
                if not slices:
                    raise
                continue
            except ConnectionResetError:
                received = 0
            if not received:
                raise EOFError
            view = view[received:]
        return data


class DecoderProcess:
    """Attributes:
    process_id: of it. is_idle: whether it has answered to the end.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs, blocked_signals():
            self._popen = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        self.channel, self.process_id, self.is_idle = Channel(ours), self._popen.pid, True

    def results(self, timeout: float, function: Callable[..., Iterator[Any]], *args: Any) -> Iterator[Any]:
        """What the generator function yields there, in the folder that this process works in now, a few
        ahead of what is taken. The function is found by its name in its module, as pickle finds functions.

        Raises:
            DecoderDiedError: the process ended. TimeoutError: nothing came for so many seconds, neither a
                result nor word of progress.
            Exception: what the function raised.
        """
        self.is_idle = False
        try:
            self.channel.send((_working_folder(), function, args))
            while (answer := self.channel.receive(timeout))[0] in ("result", "progress"):
                if answer[0] == "result":
                    yield answer[1]
                elif (call := while_waiting.get()) is not None:
                    call()
        except (EOFError, BrokenPipeError):
            status = self._popen.wait()
            how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
            raise DecoderDiedError(how) from None
        self.is_idle = True
        if answer[0] == "error":
            raise answer[1]

    def close(self) -> None:
        """Ends it, whatever it does."""
        self.channel.connection.close()
        self._popen.kill()
        self._popen.wait()


def _working_folder() -> str | None:
    """None where it was removed."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


_idle: list[DecoderProcess] = []
_of_parent: list[DecoderProcess] = []


@contextmanager
def decoder_process() -> Generator[DecoderProcess]:
    """One that is idle, or a new one, for the block. It is ended with the block where it has not answered to
    the end."""
    try:
        process = _idle.pop()
    except IndexError:
        process = DecoderProcess()
    try:
        yield process
    finally:
        if process.is_idle:
            _idle.append(process)
        else:
            process.close()


def end_idle() -> None:
    while _idle:
        _idle.pop().close()


def _forked() -> None:
    """A forked process has none: those that it sees are its parent's."""
    for process in _idle:
        process.channel.connection.close()
    _of_parent.extend(_idle)  # nobody's to wait for
    _idle.clear()


atexit.register(end_idle)
os.register_at_fork(after_in_child=_forked)


_asking: Channel | None = None  # in a process that decodes, to whoever asks
_told = 0.0


def tell_progress() -> None:
    """Called at each packet or frame: whoever waits for a result begins to wait anew."""
    global _told
    if _asking is None or time.monotonic() - _told < PROGRESS_S:
        return
    _told = time.monotonic()
    try:
        _asking.send(("progress",))
    except (BrokenPipeError, ConnectionResetError):
        os._exit(0)


def main(descriptor: int) -> None:
    """Answers calls until whoever asks is gone, and ends then, in the middle of one, too."""
    global _asking
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _asking = channel = Channel(socket.socket(fileno=descriptor))
    calls: queue.SimpleQueue[tuple[str | None, Callable[..., Iterator[Any]], tuple[Any, ...]]]
    calls = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(channel, calls), daemon=True).start()
    while True:
        folder, function, args = calls.get()
        try:
            if folder:  # which paths may be relative to
                os.chdir(folder)
            for result in function(*args):
                channel.send(("result", result))
            channel.send(("end",))
        except (BrokenPipeError, ConnectionResetError):
            os._exit(0)
        except Exception as error:  # the caller's
            channel.send(("error", error))


def _listen(channel: Channel, calls: queue.SimpleQueue[Any]) -> None:
    try:
        while True:
            calls.put(channel.receive())
    except EOFError:
        os._exit(0)


if __name__ == "__main__":
    sys.modules["vidtwin_gen.data.decoding.process"] = sys.modules[__name__]  # one, whoever imports it
    main(int(sys.argv[1]))
