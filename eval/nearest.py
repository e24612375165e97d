"""python -m eval nearest: are generated clips copies of training clips?

How near a clip is to its nearest training video says nothing alone. It is told beside real held-out clips,
which copy none, and reconstructions of training clips, which all are copies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange

from eval.autoencoder import MeasuredAutoencoder
from eval.clips import RESIZE, Clips
from eval.extraction import Extraction, as_read
from eval.flags import NearestFlags, rate_text
from eval.fvd.features import check_length
from eval.generated_clips import GeneratedClips, generated_of
from eval.real_clips import ClipDraw, RealClips
from vidtwin_gen.data.pixels import from_uint8
from vidtwin_gen.data.writing import filmstrip, write_png
from vidtwin_gen.devices import find_device, processes
from vidtwin_gen.records import NearestResult, wilson_interval

SIZE = (2, 8, 8)  # cells of a thumbnail: time, height, width
FLAT = 1 / 255  # a grey level
OUTLIERS = 0.05  # share of the held-out clips that is nearer than the threshold
FEWEST_HELD_OUT = 10  # clips; their intervals tell how little so few say
SHOWN = 20  # of the nearest generated clips, in the record
CHUNK = 64  # clips whose distances to all training clips are in memory at once


class Thumbnails:
    """A `FeatureExtractor` without weights: (B, F, H, W, C) uint8 -> (B, 2 D) float32, the mean colours of
    the cells of SIZE, of the clips and of what mirrors show of them.

    Each clip's mean colour is taken off and what is left divided by its deviation and FLAT, so that
    brightness and contrast count for nothing, and dark or white clips are not near for being plain. So few
    numbers tell a scene, and are the same where detail is lost or the window begins a little later.
    """

    name = "thumbnails"
    dim = 2 * 3 * SIZE[0] * SIZE[1] * SIZE[2]
    resize = (
        f"mean colours of {SIZE[0]} parts of the time and {SIZE[1]}x{SIZE[2]} of the frame, less the clip's, "
        "over their deviation + 1/255"
    )
    weights_sha256 = "none"
    min_frames = SIZE[0]
    max_frames: int | None = None

    def __call__(self, clips: torch.Tensor) -> torch.Tensor:
        pixels = rearrange(clips, "b f h w c -> b c f h w").float() / 255
        cells = F.adaptive_avg_pool3d(pixels, SIZE)
        cells = cells - cells.mean((2, 3, 4), keepdim=True)
        cells = cells / (cells.square().mean((1, 2, 3, 4), keepdim=True).sqrt() + FLAT)
        return torch.cat([cells.flatten(1), cells.flip(4).flatten(1)], dim=1)


@dataclass(frozen=True)
class Nearest:
    """Of Q clips the training clip that is nearest, its number (Q,), and `ratio` (Q,): its distance over the
    median of the distances to each training video's nearest clip."""

    number: torch.Tensor
    ratio: torch.Tensor

    @classmethod
    def of(cls, clips: torch.Tensor, training: torch.Tensor, videos: torch.Tensor) -> Nearest:
        """A distance alone grows with how unlike all others a clip is; over the median it is small only where
        one video stands out. A clip is as near as the nearer of both mirrorings.

        Args:
            clips: (Q, 2 D), training: (R, 2 D), of `Thumbnails`. videos: (R,) the video of each training
                clip, numbered from 0 without gaps.
        """
        unmirrored = training.chunk(2, dim=1)[0]
        numbers, ratios = [], []
        for chunk in clips.split(CHUNK):
            distances = torch.stack([torch.cdist(side, unmirrored) for side in chunk.chunk(2, dim=1)]).amin(0)
            of_videos = distances.new_full((len(chunk), int(videos.max()) + 1), torch.inf)
            of_videos.scatter_reduce_(1, videos.expand_as(distances), distances, "amin")
            least, number = distances.min(1)
            numbers.append(number)
            ratios.append(least / of_videos.median(1).values.clamp(min=1e-6))
        return cls(torch.cat(numbers), torch.cat(ratios).double())


def measure_nearest(flags: NearestFlags) -> None:
    """Several processes share the clips, and a command that was killed goes on."""
    generated = generated_of(flags)
    thumbnails, extraction = Thumbnails(), Extraction(flags)
    check_length(thumbnails, generated.shape[0])
    reading = {name: getattr(flags, name) for name in ("fold", "stride", "fps", "seed")}
    train, test = (
        RealClips.of_split(flags.data, generated.shape, split, **reading) for split in ("train", "test")
    )
    train.warn_of_other_rate(generated)
    if test.num_videos < FEWEST_HELD_OUT:
        raise ValueError(
            f"--data {flags.data} has {test.num_videos} held-out videos, and {FEWEST_HELD_OUT} or more say "
            "what is near: name more videos"
        )
    autoencoder, windows = load_autoencoder(flags, generated.shape), flags.windows_per_video
    draws, training = training_features(train, windows, thumbnails, extraction)
    sides = {
        "generated": generated_features(generated, thumbnails, extraction),
        "held_out": held_out_features(test, thumbnails, extraction),
    }
    if autoencoder:
        count = min(train.num_videos, test.num_videos)
        sides["copies"] = reconstruction_features(train, windows, count, autoencoder, thumbnails, extraction)
    if not processes().is_main_process:
        return
    videos = torch.tensor([draw.row for draw in draws]).unique(return_inverse=True)[1]
    found = {side: Nearest.of(rows, training, videos) for side, rows in sides.items()}
    order = found["generated"].ratio.argsort(stable=True).tolist()
    pairs = [(index, draws[int(found["generated"].number[index])]) for index in order]
    result = result_of(flags, generated, train, test, found, pairs, num_train_videos=int(videos.max()) + 1)
    result.write(flags.out)
    if flags.picture:
        shown = pairs[: flags.num_pairs]
        rows = [clip for index, draw in shown for clip in (generated.clip(index), train.read(draw).frames[0])]
        write_png(flags.picture, filmstrip(from_uint8(torch.stack(rows))))
    for name, words in result.in_words().items():
        print(f"{name}: {words}")


def result_of(
    flags: NearestFlags,
    generated: GeneratedClips,
    train: RealClips,
    test: RealClips,
    found: Mapping[str, Nearest],
    pairs: Sequence[tuple[int, ClipDraw]],
    *,
    num_train_videos: int,
) -> NearestResult:
    """`found` of each side; `pairs` of a generated clip and its training clip, the nearest first."""
    threshold = found["held_out"].ratio.quantile(OUTLIERS).item()
    return NearestResult(
        thumbnail=Thumbnails.resize,
        threshold=threshold,
        **{side: nearness(of_side.ratio, threshold) for side, of_side in found.items()},
        closest=[
            {
                "clip": index,
                "class_name": generated.names[index] if generated.names else None,
                "ratio": found["generated"].ratio[index].item(),
                "video": "/".join(Path(train.paths[draw.row]).parts[-2:]),
            }
            for index, draw in pairs[:SHOWN]
        ],
        num_train_videos=num_train_videos,
        windows_per_video=flags.windows_per_video,
        seed=flags.seed,
        fold=flags.fold,
        resolution="x".join(map(str, generated.shape)),
        frame_rate=rate_text(flags.stride, flags.fps, flags.generated_stride),
        resize=RESIZE,
        codec=generated.codec if generated.videos else None,
        note=generated.note,
        skipped_videos=[*train.skipped, *test.skipped] or None,
    )


def load_autoencoder(flags: NearestFlags, shape: tuple[int, int, int]) -> MeasuredAutoencoder | None:
    """Raises ValueError for one that takes clips of another size."""
    if flags.vae is None:
        return None
    autoencoder = MeasuredAutoencoder.load(flags.vae, find_device(flags.device), *shape, own_size=True)
    if autoencoder.shape != shape:
        raise ValueError(
            f"--vae {flags.vae} is of clips of {'x'.join(map(str, autoencoder.shape))}, those of --generated "
            f"are {'x'.join(map(str, shape))}: name the autoencoder of their generator"
        )
    return autoencoder


def training_features(
    train: RealClips, windows: int, thumbnails: Thumbnails, extraction: Extraction
) -> tuple[list[ClipDraw], torch.Tensor]:
    """So many random windows of every training video, and (R, 2 D) of them."""
    views = {"clip": extraction.features(thumbnails, reading=train.reading)}
    draws, found = extraction.real(
        train, lambda: train.of_videos(windows * len(train.good)), views, title="training clips"
    )
    return draws, found["clip"]


def held_out_features(test: RealClips, thumbnails: Thumbnails, extraction: Extraction) -> torch.Tensor:
    """(Q, 2 D) of a window of every held-out video."""
    views = {"clip": extraction.features(thumbnails, reading=test.reading)}
    return extraction.real(test, lambda: test.each_once(None), views, title="held-out clips")[1]["clip"]


def generated_features(
    generated: GeneratedClips, thumbnails: Thumbnails, extraction: Extraction
) -> torch.Tensor:
    """(Q, 2 D)"""
    view = extraction.features(thumbnails, generated=generated.sha256, reading=generated.reading)
    return extraction.generated(generated, range(len(generated)), (generated.shape[1:],), view)


def reconstruction_features(
    train: RealClips,
    windows: int,
    count: int,
    autoencoder: MeasuredAutoencoder,
    thumbnails: Thumbnails,
    extraction: Extraction,
) -> torch.Tensor:
    """(Q, 2 D) of `count` other windows of training videos than the first `windows` of each, as the
    autoencoder leaves them."""

    def prepare(clips: Clips) -> torch.Tensor:
        return autoencoder.reconstruct(as_read(clips))

    def others() -> Sequence[ClipDraw]:
        first = windows * len(train.good)
        return train.of_videos(first + min(count, len(train.good)))[first:]

    view = extraction.features(thumbnails, prepare, reading=train.reading, autoencoder=autoencoder.sha256)
    return extraction.real(train, others, {"clip": view}, title="reconstructions")[1]["clip"]


def nearness(ratio: torch.Tensor, threshold: float) -> dict[str, Any]:
    """What is told of the ratios (Q,) of one side."""
    share = (ratio < threshold).double().mean().item()
    return {
        "num_clips": len(ratio),
        "median_ratio": ratio.median().item(),
        "nearer": share,
        "interval": wilson_interval(share, len(ratio)),
    }
