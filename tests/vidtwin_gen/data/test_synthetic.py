"""The embedded data set: drawn from its seed, written as UCF-101 lies on disk."""

import numpy as np
import pytest

from tests.builders.folders import contents
from vidtwin_gen.data import synthetic
from vidtwin_gen.data.decoding.video_index import video_index
from vidtwin_gen.data.pixels import to_uint8
from vidtwin_gen.data.synthetic import CLASSES, FPS, HEIGHT, WIDTH, draw_clip, write_dataset
from vidtwin_gen.data.ucf101 import build_index
from vidtwin_gen.data.video import read_clip


def draw(class_name="SpinningBar", scene=(0, 5, 1), clip=(0, 5, 1, 1)):
    return draw_clip(class_name, 8, list(scene), list(clip))


def test_a_seed_is_a_clip():
    first = draw()
    assert first.shape == (8, HEIGHT, WIDTH, 3) and first.dtype == np.uint8
    assert np.array_equal(draw(), first)
    assert not np.array_equal(draw(clip=(0, 5, 1, 2)), first)
    assert not np.array_equal(draw(scene=(1, 5, 1)), first)


@pytest.mark.parametrize("class_name", CLASSES)
def test_every_class_moves_before_a_still_scene(class_name):
    clip = draw_clip(class_name, 16, [0], [0, 1]).astype(int)
    assert (np.abs(np.diff(clip, axis=0)).max(axis=(1, 2, 3)) > 0).all()
    moved = np.abs(clip[5:] - clip[:-5]).max(axis=(1, 2, 3))
    assert np.median(moved) > 100  # a ball is slow where it turns
    # the clips of a group share their scene: a place that neither covers, at some time, is alike in both
    other = draw_clip(class_name, 16, [0], [0, 2]).astype(int)
    alike = np.abs(clip[:, None] - other).max(axis=-1).min(axis=(0, 1)) == 0
    assert alike.mean() > 0.1
    elsewhere = draw_clip(class_name, 16, [1], [0, 2]).astype(int)
    assert (np.abs(clip[:, None] - elsewhere).max(axis=-1).min(axis=(0, 1)) > 0).all()


def test_there_are_eight_classes_and_no_two_look_alike():
    clips = [draw(name) for name in CLASSES]
    assert len(clips) == 8
    assert len({clip.tobytes() for clip in clips}) == 8


def test_the_files_are_the_drawn_clips(synthetic_root):
    path = synthetic_root / "SpinningBar" / "v_SpinningBar_g07_c01.avi"
    info = video_index(path)
    assert (info.num_frames, info.fps, info.height, info.width) == (16, FPS, HEIGHT, WIDTH)
    label = list(CLASSES).index("SpinningBar")
    drawn = draw_clip("SpinningBar", 16, [0, label, 7], [0, label, 7, 1])
    read = to_uint8(read_clip(path, 16, size=(HEIGHT, WIDTH), start=0)).numpy()
    assert np.abs(read.astype(int) - drawn).mean() < 6  # of 255: colour at half resolution, and the codec


def test_three_folds_keep_groups_apart(synthetic_root):
    test_groups = []
    for fold in (1, 2, 3):
        train, test = (build_index(synthetic_root, split=split, fold=fold) for split in ("train", "test"))
        assert (len(train), len(test)) == (8 * 18, 8 * 7)
        assert train.features["label"].names == list(CLASSES)
        assert set(train["label"]) == set(test["label"]) == set(range(8))
        groups = set(test["group"])
        assert not groups & set(train["group"])
        test_groups.append(groups)
    assert not test_groups[0] & test_groups[1] and not test_groups[1] & test_groups[2]


@pytest.fixture
def small(monkeypatch):
    """Two classes of two groups, one of them for testing."""
    monkeypatch.setattr(
        synthetic, "CLASSES", {name: CLASSES[name] for name in ("PulsingRing", "SpinningBar")}
    )
    monkeypatch.setattr(synthetic, "NUM_GROUPS", 4)
    monkeypatch.setattr(synthetic, "NUM_TEST_GROUPS", 1)
    return {"clips_per_group": 2, "num_frames": 4}


def test_the_same_seed_writes_the_same_bytes(small, tmp_path):
    first = contents(write_dataset(tmp_path / "first", **small))
    assert len([name for name in first if name.endswith(".avi")]) == 16
    assert contents(write_dataset(tmp_path / "second", **small)) == first
    other = contents(write_dataset(tmp_path / "other", seed=1, **small))
    assert other.keys() == first.keys()
    assert all(other[name] != first[name] for name in first if name.endswith(".avi"))


def test_a_finished_one_is_left_and_another_refused(small, tmp_path, capsys):
    root = write_dataset(tmp_path / "videos", **small)
    times = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert write_dataset(root, **small) == root
    assert f"{root} is done already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == times
    with pytest.raises(ValueError, match=r"holds seed=0 .*, not seed=1 .*: name an empty folder or remove"):
        write_dataset(root, seed=1, **small)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="holds files of another origin"):
        write_dataset(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_interruption_leaves_no_half(small, tmp_path, monkeypatch):
    written = []

    def interrupted(path, *args):
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(path)
        write_video(path, *args)

    write_video = synthetic.write_video
    root = tmp_path / "videos"
    with monkeypatch.context() as patch:
        patch.setattr(synthetic, "write_video", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_dataset(root, **small)
    assert not root.exists()
    write_dataset(root, **small)
    assert [path.name for path in tmp_path.iterdir()] == ["videos"]
    assert len(build_index(root, split="all")) == 16
