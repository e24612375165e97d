"""python -m eval recon: what an autoencoder keeps of the clips of a split."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from einops import rearrange

from autoencoder import flat
from autoencoder.loading import load_video_autoencoder
from autoencoder.parts import decode_parts
from autoencoder.perceptual import load_lpips
from eval.clips import batches
from eval.fvd import FrechetVideoDistance, fvd_record
from eval.i3d import I3D_WEIGHTS
from eval.measuring import load_extractor, protocol_of, rate_of, real_clips, write_json
from eval.quality import psnr, ssim, summarize
from vidtwin_gen.video import filmstrip, tile, to_uint8, write_gif


def measure_recon(args: argparse.Namespace) -> None:
    vae = load_video_autoencoder(args.vae).to(args.device)
    shape = flat.requested_size(vae, args.num_frames, args.height, args.width)
    layout = flat.latent_layout(vae, *shape)
    real = real_clips(args, shape, args.split)
    clips = torch.stack(list(real.evenly(args.num_clips)))  # (N, F, H, W, C) uint8
    metric = None
    if args.fvd and (extractor := load_extractor(args)) is not None:
        metric = FrechetVideoDistance(extractor)
    lpips = load_lpips(args.lpips_weights, args.device) if args.lpips else None
    values: dict[str, dict[str, list[torch.Tensor]]] = {}
    shown: list[torch.Tensor] = []
    for batch in batches(clips, args.batch_size, "reconstructing"):
        x = batch.permute(0, 4, 1, 2, 3).to(args.device) / 127.5 - 1  # (B, C, F, H, W)
        with torch.no_grad():
            z = flat.encode(vae, x).mode()
            decoded = decode_parts(vae, z) if flat.is_ours(vae) else {"both": flat.decode(vae, z, layout)}
        for part, reconstruction in decoded.items():
            measured = values.setdefault(part, {"psnr": [], "ssim": []})
            measured["psnr"].append(psnr(reconstruction, x).cpu())
            measured["ssim"].append(ssim(reconstruction, x).cpu())
            if lpips is not None:
                pair = (rearrange(c.clamp(-1, 1), "b c f h w -> (b f) c h w") for c in (reconstruction, x))
                with torch.no_grad():
                    distances = lpips(*pair).view(len(x), -1).mean(1)  # of a clip, the mean over its frames
                measured.setdefault("lpips", []).append(distances.cpu())
        if metric is not None:
            metric.update(batch, real=True)
            metric.update(to_uint8(decoded["both"]).cpu(), real=False)
        if args.gif and len(shown) * args.batch_size < args.gif_clips:
            shown.append(torch.stack([x, *decoded.values()]).clamp(-1, 1).cpu())
    record: dict[str, Any] = {
        part: {name: summarize(torch.cat(parts)) for name, parts in measured.items()}
        for part, measured in values.items()
    }
    record |= {
        "split": args.split,
        "fold": args.fold,
        "autoencoder_class": type(vae).__name__,
        "resolution": "x".join(map(str, shape)),
        "frame_rate": rate_of(args),
        "seed": args.seed,
        "data_range": "1, on clips in [0, 1]",
        "skipped_videos": real.skipped,
    }
    if metric is not None:
        protocol = protocol_of(args, metric.extractor, len(clips), shape)
        record["rfvd"] = fvd_record(metric.compute().item(), protocol)
    elif args.fvd:
        record["rfvd"] = {"fvd": None, "reason": f"the I3D weights are missing: run `{I3D_WEIGHTS.install}`"}
    write_json(args.out, record)
    if args.gif:
        _write_pictures(args.gif, torch.cat(shown, dim=1)[:, : args.gif_clips], real.gif_fps)
    both = record["both"]
    print(
        f"PSNR {both['psnr']['mean']:.2f} dB, SSIM {both['ssim']['mean']:.3f} "
        f"(N = {len(clips)}, {args.split} split, {record['resolution']}, {record['frame_rate']})"
    )


def _write_pictures(path: Path, kinds: torch.Tensor, fps: float) -> None:
    """Of clips (4, N, C, F, H, W): a GIF with a row per kind (original, both, Structure only, Dynamics only)
    and a column per clip; a PNG with the four kinds of each clip under one another, time to the right."""
    write_gif(path, tile(list(kinds.flatten(0, 1)), columns=kinds.shape[1]), fps)
    filmstrip(list(kinds.transpose(0, 1).flatten(0, 1))).save(path.with_suffix(".png"))
