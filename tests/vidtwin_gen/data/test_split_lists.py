"""Lists of one's own data: which line means which file, and what can't be both."""

import os
from pathlib import Path

import pytest

from vidtwin_gen.data.ucf101 import build_index, build_indices


def make(root: Path, *videos: str, **lists: str) -> Path:
    for video in videos:
        (root / video).parent.mkdir(parents=True, exist_ok=True)
        (root / video).touch()
    (root / "ucfTrainTestlist").mkdir()
    for name, lines in lists.items():
        (root / "ucfTrainTestlist" / f"{name}.txt").write_text(lines)
    return root


def split_of(root: Path) -> dict[str, str]:
    index = build_index(root, split="all")
    places = ("/".join(Path(path).parts[-2:]) for path in index["path"])
    return dict(zip(places, index["split"], strict=True))


def test_the_same_name_in_two_classes_is_two_clips(tmp_path):
    make(
        tmp_path,
        *(f"{name}/{number}.mp4" for name in "AB" for number in (1, 2)),
        classInd="1 A\n2 B\n",
        trainlist01="A/1.mp4 1\nB/2.mp4 2\n",
        testlist01="A/2.mp4\nB/1.mp4\n",
    )
    expected = {"A/1.mp4": "train", "A/2.mp4": "test", "B/1.mp4": "test", "B/2.mp4": "train"}
    assert split_of(tmp_path) == expected


def test_lines_without_a_class_go_by_the_name_alone(tmp_path):
    make(tmp_path, "A/a1.mp4", "A/a2.mp4", trainlist01="a1.avi\n", testlist01="videos/a2.avi\n")
    assert split_of(tmp_path) == {"A/a1.mp4": "train", "A/a2.mp4": "test"}


def test_names_may_have_blanks_and_dots(tmp_path):
    make(
        tmp_path,
        *("A/my.mp4", "A/my clip 2.mp4", "A/clip.1.mp4", "A/clip.2.mp4"),
        classInd="1 A\n",
        trainlist01="A/my clip 2.mp4 1\nA/clip.1 1\n",
        testlist01="A/my.mp4\nA/clip.2\n",
    )
    assert split_of(tmp_path) == {
        "A/my clip 2.mp4": "train",
        "A/clip.1.mp4": "train",
        "A/my.mp4": "test",
        "A/clip.2.mp4": "test",
    }


def test_a_clip_in_both_lists_is_refused(tmp_path):
    lists = {"trainlist01": "A/a1.mp4 1\nA/a2.mp4 1\n", "testlist01": "A/a1.mp4\n"}
    make(tmp_path, "A/a1.mp4", "A/a2.mp4", classInd="1 A\n", **lists)
    with pytest.raises(ValueError, match=r"testlist01.txt has 'A/a1.mp4', which is in the train list, too"):
        build_index(tmp_path)


def test_classes_are_in_the_order_of_their_numbers(tmp_path):
    lists = {"trainlist01": "A/a.mp4 1\nB/b.mp4 2\nC/c.mp4 10", "testlist01": "A/a2.mp4\n"}
    make(tmp_path, "A/a.mp4", "A/a2.mp4", "B/b.mp4", "C/c.mp4", classInd="10 A\n2 C\n1 B\n", **lists)
    assert build_index(tmp_path).features["label"].names == ["B", "C", "A"]


def test_a_data_set_without_lists_may_say_the_order_of_its_classes(tmp_path):
    for name in ("alpha", "Mid", "zeta"):
        (tmp_path / name).mkdir()
        for number in range(10):
            (tmp_path / name / f"{number}.mp4").touch()
    assert build_index(tmp_path).features["label"].names == ["Mid", "alpha", "zeta"]
    (tmp_path / "classInd.txt").write_text("1 zeta\n2 alpha\n3 absent\n")
    for index in build_indices(tmp_path, ["train", "test"]).values():
        assert index.features["label"].names == ["zeta", "alpha", "Mid"]
        pairs = set(zip(index["class_name"], index["label"], strict=True))
        assert len(pairs) > 1 and pairs <= {("zeta", 0), ("alpha", 1), ("Mid", 2)}


def test_what_is_no_class_is_told(tmp_path, caplog):
    for name in ("A/a1.mp4", "A/a2.mp4", "B/b.gif", "C/part/c.mp4", "loose.mp4", ".hidden/d.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    assert build_index(tmp_path, split="all").features["label"].names == ["A"]
    assert [record.message for record in caplog.records] == [
        f"2 folders hold no video and are no classes of {tmp_path}: B (b.gif), C (part)",
        f"1 videos are in no class's folder and left out of {tmp_path}: loose.mp4",
    ]


def test_a_folder_that_may_not_be_read_is_told(tmp_path, caplog, monkeypatch):
    """As a disk's lost+found, at its root."""
    (tmp_path / "A").mkdir()
    (tmp_path / "A" / "1.mp4").touch()
    (tmp_path / "lost+found").mkdir()
    listdir = os.listdir

    def forbidden(folder):
        if os.path.basename(folder) == "lost+found":
            raise PermissionError(13, "Permission denied", folder)
        return listdir(folder)

    monkeypatch.setattr(os, "listdir", forbidden)
    assert build_index(tmp_path, split="all").features["label"].names == ["A"]
    assert "1 folders may not be read and are left out" in caplog.text and "lost+found" in caplog.text


def test_a_folder_of_videos_without_classes_has_a_way_out(tmp_path):
    (tmp_path / "1.mp4").touch()
    with pytest.raises(ValueError, match="move its videos into a folder in it, which is then their class"):
        build_index(tmp_path)
    with pytest.raises(ValueError, match=r"1\.mp4: is a file; expected the folder of"):
        build_index(tmp_path / "1.mp4")
