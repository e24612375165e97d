"""Data sets of `datasets` become folders of videos: the same bytes, splits and order of classes."""

import json
import tarfile
from pathlib import Path

import datasets
import fsspec
import pytest

from tests.builders.videos import numbered_frames, write_shard
from vidtwin_gen.__main__ import main
from vidtwin_gen.data.ucf101 import build_index
from vidtwin_gen.data.writing import write_video
from vidtwin_gen.unpack.folder import unpack

NAMES = ["walking dog", "Archery"]  # not in alphabetical order


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("video") / "v_Archery_g01_c01.mp4"
    write_video(path, numbered_frames(4), fps=8)
    return path


def rows_of(content: bytes, split: str, count: int) -> datasets.Dataset:
    features = datasets.Features(video=datasets.Video(decode=False), label=datasets.ClassLabel(names=NAMES))
    videos = [{"bytes": content + bytes([k]), "path": f"v_{split}_g{k:02d}_c01.avi"} for k in range(count)]
    return datasets.Dataset.from_dict(
        {"video": videos, "label": [k % 2 for k in range(count)]}, features=features
    )


def check_two_splits(root: Path, content: bytes) -> None:
    train, test = (build_index(root, split=split) for split in ("train", "test"))
    assert train.features["label"].names == ["walking_dog", "Archery"]
    assert (len(train), len(test)) == (4, 2)
    for index, name in ((train, "train"), (test, "validation")):
        for row in index:
            k = int(row["group"].removeprefix(f"v_{name}_g"))
            assert row["label"] == k % 2 and Path(row["path"]).suffix == ".avi"
            assert Path(row["path"]).read_bytes() == content + bytes([k])


def test_a_saved_data_set_and_its_parquet_files(video, tmp_path, capsys):
    content = video.read_bytes()
    both = datasets.DatasetDict(
        train=rows_of(content, "train", 4), validation=rows_of(content, "validation", 2)
    )
    both.save_to_disk(tmp_path / "saved")
    for split, rows in both.items():
        (tmp_path / "files" / "data").mkdir(parents=True, exist_ok=True)
        rows.to_parquet(tmp_path / "files" / "data" / f"{split}-00000-of-00001.parquet")
    digests = set()
    for source in ("saved", "files"):
        out = tmp_path / f"from_{source}"
        main(["unpack", "--data", str(tmp_path / source), "--out", str(out)])
        record = json.loads((out / "unpacked.json").read_text())
        assert record["num_videos"] == 6
        digests.add(record["sha256"])
        check_two_splits(out, content)
    assert len(digests) == 1
    unpack(str(tmp_path / "files"), str(tmp_path / "from_files"))
    assert "is done already" in capsys.readouterr().out


def test_splits_go_by_the_names_that_others_give_them(video, tmp_path, capsys):
    """As files and as a saved data set; a third split is left out and told."""
    content = video.read_bytes()
    parts = {"training": rows_of(content, "train", 4), "val": rows_of(content, "validation", 2)}
    for split, rows in parts.items():
        (tmp_path / "files").mkdir(exist_ok=True)
        rows.to_parquet(tmp_path / "files" / f"{split}-000.parquet")
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    for source in ("files", "saved"):
        unpack(str(tmp_path / source), str(tmp_path / f"from_{source}"))
        check_two_splits(tmp_path / f"from_{source}", content)
    assert "left out" not in capsys.readouterr().out
    rows_of(content, "more", 2).to_parquet(tmp_path / "files" / "test-000.parquet")
    unpack(str(tmp_path / "files"), str(tmp_path / "three"))
    assert "left out is validation, as test is the test split" in capsys.readouterr().out
    assert json.loads((tmp_path / "three" / "unpacked.json").read_text())["num_videos"] == 6


@pytest.mark.parametrize("source", ["saved", "files"])
def test_which_of_other_splits_is_held_out_is_asked(source, video, tmp_path, capsys):
    """Training must not take in what somebody holds out under another name."""
    content = video.read_bytes()
    parts = {"train": rows_of(content, "train", 4), "test_seen": rows_of(content, "validation", 2)}
    root = tmp_path / source
    if source == "saved":
        datasets.DatasetDict(parts).save_to_disk(root)
    else:
        for number, rows in enumerate(parts.values()):
            rows.to_parquet(root / ("train.parquet", "holdout.parquet")[number])
        with pytest.raises(
            ValueError, match=r"of which split is .*holdout.parquet, beside files named after"
        ):
            unpack(str(root), str(tmp_path / "out"))
        return
    with pytest.raises(ValueError, match="There are train, test_seen.*--train_split and --test_split"):
        unpack(str(root), str(tmp_path / "out"))
    with pytest.raises(ValueError, match="which splits"):
        unpack(str(root), str(tmp_path / "out"), test_split="absent")
    main(["unpack", "--data", str(root), "--out", str(tmp_path / "out"), "--test_split", "test_seen"])
    check_two_splits(tmp_path / "out", content)


def test_videos_that_are_in_both_splits_are_told(video, tmp_path, capsys):
    """Their names don't say it, since no two files may have one."""
    content = video.read_bytes()
    shared = datasets.DatasetDict(train=rows_of(content, "train", 4), test=rows_of(content, "train", 6))
    shared.save_to_disk(tmp_path / "saved")
    unpack(str(tmp_path / "saved"), str(tmp_path / "out"))
    assert "4 videos of the test split are in the training split, too" in capsys.readouterr().out


def test_the_order_of_the_classes_is_kept_without_a_test_split(video, tmp_path):
    rows_of(video.read_bytes(), "train", 12).save_to_disk(tmp_path / "saved")
    unpack(str(tmp_path / "saved"), str(tmp_path / "out"))
    assert build_index(tmp_path / "out", split="all").features["label"].names == ["walking_dog", "Archery"]


def test_rows_are_of_the_folder_and_not_of_one_that_its_name_fits(video, tmp_path):
    """The library takes paths for patterns."""
    for name, label in (("ds[1]", "mine"), ("ds1", "another")):
        rows = {"video": [video.read_bytes()], "label": [label]}
        (tmp_path / name).mkdir()
        datasets.Dataset.from_dict(rows).to_parquet(tmp_path / name / "train-0.parquet")
    unpack(str(tmp_path / "ds[1]"), str(tmp_path / "out"))
    assert [path.parent.name for path in (tmp_path / "out").glob("*/*.mp4")] == ["mine"]


def test_rows_may_be_paths(video, tmp_path):
    """From the folder of the data set, or from the root."""
    root = tmp_path / "data"
    (root / "clips").mkdir(parents=True)
    (root / "clips" / "v_near.mp4").write_bytes(video.read_bytes())
    rows = {"video": ["clips/v_near.mp4", str(video)], "label": ["a", "b"]}
    datasets.Dataset.from_dict(rows).to_parquet(root / "data.parquet")
    unpack(str(root), str(tmp_path / "out"))
    assert {"/".join(path.parts[-2:]) for path in (tmp_path / "out").glob("*/*.mp4")} == {
        "a/v_near.mp4",
        f"b/{video.name}",
    }


def test_a_relative_path_goes_from_the_data_set_before_the_current_folder(video, tmp_path, monkeypatch):
    root, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    for folder, content in ((root, video.read_bytes()), (elsewhere, b"another")):
        (folder / "clips").mkdir(parents=True)
        (folder / "clips" / "v_near.mp4").write_bytes(content)
    (elsewhere / "clips" / "v_here.mp4").write_bytes(b"here alone")
    rows = {"video": ["clips/v_near.mp4", "clips/v_here.mp4"], "label": ["a", "b"]}
    datasets.Dataset.from_dict(rows).to_parquet(root / "data.parquet")
    monkeypatch.chdir(elsewhere)
    unpack(str(root), str(tmp_path / "out"))
    assert (tmp_path / "out" / "a" / "v_near.mp4").read_bytes() == video.read_bytes()
    assert (tmp_path / "out" / "b" / "v_here.mp4").read_bytes() == b"here alone"


def test_what_changed_since_is_not_done_already(video, tmp_path):
    write_shard(tmp_path / "tars" / "000.tar", [(video.read_bytes(), str(k % 2)) for k in range(4)])
    columns = {"video_column": "mp4", "label_column": "cls"}
    unpack(str(tmp_path / "tars"), str(tmp_path / "out"), **columns)
    write_shard(tmp_path / "tars" / "001.tar", [(video.read_bytes(), "2")])
    with pytest.raises(ValueError, match=r"of another command \(--state was"):
        unpack(str(tmp_path / "tars"), str(tmp_path / "out"), **columns)


@pytest.mark.parametrize("kept", ["half", "whole members"])
def test_a_shard_that_was_cut_is_refused(kept, video, tmp_path):
    shard = tmp_path / "tars" / "000.tar"
    write_shard(shard, [(video.read_bytes(), "a")] * 8)
    with tarfile.open(shard) as tar:
        ends = [member.offset_data + member.size for member in tar.getmembers()]
    end = ends[-1] // 2 if kept == "half" else -(-ends[7] // 512) * 512
    shard.write_bytes(shard.read_bytes()[:end])
    with pytest.raises(ValueError, match=r"000\.tar has no end.*copy it again"):
        unpack(str(tmp_path / "tars"), str(tmp_path / "out"), video_column="mp4", label_column="cls")


def test_a_class_of_another_kind_is_told_by_its_row(video, tmp_path):
    names = ["0", "1", "0", "1", "0", "1", "cat"]
    write_shard(tmp_path / "tars" / "000.tar", [(video.read_bytes(), name) for name in names])
    with pytest.raises(
        ValueError, match="split train, can't be loaded.*cat.*; row 6 may have a class of anoth"
    ):
        unpack(str(tmp_path / "tars"), str(tmp_path / "out"), video_column="mp4", label_column="cls")


def test_a_split_without_rows_is_named(video, tmp_path):
    for split, count in (("train", 4), ("test", 0)):
        rows_of(video.read_bytes(), split, count).to_parquet(tmp_path / "files" / f"{split}.parquet")
    with pytest.raises(ValueError, match=r"test\.parquet has no rows: remove it"):
        unpack(str(tmp_path / "files"), str(tmp_path / "out"))


def test_a_split_that_is_not_there_is_refused_where_there_is_one(video, tmp_path):
    rows_of(video.read_bytes(), "validation", 4).to_parquet(tmp_path / "files" / "validation.parquet")
    with pytest.raises(ValueError, match="There are validation"):
        unpack(str(tmp_path / "files"), str(tmp_path / "out"), train_split="trian")
    unpack(str(tmp_path / "files"), str(tmp_path / "out"), train_split="validation")


def test_a_damaged_parquet_file_is_one_error(video, tmp_path):
    for split in ("train", "test"):
        rows_of(video.read_bytes(), split, 4).to_parquet(tmp_path / "files" / f"{split}.parquet")
    damaged = tmp_path / "files" / "test.parquet"
    content = damaged.read_bytes()
    damaged.write_bytes(content[:4] + bytes(len(content) // 2) + content[len(content) // 2 + 4 :])
    with pytest.raises(ValueError, match="files, split test, can't be loaded.*copy it again"):
        unpack(str(tmp_path / "files"), str(tmp_path / "out"))


def test_rows_may_name_files_of_another_file_system(video, tmp_path):
    """As `datasets` gives plain files of the hub: where they are, without their bytes."""
    memory = fsspec.filesystem("memory")
    memory.pipe("/ds/Archery/v_a.mp4", video.read_bytes())
    rows = {"video": [{"bytes": None, "path": "memory://ds/Archery/v_a.mp4"}], "label": ["Archery"]}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "saved")
    unpack(str(tmp_path / "saved"), str(tmp_path / "out"))
    assert (tmp_path / "out" / "Archery" / "v_a.mp4").read_bytes() == video.read_bytes()
    memory.rm("/ds", recursive=True)
    with pytest.raises(ValueError, match="row 0 of train, memory://ds.* can't be loaded, FileNotFound"):
        unpack(str(tmp_path / "saved"), str(tmp_path / "other"))


def test_webdataset_shards(video, tmp_path):
    write_shard(tmp_path / "000.tar", [(video.read_bytes(), str(k % 2)) for k in range(4)])
    unpack(str(tmp_path), str(tmp_path / "out"), video_column="mp4", label_column="cls")
    files = sorted((tmp_path / "out").glob("*/*.mp4"))
    assert [file.parent.name for file in files] == ["0", "0", "1", "1"]
    assert all(file.read_bytes() == video.read_bytes() for file in files)
    assert len(build_index(tmp_path / "out", split="all")) == 4  # split by hash, as there are no splits


def test_numbers_are_classes_in_the_order_of_numbers(video, tmp_path):
    """Of WebDataset and plain parquet files no ClassLabel says the order."""
    for split in ("train", "test"):
        samples = [(video.read_bytes(), str(number)) for number in range(12)]
        write_shard(tmp_path / f"{split}-000.tar", samples)
    unpack(str(tmp_path), str(tmp_path / "out"), video_column="mp4", label_column="cls")
    index = build_index(tmp_path / "out", split="test")
    assert index.features["label"].names == [str(number) for number in range(12)]


def test_a_class_has_any_name_that_a_folder_can_have(video, tmp_path):
    names = ["massaging person's head", "Putting [something] down", "cleaning & drying"]
    clip = {"bytes": video.read_bytes(), "path": None}
    saved = datasets.Dataset.from_dict({"video": [clip] * 3, "label": names})
    saved.save_to_disk(tmp_path / "saved")
    unpack(str(tmp_path / "saved"), str(tmp_path / "out"))
    index = build_index(tmp_path / "out", split="all")
    assert index.features["label"].names == sorted(name.replace(" ", "_") for name in names)


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"video": [None], "label": ["a"]}, "row 0 of train has no video"),
        ({"video": [{"bytes": b"x", "path": None}], "label": ["../a"]}, "can't be a folder's name"),
        ({"video": [{"bytes": b"x", "path": None}], "label": [""]}, "row 0 of train has no class"),
        (
            {"video": [{"bytes": b"x", "path": None}] * 2, "label": ["a", "A"]},
            "differ by more than their case",
        ),
        ({"clip": [{"bytes": b"x", "path": None}], "label": ["a"]}, "no column video, there are clip, label"),
        ({"video": ["absent.mp4"], "label": ["a"]}, r"row 0 of train has no video.*\(absent.mp4\)"),
        ({"video": [[1, 2]], "label": ["a"]}, "row 0 of train: a list is no video.*--video_column"),
        ({"video": [b"x"], "label": [["a", "b"]]}, r"row 0 of train: \['a', 'b'\] is no class.*--label_col"),
        ({"video": [b"x"], "label": [{"name": "a"}]}, "row 0 of train: .* is no class.*--label_column"),
    ],
)
def test_what_gives_no_folder_is_refused(columns, told, tmp_path):
    datasets.Dataset.from_dict(columns).save_to_disk(tmp_path / "saved")
    with pytest.raises(ValueError, match=told):
        unpack(str(tmp_path / "saved"), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_what_is_no_data_set_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="holds neither a data set of save_to_disk nor"):
        unpack(str(tmp_path), str(tmp_path / "out"))
    with pytest.raises(ValueError, match="no such folder"):
        unpack(str(tmp_path / "absent"), str(tmp_path / "out"))
    with pytest.raises(ValueError, match="nobody/nothing can't be loaded.*without a network"):
        unpack("nobody/nothing", str(tmp_path / "out"))
