"""What `python -m eval cost` does with its flags: builds the models that the counters are given."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from autoencoder import flat
from autoencoder.loading import load_video_autoencoder
from autoencoder.presets import preset
from autoencoder.vidtwin import AutoencoderVidTwin
from eval.autoencoder_cost import Workload, autoencoder_cost, describe
from eval.cost import FIGURE_5_DIT, DiTCost, compare, describe_size, dit_cost
from eval.measuring import write_json
from eval.tokenizers import Tokenizer, magvit_v2, vidtwin
from eval.transformer_speed import describe as describe_speed
from eval.transformer_speed import reference_dit, transformer_speed
from vidtwin_gen.latents import LatentGrid, LatentLayout
from vidtwin_gen.transformer import SIZES, LatentTransformer


def measure_cost(args: argparse.Namespace) -> None:
    if args.autoencoder:
        record, text = _of_autoencoder(args)
    else:
        record, text = _of_sizes(args) if args.transformer else _of_latents(args)
    write_json(args.out, record)
    print(text)


def _of_autoencoder(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    if Path(args.autoencoder, "config.json").is_file():
        config = AutoencoderVidTwin.load_config(args.autoencoder)
    else:
        try:
            config = preset(args.autoencoder)
        except ValueError as error:
            raise ValueError(f"--autoencoder: no folder with a config.json, and {error}") from None
    types = (config.get("structure_type", "qformer"), config.get("dynamics_type", "average"))
    if args.ratios and types != ("qformer", "average"):
        raise ValueError(
            f"--ratios: the plain computation is that of VidTwin itself, and {args.autoencoder} has the "
            f"structure_type {types[0]} and the dynamics_type {types[1]}: leave --ratios out"
        )
    workload = Workload(
        device=torch.device(args.device),
        dtype=getattr(torch, args.dtype),
        batch_size=args.batch_size,
        gradient_checkpointing=args.gradient_checkpointing,
        repeats=args.repeats,
        training=not args.skip_training,
        compare=args.ratios,
    )
    record = autoencoder_cost(lambda: AutoencoderVidTwin.from_config(config), workload)
    return {"autoencoder": args.autoencoder} | record, describe(record)


def _of_latents(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    ours = vidtwin(args.setting)
    num_classes, patch_sizes = args.num_classes, args.patch_size or [1]
    sizes = {name: getattr(args, name) for name in FIGURE_5_DIT}
    if args.pipeline or args.vae:
        vae = load_video_autoencoder(args.pipeline / "vae" if args.pipeline else args.vae)
        name = "VidTwin" if flat.is_ours(vae) else type(vae).__name__.removeprefix("Autoencoder")
    if args.vae:
        shape = flat.requested_size(vae, args.num_frames, args.height, args.width)
        layout = flat.latent_layout(vae, *shape)
    if args.pipeline:
        config = LatentTransformer.load_config(args.pipeline, subfolder="transformer")
        layout = LatentLayout.from_config(config["layout"])
        shape = flat.clip_size(vae, layout)
        num_classes = config["num_classes"]
        sizes = {name: config[name] for name in sizes}
        patch_sizes = args.patch_size or [_one_number(config["patch_size"], args.pipeline)]
    if args.pipeline or args.vae:
        ours = Tokenizer(f"{name} (this run)", layout, shape, "the autoencoder measured")

    def make_model(layout: LatentLayout, **sizes: Any) -> nn.Module:
        return LatentTransformer(layout=layout.to_config(), num_classes=num_classes, **sizes)

    def count(tokenizers: Sequence[Tokenizer], sizes: Mapping[str, Any]) -> list[DiTCost]:
        pairs = [(tokenizer, patch_size) for patch_size in patch_sizes for tokenizer in tokenizers]
        return [
            dit_cost(
                tokenizer, patch_size=patch_size, batch_size=args.batch_size, make_model=make_model, **sizes
            )
            for tokenizer, patch_size in tqdm(pairs, desc="counting", unit="model")
        ]

    counted = {"rows": count((ours, magvit_v2(*ours.clip_shape)), sizes)}
    if args.paper_size:
        counted["paper_size_rows"] = count((vidtwin(1), magvit_v2()), FIGURE_5_DIT)
    pairs = (pair for rows in counted.values() for pair in zip(rows[::2], rows[1::2], strict=True))
    text = "\n".join(compare(first, other) for first, other in pairs)
    return {key: [row.to_json() for row in rows] for key, rows in counted.items()}, text


def _of_sizes(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Sizes of the DiT on VidTwin's latents: counted, and with --ratios timed beside diffusers' DiT."""
    tokenizer = vidtwin(args.setting)
    patch_size = (args.patch_size or [1])[0]

    def make_model(layout: LatentLayout, **sizes: Any) -> nn.Module:
        return LatentTransformer(layout=layout.to_config(), num_classes=args.num_classes, **sizes)

    counted = {
        name: dit_cost(
            tokenizer, patch_size=patch_size, batch_size=args.batch_size, make_model=make_model, **SIZES[name]
        )
        for name in tqdm(args.transformer, desc="counting", unit="model")
    }
    record: dict[str, Any] = {"rows": [{"size": name} | row.to_json() for name, row in counted.items()]}
    lines = [describe_size(name, row) for name, row in counted.items()]
    if args.ratios:
        record["speed"] = {}
        for name in args.transformer:
            record["speed"][name] = _speed(name, args)
            lines.append(f"{name}: {describe_speed(record['speed'][name])}")
    return record, "\n".join(lines)


def _speed(size: str, args: argparse.Namespace) -> dict[str, Any]:
    """Ours on VidTwin's latents of a clip of 16 x 256 x 256 with 12 queries, which are as many tokens as
    diffusers' DiT has on 32 x 32: it takes squares only."""
    layout = LatentLayout(
        (
            LatentGrid("structure", ("query", "height", "width"), (12, 8, 8), 4),
            LatentGrid("dynamics_x", ("time", "width"), (16, 8), 8),
            LatentGrid("dynamics_y", ("time", "height"), (16, 8), 8),
        )
    )
    torch.manual_seed(0)
    device, sizes = torch.device(args.device), SIZES[size]
    ours = LatentTransformer(layout.to_config(), num_classes=1000, **sizes).to(device)
    plain = {name: sizes[name] for name in FIGURE_5_DIT}
    reference = reference_dit(layout.num_tokens(), **plain).to(device)
    return transformer_speed(
        ours,
        reference,
        torch.randn(args.batch_size, layout.num_elements, device=device),
        torch.randn(args.batch_size, 4, 32, 32, device=device),
        dtype=getattr(torch, args.dtype),
        repeats=args.repeats,
    )


def _one_number(patch_size: Any, pipeline: Path) -> int:
    if not isinstance(patch_size, int):
        raise ValueError(
            f"--pipeline {pipeline}: its DiT has the patch size {patch_size}, by grid, and MAGVIT-v2's "
            "latents have another grid; give --patch_size, one number or several, to count both with"
        )
    return patch_size
