"""`--data` takes data sets, too: they are unpacked once, and again when they have changed."""

import os
import shutil
from types import SimpleNamespace

import datasets
import pytest

from tests.builders.videos import numbered_frames, write_shard
from vidtwin_gen.data.ucf101 import build_index
from vidtwin_gen.data.writing import write_video
from vidtwin_gen.unpack import cached
from vidtwin_gen.unpack.cached import video_folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache" / "vidtwin_gen"


@pytest.fixture
def video(tmp_path):
    write_video(tmp_path / "one.mp4", numbered_frames(4), fps=8)
    return (tmp_path / "one.mp4").read_bytes()


def save(folder, video, count=4, names=("clip", "kind")):
    """Rows of two classes whose columns have other names."""
    features = datasets.Features(
        {names[0]: datasets.Video(decode=False), names[1]: datasets.ClassLabel(names=["a", "b"])}
    )
    videos = [{"bytes": video, "path": f"v_{number}.mp4"} for number in range(count)]
    rows = {names[0]: videos, names[1]: [number % 2 for number in range(count)]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / "data" / "train-0.parquet")


def test_a_folder_of_videos_is_itself(tmp_path, video, monkeypatch):
    (tmp_path / "videos" / "ucfTrainTestlist").mkdir(parents=True)
    (tmp_path / "videos" / "z").mkdir()
    (tmp_path / "videos" / "z" / "v.AVI").write_bytes(video)
    (tmp_path / "videos" / "notes.parquet").touch()
    monkeypatch.chdir(tmp_path)
    assert video_folder("videos") == tmp_path / "videos"
    for place in (tmp_path / "absent", tmp_path / "videos" / "absent", tmp_path / "cache"):
        assert video_folder(place) == place
    assert not (tmp_path / "cache").exists()


def test_a_local_data_set_is_unpacked_once_for_its_state(tmp_path, video, cache):
    save(tmp_path / "saved", video)
    folder = video_folder(tmp_path / "saved")
    index = build_index(folder, split="all")
    assert folder.parent == cache and index["class_name"][:] == ["a", "a", "b", "b"]
    made = os.stat(index[0]["path"]).st_mtime_ns
    assert video_folder(tmp_path / "saved") == folder
    assert os.stat(index[0]["path"]).st_mtime_ns == made
    save(tmp_path / "saved", video, count=6)
    assert len(build_index(video_folder(tmp_path / "saved"), split="all")) == 6


def test_what_another_user_unpacked_is_read_without_the_lock(tmp_path, video, cache):
    """A folder in the place of the lock can't be opened by anyone, root included."""
    save(tmp_path / "saved", video)
    folder = video_folder(tmp_path / "saved")
    lock = folder.with_name(f"{folder.name}.lock")
    lock.unlink()
    lock.mkdir()
    assert video_folder(tmp_path / "saved") == folder
    shutil.rmtree(folder)
    with pytest.raises(OSError, match=rf"in HF_DATASETS_CACHE: .*{lock.name}"):
        video_folder(tmp_path / "saved")


def test_a_saved_data_set_that_was_written_again_is_unpacked_again(tmp_path, video):
    def index(count):
        rows = {
            "video": [{"bytes": video, "path": f"v_{k}.mp4"} for k in range(count)],
            "label": ["a"] * count,
        }
        datasets.DatasetDict(train=datasets.Dataset.from_dict(rows)).save_to_disk(tmp_path / "saved")
        return build_index(video_folder(tmp_path / "saved"), split="all")

    assert [len(index(4)), len(index(6))] == [4, 6]


def test_videos_beside_a_data_set_are_not_taken_for_it(tmp_path, video):
    """As a demonstration in a repository of the hub."""
    save(tmp_path / "repository", video)
    (tmp_path / "repository" / "assets").mkdir()
    (tmp_path / "repository" / "assets" / "._demo.mp4").write_bytes(video)
    assert video_folder(tmp_path / "repository") != tmp_path / "repository"
    (tmp_path / "repository" / "assets" / "demo.mp4").write_bytes(video)
    with pytest.raises(ValueError, match=r"both videos, below assets, and a data set, data/train-0\.parquet"):
        video_folder(tmp_path / "repository")
    assert len(build_index(video_folder(tmp_path / "repository" / "data"), split="all")) == 4


def test_shards_have_the_columns_of_their_files(tmp_path, video):
    write_shard(tmp_path / "shards" / "000.tar", [(video, str(number % 2)) for number in range(4)])
    assert len(build_index(video_folder(tmp_path / "shards"), split="all")) == 4


def test_columns_that_could_be_several_are_asked_for(tmp_path, video):
    save(tmp_path / "saved", video, names=("clip", "of_whom"))
    rows = datasets.load_dataset("parquet", data_files=str(tmp_path / "saved/data/*"), split="train")
    rows.add_column("other", rows["of_whom"], feature=rows.features["of_whom"]).to_parquet(
        tmp_path / "saved/data/train-0.parquet"
    )
    with pytest.raises(ValueError, match="which column is the label.*clip, of_whom, other.*--label_column"):
        video_folder(tmp_path / "saved")


def test_of_the_hub_the_newest_revision_or_the_last_that_was_unpacked(
    tmp_path, video, cache, monkeypatch, capsys
):
    save(tmp_path / "saved", video)
    rows = datasets.load_dataset("parquet", data_files=str(tmp_path / "saved/data/*"))
    hub = SimpleNamespace(sha="0123456789abcdef")
    monkeypatch.setattr(cached, "HfApi", lambda: SimpleNamespace(dataset_info=lambda name: hub))
    monkeypatch.setattr(cached, "splits_of", lambda name: rows)
    monkeypatch.setattr("vidtwin_gen.unpack.folder.splits_of", lambda name: rows)
    folder = video_folder("somebody/clips")
    assert folder == cache / "videos-somebody--clips-0123456789ab"

    def no_network(name):
        raise ConnectionError("no network")

    monkeypatch.setattr(cached, "HfApi", lambda: SimpleNamespace(dataset_info=no_network))
    assert video_folder("somebody/clips") == folder
    assert "taking" in capsys.readouterr().out
    with pytest.raises(
        ValueError, match="somebody/else can't be loaded.*no network; there is no such folder"
    ):
        video_folder("somebody/else")
