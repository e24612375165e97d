"""A folder that takes long to fill: behind a link, and when the last step fails."""

import pytest

from vidtwin_gen import partial_folder as module
from vidtwin_gen.files import write_text
from vidtwin_gen.partial_folder import partial_folder

COMMAND = {"seed": 0}


def add(folder, name):
    with folder.adding(name, {}) as path:
        write_text(path, name)


def test_behind_a_link_it_is_filled_on_the_disk_that_the_link_leads_to(tmp_path):
    (tmp_path / "disk" / "large").mkdir(parents=True)
    (tmp_path / "out").symlink_to("disk/large")
    with partial_folder(tmp_path / "out", COMMAND) as folder:
        assert folder.path == tmp_path / "disk" / "large.partial"
        add(folder, "a")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a"] and (tmp_path / "out").is_symlink()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["large"]


def test_what_is_finished_outlives_a_last_step_that_fails(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no")

    with monkeypatch.context() as patched:
        patched.setattr(module, "rename_owned", fail)
        with pytest.raises(OSError, match="no"), partial_folder(tmp_path / "out", COMMAND) as folder:
            add(folder, "a")
    with partial_folder(tmp_path / "out", COMMAND) as folder:
        assert list(folder.files) == ["a"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a"]
