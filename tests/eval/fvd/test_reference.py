"""`python -m eval reference`: what its file is of, and what it refuses to be held against."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from eval.__main__ import main
from eval.fvd.reference import read_reference
from eval.real_clips import RealClips
from pipelines.generate import read_counts
from tests.builders.clips import SHAPE, add_protocol, refused, run, save_autoencoder, words_of
from tests.builders.extractors import FilterResponses
from tests.builders.processes import command_in_processes


def test_a_video_that_turns_bad_costs_no_other_clip(
    extractor: FilterResponses, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 of 24 videos and 20 other clips: 24 in the first turn, 16 in the second, of which the bad one is the
    first in both. Without it the second turn begins one draw earlier."""
    add_protocol(monkeypatch, "all-20", 20)
    root, out = tmp_path / "data", tmp_path / "real.safetensors"
    shutil.copytree(data, root)
    run("reference", out, data=root, protocol="all-20")
    assert extractor.num_seen == 40
    real = RealClips.of_split(root, SHAPE, "all")
    Path(real.paths[real.order[0]]).write_bytes(b"no video")
    run("reference", out, data=root, protocol="all-20")
    assert extractor.num_seen == 42
    assert len(read_reference(out).skipped) == 1


def test_a_bad_video_among_the_other_clips_may_leave_too_few_for_them(
    extractor: FilterResponses, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """12 clips and 12 others are all videos that there are: of one less no video would be another's."""
    add_protocol(monkeypatch, "even-12", 12, selection="classes")
    root, out = tmp_path / "data", tmp_path / "real.safetensors"
    shutil.copytree(data, root)
    real = RealClips.of_split(root, SHAPE, "all")
    Path(real.paths[real.rows["Left"][5]]).write_bytes(b"no video")
    run("reference", out, data=root, protocol="even-12")
    floor = read_reference(out).floor
    assert floor["fvd"] is None and "too few videos" in floor["reason"]


def test_two_processes_measure_one_reference(extractor: FilterResponses, data: Path, tmp_path: Path) -> None:
    flags = {"data": data, "split": "all", "protocol": "quick-6", "batch_size": 1}
    flags |= {"num_frames": 4, "height": 16, "width": 16}
    alone, shared = tmp_path / "alone.safetensors", tmp_path / "shared.safetensors"
    run("reference", alone, **flags)
    command_in_processes(2, main, words_of("reference", **flags, out=shared))
    assert shared.read_bytes() == alone.read_bytes()


def test_a_reference_is_of_its_own_data(
    extractor: FilterResponses,
    data: Path,
    generated: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    reference, size = tmp_path / "real.safetensors", {"num_frames": 4, "height": 16, "width": 16}
    run("reference", reference, data=data, split="all", protocol="quick-12", no_floors=True, **size)
    assert "quick-12, 12 real clips of 12 videos, rank-deficient, no real floor" in capsys.readouterr().out
    flags = {"reference": reference, "vae": save_autoencoder(tmp_path / "vae"), "generated": generated}
    shutil.copytree(data, root := tmp_path / "copy", copy_function=shutil.copy)  # with times of its own
    record = run("fvd", tmp_path / "a.json", data=root, fold=2, **flags)
    assert record["floors"]["reconstructions"]["num_reconstructions"] == 12
    assert record["num_real_videos"] == 12 and record["protocol"]["fold"] is None
    real, seen = RealClips.of_split(root, SHAPE, "all"), extractor.num_seen
    path = Path(real.paths[real.rows["Left"][0]])
    path.rename(path.with_name("another.mp4"))
    said = refused(capsys, "fvd", tmp_path / "b.json", data=root, **flags)
    assert f"--data {root} is not the data that --reference was measured on" in said
    assert extractor.num_seen == seen
    # a bad video that was none then is met only when it is read
    path.with_name("another.mp4").rename(path)
    path.write_bytes(b"no video")
    said = refused(capsys, "fvd", tmp_path / "c.json", data=root, **flags)
    assert "is not the data that --reference was measured on" in said


def test_a_reference_gives_the_number_and_refuses_another_protocol(
    extractor: FilterResponses,
    data: Path,
    generated: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    reference, size = tmp_path / "real.safetensors", {"num_frames": 4, "height": 16, "width": 16}
    run("reference", reference, data=data, split="all", protocol="quick-12", **size)
    assert read_counts(reference) == {"Left": 4, "Right": 4, "Up": 4}
    from_file = run("fvd", tmp_path / "a.json", reference=reference, generated=generated)
    for name in ("again", "and again"):  # a header of several keys had them in any order
        read_reference(reference).save(tmp_path / name)
        assert (tmp_path / name).read_bytes() == reference.read_bytes()
    direct = run("fvd", tmp_path / "b.json", data=data, split="all", generated=generated, seed=0)
    assert from_file["protocol"]["name"] == direct["protocol"]["name"] == "quick-12"
    for record in (from_file, direct):  # the same clips in another order
        assert record["kvd"] == pytest.approx(direct["kvd"], rel=1e-9) and record["kvd"] != 0
        kernel = record["floors"]["real"]["kvd"]
        assert kernel == pytest.approx(direct["floors"]["real"]["kvd"], rel=1e-9) and kernel != 0
    assert "kvd_reason" not in from_file
    assert from_file["floor"] is not None and from_file["protocol"]["split"] == "all"
    assert "without" not in from_file["floors"]["reconstructions"]["reason"]
    out = tmp_path / "c.json"
    for flags, words in (
        ({"stride": 2}, ("stride 1 there, 2 here",)),
        ({"split": "test"}, ("split all there, test here",)),
        ({"num_samples": 6}, ("name quick-12 there, quick-6 here", "num_real 12 there, 6 here")),
        ({"protocol": "sgv-2048"}, ("frames", "16")),
    ):
        said = refused(capsys, "fvd", out, reference=reference, generated=generated, **flags)
        assert all(word in said for word in words), said
    extractor.weights_sha256 = "1" * 64
    said = refused(capsys, "fvd", out, reference=reference, generated=generated)
    assert "weights_sha256 0000" in said and "1111" in said
    said = refused(capsys, "fvd", out, reference=generated, generated=generated)
    assert "eval reference" in said


def test_a_reference_replaces_references_alone(
    extractor: FilterResponses, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = {"num_frames": 4, "height": 16, "width": 16}
    flags = {"data": data, "protocol": "quick-4", "no_floors": True, **size}
    reference = tmp_path / "real.safetensors"
    run("reference", reference, **flags)
    before = reference.read_bytes()
    run("reference", reference, **flags)
    assert reference.read_bytes() == before
    about = {"protocol": "{}", "floor": "{}"}  # as earlier versions had it
    save_file({"sum": torch.zeros(2)}, reference, metadata=about)
    run("reference", reference, **flags)
    assert reference.read_bytes() == before
    clips = tmp_path / "clips.safetensors"
    save_file({"clips": torch.zeros(2)}, clips)
    for out in (clips, tmp_path / "x.json"):
        with pytest.raises(SystemExit):
            main(words_of("reference", **flags, out=out))
        assert "argument --out: " in capsys.readouterr().err
    assert load_file(clips).keys() == {"clips"} and not (tmp_path / "x.json").exists()


def test_a_reference_of_before_gives_the_number_without_a_kernel_distance(
    extractor: FilterResponses,
    data: Path,
    generated: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Which it kept only sums for."""
    now, before, size = tmp_path / "now.safetensors", tmp_path / "before.safetensors", {"num_frames": 4}
    run("reference", now, data=data, split="all", protocol="quick-12", height=16, width=16, **size)
    with safe_open(now, framework="pt") as file:
        about = json.loads(file.metadata()["reference"])
    tensors = load_file(now)
    rows, floor = tensors.pop("features"), about["floor"]
    assert rows.dtype == torch.float32 and rows.shape == (12, 16)
    assert floor["kvd"] is not None and f"KVD {floor['kvd']:.1f}" in capsys.readouterr().out
    del floor["kvd"]
    texts = {name: json.dumps(value) for name, value in about.items()}
    save_file(tensors, before, metadata=texts)
    expected = run("fvd", tmp_path / "a.json", reference=now, generated=generated)
    assert f"KVD {expected['kvd']:.1f}" in capsys.readouterr().out
    record = run("fvd", tmp_path / "b.json", reference=before, generated=generated)
    told = capsys.readouterr().out
    assert record["fvd"] == expected["fvd"] and record["floors"]["real"]["fvd"] == expected["floor"]
    assert record["kvd"] is None and record["floors"]["real"]["kvd"] is None
    assert "earlier version" in record["kvd_reason"] and f"no KVD: {record['kvd_reason']}" in told
    assert read_counts(before) == read_counts(now)
    save_file(tensors | {"features": rows[1:].contiguous()}, before, metadata=texts)
    assert "expected tensors" in refused(
        capsys, "fvd", tmp_path / "c.json", reference=before, generated=generated
    )


def test_a_reference_that_one_may_not_read_says_so(tmp_path: Path) -> None:
    """As another user: the tests may run as root, who reads all."""
    save_file({"sum": torch.zeros(2)}, path := tmp_path / "real.safetensors")
    path.chmod(0)
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            read_reference(path)
        except ValueError as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)  # or a child that says nothing would be waited for
    with open(reading, "rb") as said:
        assert b"Permission denied" in said.read()
