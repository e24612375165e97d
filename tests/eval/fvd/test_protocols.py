"""Protocols by name: which clips, how many of each class, of which size."""

from __future__ import annotations

import dataclasses
import unicodedata
from pathlib import Path

import pytest

from eval.fvd import protocols
from eval.fvd.flags import ProtocolFlags
from eval.fvd.reference import read_reference
from eval.fvd.selection import Settings, choose_settings, chosen_clips, wanted_names
from eval.generated_clips import GeneratedClips, read_generated
from eval.real_clips import RealClips
from pipelines.generate import read_counts
from tests.builders.clips import CLASS_NAMES, SHAPE, add_protocol, refused, run, write_generated
from tests.builders.extractors import FilterResponses
from tests.builders.results import PROTOCOL


def test_the_named_protocols_are_the_published_ones() -> None:
    magvit, sgv, sgv3 = (protocols.PROTOCOLS[name] for name in ("magvit-10k", "sgv-2048", "sgv-2048-stride3"))
    assert (magvit.num_clips, magvit.shape, magvit.stride, magvit.split) == (
        10_000,
        (16, 128, 128),
        1,
        "train",
    )
    assert magvit.num_seeds == 4 and magvit.selection == "videos"
    assert {sgv.num_clips, sgv3.num_clips} == {2_048} and (sgv.stride, sgv3.stride) == (1, 3)
    assert sgv.split == "all" and sgv.selection == "classes" and sgv.shape == (16, 256, 256)


def test_a_class_with_too_few_videos_is_refused(
    extractor: FilterResponses, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of eight videos, 16 clips are each used twice; 17 are more than the data has."""
    flags = {"data": data, "split": "all", "no_floors": True, "batch_size": 9}
    many = write_generated(tmp_path / "many", (17, 1, 1))
    said = refused(capsys, "fvd", tmp_path / "a.json", generated=many, **flags)
    assert "--protocol quick-19 wants 17 real clips of Left" in said and "has 8 videos of it" in said
    assert extractor.num_seen == 0
    record = run("fvd", tmp_path / "a.json", generated=many, protocol=said.split()[-1], **flags)
    assert record["class_counts"]["Left"] == 16
    record = run(
        "fvd", tmp_path / "b.json", generated=write_generated(tmp_path / "some", (16, 1, 1)), **flags
    )
    assert record["num_real"] == 18 and record["num_real_videos"] == 10


def test_a_protocol_with_matched_labels(
    extractor: FilterResponses,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Real clips are every video once and then again: 30 of 24, so 8 of each class and 6 more."""
    add_protocol(monkeypatch, "all-30", 30, num_seeds=4)
    reference = tmp_path / "real.safetensors"
    run("reference", reference, data=data, protocol="all-30")
    counts = read_counts(reference)
    assert sum(counts.values()) == 30 and min(counts.values()) >= 8
    assert read_reference(reference).num_videos == 24
    balanced = write_generated(tmp_path / "balanced", (10, 10, 10))
    if counts != {"Left": 10, "Right": 10, "Up": 10}:
        said = refused(capsys, "fvd", tmp_path / "f.json", data=data, generated=balanced, protocol="all-30")
        assert "--labels_from" in said and "not those of the real ones" in said
    matched = write_generated(tmp_path / "matched", tuple(counts[name] + 1 for name in CLASS_NAMES))
    seen = extractor.num_seen
    record = run("fvd", tmp_path / "f.json", reference=reference, generated=matched)
    assert extractor.num_seen == seen + 30  # of each class the first ones
    assert record["class_counts"] == counts and record["num_generated"] == 30
    assert record["floors"]["real"]["other_real"] == "other windows of the same videos"
    printed = capsys.readouterr().out
    assert "(1 of the protocol's 4 seeds)" in printed and "(other windows of the same videos)" in printed
    few = write_generated(tmp_path / "few", (3, 3, 3))
    said = refused(capsys, "fvd", tmp_path / "g.json", data=data, generated=few, protocol="all-30")
    assert "holds 9 clips" in said and "wants 30" in said and "--protocol quick-9" in said
    said = refused(capsys, "fvd", tmp_path / "g.json", data=data, generated=few, protocol="all-30", stride=2)
    assert "--stride 2: all-30 is defined with 1" in said
    add_protocol(monkeypatch, "all-60", 60)
    said = refused(capsys, "reference", tmp_path / "g.safetensors", data=data, protocol="all-60")
    assert "wants 60 real clips" in said and "has 24 videos" in said
    add_protocol(monkeypatch, "even-25", 25, selection="classes")  # of whose videos none counts twice
    said = refused(capsys, "reference", tmp_path / "g.safetensors", data=data, protocol="even-25")
    assert "wants 25 real clips" in said and "has 24 videos" in said


def test_generated_clips_come_to_the_protocols_size_as_real_ones_do(
    extractor: FilterResponses, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_protocol(monkeypatch, "even-12", 12, selection="classes")
    large = write_generated(tmp_path / "large", shape=(4, 32, 48))
    record = run("fvd", tmp_path / "a.json", data=data, generated=large, protocol="even-12")
    assert (record["protocol"]["height"], record["protocol"]["width"]) == (16, 16)
    assert "antialiased" in record["protocol"]["clip_resize"] and extractor.num_seen == 36
    assert record["generated_size"] == [4, 32, 48]


def test_what_the_flags_leave_out_is_the_references() -> None:
    flags = ProtocolFlags(out=Path("fvd.json"), seed=None)
    reference = dataclasses.replace(PROTOCOL, fold=2, seed=7, split="test", stride=3)
    settings = choose_settings(flags, "quick-6", SHAPE, "generated", reference)
    assert (settings.fold, settings.seed) == (2, 7)
    assert (settings.protocol.split, settings.protocol.stride) == ("test", 3)
    flags = ProtocolFlags(out=Path("fvd.json"), fold=3, seed=0, split="all", stride=2)
    own = choose_settings(flags, "quick-6", SHAPE, "generated", reference)
    assert (own.fold, own.seed, own.protocol.split, own.protocol.stride) == (3, 0, "all", 2)


def test_of_more_clips_than_are_compared_the_seed_chooses(tmp_path: Path) -> None:
    clips = read_generated(write_generated(tmp_path / "generated"))
    protocol = protocols.quick(6, SHAPE, "all", 1, None, "generated")
    real = RealClips(None, ["a"] * 24, [*CLASS_NAMES] * 8, CLASS_NAMES, SHAPE)
    first, again, other = (wanted_names(Settings(protocol, 1, seed), clips, real) for seed in (0, 0, 1))
    assert first == again != other and first != ["Left"] * 4 + ["Right"] * 2


def test_classes_of_a_folder_are_those_of_the_data_however_unicode_writes_them(tmp_path: Path) -> None:
    typed, found = (unicodedata.normalize(form, "Trömmeln") for form in ("NFC", "NFD"))
    clips = GeneratedClips(tmp_path, SHAPE, [typed, "Left", typed], videos=[tmp_path] * 3)
    real = RealClips(None, ["a"] * 8, ["Left", found] * 4, ["Left", found], SHAPE)
    assert [real.label(name) for name in clips.names or ()] == [1, 0, 1]
    settings = Settings(protocols.quick(3, SHAPE, "all", 1, None, "generated"), 1, 0)
    wanted = wanted_names(settings, clips, real)
    assert sorted(wanted) == sorted(["Left", found, found])
    assert len(real.of_classes(wanted)) == 3
    assert sorted(chosen_clips(settings, clips, wanted)) == [0, 1, 2]
    with pytest.raises(ValueError, match="0 of Left for 1"):
        chosen_clips(settings, GeneratedClips(tmp_path, SHAPE, [typed] * 3, videos=[tmp_path] * 3), wanted)
