"""What a validation shows: a picture with labelled rows and an animation, in `samples/` and the tracker."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from PIL import Image, ImageDraw, ImageFont

from vidtwin_gen.data.writing import filmstrip, tile, write_gif, write_png
from vidtwin_gen.training.trackers import log_picture


def save_samples(
    output_dir: str,
    step: int,
    accelerator: Accelerator,
    clips: torch.Tensor,
    labels: Sequence[str],
    cells: torch.Tensor,
    fps: float,
    columns: int | None = None,
) -> None:
    """`step_<step>.png`, a row of frames for each of `clips` (B, C, F, H, W) with its label, and `.gif`, the
    `cells` (N, C, F, H, W) in so many columns."""
    folder = Path(output_dir) / "samples"
    picture = with_row_labels(filmstrip(clips), labels)
    write_png(folder / f"step_{step:07d}.png", picture)
    log_picture(accelerator, picture, step)
    write_gif(folder / f"step_{step:07d}.gif", tile(cells, columns), fps)


def with_row_labels(picture: Image.Image, labels: Sequence[str]) -> Image.Image:
    """The picture of as many rows of one height as labels, which stand in a margin to the left."""
    font = ImageFont.load_default(size=12)
    margin = int(max(font.getlength(label) for label in labels)) + 8
    labelled = Image.new("RGB", (margin + picture.width, picture.height), "white")
    labelled.paste(picture, (margin, 0))
    draw = ImageDraw.Draw(labelled)
    for row, label in enumerate(labels):
        middle = (row + 0.5) * picture.height / len(labels)
        draw.text((margin - 4, middle), label, fill="black", font=font, anchor="rm")
    return labelled
