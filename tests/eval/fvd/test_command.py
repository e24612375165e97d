"""`python -m eval fvd`: one number whatever the batches and processes, floors, resuming, refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from eval.__main__ import main
from eval.fvd import networks
from eval.generated_clips import read_generated
from eval.real_clips import RealClips
from tests.builders.clips import (
    CLASS_NAMES,
    SHAPE,
    add_protocol,
    drifting_clips,
    refused,
    run,
    save_autoencoder,
    words_of,
    write_generated,
)
from tests.builders.extractors import FilterResponses
from tests.builders.processes import run_in_processes
from vidtwin_gen.data.writing import write_video


def test_one_number_whatever_the_batches_order_and_workers(
    extractor: FilterResponses, data: Path, tmp_path: Path
) -> None:
    """Two fixed sets of clips: those of every video, kept in a file, and generated ones in two orders."""
    reference, size = tmp_path / "real.safetensors", {"num_frames": 4, "height": 16, "width": 16}
    run("reference", reference, data=data, split="all", protocol="quick-24", batch_size=5, **size)
    clips = write_generated(tmp_path / "a", (8, 8, 8))
    other = write_generated(tmp_path / "b", (8, 8, 8))
    labels = torch.arange(3).repeat_interleave(8)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(1))
    save_file({"frames": drifting_clips(24, 100)[order], "labels": labels[order]}, other)
    values, kernel = [], []
    for number, (path, batch_size, workers) in enumerate([(clips, 1, 0), (clips, 7, 1), (other, 24, 0)]):
        out = tmp_path / f"{number}.json"
        flags = {"batch_size": batch_size, "num_workers": workers}
        # each measures the real clips again, but for the last
        flags |= {"reference": reference} if path is other else {"data": data, "split": "all"}
        record = run("fvd", out, generated=path, features_dir=tmp_path / f"{number}", **flags)
        values.append(record["fvd"])
        kernel.append(record["kvd"])
        assert record["num_real"] == 24 and "too few videos" in record["floors"]["real"]["reason"]
    assert values[1] == pytest.approx(values[0], rel=1e-9) and values[0] > 1
    assert kernel[1:] == pytest.approx([kernel[0]] * 2, rel=1e-6) and kernel[0] > 0
    again = run("fvd", tmp_path / "again.json", generated=clips, reference=reference)
    assert values[2] == pytest.approx(again["fvd"], rel=1e-9)


def test_floors_are_measured_at_the_same_number_and_decode_nothing_twice(
    extractor: FilterResponses, data: Path, generated: Path, tmp_path: Path
) -> None:
    vae = save_autoencoder(tmp_path / "vae")
    read = []
    original = RealClips.read
    RealClips.read = lambda self, draw, *sizes: read.append(draw) or original(self, draw, *sizes)  # type: ignore
    try:
        second = write_generated(tmp_path / "second", seed=1)
        flags = {"data": data, "split": "all", "vae": vae, "generated": [generated, second]}
        record = run("fvd", tmp_path / "fvd.json", **flags)
    finally:
        RealClips.read = original  # type: ignore
    assert len(read) == len(set(read)) == 24  # 12 clips and 12 others
    assert extractor.num_seen == 24 + 12 + 2 * 12  # real, their reconstructions, two generated files
    floors = record["floors"]
    assert floors["real"]["num_other_real"] == floors["reconstructions"]["num_reconstructions"] == 12
    # noise for reconstructions: an untrained autoencoder is worse than other real clips
    assert 0 < floors["real"]["fvd"] == record["floor"] < floors["reconstructions"]["fvd"]
    values = [one["fvd"] for one in record["generated"]]
    assert record["fvd"] == pytest.approx(sum(values) / 2) and [s["seed"] for s in record["generated"]] == [
        0,
        1,
    ]
    assert record["std"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    assert floors["real"]["kvd"] < floors["reconstructions"]["kvd"]
    values = [one["kvd"] for one in record["generated"]]
    assert record["kvd"] == pytest.approx(sum(values) / 2) and record["kvd"] > 0
    assert record["kvd_std"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)


def test_a_run_that_was_stopped_goes_on_where_it_was(
    extractor: FilterResponses, data: Path, generated: Path, tmp_path: Path
) -> None:
    flags = {"data": data, "split": "all", "generated": generated, "batch_size": 3}
    whole = run("fvd", tmp_path / "whole.json", **flags)
    assert extractor.num_seen == 36
    extractor.num_seen, extractor.stop_at = 0, 17  # of 12 real, 12 other real, 12 generated clips
    with pytest.raises(SystemExit, match="130"):
        run("fvd", tmp_path / "fvd.json", **flags)
    seen, extractor.stop_at = extractor.num_seen, None
    assert seen == 15 and not (tmp_path / "fvd.json").exists()
    assert run("fvd", tmp_path / "fvd.json", **flags) == whole
    assert extractor.num_seen == 36
    run("fvd", tmp_path / "fvd.json", **flags)
    assert extractor.num_seen == 36
    run("fvd", tmp_path / "fvd.json", **flags, seed=1)  # other clips, but for those that chance kept
    assert extractor.num_seen > 48


def test_a_bad_video_is_replaced_counted_and_told(
    extractor: FilterResponses,
    data: Path,
    generated: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = tmp_path / "data"
    shutil.copytree(data, root)
    real = RealClips.of_split(root, SHAPE, "all")
    bad = Path(real.paths[real.rows["Left"][1]])
    bad.write_bytes(b"no video")
    record = run("fvd", tmp_path / "fvd.json", data=root, split="all", generated=generated, no_floors=True)
    assert [line.split(": ")[0] for line in record["skipped_videos"]] == [str(bad)]
    assert "; 1 videos skipped" in capsys.readouterr().out
    assert record["num_real"] == 12 and record["class_counts"] == {"Left": 4, "Right": 4, "Up": 4}
    rows = RealClips.of_split(root, SHAPE, "all")
    rows.bad[real.rows["Left"][1]] = "bad"
    assert [draw.row for draw in rows.of_classes(["Left"] * 4)] == [
        real.rows["Left"][i] for i in (0, 2, 3, 4)
    ]


def test_generated_clips_follow_the_classes_where_a_bad_video_is_replaced_by_another_classs(
    extractor: FilterResponses,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    add_protocol(monkeypatch, "all-20", 20)
    shutil.copytree(data, root := tmp_path / "data")
    real = RealClips.of_split(root, SHAPE, "all")
    names = [real.names[row] for row in real.order]
    bad = next(number for number in range(20) if names[number] != names[20])
    Path(real.paths[real.order[bad]]).write_bytes(b"no video")
    before = [names[:20].count(name) for name in CLASS_NAMES]
    flags = {"data": root, "protocol": "all-20", "no_floors": True}
    clips = write_generated(tmp_path / "before", before)
    said = refused(capsys, "fvd", tmp_path / "a.json", generated=clips, **flags)
    assert f"{names[:20].count(names[20])} of {names[20]} for {names[:21].count(names[20])}" in said
    spare = write_generated(tmp_path / "spare", [count + 1 for count in before])
    counts = run("fvd", tmp_path / "b.json", generated=spare, **flags)["class_counts"]
    assert counts[names[20]] == names[:21].count(names[20])


@pytest.mark.parametrize("verb", ["fvd", "reference", "sensitivity"])
def test_clips_of_another_length_than_the_network_takes_are_refused_first(
    verb: str,
    extractor: FilterResponses,
    data: Path,
    generated: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = {"generated": generated} if verb == "fvd" else {"num_frames": 4, "height": 16, "width": 16}
    own |= {"protocol": "quick-12"} if verb == "reference" else {}
    out = tmp_path / ("out.safetensors" if verb == "reference" else "out.json")
    for least, most, words in (
        (9, None, "at least 9 frames"),
        (3, 3, "of 3 frames"),
        (1, 3, "1 to 3 frames"),
    ):
        monkeypatch.setattr(FilterResponses, "min_frames", least)
        monkeypatch.setattr(FilterResponses, "max_frames", most)
        said = refused(capsys, verb, out, data=data, split="all", **own)
        assert f"{words}, got 4" in said and "--extractor" in said
    assert extractor.num_seen == 0


@pytest.mark.parametrize("verb", ["reference", "sensitivity"])
def test_without_weights_there_is_an_error(
    verb: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = {"num_frames": 10, "height": 16, "width": 16, "weights": tmp_path / "none.ckpt"}
    flags |= {"protocol": "quick-12"} if verb == "reference" else {}
    with pytest.raises(SystemExit) as stop:
        out = tmp_path / ("out.safetensors" if verb == "reference" else "out.json")
        run(verb, out, data=data, split="all", **flags)
    assert stop.value.code == 2 and "the I3D weights are not at" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("second", "flags", "words"),
    [
        ({"shape": (4, 16, 24), "seed": 1}, {}, ("4x16x16", "4x16x24")),
        ({"seed": 0}, {}, ("the same clips", "--seed")),
        ({"seed": 1}, {"num_samples": 40}, ("holds 12 clips", "wants 40", "quick-12")),
        ({"seed": 1}, {"num_samples": 0}, ("--num_samples", "must be positive, got 0")),
        ({"seed": 1}, {"stride": 0}, ("--stride", "must be positive, got 0")),
        ({"seed": 1}, {"protocol": "magvit-10"}, ("magvit-10k", "quick-N")),
        ({"seed": 1}, {"protocol": "quick-5", "num_samples": 6}, ("--num_samples 6", "quick-5")),
        ({"counts": (12, 0, 0), "seed": 1}, {}, ("0 of", "for 4", "--labels_from")),
    ],
)
def test_sets_that_cannot_be_compared_are_refused(
    second: dict[str, Any],
    flags: dict[str, Any],
    words: tuple[str, ...],
    extractor: FilterResponses,
    data: Path,
    generated: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = write_generated(tmp_path / "other", **second)
    said = refused(
        capsys, "fvd", tmp_path / "fvd.json", data=data, split="all", generated=[generated, other], **flags
    )
    assert all(word in said for word in words), said
    assert extractor.num_seen == 0


def test_seeds_that_were_sampled_differently_are_refused(
    extractor: FilterResponses, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = [write_generated(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    for path, scale, digest in zip(sets, (3.0, 2.5), ("aa", "bb"), strict=True):
        record = json.loads(path.with_name("generated.json").read_text())
        record |= {"guidance_scale": scale, "num_inference_steps": 25, "command": {"pipeline": digest}}
        path.with_name("generated.json").write_text(json.dumps(record))
    said = refused(capsys, "fvd", tmp_path / "fvd.json", data=data, split="all", generated=sets)
    assert "sampled differently (guidance_scale 3.0 and 2.5; pipeline aa and bb)" in said
    assert extractor.num_seen == 0


def test_videos_of_any_generator_are_measured(
    extractor: FilterResponses, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a file of the same frames is, with the codec in the record; without classes, too."""
    videos = tmp_path / "videos"
    for name in CLASS_NAMES:
        for number in range(4):
            write_video(videos / name / f"{number}.mp4", drifting_clips(4, 9)[number], fps=8)
    clips = read_generated(videos)
    tensors = write_generated(tmp_path / "tensors")
    labels = torch.arange(3).repeat_interleave(4)
    save_file({"frames": torch.stack([clips.clip(i) for i in range(12)]), "labels": labels}, tensors)
    flags = {"data": data, "split": "all", "no_floors": True}
    same = run("fvd", tmp_path / "tensors.json", generated=tensors, **flags)
    record = run("fvd", tmp_path / "videos.json", generated=videos, **flags)
    assert record["fvd"] == pytest.approx(same["fvd"], rel=1e-9)
    assert record["protocol"] | {"codec": "none"} == same["protocol"]
    assert record["protocol"]["codec"] in record["note"] and "note" not in same

    flat = tmp_path / "flat"
    flat.mkdir()
    for path in sorted(videos.glob("*/*.mp4")):
        (flat / f"{path.parent.name}_{path.name}").symlink_to(path)
    record = run("fvd", tmp_path / "flat.json", generated=flat, num_samples=5, **flags)
    assert record["num_generated"] == 5 and "not known" in record["protocol"]["generated_selection"]
    assert sum(record["class_counts"].values()) == 5
    said = refused(capsys, "fvd", tmp_path / "mixed.json", generated=[flat, tensors], **flags)
    assert "one codec" in said
    said = refused(capsys, "fvd", tmp_path / "short.json", generated=tensors, num_frames=3, **flags)
    assert "clips of 4 frames" in said and "clips of 3" in said

    flags |= {"generated": videos, "stride": 2}  # real clips of frames twice as far apart
    record = run("fvd", tmp_path / "stride.json", **flags, generated_stride=1)
    assert (record["protocol"]["stride"], record["protocol"]["generated_stride"]) == (2, 1)
    assert record["fvd"] != same["fvd"]
    statistics = tmp_path / "real.safetensors"
    real = {"height": 16, "width": 16, "num_frames": 4, "protocol": "quick-12", "no_floors": True}
    run("reference", statistics, data=data, split="all", stride=2, **real)
    measured = {"generated": videos, "generated_stride": 1, "reference": statistics, "no_floors": True}
    again = run("fvd", tmp_path / "again.json", **measured)
    assert again["fvd"] == pytest.approx(record["fvd"], rel=1e-9)
    said = refused(capsys, "fvd", tmp_path / "none.json", num_frames=4, **flags)
    assert "no more, --generated_stride 1" in said
    vrae = {"data": data, "generated": videos, "protocol": "vrae-2048", "generated_stride": 2}
    said = refused(capsys, "fvd", tmp_path / "none.json", **vrae)
    assert "--generated_stride 2: vrae-2048 is defined with 1" in said


def in_process(rank: int, words: list[str], folder: Path) -> None:
    main(words)
    seen = networks.load_extractor("i3d").num_seen  # type: ignore[attr-defined]
    (folder / f"rank{rank}").write_text(str(seen))


def test_two_processes_share_the_clips_and_measure_the_same(
    extractor: FilterResponses, data: Path, tmp_path: Path
) -> None:
    shutil.copytree(data, root := tmp_path / "data")
    bad = RealClips.of_split(root, SHAPE, "all").rows["Up"][0]
    Path(RealClips.of_split(root, SHAPE, "all").paths[bad]).write_bytes(b"no video")
    clips = write_generated(tmp_path / "generated", (3, 3, 1))
    flags = {"data": root, "split": "all", "generated": clips, "batch_size": 2}
    alone = run("fvd", tmp_path / "alone.json", **flags)
    assert extractor.num_seen == 21
    extractor.num_seen = 0
    run_in_processes(2, in_process, words_of("fvd", out=tmp_path / "shared.json", **flags), tmp_path)
    shared = json.loads((tmp_path / "shared.json").read_text())
    for key in ("fvd", "floor"):
        assert shared[key] == pytest.approx(alone[key], rel=1e-6) and shared[key] > 0
    assert shared["kvd"] == pytest.approx(alone["kvd"], rel=1e-6)
    kernel = [record["floors"]["real"]["kvd"] for record in (shared, alone)]
    assert kernel[0] == pytest.approx(kernel[1], rel=1e-6)
    assert len(shared["skipped_videos"]) == 1 and shared["num_generated"] == 7
    seen = [int((tmp_path / f"rank{rank}").read_text()) for rank in (0, 1)]
    assert sum(seen) == 21  # each clip once, the one in place of the bad video too
