"""Who may lean on whom: `train_*.py`, `__main__` -> pipelines -> autoencoder -> vidtwin_gen; eval alone."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"vidtwin_gen", "autoencoder", "pipelines", "eval"}
SCRIPTS = {"train_vae", "train_dit"}
OURS = PACKAGES | SCRIPTS
# The face hands on what all rooms hold; a command line may call anyone.
EXEMPT = {"vidtwin_gen/__init__.py"}
# Of the ground floor an autoencoder needs these; with `bundle` it is exported.
AUTOENCODER_READS = {f"vidtwin_gen.{name}" for name in ("bundle", "latents", "layers", "weights")}
# Metrics stand alone; these count what a layout costs.
LAYOUT_READERS = {"eval/cost.py", "eval/tokenizer.py", "eval/tokenizers.py"}
# These change a latent, or count over it, by its grids and channels.
LAYOUT_READERS |= {"eval/latent_edits.py", "eval/channel_statistics.py"}
# The autoencoder that several commands measure.
MODEL_READERS = {"eval/subject.py"}
# The clips that metrics are given come from the data that training reads, read in the same way.
CLIP_READERS = {"eval/clips.py", "eval/located_clips.py"}

FILES = sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
FILES += [ROOT / f"{script}.py" for script in sorted(SCRIPTS)]


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


def may_import(file, module):
    """Whether the file, relative to the root, may import this module of ours."""
    room = file.split("/")[0]
    command = file.endswith(("/__main__.py", "_command.py")) or file.removesuffix(".py") in SCRIPTS
    if command or file in MODEL_READERS:
        return True
    if module.startswith(f"{room}."):
        return True
    if room == "vidtwin_gen":
        return False
    if room == "autoencoder":
        return module in AUTOENCODER_READS
    if room == "pipelines":
        return module.startswith(("autoencoder.", "vidtwin_gen."))
    if file in LAYOUT_READERS:
        return module == "vidtwin_gen.latents"
    if module == "vidtwin_gen.weights":  # files of published networks, no model of ours
        return True
    if file in CLIP_READERS:
        return module in ("vidtwin_gen.ucf101", "vidtwin_gen.video", "vidtwin_gen.decoding")
    return False


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_rooms(path):
    file = path.relative_to(ROOT).as_posix()
    imported = {m for m in modules_imported(path.read_text()) if m.startswith(".") or m.split(".")[0] in OURS}
    relative = sorted(module for module in imported if module.startswith("."))
    assert not relative, f"{file} imports relatively; the path is the name"
    through_the_face = sorted(imported & PACKAGES)
    assert not through_the_face, f"{file} imports {through_the_face}; name the module that holds it"
    if file not in EXEMPT:
        wrong = sorted(module for module in imported if not may_import(file, module))
        assert not wrong, f"{file} may not lean on {wrong}"


def test_the_rule_is_not_empty():
    """What it must refuse, it refuses."""
    assert len(FILES) > 20
    source = (
        "from vidtwin_gen import LatentLayout\nfrom vidtwin_gen import training\n"
        "def f():\n    import eval.fvd\n    from . import x\n"
    )
    assert list(modules_imported(source)) == ["vidtwin_gen", "vidtwin_gen.training", "eval.fvd", "."]
    assert not may_import("vidtwin_gen/training.py", "autoencoder.vidtwin")
    assert not may_import("autoencoder/vidtwin.py", "vidtwin_gen.video")
    assert not may_import("autoencoder/vidtwin.py", "pipelines.labels")
    assert not may_import("pipelines/labels.py", "eval.fvd")
    assert not may_import("eval/fvd.py", "vidtwin_gen.latents")
    assert not may_import("eval/cost.py", "vidtwin_gen.transformer")
    assert may_import("eval/cost.py", "vidtwin_gen.latents")
    assert may_import("eval/clips.py", "vidtwin_gen.video")
    assert not may_import("eval/clips.py", "vidtwin_gen.latents")
    assert may_import("pipelines/__main__.py", "vidtwin_gen.video")
