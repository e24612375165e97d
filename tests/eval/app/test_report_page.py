"""The page of `python -m eval report` in a browser: tables that sort, plots and clips at any width."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from eval.report.page import Section, Table, to_html
from eval.report.pictures import Picture, PictureRow
from vidtwin_gen.data.writing import write_gif

RUNS = ["run 10", "run 9", "b", "a", "c"]
VALUES = ["1,008.5 ± 2", "-0.5 ± 0.1, N = 32", "97.25, N = 32", "–", "2.5e+04"]
NARROW, WIDE = 390, 1280


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Of a page with a table, a plot and a clip."""
    folder = tmp_path_factory.mktemp("report")
    files = {name: folder / f"{name}.png" for name in ("plot", "plot_narrow")}
    for file, size in zip(files.values(), ((1200, 300), (600, 1200)), strict=True):
        Image.new("RGB", size).save(file)
    write_gif(folder / "clip.gif", torch.randint(256, (4, 16, 16, 3), dtype=torch.uint8), fps=8)
    plot = Picture(files["plot"], "losses", plot=True, narrow=files["plot_narrow"])
    body = [
        Table(("run", "FVD"), list(zip(RUNS, VALUES, strict=True))),
        PictureRow([plot]),
        PictureRow([Picture(folder / "clip.gif", "a clip")]),
    ]
    (folder / "report.html").write_text(to_html([Section("Numbers", body)], "title"), encoding="utf-8")
    return (folder / "report.html").as_uri()


@pytest.fixture
def opened(browser, address):
    """Opens the page; no script fails in it, and it fits the screen."""
    contexts, errors = [], []

    def open_page(width=WIDE, **options):
        contexts.append(browser.new_context(viewport={"width": width, "height": 800}, **options))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: errors.append(error))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not errors


def test_a_table_sorts_by_what_its_cells_begin_with(opened):
    page = opened()
    by_number = [VALUES[index] for index in (1, 2, 0, 4)]
    by_name = ["a", "b", "c", "run 9", "run 10"]

    def column(number):
        return page.locator(f"tbody tr > :nth-child({number})").all_inner_texts()

    def states():
        return [head.get_attribute("aria-sort") for head in page.locator("thead th").all()]

    fvd, run = (page.get_by_role("button", name=name) for name in ("FVD", "run"))
    assert column(2) == VALUES and states() == [None, None]
    fvd.click()
    assert column(2) == [*by_number, "–"] and states() == ["none", "ascending"]
    fvd.press("Enter")
    assert column(2) == [*by_number[::-1], "–"] and states() == ["none", "descending"]
    run.press("Space")
    assert column(1) == by_name and states() == ["ascending", "none"]
    fvd.click()
    fvd.click()
    fvd.click()
    assert column(1) == RUNS and states() == ["none", "none"]


def test_without_scripts_it_reads_as_it_is(opened):
    page = opened(java_script_enabled=False)
    assert page.locator("tbody td").all_inner_texts() == VALUES and page.locator("button").count() == 0


@pytest.mark.parametrize(("width", "plot"), [(NARROW, (600, 1200)), (WIDE, (1200, 300))])
def test_a_plot_fits_the_screen_and_a_clip_plays(opened, width, plot):
    page = opened(width)
    shape = "image => image.decode().then(() => createImageBitmap(image)).then(b => [b.width, b.height])"
    assert tuple(page.locator("figure.plot img").evaluate(shape)) == plot
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    box = page.locator("figure.plot img").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= width
    clip = page.get_by_alt_text("a clip")
    first = clip.screenshot()
    assert any(clip.screenshot() != first for _ in range(100))
