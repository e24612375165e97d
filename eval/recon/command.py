"""python -m eval recon: what an autoencoder keeps of the clips of a split, or of any videos."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from autoencoder import adapter
from autoencoder.parts import decode_parts
from eval.fvd.distance import FrechetVideoDistance
from eval.fvd.measuring import load_extractor, write_json
from eval.recon.autoencoder import Subject, check_distance, distance_record, load_perceptual, open_subject
from vidtwin_gen.data.pixels import from_uint8, to_uint8
from vidtwin_gen.data.writing import filmstrip, tile, write_gif
from vidtwin_gen.quality import lpips_per_frame, psnr_per_frame, ssim_per_frame, summarize

# Of each part, of each metric: (B, F) a batch.
Values = dict[str, dict[str, list[torch.Tensor]]]


def measure_recon(args: argparse.Namespace) -> None:
    subject = open_subject(args)
    network, told_of_lpips = load_perceptual(args, subject.shape)
    metric = _rfvd_metric(args, subject) if args.fvd else None
    values: Values = {}
    places: list[tuple[str, int]] = []
    shown: list[torch.Tensor] = []
    for batch in subject.clips.batches(args.num_clips, args.batch_size, "reconstructing"):
        frames = torch.stack([clip.frames for clip in batch])  # (B, F, H, W, C) uint8
        x = from_uint8(frames.to(subject.device))  # (B, C, F, H, W)
        with torch.no_grad():
            z = adapter.encode(subject.vae, x).mode()
            decoded = _decode(subject, z)
        for part, reconstruction in decoded.items():
            measured = {"psnr": psnr_per_frame(reconstruction, x), "ssim": ssim_per_frame(reconstruction, x)}
            if network is not None and (args.lpips or part == "both"):
                measured["lpips"] = lpips_per_frame(reconstruction, x, network)
            for name, value in measured.items():
                values.setdefault(part, {}).setdefault(name, []).append(value.cpu())
        if metric is not None:
            metric.update(frames, real=True)
            metric.update(to_uint8(decoded["both"]).cpu(), real=False)
        if args.gif and sum(map(len, shown)) < args.gif_clips:
            shown.append(torch.stack([x, *decoded.values()], dim=1).clamp(-1, 1).cpu())
        places += [(clip.path, clip.start) for clip in batch]
    record: dict[str, Any] = {
        part: {name: summarize(torch.cat(parts)) for name, parts in measured.items()}
        for part, measured in values.items()
    }
    record |= subject.to_json(args) | {"lpips": told_of_lpips}
    if args.fvd:
        record["rfvd"] = distance_record(args, metric, subject)
    write_json(args.out, record)
    if args.per_clip:
        write_rows(args.per_clip, _rows(places, values))
    if args.gif:
        kinds = torch.cat(shown)[: args.gif_clips].transpose(0, 1)
        _write_pictures(args.gif, kinds, subject.clips.gif_fps)
    _report(record, subject)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows with one set of columns, as `.csv` with a header or as `.jsonl`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    with open(partial, "w", encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            table = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
            table.writeheader()
            table.writerows(rows)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    partial.replace(path)


def _decode(subject: Subject, z: torch.Tensor) -> dict[str, torch.Tensor]:
    """`both` is the reconstruction; ours also decodes its parts."""
    if adapter.is_ours(subject.vae):
        return decode_parts(subject.vae, z)
    return {"both": adapter.decode(subject.vae, z, subject.layout)}


def _rfvd_metric(args: argparse.Namespace, subject: Subject) -> FrechetVideoDistance | None:
    extractor = load_extractor(args)
    if extractor is None:
        return None
    check_distance(args, extractor, subject)
    return FrechetVideoDistance(extractor)


def _rows(places: Sequence[tuple[str, int]], values: Values) -> list[dict[str, Any]]:
    """A row a clip: where it is from, and its means over frames; those of a part are called after it."""
    columns = {
        name if part == "both" else f"{part}_{name}": torch.cat(parts).mean(1).tolist()
        for part, measured in values.items()
        for name, parts in measured.items()
    }
    return [
        {"path": path, "start_frame": start, **{name: column[i] for name, column in columns.items()}}
        for i, (path, start) in enumerate(places)
    ]


def _write_pictures(path: Path, kinds: torch.Tensor, fps: float) -> None:
    """Of clips (4, N, C, F, H, W): a GIF with a row per kind (original, both, Structure only, Dynamics only)
    and a column per clip; a PNG with the four kinds of each clip under one another, time to the right."""
    write_gif(path, tile(list(kinds.flatten(0, 1)), columns=kinds.shape[1]), fps)
    filmstrip(list(kinds.transpose(0, 1).flatten(0, 1))).save(path.with_suffix(".png"))


def _report(record: Mapping[str, Any], subject: Subject) -> None:
    both, clips = record["both"], subject.clips
    values = [f"PSNR {both['psnr']['mean']:.2f} dB", f"SSIM {both['ssim']['mean']:.3f}"]
    if "lpips" in both:
        values.append(f"LPIPS {both['lpips']['mean']:.3f}")
    if (rfvd := record.get("rfvd")) and rfvd["fvd"] is not None:
        flag = ", rank-deficient" if rfvd["rank_deficient"] else ""
        values.append(f"rFVD {rfvd['fvd']:.1f} ({rfvd['num_real']} clips a side{flag})")
    split = f"{record['split']} split" if record["split"] else "videos by path"
    skipped = f"; skipped {len(clips.skipped)} of {clips.num_videos} videos" if clips.skipped else ""
    print(
        f"{', '.join(values)} (N = {clips.num_clips}, {split}, {record['resolution']}, "
        f"{record['frame_rate']}){skipped}"
    )
