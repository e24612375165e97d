"""`eval fvd`, `reference` and `sensitivity`: protocols, floors, resuming, processes, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from autoencoder.model.vidtwin import AutoencoderVidTwin
from eval.__main__ import main
from eval.clips import RealClips
from eval.fvd import networks, protocols
from eval.fvd.distance import FrechetVideoDistance
from eval.fvd.protocols import ClipProtocol
from eval.fvd.reference import read_reference
from eval.fvd.sensitivity import DISTORTIONS
from pipelines.generate import read_counts
from tests.builders.extractors import FilterResponses, install
from tests.builders.processes import run_in_processes
from vidtwin_gen.data.writing import write_video

NAMES = ("Left", "Right", "Up")
SHAPE = (4, 16, 16)


@pytest.fixture
def extractor(monkeypatch: pytest.MonkeyPatch) -> FilterResponses:
    small = FilterResponses()
    install(monkeypatch, small)
    return small


def random_clips(count: int, seed: int, shape: tuple[int, int, int] = SHAPE) -> torch.Tensor:
    """Smooth blobs that drift, (N, F, H, W, 3) uint8."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 3, 5, 5, generator=generator)
    clips = torch.nn.functional.interpolate(coarse, shape, mode="trilinear", align_corners=True)
    return (clips * 255).round().to(torch.uint8).permute(0, 2, 3, 4, 1).contiguous()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of each of three classes eight videos of 10 frames of 16 x 24."""
    root = tmp_path_factory.mktemp("videos")
    for label, name in enumerate(NAMES):
        (root / name).mkdir()
        for number, clip in enumerate(random_clips(8, label, (10, 16, 24))):
            write_video(root / name / f"{name}_{number}.mp4", clip, fps=8)
    return root


def write_generated(
    folder: Path, counts: tuple[int, ...] = (4, 4, 4), seed: int = 0, shape: tuple[int, int, int] = SHAPE
) -> Path:
    folder.mkdir(parents=True)
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    frames = random_clips(len(labels), 100 + seed, shape)
    save_file({"frames": frames, "labels": torch.tensor(labels)}, folder / "clips.safetensors")
    told = {"class_names": NAMES, "class_labels": range(3), "seed": seed}
    (folder / "generated.json").write_text(
        json.dumps({k: v if k == "seed" else list(v) for k, v in told.items()})
    )
    return folder / "clips.safetensors"


@pytest.fixture
def generated(tmp_path: Path) -> Path:
    return write_generated(tmp_path / "generated")


def words_of(verb: str, out: Path, flags: dict[str, Any]) -> list[str]:
    words = [verb, "--out", str(out), "--num_workers", "0"]
    for name, value in flags.items():
        words.append(f"--{name}")
        words += [] if value is True else [str(v) for v in (value if isinstance(value, list) else [value])]
    return words


def run(verb: str, out: Path, **flags: Any) -> dict[str, Any]:
    main(words_of(verb, out, flags))
    return json.loads(out.read_text()) if out.suffix == ".json" else {}


def refused(capsys: pytest.CaptureFixture[str], verb: str, out: Path, **flags: Any) -> str:
    with pytest.raises(SystemExit):
        run(verb, out, **flags)
    assert not out.exists()
    return capsys.readouterr().err.splitlines()[-1]


def add_protocol(monkeypatch: pytest.MonkeyPatch, name: str, num_clips: int, **changes: Any) -> None:
    settings: dict[str, Any] = {"split": "all", "stride": 1, "selection": "videos"} | changes
    monkeypatch.setitem(protocols.PROTOCOLS, name, ClipProtocol(name, num_clips, *SHAPE, **settings))


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
    save_file({"frames": random_clips(24, 100)[order], "labels": labels[order]}, other)
    values = []
    for number, (path, batch_size, workers) in enumerate([(clips, 1, 0), (clips, 7, 1), (other, 24, 0)]):
        out = tmp_path / f"{number}.json"
        flags = {"batch_size": batch_size, "num_workers": workers}
        # each measures the real clips again, but for the last
        flags |= {"reference": reference} if path is other else {"data": data, "split": "all"}
        record = run("fvd", out, generated=path, features_dir=tmp_path / f"{number}", **flags)
        values.append(record["fvd"])
        assert record["num_real"] == 24 and "too few videos" in record["floors"]["real"]["reason"]
    assert values[1] == pytest.approx(values[0], rel=1e-9) and values[0] > 1
    again = run("fvd", tmp_path / "again.json", generated=clips, reference=reference)
    assert values[2] == pytest.approx(again["fvd"], rel=1e-9)


def save_vae(folder: Path) -> Path:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "patch_size": 4, "num_queries": 2}
    sizes |= {
        "query_hidden_size": 8,
        "qformer_layers": 1,
        "qformer_heads": 2,
        "qformer_intermediate_size": 16,
    }
    vae = AutoencoderVidTwin(num_frames=4, height=24, width=16, structure_base_channels=8, **sizes)
    vae.save_pretrained(folder)
    return folder


def test_floors_are_measured_at_the_same_number_and_decode_nothing_twice(
    extractor: FilterResponses, data: Path, generated: Path, tmp_path: Path
) -> None:
    vae = save_vae(tmp_path / "vae")
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


def test_a_run_that_was_stopped_goes_on_where_it_was(
    extractor: FilterResponses, data: Path, generated: Path, tmp_path: Path
) -> None:
    flags = {"data": data, "split": "all", "generated": generated, "batch_size": 3}
    whole = run("fvd", tmp_path / "whole.json", **flags)
    assert extractor.num_seen == 36
    extractor.num_seen, extractor.stop_at = 0, 17  # of 12 real, 12 other real, 12 generated clips
    with pytest.raises(KeyboardInterrupt):
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
    flags = {"reference": reference, "vae": save_vae(tmp_path / "vae"), "generated": generated}
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
    out = tmp_path / "out.safetensors"
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
        run(verb, tmp_path / "out.json", data=data, split="all", **flags)
    assert stop.value.code == 2 and "the I3D weights are not at" in capsys.readouterr().err


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
    direct = run("fvd", tmp_path / "b.json", data=data, split="all", generated=generated, seed=0)
    assert from_file["protocol"]["name"] == direct["protocol"]["name"] == "quick-12"
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
    balanced = write_generated(tmp_path / "balanced", (10, 10, 10))
    if counts != {"Left": 10, "Right": 10, "Up": 10}:
        said = refused(capsys, "fvd", tmp_path / "f.json", data=data, generated=balanced, protocol="all-30")
        assert "--labels_from" in said and "not those of the real ones" in said
    matched = write_generated(tmp_path / "matched", tuple(counts[name] + 1 for name in NAMES))
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


def test_generated_clips_come_to_the_protocols_size_as_real_ones_do(
    extractor: FilterResponses, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_protocol(monkeypatch, "even-12", 12, selection="classes")
    large = write_generated(tmp_path / "large", shape=(4, 32, 48))
    record = run("fvd", tmp_path / "a.json", data=data, generated=large, protocol="even-12")
    assert (record["protocol"]["height"], record["protocol"]["width"]) == (16, 16)
    assert "antialiased" in record["protocol"]["clip_resize"] and extractor.num_seen == 36
    assert record["generated_size"] == [4, 32, 48]


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


def in_process(rank: int, words: list[str], folder: Path) -> None:
    """The command, and the metric on uneven shares."""
    main(words)
    metric = FrechetVideoDistance(FilterResponses())
    for real, seed in ((True, 1), (False, 2)):
        metric.update(random_clips(9, seed)[slice(0, 2) if rank == 0 else slice(2, 9)], real=real)
    seen = networks.load_extractor("i3d").num_seen  # type: ignore[attr-defined]
    (folder / f"rank{rank}.json").write_text(json.dumps([seen, metric.compute().item()]))


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
    run_in_processes(2, in_process, words_of("fvd", tmp_path / "shared.json", flags), tmp_path)
    shared = json.loads((tmp_path / "shared.json").read_text())
    for key in ("fvd", "floor"):
        assert shared[key] == pytest.approx(alone[key], rel=1e-6) and shared[key] > 0
    assert len(shared["skipped_videos"]) == 1 and shared["num_generated"] == 7
    told = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert sum(seen for seen, _ in told) == 21  # each clip once, the one in place of the bad video too
    whole = FrechetVideoDistance(FilterResponses())
    for real, seed in ((True, 1), (False, 2)):
        whole.update(random_clips(9, seed), real=real)
    assert [value for _, value in told] == pytest.approx([whole.compute().item()] * 2, rel=1e-9)


def test_every_distortion_grows_with_its_strength(extractor: FilterResponses, tmp_path: Path) -> None:
    (tmp_path / "Long").mkdir()
    for number, clip in enumerate(random_clips(8, 7, (16, 12, 16))):
        write_video(tmp_path / "Long" / f"{number}.mp4", clip, fps=8)
    flags = {"data": tmp_path, "split": "all", "num_clips": 8, "num_frames": 16, "height": 12, "width": 16}
    out, figure = tmp_path / "s.json", tmp_path / "s.png"
    record = run("sensitivity", out, **flags, figure=figure)
    assert record["identical"] < 1e-4 and figure.stat().st_size
    for name, curve in record["distortions"].items():
        values = [value for _, value in curve["fvd"]]
        assert curve["monotone"] and values == sorted(set(values)), (name, values)
        assert values[0] > record["identical"] and len(values) == len(DISTORTIONS[name][1])
