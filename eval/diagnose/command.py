"""python -m eval diagnose: is the latent of an autoencoder fit to be generated, before one is trained?"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from autoencoder import adapter
from eval.diagnose.channel_statistics import DEAD_BELOW, PosteriorMoments, channel_statistics
from eval.diagnose.figures import plot_channels, plot_swaps
from eval.diagnose.latent_edits import num_interior_steps, swaps, with_midpoints, with_noise
from eval.fvd.distance import FrechetVideoDistance
from eval.fvd.measuring import load_extractor, write_json
from eval.recon.autoencoder import Subject, check_distance, distance_record, load_perceptual, open_subject
from vidtwin_gen.data.pixels import from_uint8, to_uint8
from vidtwin_gen.quality import PerceptualNetwork, lpips_per_frame, psnr, psnr_per_frame, summarize

NOISE_LEVELS = (0.1, 0.2, 0.5)
PAIRS_SHOWN = 3
UNSWAPPED = "nothing"


@dataclass
class Distances:
    """rFVD and tFVD: of the same real clips, each read by the network once."""

    reconstructions: FrechetVideoDistance
    midpoints: FrechetVideoDistance

    def update(self, real: torch.Tensor, reconstructed: torch.Tensor, midpoints: torch.Tensor) -> None:
        """Clips (B, F, H, W, C) uint8, three times."""
        features = self.reconstructions.extractor(real)
        for metric, clips in ((self.reconstructions, reconstructed), (self.midpoints, midpoints)):
            metric.update_features(features, real=True)
            metric.update(clips, real=False)


@dataclass
class Kept:
    """The first clips of all, for what needs two of them or the statistics of all."""

    most: int
    frames: list[torch.Tensor] = field(default_factory=list)  # (F, H, W, C) uint8 each
    latents: list[torch.Tensor] = field(default_factory=list)  # (L,) each

    def add(self, frames: torch.Tensor, latents: torch.Tensor) -> None:
        left = self.most - len(self.frames)
        self.frames += frames[:left].unbind()
        self.latents += latents[:left].cpu().unbind()


@torch.no_grad()
def diagnose(args: argparse.Namespace) -> None:
    subject = open_subject(args)
    vae, layout = subject.vae, subject.layout
    network, told_of_lpips = load_perceptual(args, subject.shape)
    distances = _distances(args, subject) if args.fvd else None
    moments, kept = PosteriorMoments(layout.num_elements), Kept(2 * args.num_pairs)
    quality: dict[str, list[torch.Tensor]] = {"reconstruction": [], "midpoints": []}
    for batch in subject.clips.batches(args.num_clips, args.batch_size, "diagnosing"):
        frames = torch.stack([clip.frames for clip in batch])  # (B, F, H, W, C) uint8
        x = from_uint8(frames.to(subject.device))
        posterior = adapter.encode(vae, x)
        moments.update(posterior.mean.cpu(), posterior.logvar.cpu())
        z = posterior.mode()
        decoded = [adapter.decode(vae, latents, layout) for latents in (z, with_midpoints(z, layout))]
        for values, clips in zip(quality.values(), decoded, strict=True):
            values.append(psnr(clips, x).cpu())
        if distances is not None:
            distances.update(frames, *(to_uint8(clips).cpu() for clips in decoded))
        kept.add(frames, z)
    statistics = channel_statistics(moments.compute(), layout)
    record: dict[str, Any] = subject.to_json(args) | {
        "num_clips": subject.clips.num_clips,
        "layout": layout.to_config(),
        **{f"{name}_psnr": summarize(torch.cat(values)) for name, values in quality.items()},
        "lpips": told_of_lpips,
    }
    if args.fvd:
        record |= _temporal(args, distances, subject)
    record["channels"] = {name: grid.to_json() for name, grid in statistics.items()}
    record["dead_below_nats"] = DEAD_BELOW
    std = torch.cat([grid.std for grid in statistics.values()]).float()
    record["noise"] = _noise(args, subject, kept, std)
    record["swap"], shown = _swap(args, subject, kept, network)
    write_json(args.out, record)
    if args.figure:
        plot_channels(statistics, f"{record['autoencoder_class']}, N = {record['num_clips']}", args.figure)
        if shown:
            plot_swaps(shown, args.figure.with_stem(f"{args.figure.stem}_swap"))
    _report(record)


def _distances(args: argparse.Namespace, subject: Subject) -> Distances | None:
    extractor = load_extractor(args)
    if extractor is None:
        return None
    check_distance(args, extractor, subject)
    return Distances(FrechetVideoDistance(extractor), FrechetVideoDistance(extractor))


def _temporal(args: argparse.Namespace, distances: Distances | None, subject: Subject) -> dict[str, Any]:
    """`rfvd`, `tfvd` and their difference. Both are of the same clips: what tFVD has beyond rFVD is what the
    midpoints cost."""
    steps = num_interior_steps(subject.layout)
    rfvd, tfvd = (
        distance_record(args, metric, subject)
        for metric in ((distances.reconstructions, distances.midpoints) if distances else (None, None))
    )
    if not any(steps.values()):
        tfvd = {"fvd": None, "reason": "no grid of the latent has three steps in time"}
    tfvd |= {
        "source": "V-RAE, arXiv 2608.13556: each interior step in time is the midpoint of its neighbours",
        "interior_steps": steps,
        "kept": [name for name, count in steps.items() if count == 0],
    }
    difference = None if None in (rfvd["fvd"], tfvd["fvd"]) else tfvd["fvd"] - rfvd["fvd"]
    return {"rfvd": rfvd, "tfvd": tfvd, "tfvd_minus_rfvd": difference}


def _noise(args: argparse.Namespace, subject: Subject, kept: Kept, std: torch.Tensor) -> list[dict[str, Any]]:
    """How PSNR falls with noise on the latent, in units of each channel's standard deviation: the error that
    a generator may make."""
    generator = torch.Generator().manual_seed(args.seed)
    frames, latents = torch.stack(kept.frames), torch.stack(kept.latents)
    rows = []
    for level in (0.0, *NOISE_LEVELS):
        values = []
        for here in torch.arange(len(latents)).split(args.batch_size):
            z = with_noise(latents[here], subject.layout, std, level, generator).to(subject.device)
            clips = adapter.decode(subject.vae, z, subject.layout)
            values.append(psnr(clips, from_uint8(frames[here].to(subject.device))).cpu())
        rows.append({"level": level, "psnr": summarize(torch.cat(values))})
    return rows


def _swap(
    args: argparse.Namespace, subject: Subject, kept: Kept, network: PerceptualNetwork | None
) -> tuple[dict[str, Any], list[tuple[str, torch.Tensor]]]:
    """How far clips decoded with a part of another's latent are from either, and rows of the first pairs, to
    be looked at. A pair is two neighbours; both ways round would only measure every mixture twice."""
    num_pairs, layout = len(kept.frames) // 2, subject.layout
    if num_pairs == 0:
        return {"distances": None, "reason": "a swap needs two clips"}, []
    frames = torch.stack(kept.frames[: 2 * num_pairs]).unflatten(0, (-1, 2))  # (P, 2, F, H, W, C)
    latents = torch.stack(kept.latents[: 2 * num_pairs]).unflatten(0, (-1, 2))  # (P, 2, L)
    if not swaps(latents[:, 0], latents[:, 1], layout):
        return {"distances": None, "reason": "one grid of one step in time has no part to swap"}, []
    values: dict[str, dict[str, dict[str, list[torch.Tensor]]]] = {}
    shown: dict[str, list[torch.Tensor]] = {}
    for pairs, z in zip(frames.split(args.batch_size), latents.split(args.batch_size), strict=True):
        for name, mixed in {UNSWAPPED: z[:, 0], **swaps(z[:, 0], z[:, 1], layout)}.items():
            clips = adapter.decode(subject.vae, mixed.to(subject.device), layout)
            for source, original in zip(("own", "partner"), pairs.unbind(1), strict=True):
                x = from_uint8(original.to(subject.device))
                measured = values.setdefault(name, {}).setdefault(source, {"psnr": []})
                measured["psnr"].append(psnr_per_frame(clips, x).cpu())
                if network is not None:
                    measured.setdefault("lpips", []).append(lpips_per_frame(clips, x, network).cpu())
            if name != UNSWAPPED and len(shown.get(name, ())) < PAIRS_SHOWN:
                shown.setdefault(name, []).extend(clips.cpu())
    record = {
        "num_pairs": num_pairs,
        "protocol": "a clip's latent with one part of its partner's, decoded, compared with own and partner",
        "distances": {
            name: {
                source: {metric: summarize(torch.cat(parts)) for metric, parts in measured.items()}
                for source, measured in by_source.items()
            }
            for name, by_source in values.items()
        },
    }
    rows: list[tuple[str, torch.Tensor]] = []
    for i, pair in enumerate(frames[:PAIRS_SHOWN]):
        rows += [(f"pair {i + 1}: A", from_uint8(pair[0])), ("B", from_uint8(pair[1]))]
        rows += [(f"A with {name} of B", clips[i]) for name, clips in shown.items()]
    return record, rows


def _report(record: Mapping[str, Any]) -> None:
    count = f"N = {record['num_clips']}"
    if record["skipped_videos"]:
        print(f"skipped {len(record['skipped_videos'])} videos, listed in the record")
    for name in ("rfvd", "tfvd"):
        if name in record:
            result = record[name]
            value = (
                f"{result['fvd']:.1f}" if result["fvd"] is not None else f"not measured: {result['reason']}"
            )
            flag = ", rank-deficient" if result.get("rank_deficient") else ""
            print(f"{name[0]}FVD {value} ({count}{flag})")
    for name, grid in record["channels"].items():
        dead = f"{sum(grid['dead'])} of {len(grid['dead'])} channels dead"
        print(f"{name}: {dead}, KL {grid['kl_per_clip']:.0f} nats a clip")
    levels = ", ".join(f"{row['level']:g}: {row['psnr']['mean']:.2f}" for row in record["noise"])
    print(f"PSNR in dB with noise of so many standard deviations on the latent: {levels}")
    for name, sources in (record["swap"]["distances"] or {}).items():
        print(
            f"{name} taken from another clip: PSNR {sources['own']['psnr']['mean']:.2f} dB to the clip, "
            f"{sources['partner']['psnr']['mean']:.2f} dB to the other"
        )
