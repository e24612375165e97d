"""python -m eval fvd: the distance of generated clips from real ones, beside what it could be at best."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from eval.autoencoder import MeasuredAutoencoder
from eval.clips import RESIZE, Clips, GeneratedClips, RealClips, fit, read_generated
from eval.devices import find_device, processes
from eval.extraction import Extraction
from eval.fvd.distance import FeatureSums, distance_of_sums
from eval.fvd.features import FeatureExtractor, check_length
from eval.fvd.flags import FVDFlags
from eval.fvd.i3d import I3D_WEIGHTS
from eval.fvd.networks import extractor_of
from eval.fvd.reference import Reconstruction, Reference, measure_real, read_reference, reconstruct_real
from eval.fvd.selection import (
    Settings,
    check_clips,
    check_sets,
    choose_settings,
    chosen_clips,
    wanted_names,
)
from vidtwin_gen.records import FVDResult, distance_json
from vidtwin_gen.weights import MissingWeightsError


def measure_fvd(flags: FVDFlags) -> None:
    generated = [read_generated(path) for path in flags.generated]
    digests = check_sets(flags.generated, generated)
    reference = read_reference(flags.reference) if flags.reference else None
    settings = settings_of(flags, generated[0], reference)
    for path, clips in zip(flags.generated, generated, strict=True):
        check_clips(settings.protocol, path, clips)
    real = settings.real_clips(flags.data) if flags.data else None
    if reference is not None:
        names = reference.names
    elif real is not None:
        names = wanted_names(settings, generated[0], real)
    else:
        raise ValueError("give the real videos, --data, or their statistics, --reference")
    chosen = [  # refused before anything is computed
        chosen_clips(settings, clips, names, path)
        for path, clips in zip(flags.generated, generated, strict=True)
    ]
    try:
        extractor = extractor_of(flags)
    except MissingWeightsError as error:
        write_missing(flags, str(error))
        return
    check_length(extractor, settings.protocol.num_frames)
    if reference is not None and flags.reference is not None:
        reference.check(flags.reference, settings.record(extractor))
    extraction = Extraction.of_flags(flags)
    reference, floor = measure_real_side(
        flags, settings, reference, real, names, extraction, extractor, generated[0]
    )
    if reference.names != names:  # of other classes, where videos turned out to be bad
        chosen = [
            chosen_clips(settings, clips, reference.names, path)
            for path, clips in zip(flags.generated, generated, strict=True)
        ]
    size = settings.protocol.shape[1:]
    values = []
    for digest, clips, indices in zip(digests, generated, chosen, strict=True):
        view = extraction.features(extractor, generated=digest, size=size, resize=RESIZE)
        features = extraction.generated(clips, indices, size, view)
        values.append(distance_of_sums(reference.sums, FeatureSums.of(features, "generated")))
    if not processes().is_main_process:
        return
    sets = [
        {"file": path.parent.name + "/" + path.name, "sha256": digest, "seed": clips.seed, "fvd": value}
        for path, digest, clips, value in zip(flags.generated, digests, generated, values, strict=True)
    ]
    result = FVDResult(
        **distance_json(fmean(values), settings.record(extractor)),
        std=stdev(values) if len(values) > 1 else None,
        num_seeds=len(values),
        num_seeds_of_protocol=settings.protocol.num_seeds,
        generated=sets,
        generated_size=list(generated[0].frames.shape[1:4]),
        num_real_videos=reference.num_videos,
        floor=reference.floor["fvd"],
        floors={"real": reference.floor, "reconstructions": floor},
        class_counts=dict(Counter(reference.names)),
        skipped_videos=reference.skipped,
    )
    result.write(flags.out)
    print(describe(result))


def write_missing(flags: FVDFlags, reason: str) -> None:
    """A result that says why there is none."""
    if processes().is_main_process:
        install = I3D_WEIGHTS.install if flags.extractor == "i3d" else None
        FVDResult(fvd=None, reason=reason, install=install).write(flags.out)
    print(f"FVD not measured: {reason}")


def settings_of(flags: FVDFlags, clips: GeneratedClips, reference: Reference | None) -> Settings:
    """Raises ValueError where flags contradict one another."""
    name = flags.protocol
    if name is None:
        count = flags.num_samples or len(clips.frames)
        name = reference.protocol.name if reference and not flags.num_samples else f"quick-{count}"
    elif flags.num_samples and name != f"quick-{flags.num_samples}":
        raise ValueError(f"--num_samples {flags.num_samples} and --protocol {name}: give one of them")
    return choose_settings(
        name,
        clips.frames.shape[1:4],
        "classes" if reference else "generated",
        split=flags.split,
        fold=flags.fold,
        stride=flags.stride,
        fps=flags.fps,
        seed=flags.seed,
        reference=reference.protocol if reference else None,
    )


def measure_real_side(
    flags: FVDFlags,
    settings: Settings,
    reference: Reference | None,
    real: RealClips | None,
    names: Sequence[str],
    extraction: Extraction,
    extractor: FeatureExtractor,
    generated: GeneratedClips,
) -> tuple[Reference, dict[str, Any]]:
    """The real statistics, and the record of the autoencoder's own floor, rFVD."""
    folder = flags.vae or (flags.pipeline and flags.pipeline / "vae")
    protocol, autoencoder, reconstruction, reason = settings.protocol, None, None, ""
    if flags.no_floors:
        reason = "left out by --no_floors"
    elif folder is None or real is None:
        reason = f"{'--vae or --pipeline' if folder is None else '--data'} is not given"
    else:
        autoencoder = autoencoder_of(folder, find_device(flags.device), settings, generated)
        reconstruction = reconstruction_of(autoencoder, settings, real, extraction, extractor)
    if reference is not None:
        features = None
        if reconstruction is not None and real is not None:
            features = reconstruct_real(real, protocol, reference, extraction, reconstruction)
    else:
        assert real is not None
        reference, features = measure_real(
            real,
            protocol,
            settings.record(extractor),
            extraction,
            extractor,
            names=names if protocol.selection == "generated" else None,
            with_floor=not flags.no_floors,
            reconstruction=reconstruction,
        )
    if features is None or autoencoder is None:
        return reference, {"fvd": None, "reason": reason}
    value = distance_of_sums(reference.sums, FeatureSums.of(features, "reconstructed"))
    floor = {"fvd": value, "num_reconstructions": len(features), "vae_sha256": autoencoder.sha256}
    return reference, floor


def _size(clips: GeneratedClips) -> tuple[int, int, int]:
    _, num_frames, height, width, _ = clips.frames.shape
    return num_frames, height, width


def autoencoder_of(
    folder: Path, device: torch.device, settings: Settings, generated: GeneratedClips
) -> MeasuredAutoencoder:
    """At its own size, one of another class than ours at that of the generated clips.

    Raises:
        ValueError: it takes clips of another length than are compared.
    """
    autoencoder = MeasuredAutoencoder.load_for(folder, device, _size(generated))
    if autoencoder.shape[0] != settings.protocol.num_frames:
        raise ValueError(
            f"{folder} takes clips of {autoencoder.shape[0]} frames, --protocol {settings.protocol.name} "
            f"compares clips of {settings.protocol.num_frames}: name the autoencoder of the generator, or "
            "--no_floors"
        )
    return autoencoder


def reconstruction_of(
    autoencoder: MeasuredAutoencoder,
    settings: Settings,
    real: RealClips,
    extraction: Extraction,
    extractor: FeatureExtractor,
) -> Reconstruction:
    """Clips through the autoencoder, rounded, and brought to the protocol's size as generated ones are."""

    def reconstruct(clips: Clips) -> torch.Tensor:
        decoded = autoencoder.reconstruct(clips.frames[-1])  # (B, F, h, w, C)
        return torch.stack([fit(clip, settings.protocol.shape[1:]) for clip in decoded])

    view = extraction.features(
        extractor,
        reconstruct,
        reading=real.reading,
        reconstructed_by=autoencoder.sha256,
        at=autoencoder.shape,
    )
    return Reconstruction(autoencoder.shape[1:], view)


def describe(result: FVDResult) -> str:
    """A line: the value, its N and protocol, its floors, what was skipped."""
    assert result.protocol and result.floors and result.num_seeds and result.num_seeds_of_protocol
    value = f"FVD {result.fvd:.2f}"
    if result.std is not None:
        value += f" ± {result.std:.2f} over {result.num_seeds} seeds"
    if result.num_seeds < result.num_seeds_of_protocol:
        value += f" ({result.num_seeds} of the protocol's {result.num_seeds_of_protocol} seeds)"
    parts = [value]
    for key, title in (("real", "real against real"), ("reconstructions", "reconstructions")):
        floor = result.floors[key]
        of_what = f" ({floor['other_real']})" if "other_real" in floor else ""
        parts.append(
            f"{title} {floor['fvd']:.1f}{of_what}"
            if floor["fvd"] is not None
            else f"no {title}: {floor['reason']}"
        )
    flag = ", rank-deficient" if result.rank_deficient else ""
    counts = f"{result.num_real} real, {result.num_generated} generated clips"
    skipped = f"; {len(result.skipped_videos)} videos skipped" if result.skipped_videos else ""
    return f"{', '.join(parts)} ({result.protocol['name']}: {counts}{flag}){skipped}"
