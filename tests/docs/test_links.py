"""Links lead to files and headings that exist, and every page is one click from the README."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import PAGES, ROOT, anchors, links, read


@pytest.mark.parametrize("page", (*PAGES, "examples/quickstart.ipynb"))
def test_links_lead_somewhere(page: str) -> None:
    for link in links(page):
        file, _, anchor = link.partition("#")
        target = ((ROOT / page).parent / file).resolve() if file else ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.relative_to(ROOT).as_posix()), link


def test_every_page_is_one_click_from_the_readme() -> None:
    linked = {link.partition("#")[0] for link in links("README.md")}
    assert [page for page in PAGES if page.startswith("docs/") and page not in linked] == []


@pytest.mark.parametrize("page", PAGES)
def test_pictures_say_what_they_show(page: str) -> None:
    assert re.findall(r"!\[\s*\]\([^)]*\)", read(page)) == []


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page: str) -> None:
    """`folder/file.py` and `folder/` from the root, `file.py` anywhere."""
    for name in re.findall(
        r"`((?:[\w.]+/)*[\w.]+\.py|(?:vidtwin_gen|autoencoder|pipelines|eval|tests)/[\w/]*)`", read(page)
    ):
        anywhere = [] if "/" in name else list(ROOT.glob(f"[a-z]*/**/{name}"))
        assert (ROOT / name).exists() or anywhere, name
