"""What a program says: its first process alone, and nothing of it is a result."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO, cast


@contextmanager
def first_process_speaks() -> Iterator[None]:
    """Of several processes that a launcher started, the others print nothing; their errors are heard."""
    if os.environ.get("RANK", "0") == "0":
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        yield


class _Lossy:
    """A stream like another one, but that what the system doesn't take (a pipe without a reader, a full disk,
    a terminal that has gone) is lost and no error. Of None, which Python has for a closed one, all is lost.

    Attributes:
        lost: why, "" where nothing is, or the reader of a pipe has had enough.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream or open(os.devnull, "w")  # noqa: SIM115
        self.failed, self.lost = False, ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    @contextmanager
    def _losing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failed = True
            if not isinstance(error, BrokenPipeError):
                self.lost = str(error)

    def write(self, text: str) -> int:
        with self._losing():
            self.stream.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with self._losing():
            self.stream.flush()

    def end(self) -> None:
        """What can't be written goes nowhere, or the interpreter would fail of it at its end."""
        self.flush()
        if not self.failed:
            return
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), self.stream.fileno())


@contextmanager
def lossy_output(name: str) -> Iterator[None]:
    """What a program says is not its result: inside, losing it ends nothing, and is told at the end."""
    before = sys.stdout, sys.stderr
    output, errors = map(_Lossy, before)
    sys.stdout, sys.stderr = cast(TextIO, output), cast(TextIO, errors)
    try:
        yield
    finally:
        output.end()
        if output.lost:
            print(f"{name}: what it said on standard output is lost in part: {output.lost}", file=sys.stderr)
        errors.end()
        sys.stdout, sys.stderr = before
