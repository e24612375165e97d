"""python -m eval fvd: the distances of generated clips from real ones, beside what they could be at best."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from functools import partial
from statistics import fmean, stdev
from typing import Any

from eval.autoencoder import MeasuredAutoencoder
from eval.clips import preparation
from eval.extraction import Extraction
from eval.flags import Codec
from eval.fvd.distance import Distances, FeatureSet, distances
from eval.fvd.features import FeatureExtractor, check_length
from eval.fvd.flags import FVDFlags
from eval.fvd.i3d import I3D_WEIGHTS
from eval.fvd.networks import extractor_of
from eval.fvd.protocols import PROTOCOLS, WITHOUT_CLASSES, Selection
from eval.fvd.reference import RealSide, Reference, read_reference
from eval.fvd.selection import Settings, check_sets, choose_settings, chosen_clips, wanted_names
from eval.generated_clips import GeneratedClips, read_generated
from vidtwin_gen.devices import find_device, processes
from vidtwin_gen.records import FVDProtocol, FVDResult, distance_json, kvd_text, not_measured
from vidtwin_gen.weights import MissingWeightsError

NO_FEATURES = (
    "the file of --reference holds no features, for it is of an earlier version: measure it again with "
    "`python -m eval reference`"
)

OTHER_CODEC = (
    "generated videos are compared as they are ({0.codec}), real clips after {0.real_codec}: compare "
    "this with measures of videos written alike only"
)


def measure_fvd(flags: FVDFlags) -> None:
    known = read_reference(flags.reference) if flags.reference else None
    generated = read_sets(flags, known)
    settings = settings_of(flags, generated[0], known)
    check_sets(settings.protocol, generated)
    real = settings.real_clips(flags.data) if flags.data else None
    classes = real.class_names if real else sorted(set(known.names if known else ()))
    generated = [clips.named_as(classes) for clips in generated]
    if known is not None:
        names = known.names
    elif real is not None:
        names = wanted_names(settings, generated[0], real)
    else:
        raise ValueError("give the real videos, --data, or their statistics, --reference")
    if real is not None:
        real.warn_of_other_rate(generated[0])
    # refused before anything is computed
    chosen = [chosen_clips(settings, clips, names) for clips in generated]
    try:
        extractor = extractor_of(flags)
    except MissingWeightsError as error:
        write_missing(flags, str(error))
        return
    check_length(extractor, settings.protocol.num_frames)
    if known is not None and flags.reference is not None:
        known.check(flags.reference, settings.record(extractor))
    extraction = Extraction(flags)
    autoencoder, reason = autoencoder_of(flags, settings, generated[0])
    side = RealSide(settings, real, extraction, extractor, autoencoder) if real else None
    reference, floor = settle_real(side, known, names, reason, with_floor=not flags.no_floors)
    if reference.names != names:  # of other classes, where videos turned out to be bad
        chosen = [chosen_clips(settings, clips, reference.names) for clips in generated]
    values = [
        distances_from(reference, clips, indices, settings, extraction, extractor)
        for clips, indices in zip(generated, chosen, strict=True)
    ]
    if processes().is_main_process:
        record = settings.record(extractor)
        if flags.generated_stride not in (None, settings.protocol.stride):
            record = dataclasses.replace(record, generated_stride=flags.generated_stride)
        result = result_of(settings, record, generated, values, reference, floor)
        result.write(flags.out)
        print(describe(result))


def settle_real(
    side: RealSide | None, known: Reference | None, names: Sequence[str], reason: str, *, with_floor: bool
) -> tuple[Reference, dict[str, Any]]:
    """The statistics of the real clips, `known` or measured, and the distances of their reconstructions, or
    the `reason` why there are none. One of `side` and `known` is given."""
    if known is not None and (side is None or side.autoencoder is None):
        return known, not_measured(reason)
    assert side is not None
    protocol = side.settings.protocol
    follow = names if protocol.selection == "generated" else None
    reference, decoded = (
        side.measure(follow, with_floor=with_floor) if known is None else (known, side.reconstruct(known))
    )
    if decoded is None or side.autoencoder is None:
        return reference, not_measured(reason)
    features = FeatureSet.of(decoded, "reconstructed")
    values = distances(reference.features, features, paired=True, divisor=protocol.covariance_divisor)
    floor = {"num_reconstructions": len(decoded), "vae_sha256": side.autoencoder.sha256}
    return reference, values._asdict() | floor


def distances_from(
    reference: Reference,
    clips: GeneratedClips,
    chosen: Sequence[int],
    settings: Settings,
    extraction: Extraction,
    extractor: FeatureExtractor,
) -> Distances:
    """Of the chosen clips of a set; videos are compared as they are, whatever the protocol's codec."""
    protocol = settings.protocol
    size, resize = protocol.shape[1:], protocol.resize
    codec: Codec = "none" if clips.videos else protocol.codec
    about = {"generated": clips.sha256, "size": size, **preparation(resize, codec), **clips.reading}
    view = extraction.features(extractor, **about)
    features = extraction.generated(clips, chosen, (size, resize, codec), view)
    return distances(
        reference.features, FeatureSet.of(features, "generated"), divisor=protocol.covariance_divisor
    )


def result_of(
    settings: Settings,
    record: FVDProtocol,
    generated: Sequence[GeneratedClips],
    values: Sequence[Distances],
    reference: Reference,
    floor: dict[str, Any],
) -> FVDResult:
    """What `out` says of the sets, with the distances of each."""
    protocol, note = settings.protocol, generated[0].note
    if generated[0].videos:
        container = "" if protocol.codec == "none" else f"{protocol.codec} "
        record = dataclasses.replace(record, codec=f"{container}{generated[0].codec}")
        note = OTHER_CODEC.format(record) if container else note
    if any(clips.names is None for clips in generated):
        record = dataclasses.replace(record, generated_selection=WITHOUT_CLASSES)
    sets = [
        {
            "file": f"{clips.path.parent.name}/{clips.path.name}",
            "sha256": clips.sha256,
            "seed": clips.seed,
            **value._asdict(),
        }
        for clips, value in zip(generated, values, strict=True)
    ]
    fvds, kvds = [value.fvd for value in values], [value.kvd for value in values if value.kvd is not None]
    return FVDResult(
        **distance_json(fmean(fvds), record, fmean(kvds) if kvds else None),
        note=note,
        std=std_over_sets(fvds),
        kvd_std=std_over_sets(kvds),
        kvd_reason=None if kvds else NO_FEATURES,
        num_seeds=len(values),
        num_seeds_of_protocol=protocol.num_seeds,
        generated=sets,
        generated_size=list(generated[0].shape),
        num_real_videos=reference.num_videos,
        floor=reference.floor["fvd"],
        floors={"real": reference.floor, "reconstructions": floor},
        class_counts=dict(Counter(reference.names)),
        skipped_videos=reference.skipped,
    )


def std_over_sets(values: Sequence[float]) -> float | None:
    """The standard deviation over sets, where there are several."""
    return stdev(values) if len(values) > 1 else None


def read_sets(flags: FVDFlags, reference: Reference | None) -> list[GeneratedClips]:
    """The sets of generated clips; of videos, clips of the length and rate of the protocol. Errors as
    `read_generated`."""
    known = PROTOCOLS.get(flags.protocol or "") or (reference.protocol if reference else None)
    stride, fps = flags.stride, flags.fps
    if known and stride is None and fps is None:
        stride, fps = known.stride, known.fps
    if known and known.generated_stride is not None:
        stride, fps = known.generated_stride, None
        if flags.generated_stride not in (None, stride):
            raise ValueError(
                f"--generated_stride {flags.generated_stride}: {known.name} is defined with {stride}; leave "
                "it out"
            )
    seed = flags.seed if flags.seed is not None else reference.protocol.seed if reference else 0
    length = flags.num_frames or (known.num_frames if known else None)
    read = partial(read_generated, stride=stride, fps=fps, generated_stride=flags.generated_stride, seed=seed)
    return [read(path, length) for path in flags.generated]


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
        count = flags.num_samples or len(clips)
        name = reference.protocol.name if reference and not flags.num_samples else f"quick-{count}"
    elif flags.num_samples and name != f"quick-{flags.num_samples}":
        raise ValueError(f"--num_samples {flags.num_samples} and --protocol {name}: give one of them")
    selection: Selection = "classes" if reference or clips.names is None else "generated"
    return choose_settings(flags, name, clips.shape, selection, reference.protocol if reference else None)


def autoencoder_of(
    flags: FVDFlags, settings: Settings, generated: GeneratedClips
) -> tuple[MeasuredAutoencoder | None, str]:
    """The autoencoder whose reconstructions are a floor, or None and the reason: at its own size, one of
    another class than ours at that of the generated clips.

    Raises:
        ValueError: it takes clips of another length than are compared.
    """
    folder = flags.vae or (flags.pipeline and flags.pipeline / "vae")
    if flags.no_floors:
        return None, "left out by --no_floors"
    if folder is None or flags.data is None:
        return None, f"{'--vae or --pipeline' if folder is None else '--data'} is not given"
    device, protocol = find_device(flags.device), settings.protocol
    autoencoder = MeasuredAutoencoder.load(folder, device, *generated.shape, own_size=True)
    if autoencoder.shape[0] != protocol.num_frames:
        raise ValueError(
            f"{folder} takes clips of {autoencoder.shape[0]} frames, --protocol {protocol.name} compares "
            f"clips of {protocol.num_frames}: name the autoencoder of the generator, or --no_floors"
        )
    return autoencoder, ""


def describe(result: FVDResult) -> str:
    """A line: the values, their N and protocol, their floors, what was skipped."""
    assert result.protocol and result.floors and result.num_seeds and result.num_seeds_of_protocol
    value = f"FVD {result.fvd:.2f}"
    if result.std is not None:
        value += f" ± {result.std:.2f}"
    if result.kvd is not None:
        value += f", KVD {kvd_text(result.kvd, result.kvd_std)}"
    if result.std is not None:
        value += f" over {result.num_seeds} seeds"
    if result.num_seeds < result.num_seeds_of_protocol:
        value += f" ({result.num_seeds} of the protocol's {result.num_seeds_of_protocol} seeds)"
    parts = [value]
    for key, title in (("real", "real against real"), ("reconstructions", "reconstructions")):
        floor = result.floors[key]
        of_what = f" ({floor['other_real']})" if "other_real" in floor else ""
        kvd = f", KVD {kvd_text(floor['kvd'])}" if floor["kvd"] is not None else ""
        parts.append(
            f"{title} {floor['fvd']:.1f}{kvd}{of_what}"
            if floor["fvd"] is not None
            else f"no {title}: {floor['reason']}"
        )
    if result.kvd_reason is not None:
        parts.append(f"no KVD: {result.kvd_reason}")
    flag = ", rank-deficient" if result.rank_deficient else ""
    counts = f"{result.num_real} real, {result.num_generated} generated clips"
    skipped = f"; {len(result.skipped_videos)} videos skipped" if result.skipped_videos else ""
    return f"{', '.join(parts)} ({result.protocol['name']}: {counts}{flag}){skipped}"
