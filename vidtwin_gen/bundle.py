"""One self-contained source file out of a module of ours and all modules of ours that it imports.

What diffusers loads as remote code beside a component's weights is a single file, which can import installed
packages but no others of its repository (diffusers.utils.dynamic_modules_utils).
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
import sys
import textwrap
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

DISTRIBUTION = "vidtwin-gen"
LICENCE = "SPDX-License-Identifier: Apache-2.0"
PACKAGES = ("vidtwin_gen", "autoencoder", "pipelines", "eval")
LINE_LENGTH = 110

Import = tuple[str, str | None]  # (module, name), of `import module` or of `from module import name`


def self_contained(
    module: str,
    about: str,
    *,
    without: Collection[str] = (),
    elsewhere: Mapping[str, Import] | None = None,
) -> str:
    """The source of `module` with the modules of ours that it needs written into it, under a comment that
    says what it is, its licence and what it was made from.

    Args:
        module: full name of a module of ours.
        about: what the file is and how it is loaded; a paragraph.
        without: methods that an exported class has not, "Class.method", such as those whose own imports
            cannot come along.
        elsewhere: modules of ours that stay out; every name imported from one stands for the import given,
            (module, name) of an installed package.

    Raises:
        ValueError: two of the modules use one name for different things, an import of ours is not at the top
            of its module, or `without` names a method that there is not.
    """
    code = _bundle(module, set(without), elsewhere or {})
    digest = hashlib.sha256(code.encode()).hexdigest()[:16]
    made = (
        f"Made of {module} and what it needs, from {_version()}, of whose package the documentation below "
        f"speaks; sha256 of what follows: {digest}. Generated: change {DISTRIBUTION} and export again."
    )
    return "\n#\n".join(map(_comment, (about, LICENCE, made))) + "\n\n" + code


@dataclass
class _Part:
    """A module of ours: what it imports, what it defines, and the source without its imports."""

    name: str
    summary: str
    ours: list[str] = field(default_factory=list)
    imports: dict[str, Import] = field(default_factory=dict)  # by the name that they bind
    defined: set[str] = field(default_factory=set)
    body: str = ""


def _bundle(module: str, without: set[str], elsewhere: Mapping[str, Import]) -> str:
    left = set(without)
    parts: dict[str, _Part] = {}

    def visit(name: str) -> None:
        if name not in parts:
            part = _read(name, left, elsewhere)
            for needed in part.ours:
                visit(needed)
            parts[name] = part  # after what it needs

    visit(module)
    if left:
        raise ValueError(f"{module} has no {', '.join(sorted(left))} to leave out")
    imports: dict[str, Import] = {}
    owner: dict[str, str] = {}
    for part in parts.values():
        for name, source in part.imports.items():
            if imports.setdefault(name, source) != source:
                raise ValueError(f"{part.name} imports another {name} than a module that it is joined with")
        for name in part.defined:
            if owner.setdefault(name, part.name) != part.name:
                raise ValueError(f"{part.name} and {owner[name]} both define {name}: rename one of them")
    if both := sorted(imports.keys() & owner):
        raise ValueError(f"{owner[both[0]]} defines {both[0]}, which another module imports: rename it")
    bodies = [f"{_comment(part.summary)}\n\n\n{part.body}" for part in parts.values() if part.body]
    code = "\n\n\n".join(bodies) + "\n"
    used = {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
    imports = {name: source for name, source in imports.items() if name.split(".")[0] in used}
    return f"from __future__ import annotations\n\n{_import_block(imports)}\n\n{code}"


def _read(name: str, left: set[str], elsewhere: Mapping[str, Import]) -> _Part:
    """The module as a part; takes the methods that it leaves out from `left`."""
    text = _source(name)
    tree = ast.parse(text)
    doc = (ast.get_docstring(tree) or "").partition("\n")[0]
    part = _Part(name, f"From {name.replace('.', '/')}.py. {doc}")
    edits = _Edits(text)
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    modules: dict[str, str] = {}  # of ours, by the name that an import binds to the module itself
    for node in top:
        edits.remove_lines(node)
        for bound, source in _bindings(node):
            if source[0] == "__future__":
                continue
            if source[0].split(".")[0] not in PACKAGES:
                part.imports[bound] = source
            elif source[0] in elsewhere:
                part.imports[bound] = elsewhere[source[0]]
            elif source[1] and _is_module(f"{source[0]}.{source[1]}"):
                modules[bound] = f"{source[0]}.{source[1]}"
                part.ours.append(modules[bound])
            elif bound != source[1]:
                raise ValueError(f"{name} imports {source} under the name {bound}: use its own name")
            else:
                part.ours.append(source[0])
    if ast.get_docstring(tree) is not None:
        edits.remove_lines(tree.body[0])
    for statement in tree.body:
        part.defined |= set(_defined(statement))
        if isinstance(statement, ast.ClassDef):
            _strip_class(statement, edits, left)
    for item in ast.walk(tree):
        if isinstance(item, ast.Attribute) and isinstance(item.value, ast.Name) and item.value.id in modules:
            edits.remove_prefix(item.value)
    part.body = re.sub(r"\n{4,}", "\n\n\n", edits.result()).strip()
    _check(part, modules)
    return part


def _check(part: _Part, modules: Mapping[str, str]) -> None:
    """That nothing in the body still needs a module of ours, or hides what was one's attribute."""
    tree = ast.parse(part.body)
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for _, (module, _) in _bindings(node):
                if module.split(".")[0] in PACKAGES:
                    raise ValueError(f"{part.name} imports {module} inside a definition: leave that out")
    if kept := sorted(names & modules.keys()):
        raise ValueError(f"{part.name} uses the module {kept[0]} other than as `{kept[0]}.name`")
    local = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    local |= {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    for module in modules.values():
        exported = {name for node in ast.parse(_source(module)).body for name in _defined(node)}
        if hidden := sorted(local & exported):
            raise ValueError(f"{part.name} has a variable {hidden[0]}, which {module} defines: rename it")


def _strip_class(node: ast.ClassDef, edits: _Edits, left: set[str]) -> None:
    """Without the name that the class is published under in the package, and without what is left out."""
    for item in node.body:
        if isinstance(item, ast.Assign) and ast.unparse(item.targets[0]) == "__module__":
            edits.remove_lines(item)
        elif isinstance(item, ast.FunctionDef) and (full := f"{node.name}.{item.name}") in left:
            left.discard(full)
            edits.remove_lines(item)


class _Edits:
    """Stretches of a source to be cut out; positions are ast's (line from 1, column in bytes)."""

    def __init__(self, text: str) -> None:
        self.lines = text.encode().splitlines(keepends=True)
        self.cuts: list[tuple[int, int]] = []

    def remove_prefix(self, name: ast.Name) -> None:
        """A name and the dot after it."""
        start = self._offset(name.lineno, name.col_offset)
        self.cuts.append((start, start + len(f"{name.id}.".encode())))

    def remove_lines(self, node: ast.stmt) -> None:
        """The statement's lines with its decorators, its comment behind it and the empty lines before it."""
        first = min([node.lineno, *(item.lineno for item in getattr(node, "decorator_list", []))])
        last = node.end_lineno or node.lineno
        while first > 1 and not self.lines[first - 2].strip():
            first -= 1
        self.cuts.append((self._offset(first, 0), self._offset(last + 1, 0)))

    def result(self) -> str:
        source, kept, position = b"".join(self.lines), [], 0
        for start, end in sorted(self.cuts):
            kept.append(source[position:start])
            position = max(position, end)
        return b"".join([*kept, source[position:]]).decode()

    def _offset(self, line: int, column: int) -> int:
        return sum(map(len, self.lines[: line - 1])) + column


def _bindings(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, Import]]:
    """What an import binds: the name, and what it stands for."""
    for alias in node.names:
        if isinstance(node, ast.ImportFrom):
            yield alias.asname or alias.name, (node.module or "", alias.name)
        else:  # `import a.b` binds a, and two such imports go together
            yield alias.asname or alias.name, (alias.name, None)


def _defined(node: ast.stmt) -> Iterator[str]:
    """Names that a statement at the top of a module binds, imports apart."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif not isinstance(node, ast.Import | ast.ImportFrom):
        for item in ast.walk(node):
            if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Store):
                yield item.id


def _import_block(imports: Mapping[str, Import]) -> str:
    """The standard library's first; `import a` before `from a import b`, in order."""
    names: dict[str, list[str]] = {}
    lines: list[tuple[str, str]] = []
    for bound, (module, name) in imports.items():
        if name is None:
            lines.append((module, f"import {module}" + (f" as {bound}" if bound != module else "")))
        elif name != bound:
            lines.append((module, f"from {module} import {name} as {bound}"))
        else:
            names.setdefault(module, []).append(name)
    for module, of in names.items():
        line = f"from {module} import {', '.join(sorted(of))}"
        if len(line) > LINE_LENGTH:
            line = f"from {module} import (\n    " + ",\n    ".join(sorted(of)) + ",\n)"
        lines.append((module, line))
    groups: tuple[list[str], list[str]] = ([], [])
    for module, line in sorted(lines, key=lambda item: (item[1].startswith("from"), item[0].lower(), item)):
        groups[module.split(".")[0] not in sys.stdlib_module_names].append(line)
    return "\n\n".join("\n".join(group) for group in groups if group)


def _comment(text: str) -> str:
    return textwrap.fill(text, LINE_LENGTH, initial_indent="# ", subsequent_indent="# ")


def _source(name: str) -> str:
    spec = importlib.util.find_spec(name)
    source = getattr(spec and spec.loader, "get_source", lambda _: None)(name)
    if source is None:
        raise ValueError(f"the source of {name} is not here; an export is made of the sources")
    return source


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # what it would be in is no package
        return False


def _version() -> str:
    try:
        return f"{DISTRIBUTION} {version(DISTRIBUTION)}"
    except PackageNotFoundError:
        return f"a checkout of {DISTRIBUTION} that is not installed"
