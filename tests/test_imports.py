"""Who may import whom: train_*.py -> eval -> pipelines -> autoencoder -> vidtwin_gen, never up; no circle; no
test another test. And how many files a folder holds."""

import ast
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ["vidtwin_gen", "autoencoder", "pipelines", "eval"]
SCRIPTS = ["train_vae", "train_dit"]
OURS = {*FLOORS, *SCRIPTS}
# The public face hands on what all floors hold; the demo is every command in turn.
EXEMPT = {"vidtwin_gen/__init__.py", "vidtwin_gen/__main__.py", "vidtwin_gen/demo.py"}

FILES = sorted(path for name in FLOORS for path in (ROOT / name).rglob("*.py"))
FILES += [ROOT / f"{script}.py" for script in SCRIPTS]
TESTS = sorted((ROOT / "tests").rglob("*.py"))
MOST_FILES = 14  # of a folder, which is read at a glance


def modules_imported(source):
    """Absolute names of modules, anywhere in the source: `from a.b import c` gives a.b.c where c is a file
    or a package of ours, else a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield "." * node.level
                continue
            base = node.module or ""
            for alias in node.names:
                path = ROOT.joinpath(*base.split("."), alias.name)
                is_module = path.with_suffix(".py").is_file() or path.is_dir()
                yield f"{base}.{alias.name}" if is_module else base


def ours_imported(path):
    modules = modules_imported(path.read_text(encoding="utf-8"))
    return {m for m in modules if m.startswith(".") or m.split(".")[0] in OURS}


def is_a_test(module):
    """Or pytest's own, whose fixtures come by their name."""
    name = module.rpartition(".")[2]
    return name.startswith("test_") or name == "conftest"


def floor(module):
    top = module.split(".")[0]
    return FLOORS.index(top) if top in FLOORS else len(FLOORS)


def circle_in(graph):
    """A list of modules each of which imports the next, the last one the first; [] where there is none."""
    done, path = set(), []

    def visit(module):
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        path.append(module)
        for needed in sorted(graph.get(module, ())):
            if found := visit(needed):
                return found
        path.pop()
        done.add(module)
        return []

    for module in sorted(graph):
        if found := visit(module):
            return found
    return []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path):
    file = path.relative_to(ROOT).as_posix()
    imported = ours_imported(path)
    relative = sorted(module for module in imported if module.startswith("."))
    assert not relative, f"{file} imports relatively; the path is the name"
    through_the_face = sorted(imported & set(FLOORS))
    assert not through_the_face, f"{file} imports {through_the_face}; name the module that holds it"
    if file not in EXEMPT:
        own = floor(file.removesuffix(".py").replace("/", "."))
        up = sorted(module for module in imported if floor(module) > own)
        assert not up, f"{file} imports {up}, a floor above it"


def test_there_is_no_circle():
    """Not even through an import inside a function."""
    graph = {}
    for path in FILES:
        file = path.relative_to(ROOT).as_posix()
        if file not in EXEMPT:
            graph[file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")] = ours_imported(path)
    assert circle_in(graph) == []


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_test_imports_a_test(path):
    """What several need is in tests/builders."""
    imported = sorted(filter(is_a_test, modules_imported(path.read_text(encoding="utf-8"))))
    assert not imported, f"{path.relative_to(ROOT)} imports {imported}"


def test_no_folder_is_crowded():
    files_in = Counter(path.parent.relative_to(ROOT).as_posix() for path in FILES)
    assert {folder: count for folder, count in files_in.items() if count > MOST_FILES} == {}


def test_the_rules_are_not_empty():
    """What they must refuse, they refuse."""
    assert len(FILES) > 100 and len(TESTS) > 60
    assert is_a_test("tests.pipelines.test_pipeline") and is_a_test("tests.conftest")
    assert not is_a_test("tests.builders.pipelines")
    source = (
        "from vidtwin_gen import LatentLayout\nfrom vidtwin_gen.training import run\n"
        "def f():\n    import eval.fvd.distance\n    from . import x\n"
    )
    assert list(modules_imported(source)) == [
        "vidtwin_gen",
        "vidtwin_gen.training.run",
        "eval.fvd.distance",
        ".",
    ]
    assert floor("train_vae") > floor("eval.clips") > floor("pipelines.generate") > floor("autoencoder.parts")
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
