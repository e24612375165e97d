"""The autoencoder that a command measures, the clips it is measured on, and what it is measured with."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin

from autoencoder import adapter
from autoencoder.adapter import ClipSize
from autoencoder.loading import load_video_autoencoder
from autoencoder.losses.perceptual import LPIPS, LPIPS_WEIGHTS, load_lpips
from eval.clips import RESIZE
from eval.fvd.distance import FrechetVideoDistance, fvd_record
from eval.fvd.features import FeatureExtractor, check_length
from eval.fvd.measuring import device_of, protocol_of, rate_of
from eval.located_clips import LocatedClips
from vidtwin_gen.data.latent_dataset import weights_sha256
from vidtwin_gen.latents import LatentLayout
from vidtwin_gen.quality import PSNR_AT_MOST
from vidtwin_gen.weights import MissingWeightsError

LPIPS_SIDE = 16  # the least that the network takes
RECONSTRUCTED = "the clips that are reconstructed: a random window of one video each, classes in turn"


@dataclass(frozen=True)
class Subject:
    """An autoencoder, the digest of its weights, the size of its clips, the layout of its latents, and the
    clips it is measured on."""

    vae: ModelMixin
    vae_sha256: str
    shape: ClipSize
    layout: LatentLayout
    clips: LocatedClips

    @property
    def device(self) -> torch.device:
        return self.vae.device

    def to_json(self, args: argparse.Namespace) -> dict[str, Any]:
        """What every record of it says; after the clips were read."""
        return {
            "split": args.split,
            **({"fold": args.fold} if args.split else {"videos": args.videos}),
            "autoencoder_class": type(self.vae).__name__,
            "vae_sha256": self.vae_sha256,
            "resolution": "x".join(map(str, self.shape)),
            "frame_rate": rate_of(args),
            "seed": args.seed,
            "latent": "the posterior's mean",
            "data_range": "1, on clips in [0, 1]",
            "psnr_at_most": PSNR_AT_MOST,
            "interval": "95 %, over clips",
            "resize": RESIZE,
            "source_sizes": dict(self.clips.source_sizes),
            "skipped_videos": self.clips.skipped,
        }


def open_subject(args: argparse.Namespace) -> Subject:
    """What the flags name. `args.split` and `args.fold` are then filled in, or None where videos are named.

    Raises:
        ValueError: a size that does not go, no videos, or flags that do not go together.
    """
    if args.videos:
        for name in ("split", "fold"):
            if (value := getattr(args, name)) is not None:
                raise ValueError(f"--{name} {value} is of --data; --videos are all measured, leave it out")
    vae = load_video_autoencoder(args.vae).to(device_of(args))
    digest = weights_sha256(args.vae)
    shape = adapter.requested_size(vae, args.num_frames, args.height, args.width)
    layout = adapter.latent_layout(vae, *shape)
    rate: dict[str, Any] = {"stride": args.stride, "fps": args.fps, "seed": args.seed}
    if args.videos:
        return Subject(vae, digest, shape, layout, LocatedClips.of_files(args.videos, shape, **rate))
    args.split, args.fold = args.split or "test", args.fold or 1
    clips = LocatedClips.of_split(args.data, shape, args.split, fold=args.fold, **rate)
    return Subject(vae, digest, shape, layout, clips)


def load_perceptual(args: argparse.Namespace, shape: Sequence[int]) -> tuple[LPIPS | None, dict[str, Any]]:
    """LPIPS where its weights are and frames are large enough, else None after saying why; and what the
    record says of it. `--lpips` insists, `--no-lpips` leaves it out.

    Raises:
        MissingWeightsError: asked for, or by a path, and not there. ValueError: asked for with small frames.
    """
    if args.lpips is False:
        return None, {"measured": False, "reason": "--no-lpips"}
    reason = None
    if min(shape[1:]) < LPIPS_SIDE:
        reason = f"LPIPS needs frames of at least {LPIPS_SIDE}x{LPIPS_SIDE}, not {shape[1]}x{shape[2]}"
        if args.lpips:
            raise ValueError(f"--lpips: {reason}; leave the flag out")
    else:
        try:
            weights = LPIPS_WEIGHTS.verified(args.lpips_weights, args.lpips_weights_sha256)
            network = load_lpips(weights.path, device_of(args), weights.sha256)
            return network, {
                "measured": True,
                "network": "VGG16, version 0.1",
                "weights_sha256": weights.sha256,
            }
        except MissingWeightsError as error:
            if args.lpips or args.lpips_weights:
                raise
            reason = str(error)
    print(f"LPIPS not measured: {reason}")
    return None, {"measured": False, "reason": reason}


def check_distance(args: argparse.Namespace, extractor: FeatureExtractor, subject: Subject) -> None:
    """Whether a Fréchet distance can be had of these clips.

    Raises:
        ValueError: fewer than two, or of a length that the network does not take.
    """
    way_out = ", --no-fvd" if args.verb == "diagnose" else ""
    count = min(args.num_clips or subject.clips.num_videos, subject.clips.num_videos)
    if count < 2:
        raise ValueError(
            f"FVD needs at least 2 clips, and here is {count}: name more videos, or leave FVD out{way_out}"
        )
    check_length(extractor, subject.shape[0])


def distance_record(
    args: argparse.Namespace, metric: FrechetVideoDistance | None, subject: Subject
) -> dict[str, Any]:
    """The record of a distance between the subject's clips and what it decoded, or why there is none."""
    count = subject.clips.num_clips
    if metric is None:
        return {"fvd": None, "reason": args.no_extractor}
    if count < 2:
        return {"fvd": None, "reason": f"{count} clip was left, of {len(subject.clips.skipped)} skipped"}
    protocol = protocol_of(args, metric.extractor, count, subject.shape)
    split = args.split or "none: videos by their paths"
    protocol = dataclasses.replace(protocol, real_selection=RECONSTRUCTED, split=split)
    return fvd_record(metric.compute().item(), protocol)
