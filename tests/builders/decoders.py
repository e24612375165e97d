"""Decoders that a file's name makes abort or wait for ever, and slow ones; a process that decodes
finds them here."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from av.packet import Packet

from vidtwin_gen.data.decoding.frames import _in_order, by_decord
from vidtwin_gen.data.decoding.guarded import FilePath, each_packet
from vidtwin_gen.data.decoding.video_index import VideoIndex, _read_index

ABORTS, HANGS = "aborts", "hangs"
SLOW_S = 0.07  # for a packet


def _fail(path: FilePath) -> None:
    if ABORTS in os.path.basename(path):
        os.abort()
    while HANGS in os.path.basename(path):
        time.sleep(1)


def index_or_fail(path: FilePath, *args: Any) -> VideoIndex:
    _fail(path)
    return _read_index(path, *args)


def decord_or_fail(path: FilePath, *args: Any) -> np.ndarray:
    _fail(path)
    return by_decord(path, *args)


def _slow_packets(*args: Any) -> Iterator[Packet]:
    for packet in each_packet(*args):
        time.sleep(SLOW_S)
        yield packet


def index_slowly(path: FilePath, *args: Any) -> VideoIndex:
    with patch("vidtwin_gen.data.decoding.video_index.each_packet", _slow_packets):
        return _read_index(path, *args)


def in_order_slowly(*args: Any) -> np.ndarray:
    with patch("vidtwin_gen.data.decoding.frames.each_packet", _slow_packets):
        return _in_order(*args)


def megabytes(told: Path, count: int) -> Iterator[bytes]:
    """Says in a file how many it has made."""
    for number in range(count):
        told.write_text(str(number + 1))
        yield bytes(1_000_000)


def sleepy() -> Iterator[int]:
    yield os.getpid()
    time.sleep(600)


def busy() -> Iterator[int]:
    """At work for half a second, however long it is stopped."""
    yield os.getpid()
    for _ in range(50):
        time.sleep(0.01)


def own_pid() -> Iterator[int]:
    yield os.getpid()


def wrong() -> Iterator[int]:
    raise ZeroDivisionError("as the function says")
    yield
