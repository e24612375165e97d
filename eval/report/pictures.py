"""Pictures inside a page: shown at a fitting size, shrunk where they are large, left out where it is full."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageSequence

MIN_CLIP_EDGE = 96  # pixels; a smaller clip is shown larger, by a whole factor
MAX_CLIP_EDGE = 128  # a larger clip is shrunk
MAX_WIDTH = 1200  # of any picture
PAGE_LIMIT = 8 * 2**20  # bytes of all pictures of a page, as the base64 that stands in it


@dataclass(frozen=True)
class Picture:
    """A GIF or a PNG, a caption, and how many rows of clips a GIF holds. A plot may be shown dark."""

    path: Path
    caption: str
    num_rows: int = 1
    plot: bool = False

    @property
    def kind(self) -> str:
        return self.path.suffix[1:]


@dataclass(frozen=True)
class Embedded:
    """What stands in a page: the address of the data, and the width and height in pixels to show it at."""

    address: str
    width: int
    height: int


def embed(pictures: Sequence[Picture], limit: int = PAGE_LIMIT) -> tuple[dict[Path, Embedded], list[Path]]:
    """The pictures that fit into `limit` bytes, plots before clips and else in their order, and the paths of
    those left out."""
    embedded: dict[Path, Embedded] = {}
    left_out: list[Path] = []
    room = limit
    for picture in sorted(pictures, key=lambda picture: picture.kind == "gif"):
        if picture.path in embedded:
            continue
        shown = _embed(picture)
        if len(shown.address) > room:
            left_out.append(picture.path)
            continue
        room -= len(shown.address)
        embedded[picture.path] = shown
    return embedded, left_out


def _embed(picture: Picture) -> Embedded:
    with Image.open(picture.path) as image:
        width, height = image.size
        largest = MAX_CLIP_EDGE * picture.num_rows if picture.kind == "gif" else height
        scale = min(1.0, MAX_WIDTH / width, largest / height)
        if scale < 1:
            width, height = max(1, round(width * scale)), max(1, round(height * scale))
            data = _shrunk(image, (width, height))
        else:
            data = picture.path.read_bytes()
    if picture.kind == "gif":
        factor = max(1, math.ceil(MIN_CLIP_EDGE * picture.num_rows / height))
        width, height = width * factor, height * factor
    text = base64.b64encode(data).decode("ascii")
    return Embedded(f"data:image/{picture.kind};base64,{text}", width, height)


def _shrunk(image: Image.Image, size: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    if image.format != "GIF":
        image.resize(size, Image.Resampling.LANCZOS).save(file, format=image.format, optimize=True)
        return file.getvalue()
    frames, durations = [], []
    for frame in ImageSequence.Iterator(image):
        durations.append(frame.info.get("duration", 100))
        frames.append(frame.convert("RGB").resize(size, Image.Resampling.LANCZOS).quantize())
    frames[0].save(
        file, format="GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0, disposal=1
    )
    return file.getvalue()
