"""What `recon` and `diagnose` share: the autoencoder and clips that flags name, LPIPS, and distances between
clips and what became of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from autoencoder.losses.perceptual import LPIPS, LPIPS_WEIGHTS, load_lpips
from eval.autoencoder import MeasuredAutoencoder
from eval.clips import RESIZE, ClipDraw, Clips, RealClips
from eval.devices import find_device, processes
from eval.extraction import Extraction, View
from eval.feature_store import FeatureStore
from eval.flags import frame_rate
from eval.fvd.distance import FeatureSums, distance_of_sums
from eval.fvd.features import FeatureExtractor, check_length
from eval.fvd.networks import extractor_of
from eval.fvd.protocols import quick
from eval.fvd.selection import Settings
from eval.recon.flags import AutoencoderFlags
from vidtwin_gen.quality import PSNR_AT_MOST
from vidtwin_gen.records import distance_json
from vidtwin_gen.weights import MissingWeightsError

LPIPS_SIDE = 16  # the least that the network takes
RECONSTRUCTED = "the clips that are reconstructed: a random window of one video each, classes in turn"


def measure_each_once(
    real: RealClips,
    num_clips: int | None,
    extraction: Extraction,
    sizes: Mapping[str, int],
    measure: Callable[[torch.Tensor], Mapping[str, torch.Tensor]],
    **about: Any,
) -> tuple[list[ClipDraw], dict[str, torch.Tensor]]:
    """One clip of each video and what is measured of it: `origin` (N, 3), see `Clips`, and by the names in
    `sizes` (N, size) float64 of what `measure` gives for frames (B, F, H, W, C) uint8.

    `about` is all that the values depend on besides the clips. Processes share the clips, and a command that
    was killed goes on.

    Raises:
        ValueError: no video gives a clip.
    """
    sizes = {"origin": 3, **sizes}

    def of_batch(clips: Clips) -> torch.Tensor:
        parts = {"origin": clips.origin, **measure(clips.frames[0])}
        return torch.cat([parts[name].double().cpu() for name in sizes], dim=1)  # (B, D)

    view = View(FeatureStore(extraction.folder, about | {"reading": real.reading, "values": sizes}), of_batch)
    draws, rows = extraction.real(real, lambda: real.each_once(num_clips), {"clip": view}, title="clips")
    return draws, dict(zip(sizes, rows["clip"].split(list(sizes.values()), dim=1), strict=True))


def num_wanted(flags: AutoencoderFlags, real: RealClips) -> int:
    """How many clips are measured where every video can be read."""
    if flags.num_clips is not None and flags.num_clips > real.num_videos and processes().is_main_process:
        print(f"there are {real.num_videos} videos: measuring those instead of {flags.num_clips}")
    return min(real.num_videos, flags.num_clips or real.num_videos)


def open_clips(flags: AutoencoderFlags, autoencoder: MeasuredAutoencoder) -> RealClips:
    """Raises ValueError where there are no videos."""
    how: dict[str, Any] = {"stride": flags.stride, "fps": flags.fps, "seed": flags.seed}
    if flags.videos:
        return RealClips.of_files(flags.videos, autoencoder.shape, **how)
    assert flags.data is not None
    split, fold = flags.split or "test", flags.fold or 1
    return RealClips.of_split(flags.data, autoencoder.shape, split, fold=fold, **how)


def load_autoencoder(flags: AutoencoderFlags) -> MeasuredAutoencoder:
    device = find_device(flags.device)
    return MeasuredAutoencoder.load(flags.vae, device, flags.num_frames, flags.height, flags.width)


def conditions(
    flags: AutoencoderFlags, autoencoder: MeasuredAutoencoder, real: RealClips, origins: torch.Tensor
) -> dict[str, Any]:
    """What every result of an autoencoder says of how it was measured; `origins` (N, 3) of the clips."""
    sizes = ["x".join(map(str, size)) for size in origins[:, 1:].long().tolist()]
    source = {"videos": flags.videos} if flags.videos else {"fold": flags.fold or 1}
    return {
        "split": None if flags.videos else flags.split or "test",
        **source,
        "autoencoder_class": type(autoencoder.vae).__name__,
        "vae_sha256": autoencoder.sha256,
        "resolution": "x".join(map(str, autoencoder.shape)),
        "frame_rate": frame_rate(flags.stride, flags.fps),
        "seed": flags.seed,
        "latent": "the posterior's mean",
        "data_range": "1, on clips in [0, 1]",
        "psnr_at_most": PSNR_AT_MOST,
        "interval": "95 %, over clips",
        "resize": RESIZE,
        "source_sizes": {size: sizes.count(size) for size in dict.fromkeys(sizes)},
        "skipped_videos": real.skipped,
    }


def load_perceptual(
    flags: AutoencoderFlags, insist: bool | None, shape: Sequence[int]
) -> tuple[LPIPS | None, dict[str, Any]]:
    """LPIPS where its weights are and frames are large enough, else None after saying why; and what the
    result says of it. `insist`: True by --lpips, False by --no-lpips.

    Raises:
        MissingWeightsError: asked for, or by a path, and not there. ValueError: asked for with small frames.
    """
    if insist is False:
        return None, {"measured": False, "reason": "--no-lpips"}
    reason = None
    if min(shape[1:]) < LPIPS_SIDE:
        reason = f"LPIPS needs frames of at least {LPIPS_SIDE}x{LPIPS_SIDE}, not {shape[1]}x{shape[2]}"
        if insist:
            raise ValueError(f"--lpips: {reason}; leave the flag out")
    else:
        try:
            weights = LPIPS_WEIGHTS.verified(flags.lpips_weights, flags.lpips_weights_sha256)
            network = load_lpips(weights.path, find_device(flags.device), weights.sha256)
            return network, {
                "measured": True,
                "network": "VGG16, version 0.1",
                "weights_sha256": weights.sha256,
            }
        except MissingWeightsError as error:
            if insist or flags.lpips_weights:
                raise
            reason = str(error)
    print(f"LPIPS not measured: {reason}")
    return None, {"measured": False, "reason": reason}


@dataclass(frozen=True)
class Distances:
    """Fréchet distances between clips and what became of them, or the `reason` why there are none."""

    extractor: FeatureExtractor | None
    reason: str = ""

    @classmethod
    def of_flags(
        cls, flags: AutoencoderFlags, num_clips: int, num_frames: int, way_out: str = ""
    ) -> Distances:
        """Raises ValueError for fewer than two clips, or clips of a length that the network does not take."""
        try:
            extractor = extractor_of(flags)
        except MissingWeightsError as error:
            print(f"FVD not measured: {error}")
            return cls(None, str(error))
        if num_clips < 2:
            raise ValueError(
                f"FVD needs at least 2 clips, and here is {num_clips}: name more videos, or leave FVD "
                f"out{way_out}"
            )
        check_length(extractor, num_frames)
        return cls(extractor)

    def record(
        self,
        flags: AutoencoderFlags,
        shape: Sequence[int],
        real: torch.Tensor | None,
        other: torch.Tensor | None,
        num_skipped: int,
    ) -> dict[str, Any]:
        """Of features (N, D) of both sides."""
        if self.extractor is None or real is None or other is None:
            return {"fvd": None, "reason": self.reason}
        count = len(real)
        if count < 2:
            return {"fvd": None, "reason": f"{count} clip was left, of {num_skipped} skipped"}
        split = None if flags.videos else flags.split or "test"
        protocol = quick(count, shape, split or "all", flags.stride, flags.fps, "classes")
        record = Settings(protocol, flags.fold or 1, flags.seed).record(self.extractor, "")
        record = dataclasses.replace(
            record,
            real_selection=RECONSTRUCTED,
            split=split or "none: videos by their paths",
            fold=None if flags.videos else record.fold,
        )
        value = distance_of_sums(FeatureSums.of(real, "real"), FeatureSums.of(other, "reconstructed"))
        return distance_json(value, record)
