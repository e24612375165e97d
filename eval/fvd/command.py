"""python -m eval fvd: the distance of generated clips from real ones, beside what it could be at best."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from autoencoder import adapter
from autoencoder.loading import load_video_autoencoder
from eval.clips import RESIZE, Clips, GeneratedClips, RealClips, fit, read_generated
from eval.fvd.distance import FeatureSums, distance_of_sums, fvd_record
from eval.fvd.extraction import Extraction, View, processes
from eval.fvd.features import check_length
from eval.fvd.measuring import device_of, extraction_of, load_extractor, write_json
from eval.fvd.reference import Reconstruction, Reference, measure_real, read_reference, reconstruct_real
from eval.fvd.settings import Settings, check_clips, check_sets, chosen_clips, fvd_settings, wanted_names
from vidtwin_gen.data.latent_dataset import weights_sha256
from vidtwin_gen.data.pixels import from_uint8, to_uint8


def measure_fvd(args: argparse.Namespace) -> None:
    generated = [read_generated(path) for path in args.generated]
    digests = check_sets(args.generated, generated)
    kept = read_reference(args.reference) if args.reference else None
    settings = fvd_settings(args, generated[0], kept)
    for path, clips in zip(args.generated, generated, strict=True):
        check_clips(settings, path, clips)
    real = settings.real_clips(args.data) if args.data else None
    names = wanted_names(settings, generated[0], kept, real)
    for path, clips in zip(args.generated, generated, strict=True):
        chosen_clips(settings, clips, names, path)  # refused before anything is computed
    extractor = load_extractor(args)
    if extractor is None:
        return
    check_length(extractor, settings.protocol.num_frames)
    if kept is not None:
        kept.check(args.reference, settings.record(extractor))
    extraction = extraction_of(args, extractor)
    reference, reconstructions = measure_real_side(
        args, settings, kept, real, names, extraction, generated[0]
    )
    sets = []
    size = settings.protocol.shape[1:]
    for path, digest, clips in zip(args.generated, digests, generated, strict=True):
        chosen = chosen_clips(settings, clips, reference.names, path)
        store = extraction.store(generated=digest, size=size, resize=RESIZE)
        features = extraction.generated(clips, chosen, size, store)
        value = distance_of_sums(reference.sums, FeatureSums.of(features, "generated"))
        sets.append(
            {"file": path.parent.name + "/" + path.name, "sha256": digest, "seed": clips.seed, "fvd": value}
        )
    if not processes().is_main_process:
        return
    record = fvd_record(fmean(one["fvd"] for one in sets), settings.record(extractor))
    record["std"] = stdev(one["fvd"] for one in sets) if len(sets) > 1 else None
    record["num_seeds"], record["num_seeds_of_protocol"] = len(sets), settings.protocol.num_seeds
    record["generated"] = sets
    record["generated_size"] = list(generated[0].frames.shape[1:4])
    record["num_real_videos"] = reference.num_videos
    record["floor"] = reference.floor["fvd"]
    record["floors"] = {"real": reference.floor, "reconstructions": reconstructions}
    record["class_counts"] = dict(Counter(reference.names))
    record["skipped_videos"] = reference.skipped
    write_json(args.out, record)
    print(describe(record))


def measure_real_side(
    args: argparse.Namespace,
    settings: Settings,
    kept: Reference | None,
    real: RealClips | None,
    names: list[str],
    extraction: Extraction,
    generated: GeneratedClips,
) -> tuple[Reference, dict[str, Any]]:
    """The real statistics, and the record of the autoencoder's own floor, rFVD."""
    vae_dir = args.vae or (args.pipeline and args.pipeline / "vae")
    if args.no_floors or vae_dir is None or real is None:
        missing = "--vae or --pipeline" if vae_dir is None else "--data"
        reason = "left out by --no_floors" if args.no_floors else f"{missing} is not given"
        reconstruction = None
    else:
        reconstruction = reconstruction_of(args, settings, vae_dir, real, extraction, generated)
    if kept is not None:
        reference, features = kept, None
        if reconstruction is not None and real is not None:
            features = reconstruct_real(real, settings.protocol, kept, extraction, reconstruction)
    else:
        assert real is not None
        reference, features = measure_real(
            real,
            settings.protocol,
            settings.record(extraction.extractor),
            extraction,
            names=names if settings.protocol.selection == "generated" else None,
            with_floor=not args.no_floors,
            reconstruction=reconstruction,
        )
    if features is None:
        return reference, {"fvd": None, "reason": reason}
    value = distance_of_sums(reference.sums, FeatureSums.of(features, "reconstructed"))
    return reference, {
        "fvd": value,
        "num_reconstructions": len(features),
        "vae_sha256": weights_sha256(vae_dir),
    }


def reconstruction_of(
    args: argparse.Namespace,
    settings: Settings,
    vae_dir: Path,
    real: RealClips,
    extraction: Extraction,
    generated: GeneratedClips,
) -> Reconstruction:
    """Clips through an autoencoder at its own size (one of another class than ours: that of the generated
    clips), rounded, and brought to the protocol's size as generated ones are."""
    vae = load_video_autoencoder(vae_dir).to(device_of(args))
    shape = adapter.clip_size(vae, vae.layout) if adapter.is_ours(vae) else tuple(generated.frames.shape[1:4])
    if shape[0] != settings.protocol.num_frames:
        raise ValueError(
            f"{vae_dir} takes clips of {shape[0]} frames, --protocol {settings.protocol.name} compares "
            f"clips of {settings.protocol.num_frames}: name the autoencoder of the generator, or --no_floors"
        )
    layout = adapter.latent_layout(vae, *shape)

    @torch.no_grad()
    def reconstruct(clips: Clips) -> torch.Tensor:
        z = adapter.encode(vae, from_uint8(clips[-1]).to(device_of(args))).mode()  # (B, L)
        decoded = to_uint8(adapter.decode(vae, z, layout)).cpu()  # (B, F, h, w, C)
        return torch.stack([fit(clip, settings.protocol.shape[1:]) for clip in decoded])

    store = extraction.store(reading=real.reading, reconstructed_by=weights_sha256(vae_dir), at=shape)
    return Reconstruction((shape[1], shape[2]), View(store, reconstruct))


def describe(record: dict[str, Any]) -> str:
    """A line: the value, its N and protocol, its floors, what was skipped."""
    protocol, floors = record["protocol"], record["floors"]
    value = f"FVD {record['fvd']:.2f}"
    if record["std"] is not None:
        value += f" ± {record['std']:.2f} over {record['num_seeds']} seeds"
    if record["num_seeds"] < record["num_seeds_of_protocol"]:
        value += f" ({record['num_seeds']} of the protocol's {record['num_seeds_of_protocol']} seeds)"
    parts = [value]
    for key, title in (("real", "real against real"), ("reconstructions", "reconstructions")):
        floor = floors[key]
        of_what = f" ({floor['other_real']})" if "other_real" in floor else ""
        parts.append(
            f"{title} {floor['fvd']:.1f}{of_what}"
            if floor["fvd"] is not None
            else f"no {title}: {floor['reason']}"
        )
    flag = ", rank-deficient" if record["rank_deficient"] else ""
    counts = f"{record['num_real']} real, {record['num_generated']} generated clips"
    skipped = f"; {len(record['skipped_videos'])} videos skipped" if record["skipped_videos"] else ""
    return f"{', '.join(parts)} ({protocol['name']}: {counts}{flag}){skipped}"
