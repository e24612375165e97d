"""The index and its splits on small trees of files; the stream on real ones."""

import logging
import os
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from vidtwin_gen.data.ucf101 import build_index, check_split
from vidtwin_gen.data.video import read_clip
from vidtwin_gen.data.video_dataset import BadVideos, VideoDataset, collate
from vidtwin_gen.data.writing import write_video

DATA = Path(__file__).parents[4] / "shared" / "data"


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def official(folder: Path, train: list[str], test: list[str], classes: list[str], fold: int = 1) -> None:
    """Lists as UCF-101 ships them: .avi names, a class number in the train list, CRLF line ends."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {name: number for number, name in enumerate(classes, 1)}
    lines = {
        "classInd.txt": [f"{number} {name}" for name, number in numbers.items()],
        f"trainlist{fold:02d}.txt": [f"{name}.avi {numbers[name.split('/')[0]]}" for name in train],
        f"testlist{fold:02d}.txt": [f"{name}.avi" for name in test],
    }
    for name, content in lines.items():
        (folder / name).write_bytes("".join(line + "\r\n" for line in content).encode())


CLASSES = ["Yoga", "Archery", "Biking"]  # not in alphabetical order, to tell official from sorted
TRAIN = ["Yoga/v_Yoga_g08_c01", "Biking/v_Biking_g08_c01", "Biking/v_Biking_g09_c01"]
TEST = ["Yoga/v_Yoga_g01_c01", "Biking/v_Biking_g01_c01", "Biking/v_Biking_g01_c02"]


@pytest.fixture
def tree(tmp_path):
    official(tmp_path / "ucfTrainTestlist", TRAIN, TEST, CLASSES)
    return touch(tmp_path, *(f"{name}.mp4" for name in TRAIN + TEST))


def stems(index) -> list[str]:
    return [Path(path).stem for path in index["path"]]


def test_official_split_of_a_partial_copy(tree):
    train, test, everything = (build_index(tree, split=split) for split in ("train", "test", "all"))
    assert stems(train) == [name.split("/")[1] for name in TRAIN]
    assert stems(test) == [name.split("/")[1] for name in TEST]
    assert len(everything) == 6 and set(everything["split"]) == {"train", "test"}
    for index in (train, test, everything):  # no Archery here, so Biking is 1 and not 2
        assert index.features["label"].names == ["Yoga", "Biking"]
        assert [index.features["label"].int2str(label) for label in index["label"]] == list(
            index["class_name"]
        )
    assert test["group"][2] == "v_Biking_g01" and Path(test["path"][0]).is_absolute()


def test_a_class_is_known_in_any_capitals(tmp_path, caplog):
    clips = [f"HandstandPushups/v_HandStandPushups_g0{k}_c01" for k in (1, 8)]  # UCF-101 has it both ways
    official(tmp_path / "ucfTrainTestlist", clips[1:], clips[:1], ["Yoga", "HandstandPushups"])
    touch(tmp_path, "HandStandPushups/v_HandStandPushups_g01_c01.avi")
    touch(tmp_path, "HandStandPushups/v_HandstandPushups_g08_c01.avi")
    train, test = build_index(tmp_path), build_index(tmp_path, split="test")
    assert len(train) == len(test) == 1 and not caplog.text
    assert train.features["label"].names == ["HandstandPushups"] == list(test["class_name"])


def test_a_class_is_known_in_any_unicode_form(tmp_path, caplog):
    """A Mac writes an umlaut as two characters."""
    composed, parted = "Trömmeln", "Tro\u0308mmeln"
    clips = [f"{composed}/v_{composed}_g0{k}_c01" for k in (1, 8)]
    official(tmp_path / "ucfTrainTestlist", clips[1:], clips[:1], ["Yoga", composed])
    touch(tmp_path, *(f"{parted}/v_{parted}_g0{k}_c01.avi" for k in (1, 8)))
    train, test = build_index(tmp_path), build_index(tmp_path, split="test")
    assert len(train) == len(test) == 1 and not caplog.text
    assert train.features["label"].names == [composed]


def test_lists_beside_the_videos_count_and_those_of_others_do_not(tmp_path):
    official(tmp_path / "ucfTrainTestlist", TRAIN, TEST, CLASSES)
    touch(tmp_path / "UCF-101", *(f"{name}.avi" for name in TRAIN + TEST))
    touch(tmp_path / "other", *(f"cat/{k}.mp4" for k in range(30)))
    assert stems(build_index(tmp_path / "UCF-101")) == [name.split("/")[1] for name in TRAIN]
    assert len(build_index(tmp_path / "other", split="all")) == 30


def test_a_stray_file_is_left_out_and_told(tree, caplog):
    touch(tree, "Biking/mine.mp4", "Biking/notes.txt", "Biking/._v_Biking_g01_c01.mp4")
    with caplog.at_level(logging.WARNING):
        assert len(build_index(tree, split="all")) == 6
    assert "1 videos are in no list" in caplog.text and "mine.mp4" in caplog.text


def test_a_folder_without_a_clip_of_the_lists_is_no_class(tree, caplog):
    """An official class of which nothing is listed; a listed clip in a folder that is no official class."""
    touch(tree, "Archery/mine.mp4", "Running/v_Yoga_g08_c01.mp4")
    index = build_index(tree, split="all")
    assert index.features["label"].names == ["Yoga", "Biking"] and len(index) == 6
    assert "2 videos are in no list" in caplog.text


def test_what_the_lists_cannot_give_is_refused(tree):
    with pytest.raises(ValueError, match="fold=4"):
        build_index(tree, fold=4)
    with pytest.raises(ValueError, match=r"trainlist02\.txt is missing"):
        build_index(tree, fold=2)
    with pytest.raises(ValueError, match="'val'"):
        build_index(tree, split="val")
    touch(tree, "Biking/v_Biking_g01_c01.avi")
    with pytest.raises(ValueError, match=r"v_Biking_g01_c01\.avi and .*v_Biking_g01_c01\.mp4 are one clip"):
        build_index(tree)


def test_a_leak_is_refused(tree):
    official(tree / "ucfTrainTestlist", TRAIN, TEST[:2], CLASSES)
    assert len(build_index(tree)) == 3  # another class's g01 is another recording
    official(tree / "ucfTrainTestlist", [*TRAIN, TEST[2]], TEST[:2], CLASSES)
    with pytest.raises(ValueError, match=r"1 groups .*Biking/v_Biking_g01"):
        build_index(tree)


def test_splits_of_different_folds_leak(tree):
    official(tree / "ucfTrainTestlist", TEST, TRAIN, CLASSES, fold=2)
    with pytest.raises(ValueError, match="3 groups"):
        check_split(build_index(tree, fold=1), build_index(tree, fold=2, split="test"))


def test_own_split_keeps_groups_together_and_is_independent(tmp_path):
    names = [f"{c}/v_{c}_g{g:02d}_c{k:02d}.mp4" for c in "BA" for g in range(1, 26) for k in range(1, 4)]
    index = build_index(touch(tmp_path / "whole", *names), split="all")
    assert index.features["label"].names == ["A", "B"]
    assert 0.05 < list(index["split"]).count("test") / 150 < 0.4
    by_group = set(zip(index["class_name"], index["group"], index["split"], strict=True))
    assert len(by_group) == 50  # one split per group
    assert {split for name, group, split in by_group if name == "A"} == {"train", "test"}
    part = build_index(touch(tmp_path / "part", *names[::2]), split="test")
    assert set(stems(part)) == set(stems(build_index(tmp_path / "whole", split="test"))) & set(stems(part))
    assert len(part) > 0


def test_own_split_of_a_class_is_its_own(tmp_path):
    """Also where all classes number their videos alike."""
    index = build_index(touch(tmp_path, *(f"{c}/{k}.mp4" for c in "AB" for k in range(40))), split="all")
    tests = [
        {Path(row["path"]).stem for row in index if row["class_name"] == c and row["split"] == "test"}
        for c in "AB"
    ]
    assert all(tests) and tests[0] != tests[1]


@pytest.mark.parametrize("names", [("walk", "Walk"), ("x" * 240,)], ids=["case", "length"])
def test_class_names_are_judged_before_anything_is_trained(names, tmp_path):
    for name in names:
        (tmp_path / name).mkdir()
        for number in range(8):
            (tmp_path / name / f"{number}.mp4").touch()
    with pytest.raises(ValueError, match=f"{tmp_path}: .*rename the class's folder"):
        build_index(tmp_path, split="all")


@pytest.mark.parametrize("name", [b"caf\xe9/1.mp4", b"cafe/caf\xe9.mp4"], ids=["class", "video"])
def test_a_name_that_is_not_utf8_is_refused_by_name(name, tmp_path):
    touch(tmp_path, os.fsdecode(name), "walk/1.mp4")
    with pytest.raises(ValueError, match=r"caf\\udce9.* is not UTF-8: rename it"):
        build_index(tmp_path, split="all")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("classInd.txt", b"1\n", "classInd.txt has the line '1', expected a number and a class name"),
        ("classInd.txt", b"1 caf\xe9\n", "classInd.txt is not UTF-8"),
        ("trainlist01.txt", b"caf\xe9.avi 1\n", "trainlist01.txt is not UTF-8"),
    ],
)
def test_a_list_that_cannot_be_read_is_named(file, content, message, tree):
    (tree / "ucfTrainTestlist" / file).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        build_index(tree)


def test_trees_without_videos_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        build_index(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no folder in it holds a video"):
        build_index(touch(tmp_path, "train/cat/1.mp4", "train/notes.txt"))
    touch(tmp_path, "cat/1.mp4")
    with pytest.raises(ValueError, match="split 'test'"):
        build_index(tmp_path, split="test")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Seven good videos, each of its own grey, and a bad one of each kind."""
    root = tmp_path_factory.mktemp("videos")
    ramp = torch.linspace(-0.2, 0.2, 40)[None, None, None, :]
    for k in range(7):
        frames = torch.linspace(0, 0.1, 12)[None, :, None, None] + ramp + (k - 3) / 5
        write_video(root / f"{'ab'[k % 2]}/{k}.mp4", frames.expand(3, -1, 32, -1), fps=10)
    return root


@pytest.fixture
def with_bad(videos, tmp_path):
    for path in videos.glob("*/*.mp4"):
        (tmp_path / path.parent.name).mkdir(exist_ok=True)
        (tmp_path / path.parent.name / path.name).write_bytes(path.read_bytes())
    write_video(tmp_path / "a" / "short.mp4", torch.zeros(3, 2, 32, 32), fps=10)
    (tmp_path / "b" / "text.mp4").write_text("not a video")
    return build_index(tmp_path, split="all")


def stream(index, **options) -> VideoDataset:
    return VideoDataset(index, 4, 24, flip=True, **options)


def test_an_epoch_visits_every_video_once_in_an_order_of_its_own(videos):
    dataset = stream(build_index(videos, split="all"))
    epochs = [[dataset[7 * epoch + k]["index"] for k in range(7)] for epoch in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(7))] * 3
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[1] == [stream(build_index(videos, split="all"))[7 + k]["index"] for k in range(7)]
    other = stream(build_index(videos, split="all"), seed=1)
    assert epochs[0] != [other[k]["index"] for k in range(7)]


def test_the_stream_does_not_depend_on_workers_batches_or_the_start(with_bad):
    def clips(draws, **options):
        loader = DataLoader(stream(with_bad), sampler=draws, collate_fn=collate, **options)
        batches = list(loader)
        return {
            key: torch.cat([torch.as_tensor(batch[key]) for batch in batches])
            for key in ("video", "label", "index", "substitute")
        }

    plain = clips(range(20), batch_size=4)
    assert plain["video"].shape == (20, 3, 4, 24, 24) and len(plain["video"].unique(dim=0)) > 15
    assert plain["substitute"].any()
    forked = clips(range(20), batch_size=5, num_workers=2, multiprocessing_context="fork")
    resumed = clips(range(13, 20), batch_size=3)
    for key in plain:
        assert torch.equal(plain[key], forked[key])
        assert torch.equal(plain[key][13:], resumed[key])


def test_a_bad_video_at_the_end_of_an_epoch_is_replaced_by_its_first(with_bad):
    dataset = stream(with_bad)
    bad = {row for row, path in enumerate(with_bad["path"]) if Path(path).stem in ("short", "text")}
    orders = [[dataset.order[9 * epoch + k] for k in range(9)] for epoch in range(200)]
    pairs = enumerate(zip(orders, orders[1:], strict=False))
    epoch = next(n for n, (a, b) in pairs if a[-1] in bad and a[0] != b[0] and not {a[0], b[0]} & bad)
    assert dataset[9 * epoch + 8]["index"] == orders[epoch][0]


def test_windows_and_mirrors_vary_from_draw_to_draw(videos):
    index = build_index(videos, split="all").select([0])
    dataset = VideoDataset(index, 4, 32, flip=True, start=0)
    rising = [
        bool(dataset[draw]["video"][..., -1].mean() > dataset[draw]["video"][..., 0].mean())
        for draw in range(30)
    ]
    assert 5 < sum(rising) < 25
    dataset = VideoDataset(index, 4, 32)
    assert len(torch.stack([dataset[draw]["video"] for draw in range(12)]).unique(dim=0)) > 3


def test_the_evaluation_reader_is_the_index_in_order(videos):
    index = build_index(videos, split="all")
    dataset = VideoDataset(index, 4, (32, 40), stride=2, shuffle=False, start="center")
    for draw in range(7):
        sample = dataset[draw]
        assert sample["index"] == draw and sample["label"] == index[draw]["label"]
        expected = read_clip(index[draw]["path"], 4, size=(32, 40), stride=2, start="center")
        assert torch.equal(sample["video"], expected)
        assert torch.equal(sample["video"], dataset[draw + 7]["video"])
        assert not sample["substitute"] and sample["skipped"] == []
    with pytest.raises(IndexError):
        dataset[-1]


def test_bad_files_are_skipped_and_named(with_bad):
    bad = {
        Path(path).name: row
        for row, path in enumerate(with_bad["path"])
        if Path(path).stem in ("short", "text")
    }
    dataset = stream(with_bad)
    counter = BadVideos(len(dataset), max_fraction=0.3)
    for draw in range(18):
        sample = dataset[draw]
        assert sample["index"] not in bad.values()
        assert sample["substitute"] == bool(sample["skipped"])
        counter.update(collate([sample]))
    assert set(counter.reasons) == set(bad.values())
    assert counter.summary().startswith("2 of 9 videos are bad: ")
    assert "short.mp4: 4 frames at stride=1 span 4, the video has 2" in counter.summary()
    assert "text.mp4: cannot be decoded" in counter.summary()


def test_a_draw_of_a_partly_damaged_file_depends_on_no_draw_before(tmp_path):
    noise = torch.randint(0, 256, (60, 32, 32, 3), generator=torch.Generator().manual_seed(0))
    write_video(tmp_path / "a" / "0.mp4", torch.zeros(3, 12, 32, 32), fps=10)
    write_video(tmp_path / "a" / "1.mp4", noise.to(torch.uint8), fps=10)
    content = bytearray((tmp_path / "a" / "1.mp4").read_bytes())
    hole = 2 * len(content) // 3
    content[hole : hole + 5000] = bytes(5000)
    (tmp_path / "a" / "1.mp4").write_bytes(content)
    index = build_index(tmp_path, split="all")
    dataset = stream(index)
    together = [dataset[draw]["skipped"] for draw in range(24)]
    assert together == [stream(index)[draw]["skipped"] for draw in range(24)]
    assert 2 < sum(map(len, together)) < 12  # of the damaged file's draws some, not all


def test_too_many_bad_files_stop_the_loop(with_bad):
    dataset, counter = stream(with_bad), BadVideos(9, max_fraction=0.2)
    with pytest.raises(ValueError, match=r"limit 20%.*2 of 9 videos are bad.*short\.mp4"):
        for draw in range(9):
            counter.update(collate([dataset[draw]]))
    none_good = with_bad.filter(lambda row: Path(row["path"]).stem in ("short", "text"))
    with pytest.raises(ValueError, match="2 videos in a row are bad"):
        stream(none_good)[0]


def test_of_a_large_set_a_hundred_files_are_enough_to_judge():
    counter = BadVideos(1000, max_fraction=0.05)
    bad = [(row, f"{row}.mp4: bad") for row in range(6)]
    counter.update({"index": list(range(99)), "skipped": bad})
    with pytest.raises(ValueError, match="6 of 100 videos are bad"):
        counter.update({"index": [99], "skipped": []})


@pytest.mark.parametrize(
    ("folder", "num_train", "num_test"), [("ucf101-10", 350, 150), ("ucf101-native", 40, 20)]
)
def test_real_ucf101(folder, num_train, num_test):
    root = DATA / folder
    if not root.is_dir():
        pytest.skip(f"no UCF-101 files in ../shared/data/{folder}")
    train, test = build_index(root), build_index(root, split="test")
    assert (len(train), len(test)) == (num_train, num_test)
    assert len(train.features["label"].names) == 10 and set(test["label"]) == set(range(10))
    sample = VideoDataset(train, 16, 64, fps=8)[5]
    assert sample["video"].shape == (3, 16, 64, 64) and sample["video"].std() > 0.05
    for fold in (2, 3):
        assert len(build_index(root, fold=fold)) + len(build_index(root, fold=fold, split="test")) == len(
            train
        ) + len(test)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("classInd.txt", b"1 Archery\n\x00\x00", "holds zero bytes"),
        ("classInd.txt", b"1 Archery\n2 archery\n", "names a class twice"),
    ],
)
def test_a_damaged_list_is_named(tmp_path, name, content, told):
    video = tmp_path / "Archery" / "v_Archery_g01_c01.avi"
    video.parent.mkdir()
    video.touch()
    (tmp_path / "ucfTrainTestlist").mkdir()
    (tmp_path / "ucfTrainTestlist" / name).write_bytes(content)
    (tmp_path / "ucfTrainTestlist" / "testlist01.txt").touch()
    with pytest.raises(ValueError, match=f"{name}.*{told}"):
        build_index(tmp_path)
