"""python -m eval reference: the statistics of real clips, once for all generators."""

from __future__ import annotations

import argparse

from eval.fvd.extraction import processes
from eval.fvd.measuring import extraction_of
from eval.fvd.protocols import quick_count
from eval.fvd.reference import measure_real
from eval.fvd.settings import Settings, needed_extractor, settings_of


def measure_reference(args: argparse.Namespace) -> None:
    sizes = (args.num_frames, args.height, args.width)
    if quick_count(args.protocol) is None:
        if any(size is not None for size in sizes):
            raise ValueError(f"--protocol {args.protocol} has its own clip size: leave out the flags for it")
    elif None in sizes:
        raise ValueError(
            f"--protocol {args.protocol} fixes no clip size: give --num_frames, --height and --width"
        )
    settings: Settings = settings_of(args, sizes, "classes")
    extractor = needed_extractor(args, settings.protocol.num_frames)
    reference, _ = measure_real(
        settings.real_clips(args.data),
        settings.protocol,
        settings.record(extractor),
        extraction_of(args, extractor),
        with_floor=not args.no_floors,
    )
    if not processes().is_main_process:
        return
    reference.save(args.out)
    told = f"{len(reference.skipped)} videos skipped, " if reference.skipped else ""
    floor = reference.floor
    told += (
        f"real against real {floor['fvd']:.1f} ({floor['other_real']})"
        if floor["fvd"] is not None
        else f"no real floor ({floor['reason']})"
    )
    flag = ", rank-deficient" if reference.protocol.rank_deficient else ""
    count = f"{len(reference.names)} real clips of {reference.num_videos} videos{flag}"
    print(f"{args.out}: {settings.protocol.name}, {count}, {told}")
