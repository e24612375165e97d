"""Video files whose frames say their number."""

from __future__ import annotations

import io
import struct
import subprocess
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import imageio_ffmpeg
import torch

from vidtwin_gen.data.pixels import to_uint8


def ffmpeg(*arguments: object) -> None:
    subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *map(str, arguments)],
        check=True,
        timeout=120,
    )


def write_apng(path: Path, width: int, height: int, num_frames: int) -> None:
    """A small file of large black frames: after the first one each changes one pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    def control(number: int, *size: int) -> bytes:
        return chunk(b"fcTL", struct.pack(">5I2H2B", number, *size, 0, 0, 1, 25, 0, 0))

    parts = [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0))]
    parts += [chunk(b"acTL", struct.pack(">2I", num_frames, 1)), control(0, width, height)]
    parts += [chunk(b"IDAT", zlib.compress(bytes(height * (width + 1))))]
    for number in range(1, 2 * num_frames - 1, 2):
        data = struct.pack(">I", number + 1) + zlib.compress(bytes(2))
        parts += [control(number, 1, 1), chunk(b"fdAT", data)]
    path.write_bytes(b"".join([*parts, chunk(b"IEND", b"")]))


def numbered_frames(num_frames: int, height: int = 32, width: int = 48) -> torch.Tensor:
    """uint8 (F, H, W, C): frame k is the flat grey 3 * k, so that a frame says its number."""
    levels = 3 * torch.arange(num_frames, dtype=torch.uint8)
    return levels[:, None, None, None].expand(-1, height, width, 3).contiguous()


def frame_numbers(clip: torch.Tensor) -> list[int]:
    """Of a clip (C, F, H, W) in [-1, 1] that was read from such frames."""
    return (to_uint8(clip).float().mean((1, 2, 3)) / 3).round().int().tolist()


def write_shard(path: Path, videos: Iterable[tuple[bytes, str]]) -> None:
    """A .tar of WebDataset: of every video its bytes, as mp4, and its class, as cls."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number, (video, name) in enumerate(videos):
            for suffix, content in (("mp4", video), ("cls", name.encode())):
                about = tarfile.TarInfo(f"{number:04d}.{suffix}")
                about.size = len(content)
                tar.addfile(about, io.BytesIO(content))
