"""Who may write: whatever the product puts on a disk goes to a path that vidtwin_gen/files.py has handed out,
beside its place, and is renamed when it is whole."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ["vidtwin_gen", "autoencoder", "pipelines", "eval"]
FILES = sorted(path for name in FOLDERS for path in (ROOT / name).rglob("*.py"))
FILES += [ROOT / "train_vae.py", ROOT / "train_dit.py"]

# `with` one of these `as path`; a temporary folder is nobody's place
HANDED_OUT = {"replacing_file", "replacing_folder", "new_folder", "new_or_same_folder", "adding"}
HANDED_OUT |= {"TemporaryDirectory"}
IN_MEMORY = {"BytesIO", "StringIO"}
# methods, or functions of a module, that write to the path they are given or are called on
WRITERS = {
    *("write_text", "write_bytes", "touch", "tofile", "savefig", "mimsave", "mimwrite", "imwrite", "imsave"),
    *(
        "dump",
        "save",
        "savez",
        "savez_compressed",
        "save_file",
        "save_model",
        "save_pretrained",
        "save_state",
    ),
    *("to_csv", "to_parquet", "write_table", "copy2", "copyfile", "copytree", "copymode", "symlink_to"),
}
FUNCTIONS = WRITERS - {"write_text"}  # by their names alone; write_text is that of files.py

# A function that is handed its path, or does not write a file, and why.
EXEMPT = {
    "vidtwin_gen/program/output.py first_process_speaks": "into nowhere",
    "vidtwin_gen/program/output.py _Lossy.__init__": "into nowhere",
    "vidtwin_gen/program/output.py _Lossy.end": "into nowhere",
    "vidtwin_gen/training/metrics_log.py MetricsLog.write": "a log grows; a cut last line is dropped",
    "vidtwin_gen/training/checkpoints.py save_checkpoint": "of all processes, and renamed by the first",
    "vidtwin_gen/training/ema.py ModelFolders.save": "a hook of the above",
    "vidtwin_gen/partial_folder.py PartialFolder.add": "a log grows; a cut last line is dropped",
    "vidtwin_gen/unpack/folder.py _write": "into the folder that `unpack` was handed out",
    "pipelines/generate.py create_clip_file": "into the folder that `generate` was handed out",
    "pipelines/generate.py write_frames": "into the above",
    "autoencoder/export.py copier.copy": "into the folder that an export was handed out",
    "pipelines/sharing/saving.py SharingMixin.save_pretrained": "diffusers' own method; the caller names it",
    "eval/fvd/reference.py measure_reference": "Reference.save, which is handed its path",
    "eval/cost/measured_step.py _reset_peak": "a switch of the kernel's, below /proc",
}


class Writes(ast.NodeVisitor):
    """`found`: (function, line) of every call in a source that opens a file for writing at another path."""

    def __init__(self, source):
        self.found, self.functions, self.handed_out = [], [], set()
        self.visit(ast.parse(source))

    def visit_scope(self, node):
        self.functions.append(node.name)
        self.generic_visit(node)
        self.functions.pop()

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = visit_scope

    def visit_With(self, node):
        before = set(self.handed_out)
        for item in node.items:
            self.visit(item.context_expr)
            if name_of(item.context_expr) in HANDED_OUT and isinstance(item.optional_vars, ast.Name):
                self.handed_out.add(item.optional_vars.id)
        for inner in node.body:
            self.visit(inner)
        self.handed_out = before

    def visit_Assign(self, node):
        self.generic_visit(node)
        if name_of(node.value) in IN_MEMORY:
            self.handed_out |= {target.id for target in node.targets if isinstance(target, ast.Name)}

    def visit_Call(self, node):
        self.generic_visit(node)
        if writes(node) and not self.handed_out & {getattr(inner, "id", "") for inner in ast.walk(node)}:
            self.found.append((".".join(self.functions), node.lineno))


def name_of(node):
    """Of what is called, without where it is from."""
    function = node.func if isinstance(node, ast.Call) else None
    return getattr(function, "attr", getattr(function, "id", ""))


def writes(call):
    is_method = isinstance(call.func, ast.Attribute)
    if name_of(call) != "open":
        return name_of(call) in (WRITERS if is_method else FUNCTIONS)
    modes = [
        *call.args[0 if is_method else 1 :],
        *(word.value for word in call.keywords if word.arg == "mode"),
    ]
    mode = modes[0].value if modes and isinstance(modes[0], ast.Constant) else ""
    return bool(re.fullmatch("[rwxabt+]*[wxa+][rwxabt+]*", str(mode)))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_files_py_opens_a_file_for_writing(path):
    file = path.relative_to(ROOT).as_posix()
    if file == "vidtwin_gen/files.py":
        return
    found = Writes(path.read_text(encoding="utf-8")).found
    direct = [f"{file}:{line}" for function, line in found if f"{file} {function}" not in EXEMPT]
    assert not direct, f"{direct} write in place; take the path from vidtwin_gen/files.py"


def test_every_exemption_is_needed():
    for place in EXEMPT:
        file, function = place.split()
        assert function in dict(Writes((ROOT / file).read_text(encoding="utf-8")).found), place


@pytest.mark.parametrize(
    "line",
    [
        'open(path, "w").write("x")',
        'open(path, mode="ab")',
        'path.open("r+")',
        'path.write_text("x")',
        "json.dump({}, file)",
        "torch.save(model, path)",
        "figure.savefig(path)",
        "table.to_csv(path)",
        "model.save_pretrained(path)",
        "shutil.copy2(path, other)",
        "save_file(tensors, path)",
    ],
)
def test_what_it_must_refuse(line):
    assert Writes(f"def f():\n    {line}").found == [("f", 2)]
    assert not Writes(f"with replacing_file(p) as path, files.new_folder(q) as file:\n    {line}").found
    assert Writes(f"with replacing_file(p) as path, new_folder(q) as file:\n    pass\n{line}").found


def test_what_it_must_not():
    reads = 'open(path)\npath.open("rb")\nav.open("x.avi")\nwrite_text(path, "x")\nrecord.write(path)\n'
    assert not Writes(f"{reads}whole = BytesIO()\nimage.save(whole)").found
