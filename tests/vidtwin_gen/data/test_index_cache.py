"""The index of very many videos is made once, and anew when a video comes or goes."""

import logging
import os

import datasets
import pytest

from vidtwin_gen.data import ucf101
from vidtwin_gen.data.index_cache import WARNINGS
from vidtwin_gen.data.split_lists import LISTS
from vidtwin_gen.data.ucf101 import build_index, build_indices

NAMES = [f"v_{kind}_g{group:02d}_c01" for kind in ("Archery", "Biking") for group in range(6)]


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Videos of two classes, one of them in no list, whose folders have been at rest for an hour; a few are
    many, and the cache is the test's own."""
    root = tmp_path / "videos"
    for name in NAMES:
        path = root / name.split("_")[1] / f"{name}.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (root / LISTS).mkdir()
    (root / LISTS / "classInd.txt").write_text("1 Archery\n2 Biking\n")
    listed = [f"{name.split('_')[1]}/{name}.avi" for name in NAMES[1:]]
    (root / LISTS / "trainlist01.txt").write_text("\n".join(f"{name} 1" for name in listed[::2]))
    (root / LISTS / "testlist01.txt").write_text("\n".join(listed[1::2]))
    rest(root)
    monkeypatch.setattr(ucf101, "MANY", 4)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return root


def rest(root, seconds_ago=3600):
    for folder in root.iterdir():
        at = folder.stat().st_mtime_ns - seconds_ago * 10**9
        os.utime(folder, ns=(at, at))


@pytest.fixture
def looked(monkeypatch):
    """The roots whose folders were looked through."""
    roots, find = [], ucf101._find_videos
    monkeypatch.setattr(ucf101, "_find_videos", lambda root: roots.append(root) or find(root))
    return roots


def test_the_second_index_is_the_first_one_without_looking(tree, looked, caplog):
    with caplog.at_level(logging.WARNING):
        first = build_indices(tree, ("train", "test"))
        second = build_indices(tree, ("train", "test"))
    assert len(looked) == 1
    for split, index in first.items():
        assert second[split].to_list() == index.to_list() and second[split].features == index.features
        assert second[split].cache_files  # mapped
    warnings = [record.message for record in caplog.records]
    assert len(warnings) == 2 and len(set(warnings)) == 1 and "1 videos are in no list" in warnings[0]
    build_index(tree, split="all")  # which was not asked for
    assert len(looked) == 2
    build_index(tree, split="all")
    assert len(looked) == 2


def test_what_is_kept_is_not_replaced(tree, tmp_path):
    """Another process may be reading it."""
    build_indices(tree, ("train", "test"))
    (kept,) = (path.parent for path in (tmp_path / "cache").rglob(WARNINGS))
    before = (kept / "train").stat()
    both = build_indices(tree, ("train", "all"))
    assert os.path.samestat(before, (kept / "train").stat())
    again = build_indices(tree, ("train", "all"))
    assert all(again[split].to_list() == index.to_list() for split, index in both.items())
    assert {path.name for path in kept.iterdir()} == {"train", "test", "all", WARNINGS}


@pytest.mark.parametrize("change", ["comes", "goes", "renamed", "lists", "fold"])
def test_another_folder_has_another_index(tree, looked, change):
    before = build_index(tree)
    class_folder, fold = tree / "Biking", 1
    if change == "comes":
        (class_folder / "v_Biking_g99_c01.avi").touch()
    elif change == "goes":
        (class_folder / f"{NAMES[-1]}.avi").unlink()
    elif change == "renamed":
        (class_folder / f"{NAMES[-1]}.avi").rename(class_folder / f"{NAMES[-1]}.mp4")
    elif change == "lists":
        train, test = (tree / LISTS / f"{part}list01.txt" for part in ("train", "test"))
        lines = test.read_text().splitlines()
        test.write_text("\n".join(lines[:-1]))
        train.write_text(train.read_text() + f"\n{lines[-1]} 2")
    else:
        fold = 2
        for part in ("train", "test"):
            (tree / LISTS / f"{part}list02.txt").write_text((tree / LISTS / f"{part}list01.txt").read_text())
    after = build_index(tree, fold=fold)
    assert len(looked) == 2
    if change in ("goes", "renamed", "lists"):
        assert after.to_list() != before.to_list()


def test_few_videos_and_folders_that_just_changed_are_looked_at_each_time(
    tree, looked, monkeypatch, tmp_path
):
    (tree / "Biking" / "v_Biking_g98_c01.avi").touch()
    build_index(tree), build_index(tree)
    rest(tree)
    monkeypatch.setattr(ucf101, "MANY", 100)
    build_index(tree), build_index(tree)
    assert len(looked) == 4 and not (tmp_path / "cache").exists()


def test_where_nothing_can_be_written_the_index_is_made_each_time(tree, looked, tmp_path, caplog):
    (tmp_path / "cache").touch()  # a file where the folder would be
    with caplog.at_level(logging.INFO):
        assert build_index(tree).to_list() == build_index(tree).to_list()
    assert len(looked) == 2 and "is not kept" in caplog.text


def test_a_damaged_one_is_named(tree, tmp_path):
    build_index(tree)
    (kept,) = (path.parent for path in (tmp_path / "cache").rglob(WARNINGS))
    next((kept / "train").glob("*.arrow")).write_bytes(b"")
    with pytest.raises(ValueError, match=rf"{kept.name} can't be loaded.*remove it"):
        build_index(tree)
