"""The pages that people read: what they tell the reader to type, and their links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", "AGENTS.md", "CHANGELOG.md", "pretrained/README.md") + tuple(
    sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))
)
NOT_TO_BE_RUN = ("text", "bibtex")


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@dataclass(frozen=True)
class Step:
    """A command, or a block of Python, and the page and line where it stands."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def words(self) -> list[str]:
        """Of a command."""
        return shlex.split(self.text)


def steps_of(page: str) -> Iterator[Step]:
    """A block of Python is one step, and so is each command of a block of shell."""
    text = read(page)
    for block in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        language, body = block.groups()
        line = text.count("\n", 0, block.start(2)) + 1
        if language == "python":
            yield Step(page, line, language, body)
        elif language == "bash":
            for command in re.finditer(r"(?:[^\n]*\\\n)*[^\n]+\n", body):
                at = line + body.count("\n", 0, command.start())
                yield Step(page, at, language, command[0].replace("\\\n", " ").strip())
        else:
            assert language in NOT_TO_BE_RUN, f"{page}:{line}: nothing runs a block of {language!r}"


STEPS = tuple(step for page in PAGES for step in steps_of(page))


def anchors(page: str) -> set[str]:
    """Of a page's headings, as GitHub makes them."""
    without_code = re.sub(r"^```.*?^```$", "", read(page), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", without_code, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: str) -> list[str]:
    """To files and headings; addresses on the web are left out."""
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", read(page)) if not link.startswith("https://")]
