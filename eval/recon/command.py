"""python -m eval recon: what an autoencoder keeps of the clips of a split, or of any videos."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from autoencoder.side_by_side import quality_text
from eval.real_clips import ClipDraw, RealClips
from eval.recon.flags import ReconFlags
from eval.recon.shared import Subject
from vidtwin_gen.data.pixels import to_uint8
from vidtwin_gen.data.writing import filmstrip, tile, write_gif, write_png
from vidtwin_gen.devices import processes
from vidtwin_gen.files import replacing_file
from vidtwin_gen.quality import SSIM_WINDOWS, lpips_per_frame, psnr_per_frame, ssim_per_frame, summarize
from vidtwin_gen.records import ReconResult, kvd_text

# (B, C, F, H, W) twice -> (B, F); LPIPS, which needs a network, stands beside them
METRICS = {"psnr": psnr_per_frame, "ssim": ssim_per_frame}


@torch.no_grad()
def measure_recon(flags: ReconFlags) -> None:
    subject = Subject.of_flags(flags)
    autoencoder, network, extractor = subject.autoencoder, subject.network, subject.extractor
    real = subject.real

    def measure(frames: torch.Tensor) -> dict[str, torch.Tensor]:
        pixels = autoencoder.pixels(frames)  # (B, C, F, H, W)
        decoded = autoencoder.decode_parts(autoencoder.encode(pixels).mode())
        values = {}
        for part, reconstruction in decoded.items():
            for name, metric in METRICS.items():
                values[f"{part} {name}"] = metric(reconstruction, pixels)
            if network is not None and (flags.lpips or part == "both"):
                values[f"{part} lpips"] = lpips_per_frame(reconstruction, pixels, network)
        if extractor is not None:
            values["real"] = extractor(frames)
            values["reconstructed"] = extractor(to_uint8(decoded["both"]).cpu())
        return values

    num_frames, parts = autoencoder.shape[0], autoencoder.parts
    sizes = {f"{part} {metric}": num_frames for part in parts for metric in METRICS}
    if network is not None:
        sizes |= {f"{part} lpips": num_frames for part in (parts if flags.lpips else ["both"])}
    if extractor is not None:
        sizes |= dict.fromkeys(("real", "reconstructed"), extractor.dim)
    about = {"measured": "recon", "lpips": subject.lpips, "ssim": SSIM_WINDOWS}
    draws, values = subject.measure_each_once(sizes, measure, **about)
    if not processes().is_main_process:
        return
    summaries: dict[str, Any] = {part: {} for part in parts}
    for name, of_frames in values.items():
        part, _, metric = name.partition(" ")
        if metric:
            summaries[part][metric] = summarize(of_frames)
    rfvd = subject.distance(values, "reconstructed") if flags.fvd else None
    conditions = subject.conditions(values["origin"])
    result = ReconResult(**summaries, **conditions, ssim_windows=SSIM_WINDOWS, rfvd=rfvd)
    if flags.per_clip:
        write_rows(flags.per_clip, per_clip_rows(real, draws, values))
    if flags.gif:
        write_pictures(flags.gif, subject, draws[: flags.gif_clips])
    result.write(flags.out)
    print(describe(result, real))


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows with one set of columns, as `.csv` with a header or as `.jsonl`."""
    with replacing_file(path) as partial, open(partial, "w", encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            table = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
            table.writeheader()
            table.writerows(rows)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)


def per_clip_rows(
    real: RealClips, draws: Sequence[ClipDraw], values: Mapping[str, torch.Tensor]
) -> list[dict[str, Any]]:
    """A row a clip: where it is from, and its means over frames; those of a part are called after it."""
    columns: dict[str, list[Any]] = {
        "path": [real.paths[draw.row] for draw in draws],
        "start_frame": values["origin"][:, 0].long().tolist(),
    }
    for name, of_frames in values.items():
        part, _, metric = name.partition(" ")
        if metric:
            columns[metric if part == "both" else f"{part}_{metric}"] = of_frames.float().mean(1).tolist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def write_pictures(path: Path, subject: Subject, draws: Sequence[ClipDraw]) -> None:
    """A GIF with a row per kind (original, reconstruction, each part alone) and a column per clip; a PNG
    with the kinds of each clip under one another, time to the right."""
    autoencoder, by_clip = subject.autoencoder, []
    for frames in subject.read(draws).split(subject.flags.batch_size):
        pixels = autoencoder.pixels(frames)  # (B, C, F, H, W)
        decoded = autoencoder.decode_parts(autoencoder.encode(pixels).mode())
        by_clip.append(torch.stack([pixels, *decoded.values()], dim=1).clamp(-1, 1).cpu())
    kinds = torch.cat(by_clip)  # (N, kinds, C, F, H, W)
    write_gif(
        path, tile(list(kinds.transpose(0, 1).flatten(0, 1)), columns=len(draws)), subject.real.frame_rate
    )
    write_png(path.with_suffix(".png"), filmstrip(list(kinds.flatten(0, 1))))


def describe(result: ReconResult, real: RealClips) -> str:
    """A line: the values, their N and what they are of, what was skipped."""
    both = result.both
    values = [quality_text({name: summary["mean"] for name, summary in both.items()})]
    if result.rfvd and result.rfvd["fvd"] is not None:
        flag = ", rank-deficient" if result.rfvd["rank_deficient"] else ""
        values += [f"rFVD {result.rfvd['fvd']:.1f}", f"rKVD {kvd_text(result.rfvd['kvd'])}"]
        values[-1] += f" ({result.rfvd['num_real']} clips a side{flag})"
    split = f"{result.split} split" if result.split else "videos by path"
    skipped = f"; skipped {len(real.skipped)} of {real.num_videos} videos" if real.skipped else ""
    return (
        f"{', '.join(values)} (N = {both['psnr']['num_clips']}, {split}, {result.resolution}, "
        f"{result.frame_rate}){skipped}"
    )
