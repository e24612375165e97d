"""Pictures of a page: as small as they may be, and which are left out first."""

from __future__ import annotations

import base64
import io
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageSequence

from eval.report import pictures
from eval.report.page import Section, to_html
from eval.report.report import generated_clips
from eval.report.runs import read_runs
from vidtwin_gen.data.writing import write_gif


def test_pictures_are_shrunk_and_left_out_beyond_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = torch.randint(256, (2, 384, 96, 3), dtype=torch.uint8)
    for name in ("a", "b"):
        write_gif(tmp_path / f"{name}.gif", noise, fps=8)
    shown = [pictures.Picture(tmp_path / f"{name}.gif", name) for name in ("a", "b")]
    embedded, left_out = pictures.embed(shown, pictures.PAGE_LIMIT)
    assert left_out == [] and {(one.width, one.height) for one in embedded.values()} == {(48, 192)}
    size = len(embedded[tmp_path / "a.gif"].address)
    assert size < (tmp_path / "a.gif").stat().st_size
    embedded, left_out = pictures.embed(shown, limit=size + 1)
    assert list(embedded) == [tmp_path / "a.gif"] and left_out == [tmp_path / "b.gif"]
    kind, _, data = embedded[tmp_path / "a.gif"].address.partition(";base64,")
    with Image.open(io.BytesIO(base64.b64decode(data))) as clip:
        assert kind == "data:image/webp" and clip.n_frames == 2 and clip.info["loop"] == 0
        durations = []
        for frame in ImageSequence.Iterator(clip):
            frame.load()  # WebP tells it then
            durations.append(frame.info["duration"])
        assert sum(durations) == 250  # two frames of 8 a second, in hundredths
    monkeypatch.setattr("eval.report.page.PAGE_LIMIT", size + 1)
    page = to_html([Section("Clips", [pictures.PictureRow(shown)])], "title")
    assert f"want of room: <code>{(tmp_path / 'b.gif').as_posix()}" in page and page.count("<img") == 1


def test_no_picture_grows_when_it_is_shrunk(tmp_path: Path) -> None:
    """A wide picture of two colours is smaller as it is than with all colours between them."""
    flat, photo = tmp_path / "flat.png", tmp_path / "photo.png"
    bars = (torch.arange(1300) % 8 < 4).to(torch.uint8).expand(40, -1)
    Image.fromarray(bars.numpy() * 255).convert("1").save(flat)
    Image.effect_noise((1300, 200), 90).convert("RGB").save(photo)
    embedded, _ = pictures.embed(
        [pictures.Picture(path, path.stem) for path in (flat, photo)], pictures.PAGE_LIMIT
    )
    for path in (flat, photo):
        data = base64.b64decode(embedded[path].address.partition(",")[2])
        assert len(data) <= path.stat().st_size and embedded[path].width == 1200
    assert embedded[flat].address.startswith("data:image/png")
    assert embedded[photo].address.startswith("data:image/webp")


def test_every_class_is_shown_before_anything_else(tmp_path: Path) -> None:
    """Also where the page has room for little: on labelled rows, real clips beside generated ones."""
    run, names = tmp_path / "run", [f"Class{number:02}" for number in range(20)]
    noise = torch.randint(256, (4, 40, 40, 3), dtype=torch.uint8)
    write_gif(tmp_path / "noise.gif", noise, fps=8)
    for name in names:
        for path in (*(f"generated/{name}/{name}_{i}.gif" for i in range(3)), f"eval/real/{name}.gif"):
            (run / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tmp_path / "noise.gif", run / path)
    write_gif(run / "eval/recon.gif", torch.randint(256, (4, 400, 800, 3), dtype=torch.uint8), fps=8)
    section = generated_clips(read_runs([run]))
    rows = [part for part in section.body if isinstance(part, pictures.PictureRow)]
    assert [row.label for row in rows] == names
    captions = [[picture.caption for picture in row.pictures] for row in rows]
    assert captions == [[*["generated"] * 3, "real video"]] * 20
    both = [pictures.Picture(run / "eval/recon.gif", "", 4), *(p for row in rows for p in row.pictures)]
    full, _ = pictures.embed(both, pictures.PAGE_LIMIT)
    size = max(len(full[picture.path].address) for picture in both[1:])
    embedded, left_out = pictures.embed(both, limit=41 * size)
    assert run / "eval/recon.gif" in left_out
    for name in names:
        assert {run / f"generated/{name}/{name}_0.gif", run / f"eval/real/{name}.gif"} <= embedded.keys()
    assert f"<h3>{names[-1]}</h3>" in to_html([section], "title")
