"""A hook of mkdocs: a page has the path of the repository in the site, so that one link serves both."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
SHOWN = (
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE"),
    *("docs/*.md", "docs/*.js", "docs/images/*", "examples/*.ipynb"),
    *("pretrained/**/*.md", "pretrained/**/*.png", "benchmarks/*.md", "benchmarks/*/*.png"),
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The theme's files, those of the repository that are `SHOWN`, and the pages of docstrings."""
    shown = [file for file in files if file.src_dir != config.docs_dir]
    for path in sorted(path for pattern in SHOWN for path in ROOT.glob(pattern)):
        name = path.relative_to(ROOT).as_posix()
        shown.append(File.generated(config, name, abs_src_path=str(path)))
    for title, objects in config.extra["reference"].items():
        text = "\n\n".join([f"# {title}", *(f"::: {name}" for name in objects)])
        shown.append(File.generated(config, f"reference/{title.lower()}.md", content=text))
    return Files(shown)
