"""Pictures inside a page: shown at a fitting size, written anew where they are large, left out where it is
full."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageSequence

from vidtwin_gen.files import loading

CLIP_EDGE = 192  # pixels; a lower clip is shown larger, by a whole factor, a higher one is shrunk
MAX_WIDTH = 1200  # of any picture, and of a clip that is shown larger
PAGE_LIMIT = 8 * 2**20  # bytes of all pictures of a page, as the base64 that stands in it


@dataclass(frozen=True)
class Picture:
    """A GIF or a PNG, a caption, and how many rows of clips a GIF holds. A plot may be shown dark, and has
    another file for `narrow` screens. What is `first` gets its place in a page before the others."""

    path: Path
    caption: str
    num_rows: int = 1
    plot: bool = False
    first: bool = False
    narrow: Path | None = None

    @property
    def kind(self) -> str:
        return self.path.suffix[1:]


@dataclass(frozen=True)
class PictureRow:
    """Pictures beside one another, under a label that says what they have in common."""

    pictures: Sequence[Picture]
    label: str = ""


@dataclass(frozen=True)
class Embedded:
    """What stands in a page: the address of the data, and the width and height in pixels to show it at."""

    address: str
    width: int
    height: int


def embed(pictures: Sequence[Picture], limit: int) -> tuple[dict[Path, Embedded], list[Path]]:
    """The pictures that fit into `limit` bytes, in their order, but those that come first before plots and
    plots before the rest; and the paths of those left out. What is larger than its share is compressed."""
    embedded: dict[Path, Embedded] = {}
    left_out: list[Path] = []
    room, share = limit, limit // max(1, len(pictures))
    for picture in sorted(pictures, key=lambda picture: (not picture.first, not picture.plot)):
        if picture.path in embedded:
            continue
        with loading(picture.path, "make the picture again, or delete it"):
            shown = _embed(picture, share)
        if len(shown.address) > room:
            left_out.append(picture.path)
            continue
        room -= len(shown.address)
        embedded[picture.path] = shown
    return embedded, left_out


def _embed(picture: Picture, share: int) -> Embedded:
    data, kind = picture.path.read_bytes(), picture.kind
    with Image.open(picture.path) as image:
        width, height = image.size
        edge = CLIP_EDGE * picture.num_rows if kind == "gif" else height
        scale = min(1.0, MAX_WIDTH / width, edge / height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        if scale < 1 or len(data) * 4 / 3 > share:
            anew = _webp(image, size)
            data, kind = min((data, kind), (anew, "webp"), key=lambda pair: len(pair[0]))
    width, height = size
    if picture.kind == "gif":
        factor = max(1, min(edge // height, MAX_WIDTH // width))
        width, height = width * factor, height * factor
    text = base64.b64encode(data).decode("ascii")
    return Embedded(f"data:image/{kind};base64,{text}", width, height)


def _webp(image: Image.Image, size: tuple[int, int]) -> bytes:
    """All frames of a picture at (width, height), with their durations."""
    frames, durations = [], []
    for frame in ImageSequence.Iterator(image):
        durations.append(frame.info.get("duration", 100))
        frames.append(frame.convert("RGB").resize(size, Image.Resampling.LANCZOS))
    file = io.BytesIO()
    rest = {"append_images": frames[1:], "duration": durations}
    frames[0].save(file, "WEBP", quality=85, **({"save_all": True, **rest} if len(frames) > 1 else {}))
    return file.getvalue()
