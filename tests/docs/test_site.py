"""`make docs`: every page and every public name is in the site; nothing is fetched from outside, and it is
searched without a server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import vidtwin_gen
from tests.docs.pages import PAGES, ROOT

build = pytest.importorskip("mkdocs.commands.build", reason="pip install -e '.[docs]'")
NOT_SHOWN = {"AGENTS.md"}
# what a browser loads by itself; links that wait for a click may lead anywhere
LOADED = re.compile(
    r"<(?:script|img|iframe|link(?! rel=\"(?:canonical|next|prev)\"))[^>]*(?:src|href)=\"?https?:"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    config = load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(folder))
    config.plugins.on_startup(command="build", dirty=False)
    build.build(config)  # strict: a warning, as of a link that leads nowhere, is an error
    return folder


def test_every_page_and_public_name_is_shown(site: Path) -> None:
    for page in set(PAGES) - NOT_SHOWN:
        name = page.replace("README.md", "index.md")
        assert (site / name).with_suffix(".html").is_file(), page
    text = "".join(path.read_text(encoding="utf-8") for path in (site / "reference").glob("*.html"))
    for name in (*vidtwin_gen.__all__, "psnr", "ssim", "frechet_distance", "kernel_distance"):
        assert re.search(rf'id="[\w.]+\.{name}"', text), name


def test_nothing_is_fetched_from_outside(site: Path) -> None:
    for path in site.rglob("*.html"):
        assert LOADED.findall(path.read_text(encoding="utf-8")) == [], path


def test_a_page_that_is_opened_from_a_file_is_searched(site: Path, browser: Any) -> None:
    page, requested = browser.new_page(), []
    page.on("request", lambda request: requested.append(request.url))
    page.goto((site / "docs" / "demo.html").as_uri())
    page.locator("input.md-search__input").press_sequentially("whitening")
    page.locator(".md-search-result__item").first.wait_for(timeout=120_000)
    links = page.locator(".md-search-result__link").all()
    assert any("design.html" in link.get_attribute("href") for link in links)
    assert all(url.startswith("file:") for url in requested)
