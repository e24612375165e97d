"""Generated clips: files of ours, and videos of any generator."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from eval.__main__ import main
from eval.generated_clips import GeneratedClips, read_generated
from eval.real_clips import RealClips
from tests.builders.clips import drifting_clips
from tests.builders.commands import refused, run
from tests.builders.extractors import FilterResponses, install
from vidtwin_gen.data.names import file_names
from vidtwin_gen.data.video import read_frames
from vidtwin_gen.data.writing import write_video

FRAMES = torch.zeros(3, 2, 4, 4, 3, dtype=torch.uint8)
LABELS = torch.tensor([7, 7, 9])
TOLD = {"class_labels": [7, 9], "class_names": ["Left", "Right"], "seed": 5}


def write(folder: Path, tensors: dict[str, torch.Tensor], told: Any) -> Path:
    save_file(tensors, folder / "clips.safetensors")
    (folder / "generated.json").write_text(told if isinstance(told, str) else json.dumps(told))
    return folder / "clips.safetensors"


def test_clips_have_the_names_of_their_labels(tmp_path: Path) -> None:
    clips = read_generated(write(tmp_path, {"frames": FRAMES, "labels": LABELS}, TOLD))
    assert clips.names == ["Left", "Left", "Right"] and clips.seed == 5
    assert clips.frames is not None and torch.equal(clips.frames, FRAMES)


@pytest.mark.parametrize(
    ("tensors", "told", "words"),
    [
        ({"frames": FRAMES.float()}, TOLD, ("clips.safetensors", "uint8", "torch.float32")),
        ({"frames": FRAMES[0]}, TOLD, ("(N, F, H, W, 3)", "(2, 4, 4, 3)")),
        ({"frames": FRAMES.permute(0, 1, 4, 2, 3).contiguous()}, TOLD, ("(3, 2, 3, 4, 4)",)),
        ({"labels": LABELS[:2]}, TOLD, ("a label for each of 3 clips", "(2,)")),
        ({"labels": LABELS + 1}, TOLD, ("generated.json has no name for label 8",)),
        ({"video": FRAMES, "frames": None}, TOLD, ("clips.safetensors can't be read", "frames")),
        ({}, {"class_names": ["Left"]}, ("generated.json can't be read", "class_labels")),
        ({}, TOLD | {"class_names": ["Left"]}, ("generated.json can't be read",)),
        ({}, TOLD | {"class_names": ["Left", 1e30]}, ("generated.json can't be read", "class_names[1]")),
        ({}, [1], ("generated.json can't be read",)),
        ({}, '{"class_labels": [7', ("generated.json can't be read", "JSONDecodeError")),
    ],
)
def test_other_files_are_refused_by_name(
    tensors: dict[str, Any], told: Any, words: tuple[str, ...], tmp_path: Path
) -> None:
    whole = {"frames": FRAMES, "labels": LABELS} | tensors
    path = write(tmp_path, {name: value for name, value in whole.items() if value is not None}, told)
    with pytest.raises(ValueError) as error:
        read_generated(path)
    for word in (*words, str(tmp_path), "python -m pipelines generate"):
        assert word in str(error.value)


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, {"frames": FRAMES, "labels": LABELS}, TOLD)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"clips.safetensors can't be read \(SafetensorError"):
        read_generated(path)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of each of two classes, of 12 frames of 16 x 24."""
    root = tmp_path_factory.mktemp("videos")
    for label, name in enumerate(("Right", "Left")):
        for number, clip in enumerate(drifting_clips(2, label, (12, 16, 24))):
            write_video(root / name / f"{number}.mp4", clip, fps=8)
    return root


def frames_of(clips: GeneratedClips) -> torch.Tensor:
    return torch.stack([clips.clip(index) for index in range(len(clips))])


def test_videos_of_any_generator_are_read_as_real_ones(videos: Path) -> None:
    whole = read_generated(videos)
    assert whole.names == ["Left", "Left", "Right", "Right"] and whole.shape == (12, 16, 24)
    assert whole.codec == "h264 yuv420p" and whole.codec in (whole.note or "")
    first = torch.from_numpy(read_frames(videos / "Left/0.mp4", 12, start=0).frames)
    assert torch.equal(whole.clip(0), first)

    windows = [read_generated(videos, 4, seed=seed) for seed in (0, 0, 1)]
    once, again, other = map(frames_of, windows)
    assert torch.equal(once, again) and not torch.equal(once, other)
    assert any(torch.equal(once[0], first[start : start + 4]) for start in range(9))
    assert read_generated(videos, stride=2).shape[0] == read_generated(videos, fps=4).shape[0] == 6
    strided = read_generated(videos, stride=2).clip(0)
    assert any(torch.equal(strided, first[start::2]) for start in (0, 1))
    assert windows[0].sha256 == whole.sha256 and windows[0].reading != windows[2].reading

    flat = read_generated(videos / "Left")
    assert flat.names is None and torch.equal(flat.clip(0), first)


def test_videos_that_make_no_set_are_refused_by_path(videos: Path, tmp_path: Path) -> None:
    def refuses(*words: str, num_frames: int | None = None) -> None:
        with pytest.raises(ValueError) as error:
            read_generated(tmp_path, num_frames)
        for word in words:
            assert word in str(error.value)

    refuses("holds no video", str(tmp_path))
    (tmp_path / "Left").symlink_to(videos / "Left")
    refuses("2 of 2", str(tmp_path / "Left/0.mp4"), "holds 12 frames", num_frames=13)
    (tmp_path / "a.mp4").write_bytes(b"no video")
    refuses("<class>/<video>", "Left/0.mp4", "a.mp4")
    (tmp_path / "Bad").mkdir()
    (tmp_path / "a.mp4").rename(tmp_path / "Bad/a.mp4")
    refuses("1 of 3", str(tmp_path / "Bad/a.mp4"), "not a video")
    write_video(tmp_path / "Bad/a.mp4", drifting_clips(1, 0, (10, 16, 24))[0], fps=8)
    refuses("a.mp4", "10x16x24", "12x16x24", "--num_frames")
    assert read_generated(tmp_path, 10).shape == (10, 16, 24)


def test_videos_of_a_clips_frames_are_read_whole(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At another stride than the real ones, which every measure and its record names."""
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "Left").symlink_to(videos / "Left")
    with pytest.raises(ValueError, match="6 at stride=2.*no more, --generated_stride 1"):
        read_generated(tmp_path / "set", 12, stride=2)
    with pytest.raises(ValueError, match="--generated_stride 1"):
        read_generated(tmp_path / "set", 12, fps=4.0)
    whole = read_generated(tmp_path / "set", 12, stride=2, generated_stride=1)
    assert torch.equal(whole.clip(0), read_generated(tmp_path / "set", 12).clip(0))
    assert len(read_generated(tmp_path / "set", stride=2, generated_stride=3).clip(0)) == 4

    frames = {"frames": torch.zeros(1, 12, 16, 24, 3, dtype=torch.uint8), "labels": torch.tensor([0])}
    (tmp_path / "file").mkdir()
    file = write(tmp_path / "file", frames, {"class_labels": [0], "class_names": ["Left"]})
    with pytest.raises(ValueError, match="--generated_stride 1 is of videos"):
        read_generated(file, 12, generated_stride=1)

    data = tmp_path / "data"
    for number in range(12):
        clip = drifting_clips(1, number, (24, 16, 24))[0]
        for name in ("Left", "Right"):
            write_video(data / name / f"v_{name}_g{number}_c01.mp4", clip, fps=16)
    out, flags = tmp_path / "eval.json", {"data": data, "stride": 2, "generated": tmp_path / "set"}
    record = run("accuracy", **flags, generated_stride=1, num_steps=1, out=out)
    assert record["frame_rate"] == "stride 2, of generated videos stride 1"
    assert record["resolution"] == "12x16x24"
    assert "no more, --generated_stride 1" in refused(
        capsys, "accuracy", tmp_path / "none.json", num_frames=12, **flags
    )


def test_clips_of_another_speed_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        write_video(tmp_path / f"{number}.mp4", drifting_clips(1, number, (12, 16, 24))[0], fps=16)
    real = RealClips.of_files([tmp_path], (4, 16, 24), stride=2)
    of_videos = [read_generated(tmp_path, stride=stride).fps for stride in (2, 1)]
    assert of_videos == [8.0, 16.0]
    clips = read_generated(tmp_path, generated_stride=1)
    for fps, told in ((8.0, False), (9.5, False), (16.0, True), (4.0, True), (None, False)):
        real.warn_of_other_rate(replace(clips, fps=fps))
        said = capsys.readouterr().out
        assert ("frames a second, real ones by --stride 2 8: motion" in said) == told
        assert "--generated_stride" not in said
    # as a generator's own clips are written, with the rate that they have
    for number in range(3):
        write_video(tmp_path / f"{number}.mp4", drifting_clips(1, number, (12, 16, 24))[0], fps=8)
    real = RealClips.of_files([tmp_path], (4, 16, 24), stride=2)
    real.warn_of_other_rate(replace(read_generated(tmp_path, stride=2), fps=2.0))
    said = capsys.readouterr().out
    assert (
        "--stride 2 is of both, and leaves clips of 6 frames" in said and "add --generated_stride 1" in said
    )


def test_accuracy_is_of_videos_with_classes(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    for name in ("Left", "Right"):
        (data / name).mkdir(parents=True)
        for group in range(9):
            (data / name / f"v_{name}_g{group}_c01.mp4").symlink_to(videos / name / "0.mp4")
    out = tmp_path / "accuracy.json"
    flags = ["--data", data, "--num_steps", 1, "--num_frames", 4, "--out", out]
    main(["accuracy", *map(str, [*flags, "--generated", videos])])
    record = json.loads(out.read_text())
    assert record["generated"]["num_clips"] == 4 and record["resolution"] == "4x16x24"
    assert "h264" in record["note"]
    said = refused(capsys, "accuracy", tmp_path / "flat.json", data=data, generated=videos / "Left")
    assert "nothing says the classes" in said and "<class>/<video>" in said


def test_classes_whose_folders_are_called_as_generate_calls_them(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, generated = tmp_path / "data", tmp_path / "generated"
    names = ["cleaning & drying", "massaging person's head"]
    generated.mkdir()
    for name, file, source in zip(names, file_names(names), ("Left", "Right"), strict=True):
        (data / name).mkdir(parents=True)
        for number in range(9):
            (data / name / f"{number}.mp4").symlink_to(videos / source / "0.mp4")
        (generated / file).symlink_to(videos / source)
    assert read_generated(generated).names == [file for file in file_names(names) for _ in range(2)]
    flags = {"generated": generated, "num_frames": 4}
    record = run("accuracy", tmp_path / "accuracy.json", data=data, num_steps=1, **flags)
    assert record["class_names"] == names and list(map(sum, record["generated"]["confusion"])) == [2, 2]

    install(monkeypatch, FilterResponses())
    reference = tmp_path / "reference.safetensors"
    size = {"num_frames": 4, "height": 16, "width": 24}
    run("reference", reference, data=data, split="all", protocol="quick-4", no_floors=True, **size)
    for real in ({"data": data, "split": "all"}, {"reference": reference}):
        record = run("fvd", tmp_path / "fvd.json", no_floors=True, **real, **flags)
        assert record["num_generated"] == 4 and record["fvd"] > 0


def test_accuracy_among_one_class_means_nothing(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, generated = tmp_path / "data", tmp_path / "generated"
    for number in range(9):
        (data / "Left").mkdir(parents=True, exist_ok=True)
        (data / "Left" / f"v_Left_g{number}_c01.mp4").symlink_to(videos / "Left/0.mp4")
    generated.mkdir()
    (generated / "Left").symlink_to(videos / "Left")
    said = refused(capsys, "accuracy", tmp_path / "out.json", data=data, generated=generated, num_steps=1)
    assert f"--data {data} has one class, Left" in said and "two or more" in said
