"""`python -m eval nearest`: copies are told from what is new."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors.torch import save_file

from eval.__main__ import main
from eval.nearest import SIZE, Nearest, Thumbnails
from eval.real_clips import RealClips
from tests.builders.clips import refused, run, save_autoencoder, words_of
from tests.builders.processes import command_in_processes
from tests.builders.results import generated_record
from vidtwin_gen.data.writing import write_video

SHAPE = (4, 24, 16)
CLASSES = ["Ball", "Door"]


def scenes(count: int, seed: int, num_frames: int = 6) -> torch.Tensor:
    """(B, F, H, W, C) uint8, each of fields of colours that change slowly."""
    coarse = torch.rand(count, 3, 2, 4, 4, generator=torch.Generator().manual_seed(seed))
    pixels = F.interpolate(coarse, (num_frames, *SHAPE[1:]), mode="trilinear")
    return (rearrange(pixels, "b c f h w -> b f h w c") * 255).to(torch.uint8).contiguous()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 videos, about a fifth of them held out."""
    root = tmp_path_factory.mktemp("nearest")
    for number, clip in enumerate(scenes(120, seed=0)):
        folder = root / CLASSES[number % 2]
        folder.mkdir(exist_ok=True)
        write_video(folder / f"{number}.avi", clip, fps=8)
    return root


def write_generated(folder: Path, clips: torch.Tensor) -> Path:
    folder.mkdir()
    labels = torch.zeros(len(clips), dtype=torch.long)
    save_file({"frames": clips, "labels": labels}, folder / "clips.safetensors")
    generated_record(class_names=CLASSES[:1], class_labels=[0]).write(folder / "generated.json")
    return folder / "clips.safetensors"


def test_copies_are_found_whatever_their_brightness_and_side(data: Path, tmp_path: Path) -> None:
    train = RealClips.of_split(data, SHAPE, "train")
    copied = train.each_once(10)
    copies = torch.stack([train.read(draw).frames[0] for draw in copied])
    noise = 12 * torch.randn(copies.shape, generator=torch.Generator().manual_seed(1))
    copies = (0.6 * copies + 70 + noise).clamp(0, 255).to(torch.uint8).flip(3)
    clips = write_generated(tmp_path / "generated", torch.cat([scenes(30, 2, SHAPE[0]), copies]))
    flags = {"data": data, "generated": clips, "vae": save_autoencoder(tmp_path / "vae")}
    out, shared, picture = tmp_path / "a.json", tmp_path / "b.json", tmp_path / "pairs.png"
    record = run("nearest", out, **flags, picture=picture, num_pairs=2)
    command_in_processes(2, main, words_of("nearest", **flags, out=shared))
    assert shared.read_bytes() == out.read_bytes() and picture.stat().st_size
    closest = record["closest"][:10]
    names = ["/".join(Path(train.paths[draw.row]).parts[-2:]) for draw in copied]
    assert {pair["clip"]: pair["video"] for pair in closest} == dict(zip(range(30, 40), names, strict=True))
    assert record["closest"][10]["ratio"] > 1.2 * closest[-1]["ratio"]
    assert 0.25 <= record["generated"]["nearer"] < 0.4 and record["generated"]["num_clips"] == 40
    assert record["held_out"]["nearer"] < 0.1 and record["copies"]["num_clips"] >= 20
    low, high = record["generated"]["interval"]
    assert low < record["generated"]["nearer"] < high


def test_a_ratio_is_of_the_nearest_clip_to_the_median_of_the_videos() -> None:
    features = Thumbnails()
    training = features(scenes(12, seed=3))
    queries = features(scenes(70, seed=4))  # more than are compared at once
    videos = torch.arange(12) // 3
    found = Nearest.of(queries, training, videos)
    half = training.shape[1] // 2
    assert features.dim == 2 * half == 2 * 3 * SIZE[0] * SIZE[1] * SIZE[2]
    for query, number, ratio in zip(queries, found.number, found.ratio, strict=True):
        distances = torch.stack(
            [(side - training[:, :half]).norm(dim=1) for side in (query[:half], query[half:])]
        ).amin(0)
        of_videos = distances.view(4, 3).amin(1)
        assert number == distances.argmin()
        assert ratio.item() == pytest.approx((distances.min() / of_videos.median()).item(), rel=1e-4)


def test_a_plain_clip_is_not_near_for_being_plain() -> None:
    """Of colours alone two dark clips, or two white ones, would be the nearest of all."""
    faint = (scenes(8, seed=5) // 85 + 250).to(torch.uint8)
    training = Thumbnails()(torch.cat([faint[:1], scenes(11, seed=6)]))
    found = Nearest.of(Thumbnails()(faint[1:]), training, torch.arange(12))
    assert found.ratio.min() > 0.1


def test_what_says_nothing_is_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = tmp_path / "data"
    for path in [path for name in CLASSES for path in sorted((data / name).iterdir())[:12]]:
        (few / path.parent.name).mkdir(parents=True, exist_ok=True)
        (few / path.parent.name / path.name).symlink_to(path)
    clips = write_generated(tmp_path / "generated", scenes(2, 2, SHAPE[0]))
    said = refused(capsys, "nearest", tmp_path / "a.json", data=few, generated=clips)
    assert "held-out videos, and 10 or more say what is near" in said
    vae = save_autoencoder(tmp_path / "vae")
    small = write_generated(tmp_path / "small", scenes(2, 2, SHAPE[0])[:, :, :16].contiguous())
    said = refused(capsys, "nearest", tmp_path / "a.json", data=data, generated=small, vae=vae)
    assert "is of clips of 4x24x16, those of --generated are 4x16x16" in said
    assert not (tmp_path / "a.json").exists()
