"""Class names: which may be classes, what their files are called, and how they stand in Markdown and in
messages."""

from __future__ import annotations

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence

MOST_BYTES = 200  # of a name; file systems end at 255, and a number and a suffix follow
UNSAFE = re.compile(r"[^\w .,()+-]")
MOST_KEPT = 60  # characters of a name that is changed
NUMBER = re.compile(r"_\d{3,}_*\Z")  # of its class, after it


def check_class_names(names: Sequence[str]) -> None:
    """Raises ValueError for names that a later step could not take: training, a pipeline, the files of
    generated clips. They must differ by more than their case and be no longer than a file's name."""
    for name in names:
        try:
            size = len(name.encode())
        except UnicodeEncodeError:
            raise ValueError(f"the class name {name!r} is not UTF-8") from None
        if not name.strip() or size > MOST_BYTES:
            raise ValueError(f"a class name has 1 to {MOST_BYTES} bytes, {name[:40]!r}... has {size}")
    check_different(names)


def check_different(names: Sequence[str]) -> None:
    """Raises ValueError for class names that are one to whoever asks for it, or to a file system."""
    by_fold: dict[str, str] = {}
    for name in names:
        other = by_fold.setdefault(folded(name), name)
        if other != name:
            raise ValueError(f"class names must differ by more than their case, got {other!r} and {name!r}")
    if len(by_fold) < len(names):
        raise ValueError(f"class names must differ, got {sorted(names)}")


def file_names(names: Sequence[str]) -> list[str]:
    """A name for the files of each class, all different and with no place in it: what a file system may not
    have is "_", and a name that was changed ends in the number of its class."""
    used: dict[str, str] = {}
    for label, name in enumerate(names):
        plain = _plain(name)
        if plain != name or len(name.encode()) > MOST_BYTES:
            plain = f"{plain[:MOST_KEPT]}_{label:03d}"
        while folded(plain) in used:
            plain += "_"
        used[folded(plain)] = plain
    return list(used.values())


def names_of_files(files: Collection[str], names: Sequence[str]) -> dict[str, str]:
    """Of those of these different files that are not called as a class, the class of which `file_names` made
    the name, whatever its number. A file is left out where no class or several would do, or where the class
    has another file."""
    known, there = ({folded(name) for name in group} for group in (names, files))
    by_plain: dict[str, list[str]] = {}
    for name in names:
        if (plain := _plain(name)) != name and folded(name) not in there:
            by_plain.setdefault(folded(plain[:MOST_KEPT]), []).append(name)
    found = {
        file: by_plain.get(folded(NUMBER.sub("", file)), []) for file in files if folded(file) not in known
    }
    count = Counter(name for of_file in found.values() for name in of_file)
    return {file: of_file[0] for file, of_file in found.items() if len(of_file) == 1 == count[of_file[0]]}


def _plain(name: str) -> str:
    return UNSAFE.sub("_", name).strip(" .")


def other_names(names: Sequence[str], before: Sequence[str]) -> list[tuple[str, str]]:
    """Of the classes whose number another class had before, both names."""
    return [
        (name, other) for name, other in zip(names, before, strict=False) if folded(name) != folded(other)
    ]


def folded(name: str) -> str:
    """The same for names that differ by their case, or by how Unicode writes them: a Mac's files have "ü" as
    two characters."""
    return unicodedata.normalize("NFC", name).casefold()


def markdown(text: str) -> str:
    """Text from strangers in one line of Markdown or one cell of a table, no HTML in it."""
    return " ".join(html.escape(text, quote=False).replace("|", "\\|").split())


def some(names: Sequence[str]) -> str:
    """The first five of a list of names, for a message."""
    first, others = names[:5], names[5:]
    return ", ".join(first) + (f" and {len(others)} more" if others else "")
