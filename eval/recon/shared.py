"""What `recon` and `diagnose` share: an autoencoder, the clips that flags name, and the distance between them
and what it decodes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from autoencoder.adapter import ClipSize
from autoencoder.losses.perceptual import LPIPS, LPIPS_WEIGHTS, load_lpips
from eval.autoencoder import MeasuredAutoencoder
from eval.clips import RESIZE, Clips
from eval.extraction import Extraction, View, identity
from eval.feature_store import FeatureStore
from eval.flags import rate_text
from eval.fvd.distance import FeatureSet, distances
from eval.fvd.features import FeatureExtractor, check_length
from eval.fvd.networks import extractor_of
from eval.fvd.protocols import quick
from eval.fvd.selection import Settings
from eval.real_clips import ClipDraw, RealClips
from eval.recon.flags import AutoencoderFlags
from vidtwin_gen.devices import find_device, processes
from vidtwin_gen.flags import dtype_record
from vidtwin_gen.quality import PSNR_AT_MOST
from vidtwin_gen.records import distance_json, not_measured
from vidtwin_gen.weights import MissingWeightsError

LPIPS_SIDE = 16  # the least that the network takes
RECONSTRUCTED = "the clips that are reconstructed: a random window of one video each, classes in turn"


@dataclass(frozen=True)
class Subject:
    """An autoencoder, and the clips and networks that it is measured with.

    network: LPIPS, None where it is not measured; lpips: what the result says of it.
    extractor: of the distances, None where none is measured; no_fvd: the reason.
    """

    flags: AutoencoderFlags
    autoencoder: MeasuredAutoencoder
    real: RealClips
    network: LPIPS | None
    lpips: dict[str, Any]
    extractor: FeatureExtractor | None
    no_fvd: str

    @classmethod
    def of_flags(cls, flags: AutoencoderFlags, way_out: str = "") -> Subject:
        """`way_out`: the flag that leaves the distances out, for an error.

        Raises:
            ValueError: no autoencoder, no videos, frames too small for LPIPS that was asked for, or for FVD
                fewer than two clips, or clips of a length that its network does not take.
        """
        device = find_device(flags.device)
        size = flags.num_frames, flags.height, flags.width
        autoencoder = MeasuredAutoencoder.load(flags.vae, device, *size, dtype=flags.dtype)
        real = open_clips(flags, autoencoder.shape)
        network, lpips = load_perceptual(flags, autoencoder.shape)
        num_clips = min(real.num_videos, flags.num_clips or real.num_videos)
        if flags.num_clips is not None and flags.num_clips > num_clips and processes().is_main_process:
            print(f"there are {num_clips} videos: measuring those instead of {flags.num_clips}")
        extractor, no_fvd = None, ""
        if flags.fvd:
            try:
                extractor = extractor_of(flags)
            except MissingWeightsError as error:
                no_fvd = str(error)
                print(f"FVD not measured: {no_fvd}")
        if extractor is not None:
            if num_clips < 2:
                raise ValueError(
                    f"FVD needs at least 2 clips, and here is {num_clips}: name more videos, or leave FVD "
                    f"out{way_out}"
                )
            check_length(extractor, autoencoder.shape[0])
        return cls(flags, autoencoder, real, network, lpips, extractor, no_fvd)

    def read(self, draws: Sequence[ClipDraw]) -> torch.Tensor:
        """(N, F, H, W, C) uint8: the clips of these draws."""
        return torch.stack([self.real.read(draw).frames[0] for draw in draws])

    def measure_each_once(
        self,
        sizes: Mapping[str, int],
        measure: Callable[[torch.Tensor], Mapping[str, torch.Tensor]],
        **about: Any,
    ) -> tuple[list[ClipDraw], dict[str, torch.Tensor]]:
        """One clip of each video and what is measured of it: `origin` (N, 3), see `Clips`, and by the names
        in `sizes` (N, size) float64 of what `measure` gives for frames (B, F, H, W, C) uint8.

        `about` is all that the values depend on besides the clips, the autoencoder and the extractor.
        Processes share the clips, and a command that was killed goes on.

        Raises:
            ValueError: no video gives a clip.
        """
        sizes = {"origin": 3, **sizes}
        about |= {
            "autoencoder": self.autoencoder.sha256,
            "shape": self.autoencoder.shape,
            "extractor": identity(self.extractor) if self.extractor else None,
            "reading": self.real.reading,
            "values": sizes,
            **dtype_record(self.autoencoder.dtype),
        }

        def of_batch(clips: Clips) -> torch.Tensor:
            parts = {"origin": clips.origin, **measure(clips.frames[0])}
            return torch.cat([parts[name].cpu().double() for name in sizes], dim=1)  # (B, D)

        extraction = Extraction(self.flags)
        views = {"clip": View(FeatureStore(extraction.folder, about), of_batch)}
        draws, rows = extraction.real(
            self.real, lambda: self.real.each_once(self.flags.num_clips), views, title="clips"
        )
        return draws, dict(zip(sizes, rows["clip"].split(list(sizes.values()), dim=1), strict=True))

    def conditions(self, origins: torch.Tensor) -> dict[str, Any]:
        """What every result says of how it was measured; `origins` (N, 3) of the clips."""
        flags = self.flags
        sizes = ["x".join(map(str, size)) for size in origins[:, 1:].long().tolist()]
        source = {"videos": flags.videos} if flags.videos else {"fold": flags.fold}
        return {
            "split": flags.split,
            **source,
            "autoencoder_class": type(self.autoencoder.vae).__name__,
            "vae_sha256": self.autoencoder.sha256,
            "resolution": "x".join(map(str, self.autoencoder.shape)),
            "frame_rate": rate_text(flags.stride, flags.fps),
            "seed": flags.seed,
            "latent": "the posterior's mean",
            "data_range": "1, on clips in [0, 1]",
            "psnr_at_most": PSNR_AT_MOST,
            "interval": "95 %, over clips",
            "resize": RESIZE,
            "source_sizes": {size: sizes.count(size) for size in dict.fromkeys(sizes)},
            "skipped_videos": self.real.skipped,
            "lpips": self.lpips,
            **dtype_record(self.autoencoder.dtype),
        }

    def distance(self, values: Mapping[str, torch.Tensor], decoded: str) -> dict[str, Any]:
        """The distances between the features `real` and `decoded` (N, D) among the values, or the `reason`
        why there are none."""
        if self.extractor is None:
            return not_measured(self.no_fvd)
        flags, count = self.flags, len(values["real"])
        if count < 2:
            return not_measured(f"{count} clip was left, of {len(self.real.bad)} skipped")
        shape, split = self.autoencoder.shape, flags.split or "all"  # of videos all, and there is no fold
        protocol = quick(count, shape, split, flags.stride, flags.fps, "classes")
        record = dataclasses.replace(
            Settings(protocol, flags.fold or 1, flags.seed).record(self.extractor, ""),
            real_selection=RECONSTRUCTED,
            split=flags.split or "none: videos by their paths",
            autoencoder_dtype=self.autoencoder.dtype,
        )
        sides = FeatureSet.of(values["real"], "real"), FeatureSet.of(values[decoded], "reconstructed")
        fvd, kvd = distances(*sides, paired=True)
        return distance_json(fvd, record, kvd)


def open_clips(flags: AutoencoderFlags, shape: ClipSize) -> RealClips:
    """Raises ValueError where there are no videos."""
    how: dict[str, Any] = {"stride": flags.stride, "fps": flags.fps, "seed": flags.seed}
    if flags.videos:
        return RealClips.of_files(flags.videos, shape, **how)
    assert flags.data and flags.split and flags.fold
    return RealClips.of_split(flags.data, shape, flags.split, fold=flags.fold, **how)


def load_perceptual(flags: AutoencoderFlags, shape: ClipSize) -> tuple[LPIPS | None, dict[str, Any]]:
    """LPIPS where its weights are and frames are large enough, else None after saying why; and what the
    result says of it.

    Raises:
        MissingWeightsError: asked for, or by a path, and not there. ValueError: asked for with small frames.
    """
    if flags.lpips is False:
        return None, {"measured": False, "reason": "--no-lpips"}
    if min(shape[1:]) < LPIPS_SIDE:
        reason = f"LPIPS needs frames of at least {LPIPS_SIDE}x{LPIPS_SIDE}, not {shape[1]}x{shape[2]}"
        if flags.lpips:
            raise ValueError(f"--lpips: {reason}; leave the flag out")
    else:
        try:
            weights = LPIPS_WEIGHTS.verified(flags.lpips_weights, flags.lpips_weights_sha256)
            network = load_lpips(weights.path, find_device(flags.device), weights.sha256)
            about = {"network": "VGG16, version 0.1", "weights_sha256": weights.sha256}
            return network, {"measured": True, **about}
        except MissingWeightsError as error:
            if flags.lpips or flags.lpips_weights:
                raise
            reason = str(error)
    print(f"LPIPS not measured: {reason}")
    return None, {"measured": False, "reason": reason}
