"""Files and folders: the new one whole, or the old one as it was."""

import errno
import glob
import hashlib
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from vidtwin_gen.files import (
    OWNER,
    check_new,
    check_reachable,
    file_sha256,
    first_line,
    loading,
    new_folder,
    new_or_same_folder,
    only_this,
    owned_folder,
    read_json,
    read_log,
    replacing_file,
    replacing_folder,
    write_json,
    write_text,
)


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()
    }


def test_a_file_is_replaced_when_all_went_well(tmp_path):
    path = tmp_path / "deep" / "note.txt"
    write_text(path, "first")
    with replacing_file(path) as partial:
        partial.write_text("second")
        assert path.read_text() == "first"
    assert contents(tmp_path) == {"deep/note.txt": "second"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_writer_leaves_the_old_file(error, tmp_path):
    path = tmp_path / "note.txt"
    write_text(path, "first")
    with pytest.raises(error), replacing_file(path) as partial:
        partial.write_text("half")
        raise error
    assert contents(tmp_path) == {"note.txt": "first"}
    with pytest.raises(error), replacing_file(tmp_path / "other.txt"):
        raise error  # before anything is written
    assert contents(tmp_path) == {"note.txt": "first"}


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_weights_are_as_readable_as_other_files(umask, mode, tmp_path):
    """safetensors makes its files the owner's alone."""
    before = os.umask(umask)
    try:
        with replacing_file(tmp_path / "model.safetensors") as partial:
            save_file({"a": torch.zeros(1)}, partial)
        with replacing_folder(tmp_path / "saved") as partial:
            (partial / "vae").mkdir()
            save_file({"a": torch.zeros(1)}, partial / "vae" / "model.safetensors")
            (partial / "run.sh").touch(0o755)
    finally:
        os.umask(before)
    for name in ("model.safetensors", "saved/vae/model.safetensors"):
        assert (tmp_path / name).stat().st_mode & 0o777 == mode
    assert (tmp_path / "saved" / "run.sh").stat().st_mode & 0o777 == 0o755 & ~umask


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "export"
    with replacing_folder(path) as partial:
        write_text(partial / "a", "first")
    with pytest.raises(KeyboardInterrupt), replacing_folder(path) as partial:
        write_text(partial / "b", "half")
        raise KeyboardInterrupt
    assert contents(path) == {"a": "first"}
    with replacing_folder(path) as partial:
        assert not (partial / "b").exists()  # nothing of the one that failed
        write_text(partial / "b", "second")
    assert contents(tmp_path) == {"export/b": "second"}


LARGE = torch.zeros(2**15)


@pytest.fixture
def full_disk():
    """As near as a test comes to one: no file may grow past 32 KiB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**15, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_text("x" * 2**17),
        lambda path: save_file({"x": LARGE}, path),
        lambda path: torch.save(LARGE, path),
        lambda path: Image.effect_noise((512, 512), 50).save(path, format="PNG"),
        lambda path: shutil.copy2(torch.__file__, path),
    ],
    ids=["text", "safetensors", "torch", "picture", "copy"],
)
def test_a_full_disk_is_told_with_the_name_of_the_file(write, tmp_path, full_disk):
    """Each library has words of its own for it, and some name another file."""
    path = tmp_path / "result"
    write_text(path, "first")
    with (
        pytest.raises(OSError, match="File too large|may be full") as refusal,
        replacing_file(path) as partial,
    ):
        write(partial)
    assert refusal.value.filename == str(path) and contents(tmp_path) == {"result": "first"}


def test_a_full_disk_is_told_with_the_name_of_the_folder(tmp_path, full_disk):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "large").symlink_to(torch.__file__)
    with pytest.raises(OSError, match="File too large") as refusal, new_folder(tmp_path / "out") as partial:
        shutil.copytree(tmp_path / "source", partial / "copy")
    assert refusal.value.filename == str(tmp_path / "partial-out") and not (tmp_path / "out").exists()


def test_a_place_that_takes_nothing_is_refused_before_the_work(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for path, error, message in (
        (tmp_path / "file" / "a", ValueError, "file is a file, and a folder is to be written"),
        (tmp_path / "folder", IsADirectoryError, "folder"),
    ):
        with pytest.raises(error, match=message), replacing_file(path):
            raise AssertionError("not to be reached")
    with pytest.raises(ValueError, match="is a file, and a folder"), owned_folder(tmp_path / "file", ""):
        raise AssertionError("not to be reached")


def test_a_link_to_a_disk_that_is_not_mounted_is_called_so(tmp_path):
    (tmp_path / "runs").symlink_to(tmp_path / "disk")
    for folder in (tmp_path / "runs", tmp_path / "runs" / "vae"):
        with (
            pytest.raises(ValueError, match=f"runs is a link to {tmp_path}/disk, which is not there: mount"),
            owned_folder(folder, ""),
        ):
            raise AssertionError("not to be reached")


@pytest.mark.parametrize("line", ["3", "[1]", "null", "{}", '{"step": "x"}', '{"step": '])
def test_a_line_of_a_log_is_an_object_with_a_step(line, tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_log(path) == []
    path.write_text('{"step": 1}\n{"step": 2, "lo')  # being written
    assert read_log(path) == [{"step": 1}]
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n')
    with pytest.raises(ValueError, match="metrics.jsonl, line 2, can't be read .* delete that line"):
        read_log(path)


def test_a_path_of_which_nothing_can_be_said_is_told(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path, tmp_path / "absent" / "file", tmp_path / "file" / "below"):
        check_reachable(path)
    for path, reason in (("x" * 300, "File name too long"), (tmp_path / "loop", "Too many levels")):
        with pytest.raises(OSError, match=reason):
            check_reachable(path)


def test_a_second_writer_of_a_folder_is_refused(tmp_path):
    with new_folder(tmp_path / "out") as partial:
        write_text(partial / "a", "first")
        for second in (new_folder, replacing_folder):
            with (
                pytest.raises(ValueError, match="partial-out is in use by process"),
                second(tmp_path / "out"),
            ):
                raise AssertionError("not to be reached")
    assert contents(tmp_path) == {"out/a": "first"}


def test_half_files_of_a_killed_writer_are_removed_by_the_next_owner(tmp_path):
    for name in ("samples/step.png.0123abcd.partial", "of_the_user.partial"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("half")
    with owned_folder(tmp_path, ""):
        assert contents(tmp_path / "samples") == {}
        assert (tmp_path / "of_the_user.partial").read_text() == "half"


def test_a_file_that_is_being_written_below_stays_whoever_owns_the_folder(tmp_path):
    with replacing_file(tmp_path / "sub" / "out.json") as partial:
        partial.write_text("new")
        with owned_folder(tmp_path, ""):
            assert partial.read_text() == "new"
    assert (tmp_path / "sub" / "out.json").read_text() == "new"


def test_a_folder_that_would_be_the_same_is_done_already(tmp_path, capsys):
    def write(text):
        with new_or_same_folder(tmp_path / "out") as folder:
            (folder / "model").mkdir()
            (folder / "model" / "config.json").write_text(text)

    write("1")
    (tmp_path / "out" / OWNER).write_text("{}")  # as by a process that was ended just then
    write("1")
    assert [line.split("out", 1)[-1] for line in capsys.readouterr().out.splitlines()] == [
        "",
        " is done already, by the same command",
    ]
    with pytest.raises(ValueError, match="out is there already"):
        write("2")
    assert contents(tmp_path / "out") == {"model/config.json": "1"}


def test_a_comparison_that_finds_no_room_names_its_folder(tmp_path, monkeypatch, full_disk):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "note.txt").write_text("1")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with (
        pytest.raises(OSError, match="File too large") as refusal,
        new_or_same_folder(tmp_path / "out") as again,
    ):
        save_file({"x": LARGE}, again / "model.safetensors")
    assert refusal.value.filename == str(again)


def test_the_working_directory_can_be_the_new_folder(tmp_path, monkeypatch):
    """Where a shell stands in it: it stays the same directory."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with new_folder(".") as partial:
        (partial / "about.json").write_text("{}")
        (partial / "clips").mkdir()
        assert not os.listdir(".")
    assert sorted(os.listdir(".")) == ["about.json", "clips"]
    assert os.listdir(tmp_path) == ["here"]
    with pytest.raises(ValueError, match="is there already"), new_folder("."):
        pass


def test_a_folder_behind_a_link_is_filled_where_it_is(tmp_path):
    """On the disk that the link leads to, so that the last step is a renaming there."""
    (tmp_path / "disk" / "large").mkdir(parents=True)
    (tmp_path / "out").symlink_to("disk/large")
    with new_folder(tmp_path / "out") as partial:
        assert partial.parent == tmp_path / "disk"
        write_text(partial / "a", "first")
    assert (
        contents(tmp_path / "disk") == {"large/a": "first"} == {"large/a": (tmp_path / "out/a").read_text()}
    )
    assert (tmp_path / "out").is_symlink()


def test_a_mount_point_is_filled(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    remove = os.rmdir

    def busy(path, **where):
        if os.path.basename(path) == "out":
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))
        remove(path, **where)

    monkeypatch.setattr(os, "rmdir", busy)
    there = (tmp_path / "out").stat().st_ino
    with new_folder(tmp_path / "out") as partial:
        write_text(partial / "a", "first")
    assert contents(tmp_path) == {"out/a": "first"} and (tmp_path / "out").stat().st_ino == there


def test_a_new_folder_overwrites_nothing(tmp_path):
    path = tmp_path / "out"
    path.mkdir()
    with new_folder(path) as partial:  # an empty one is new
        write_text(partial / "a", "first")
    for taken in (path, path / "a"):
        with pytest.raises(ValueError, match=f"{taken} is there already .* name a new folder"):
            check_new(taken)
        with pytest.raises(ValueError, match="is there already"), new_folder(taken):
            raise AssertionError("not to be reached")
    assert contents(tmp_path) == {"out/a": "first"}


def test_json_comes_back_as_it_went(tmp_path):
    path = tmp_path / "result.json"
    value = {"b": 0.1 + 0.2, "a": [1, None, "é"], "nested": {"yes": True}}
    write_json(path, value)
    assert read_json(path, "measure again") == value
    assert list(read_json(path, "measure again")) == ["b", "a", "nested"]
    write_json(path, value, sort_keys=True)
    assert list(read_json(path, "measure again")) == ["a", "b", "nested"]


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_number_that_json_lacks_is_refused(number, tmp_path):
    path = tmp_path / "result.json"
    write_json(path, {"fvd": 1.0})
    with pytest.raises(ValueError, match=f"{path} is not written, a value is infinite or no number"):
        write_json(path, {"fvd": number})
    assert json.loads(path.read_text()) == {"fvd": 1.0}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"fvd": ', "can't be read as JSON: "),
        (b"\xff\xfe", "can't be read as JSON: "),
        (b"[" * 100_000, "can't be read as JSON: "),
        (b"[1]", "holds no JSON object"),
        (None, "holds no result.json"),
    ],
)
def test_what_cannot_be_read_says_the_way_out(content, message, tmp_path):
    path = tmp_path / "result.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{message}.*; measure again"):
        read_json(path, "measure again")
    with pytest.raises(ValueError, match="nowhere does not exist; measure again"):
        read_json(tmp_path / "nowhere" / "result.json", "measure again")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file is a file; measure again"):
        read_json(tmp_path / "file" / "result.json", "measure again")
    with pytest.raises(ValueError, match=f"{tmp_path} is a folder; measure again"):
        read_json(tmp_path, "measure again")


def test_a_pattern_fits_its_path_only(tmp_path):
    names = ["run[1]", "run1", "ru*", "run?"]
    for name in names:
        (tmp_path / name).touch()
    assert [glob.glob(only_this(tmp_path / name)) for name in names] == [
        [str(tmp_path / name)] for name in names
    ]
    with pytest.raises(ValueError, match="no path with '::' in it: rename the folder"):
        only_this(tmp_path / "a::b" / "rows")


def test_a_digest_is_of_the_bytes(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"first")
    second.write_bytes(b"second")
    assert file_sha256(first) == hashlib.sha256(b"first").hexdigest()
    assert file_sha256(first, second) == hashlib.sha256(b"firstsecond").hexdigest()


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / "about.json"
    with replacing_file(path) as first:
        first.write_text("first")
        with replacing_file(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_is_written_over(tmp_path):
    die = "import os; from vidtwin_gen.files import replacing_file\n"
    die += (
        "with replacing_file('note.txt') as file: file.write_text('a longer half'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", die], cwd=tmp_path, check=False).returncode == -9
    (left,) = contents(tmp_path)
    with replacing_file(tmp_path / "note.txt") as file:
        assert file.name == left and file.read_bytes() == b""
        file.write_text("whole")
    assert contents(tmp_path) == {"note.txt": "whole"}


def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    def refuses(file, operation):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr("vidtwin_gen.files.fcntl.flock", refuses)
    with pytest.raises(OSError, match="the file system has no locks") as refusal, owned_folder(tmp_path, ""):
        pass
    assert refusal.value.filename == str(tmp_path / ".lock") and not (tmp_path / ".owner.json").exists()


def test_an_error_that_says_nothing_is_told_by_its_class():
    assert first_line(TimeoutError()) == "TimeoutError"
    assert first_line(ValueError("\nthe first\nthe second")) == "the first"
    with (
        pytest.raises(ValueError, match=r"a\.bin can't be loaded, MemoryError; copy it"),
        loading("a.bin", "copy it"),
    ):
        raise MemoryError


def test_a_folder_has_one_owner_until_it_ends(tmp_path):
    folder = tmp_path / "run"
    own = "from vidtwin_gen.files import owned_folder\nwith owned_folder('run', ''): print(); input()"
    with subprocess.Popen(
        [sys.executable, "-c", own], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        with (
            pytest.raises(
                ValueError, match=rf"run is in use by process {other.pid} on \S+ since 20.*: let it "
            ),
            owned_folder(folder, "name another one"),
        ):
            pass
        other.kill()
        assert other.wait(30) == -signal.SIGKILL
    with owned_folder(folder, "name another one"):
        assert json.loads((folder / ".owner.json").read_text())["pid"] == os.getpid()
    assert contents(folder) == {".lock": ""}
