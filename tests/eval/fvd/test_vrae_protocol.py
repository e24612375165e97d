"""V-RAE's protocol, whose traits no other has: Lanczos, mp4, covariances over N, a stride for each side."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from eval.autoencoder import MeasuredAutoencoder
from eval.clips import CODECS, RESIZE, prepare
from eval.fvd.distance import frechet_distance, kernel_distance
from eval.fvd.protocols import PROTOCOLS, ClipProtocol
from eval.fvd.reference import read_reference
from eval.fvd.selection import Settings
from eval.real_clips import RealClips
from tests.builders.clips import CLASS_NAMES, drifting_clips, refused, run, save_autoencoder
from tests.builders.extractors import FilterResponses
from vidtwin_gen.data.video import read_frames
from vidtwin_gen.data.writing import write_video

SIZE = 12
EARLIER = ("magvit-10k", "sgv-2048", "sgv-2048-stride3")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> ClipProtocol:
    """The same of three clips of 4 frames, which span all 10 of a real video."""
    sizes: dict[str, Any] = {"num_clips": 3, "num_frames": 4, "height": SIZE, "width": SIZE, "split": "all"}
    protocol = dataclasses.replace(PROTOCOLS["vrae-2048"], name="small", **sizes)
    monkeypatch.setitem(PROTOCOLS, "small", protocol)
    return protocol


def by_hand(clip: torch.Tensor, folder: Path) -> torch.Tensor:
    """(F, 16, 24, C) at 12 x 12, through mp4."""
    lanczos = Image.Resampling.LANCZOS
    wide = [np.asarray(Image.fromarray(frame).resize((18, 12), lanczos)) for frame in clip.numpy()]
    write_video(folder / "by_hand.mp4", np.stack(wide)[:, :, 3:15], fps=25)
    return torch.from_numpy(read_frames(folder / "by_hand.mp4", len(clip), start=0).frames)


def gaussian(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return features.double().mean(0), torch.cov(features.double().T, correction=0)


def in_order(features: torch.Tensor) -> torch.Tensor:
    return features[features[:, 0].argsort()]


def test_its_traits_are_the_published_ones() -> None:
    vrae = PROTOCOLS["vrae-2048"]
    assert (vrae.num_clips, vrae.shape, vrae.split) == (2_048, (17, 256, 256), "train")
    assert (vrae.stride, vrae.generated_stride, vrae.selection) == (3, 1, "videos")
    assert (vrae.resize, vrae.codec, vrae.covariance_divisor) == ("lanczos", "mp4", "N")
    record = Settings(vrae, 1, 0).record(FilterResponses()).to_json()
    assert record["codec"] == record["real_codec"] == CODECS["mp4"] and record["generated_stride"] == 1
    assert record["not_published"] == vrae.not_published != ""


@pytest.mark.parametrize("name", EARLIER)
def test_records_of_the_others_are_those_of_before(name: str) -> None:
    record = Settings(PROTOCOLS[name], 1, 0).record(FilterResponses()).to_json()
    assert (record["clip_resize"], record["codec"], record["covariance_divisor"]) == (RESIZE, "none", "N-1")
    assert not {"real_codec", "generated_stride", "not_published"} & set(record)
    real = RealClips(None, [], [], [], PROTOCOLS[name].shape)
    assert real.reading["resize"] == RESIZE and "codec" not in real.reading


def test_both_sides_are_made_and_compared_as_it_says(
    extractor: FilterResponses,
    small: ClipProtocol,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    reference = tmp_path / "real.safetensors"
    run("reference", reference, data=data, protocol="small", no_floors=True)
    capsys.readouterr()
    whole = RealClips.of_split(data, (4, 16, 24), "all", stride=3)
    real = torch.stack([whole.read(draw).frames[0] for draw in whole.of_videos(3)])
    expected = extractor(torch.stack([by_hand(clip, tmp_path) for clip in real]))
    torch.testing.assert_close(load_file(reference)["features"], expected, rtol=1e-5, atol=1e-4)
    names = [CLASS_NAMES.index(name) for name in read_reference(reference).names]
    clips = drifting_clips(3, 7, (4, 16, 24))
    (tmp_path / "generated").mkdir()
    tensors = tmp_path / "generated/clips.safetensors"
    save_file({"frames": clips, "labels": torch.tensor(names)}, tensors)
    tensors.with_name("generated.json").write_text(
        '{"class_names": ["Left", "Right", "Up"], "class_labels": [0, 1, 2], "seed": 0}'
    )
    record = run("fvd", tmp_path / "fvd.json", reference=reference, generated=tensors)
    features = extractor(torch.stack([by_hand(clip, tmp_path) for clip in clips]))
    by_formula = frechet_distance(*gaussian(expected), *gaussian(features)).item()
    assert record["fvd"] == pytest.approx(by_formula, rel=1e-4)
    assert record["protocol"]["codec"] == record["protocol"]["real_codec"] == CODECS["mp4"]
    assert "note" not in record

    seen = extractor.num_seen
    for change in (
        {"resize": "bilinear"},
        {"codec": "none"},
        {"covariance_divisor": "N-1"},
        {"generated_stride": None},
    ):
        PROTOCOLS["small"] = dataclasses.replace(small, **change)
        said = refused(capsys, "fvd", tmp_path / "a.json", reference=reference, generated=tensors)
        name = {"resize": "clip_resize"}.get(*change, *change)
        assert "is of another protocol" in said and f"{name} " in said
    assert extractor.num_seen == seen


def test_generated_videos_are_read_at_their_own_stride_and_not_written_again(
    extractor: FilterResponses,
    small: ClipProtocol,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of 4 frames each, they give no clip at the stride of real ones. What the autoencoder makes of real ones
    is written as generated clips of ours are."""
    videos, seen = tmp_path / "videos", []
    for number, clip in enumerate(drifting_clips(3, 7, (4, SIZE, SIZE))):
        write_video(videos / f"{number}.mp4", clip, fps=8)
        seen.append(torch.from_numpy(read_frames(videos / f"{number}.mp4", 4, start=0).frames))
    flags = {"data": data, "protocol": "small", "generated": videos, "stride": 3}
    flags |= {"vae": save_autoencoder(tmp_path / "vae"), "features_dir": tmp_path / "kept"}
    record = run("fvd", tmp_path / "fvd.json", **flags)
    stored = [load_file(path)["features"] for path in (tmp_path / "kept").glob("*/*.safetensors")]
    autoencoder = MeasuredAutoencoder.load(tmp_path / "vae", torch.device("cpu"), own_size=True)
    real = Settings(small, 1, 0).real_clips(data)
    clips = [real.read(draw, autoencoder.shape[1:]).frames[1] for draw in real.of_videos(3)]
    decoded = autoencoder.reconstruct(torch.stack(clips))
    written = [prepare(clip, (SIZE, SIZE), "lanczos", "mp4") for clip in decoded]
    for frames in (seen, written):
        expected = extractor(torch.stack(frames))
        rows = min(stored, key=lambda rows: (in_order(rows) - in_order(expected)).abs().max())
        torch.testing.assert_close(in_order(rows), in_order(expected), rtol=1e-5, atol=1e-4)
    assert (record["protocol"]["codec"], record["protocol"]["real_codec"]) == (
        "mp4 h264 yuv420p",
        CODECS["mp4"],
    )
    assert record["protocol"]["stride"] == 3 and CODECS["mp4"] in record["note"]
    assert record["floors"]["reconstructions"]["num_reconstructions"] == 3
    draws = real.of_videos(6)
    first, others = (
        extractor(torch.stack([real.read(draw).frames[0] for draw in part]))
        for part in (draws[:3], draws[3:])
    )
    for key, features in (("real", others), ("reconstructions", extractor(torch.stack(written)))):
        by_formula = frechet_distance(*gaussian(first), *gaussian(features)).item()
        assert record["floors"][key]["fvd"] == pytest.approx(by_formula, rel=1e-4)
        kernel = kernel_distance(first, features, paired=key == "reconstructions").item()
        assert record["floors"][key]["kvd"] == pytest.approx(kernel, rel=1e-4)
    assert record["floors"]["real"]["other_real"] == "other videos"  # of 24
    said = refused(capsys, "fvd", tmp_path / "a.json", **flags | {"stride": 1})
    assert "--stride 1: small is defined with 3" in said
    (videos / "0.mp4").rename(videos / "0.mkv")
    said = refused(capsys, "fvd", tmp_path / "a.json", **flags)
    assert "0.mkv" in said and "mp4 files, or clips.safetensors" in said
