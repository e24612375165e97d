"""What `python -m eval cost` does with its flags: builds the models that the counters are given."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from autoencoder.loading import load_folder
from autoencoder.presets import preset
from autoencoder.vidtwin import AutoencoderVidTwin
from eval.autoencoder_cost import Workload, autoencoder_cost, describe
from eval.cost import FIGURE_5_DIT, DiTCost, compare, dit_cost
from eval.tokenizers import Tokenizer, magvit_v2, vidtwin
from vidtwin_gen.latents import LatentLayout
from vidtwin_gen.transformer import LatentTransformer


def measure_cost(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """The record, and what to print of it."""
    return _of_autoencoder(args) if args.autoencoder else _of_transformer(args)


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


def _of_transformer(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    ours = vidtwin(args.setting)
    num_classes, patch_sizes = args.num_classes, args.patch_size or [1]
    sizes = {name: getattr(args, name) for name in FIGURE_5_DIT}
    if args.pipeline or args.vae:
        vae = load_folder(args.pipeline / "vae" if args.pipeline else args.vae)
        shape = (vae.config.num_frames, vae.config.height, vae.config.width)
        ours = Tokenizer("VidTwin (this run)", vae.layout, shape, "the autoencoder measured")
    if args.pipeline:
        config = LatentTransformer.load_config(args.pipeline, subfolder="transformer")
        num_classes = config["num_classes"]
        sizes = {name: config[name] for name in sizes}
        patch_sizes = args.patch_size or [_one_number(config["patch_size"], args.pipeline)]

    def make_model(layout: LatentLayout, **sizes: Any) -> nn.Module:
        return LatentTransformer(layout=layout.to_config(), num_classes=num_classes, **sizes)

    def count(tokenizers: Sequence[Tokenizer], sizes: dict[str, int]) -> list[DiTCost]:
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


def _one_number(patch_size: Any, pipeline: Path) -> int:
    if not isinstance(patch_size, int):
        raise ValueError(
            f"--pipeline {pipeline}: its DiT has the patch size {patch_size}, by grid, and MAGVIT-v2's "
            "latents have another grid; give --patch_size, one number or several, to count both with"
        )
    return patch_size
