"""What `python -m eval cost` does with its flags: builds the models that the counters are given."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from autoencoder import adapter
from autoencoder.loading import load_video_autoencoder
from autoencoder.model.presets import preset
from autoencoder.model.vidtwin import AutoencoderVidTwin
from eval.cost.autoencoder import Workload, autoencoder_cost, describe
from eval.cost.dit import dit_cost, example
from eval.cost.flags import OF_THE_DIT, check_cost
from eval.cost.measured_step import free_memory, measure_step
from eval.cost.paper_counter import FIGURE_5_DIT
from eval.cost.table import sentences, sources, tables
from eval.cost.tokenizer import Tokenizer
from eval.cost.tokenizers import find, magvit_v2, unpublished
from eval.cost.transformer_speed import describe as describe_speed
from eval.cost.transformer_speed import reference_dit, transformer_speed
from eval.fvd.measuring import device_of, write_json
from vidtwin_gen.latents import LatentGrid, LatentLayout
from vidtwin_gen.models.transformer import SIZES, LatentTransformer

DIT_SIZES: dict[str, dict[str, Any]] = {"figure5": FIGURE_5_DIT} | SIZES
DEFAULT_SIZE = "S"
# of a saved DiT's config, what its cost depends on and a row says
SIZES_OF_A_ROW = (*OF_THE_DIT, "mlp_ratio", "conditioning")
SMALL_DIT: dict[str, Any] = {"hidden_size": 32, "num_layers": 1, "num_heads": 2}
EXPLANATION = "\n".join(
    (
        "- FLOPs are counted by torch's FlopCounterMode, a multiply-add is two of them, attention included; "
        "training is forward and backward.",
        "- Memory is the peak of one float32 training step with Adam, predicted.",
        "- Rates are latent numbers per pixel number of the clip.",
        "- The last two columns are the tokens of the paper's Figure 5, with the last patch of an axis "
        "padded or left out, and what its counter gives for its own network of 6 layers of width 512, "
        "whatever the DiT: multiply-adds without attention.",
    )
)


def measure_cost(args: argparse.Namespace) -> None:
    check_cost(args)
    device = device_of(args)
    if args.autoencoder:
        record, text = _of_autoencoder(args, device)
    elif args.pipeline or args.vae:
        record, text = _of_latents(args, device)
    else:
        record, text = _of_tokenizers(args, device)
    write_json(args.out, {"command": args.command} | record)
    print(text)


def _of_autoencoder(args: argparse.Namespace, device: torch.device) -> tuple[dict[str, Any], str]:
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
        device=device,
        dtype=getattr(torch, args.dtype),
        batch_size=args.batch_size,
        gradient_checkpointing=args.gradient_checkpointing,
        repeats=args.repeats,
        training=not args.skip_training,
        compare=args.ratios,
    )
    record = autoencoder_cost(lambda: AutoencoderVidTwin.from_config(config), workload)
    return {"autoencoder": args.autoencoder} | record, describe(record)


def _of_latents(args: argparse.Namespace, device: torch.device) -> tuple[dict[str, Any], str]:
    """The latents of a saved autoencoder or pipeline beside MAGVIT-v2's at the same clip."""
    vae = load_video_autoencoder(args.pipeline / "vae" if args.pipeline else args.vae)
    name = "VidTwin" if adapter.is_ours(vae) else type(vae).__name__.removeprefix("Autoencoder")
    patch_sizes = args.patch_size or [1]
    make_model = partial(LatentTransformer, num_classes=args.num_classes)
    if args.pipeline:
        config = LatentTransformer.load_config(args.pipeline, subfolder="transformer")
        layout = LatentLayout.from_config(config["layout"])
        shape = adapter.clip_size(vae, layout)
        sizes = {"this run": {name: config[name] for name in SIZES_OF_A_ROW if name in config}}
        patch_sizes = args.patch_size or [_one_number(config["patch_size"], args.pipeline)]
        others = {name: config[name] for name in ("num_classes", "class_dim") if name in config}
        make_model = partial(LatentTransformer, **others)
    else:
        shape = adapter.requested_size(vae, args.num_frames, args.height, args.width)
        layout = adapter.latent_layout(vae, *shape)
        sizes = _sizes(args)
    tokenizers = [Tokenizer(f"{name} (this run)", layout, shape, "the autoencoder measured")]
    left_out = []
    try:
        tokenizers.append(magvit_v2(*shape))
    except ValueError as error:
        left_out.append({"tokenizer": "MAGVIT-v2", "reason": str(error)})
    rows = _count(args, device, tokenizers, sizes, patch_sizes, make_model)
    record = {"rows": rows, "not_counted": left_out}
    lines = [f"{entry['tokenizer']} is not counted: {entry['reason']}" for entry in left_out]
    lines += sentences(rows) or [tables(rows)]
    if args.paper_size:
        figure_5 = {"figure5": FIGURE_5_DIT}
        record["paper_size_rows"] = _count(
            args, device, find(["vidtwin-1", "magvit-v2"]), figure_5, patch_sizes, make_model
        )
        lines += sentences(record["paper_size_rows"])
    return record, "\n".join(lines)


def _of_tokenizers(args: argparse.Namespace, device: torch.device) -> tuple[dict[str, Any], str]:
    """Published latents under DiTs of several sizes; with --ratios the DiT is timed beside diffusers' own."""
    names = args.tokenizers or ["vidtwin-1", "magvit-v2"]
    left_out = unpublished() if names == ["all"] else []
    make_model = partial(LatentTransformer, num_classes=args.num_classes)
    rows = _count(args, device, find(names), _sizes(args), args.patch_size or [1], make_model)
    record: dict[str, Any] = {"rows": rows, "not_published": [asdict(entry) for entry in left_out]}
    table = tables(rows, left_out)
    lines = [table, *sentences(rows)]
    if args.markdown:
        made_by = f"Made by `{args.command}`."
        parts = ["# What a DiT costs on published latents", made_by, EXPLANATION, table, sources(rows)]
        args.markdown.parent.mkdir(parents=True, exist_ok=True)
        args.markdown.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    if args.ratios:
        record["speed"] = {}
        for name in args.size or [DEFAULT_SIZE]:
            record["speed"][name] = _speed(name, args, device)
            lines.append(f"{name}: {describe_speed(record['speed'][name])}")
    return record, "\n".join(lines)


def _count(
    args: argparse.Namespace,
    device: torch.device,
    tokenizers: Sequence[Tokenizer],
    sizes: Mapping[str, Mapping[str, Any]],
    patch_sizes: Sequence[int],
    make_model: Callable[..., Any],
) -> list[dict[str, Any]]:
    """A row for each tokenizer under each transformer; with --measure what was measured beside it."""
    cases = list(product(sizes.items(), args.attention, patch_sizes, tokenizers))
    rows = []
    for (name, size), attention, patch_size, tokenizer in tqdm(cases, desc="counting", unit="model"):
        options = {
            "patch_size": patch_size,
            "batch_size": args.batch_size,
            "gradient_checkpointing": args.gradient_checkpointing,
            **size,
        }
        cost = dit_cost(tokenizer, make_model=make_model, attention=attention, **options)
        row = {"size": name, **cost.to_json()}
        if args.measure:
            make = partial(example, tokenizer.layout, make_model, **options)
            row["measured"] = _measured(args, device, row, make, make_model)
        rows.append(row)
    if args.measure and all("reason" in row["measured"] for row in rows):
        raise ValueError(f"--measure: nothing fits: {rows[0]['measured']['reason']}")
    return rows


def _measured(
    args: argparse.Namespace,
    device: torch.device,
    row: Mapping[str, Any],
    make: Callable[[], Any],
    make_model: Callable[..., Any],
) -> dict[str, Any]:
    """What `measure_step` finds, or the reason why it was not asked or found nothing."""
    needed, free = row["training_memory_bytes"]["peak"], free_memory(device)
    if needed > free:
        return {
            "reason": f"needs {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB of {device} are free; "
            "take a smaller --size or --batch_size, or --gradient_checkpointing"
        }
    small = LatentLayout((LatentGrid("video", ("time",), (64,), 4),))
    kind = {"conditioning": row["conditioning"]}
    make_small = partial(example, small, make_model, batch_size=1, **SMALL_DIT, **kind)
    options = {"attention": row["attention"], "device": str(device), "repeats": args.repeats}
    try:
        measured = measure_step(make, make_small, **options)
    except ValueError as error:
        return {"reason": str(error)}  # and the rows before and after it stand
    return measured | {"predicted_over_measured": needed / measured["peak_bytes"]}


def _sizes(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Of the DiTs asked for by name, with what single flags change."""
    given = {name: getattr(args, name) for name in OF_THE_DIT if getattr(args, name) is not None}
    return {name: DIT_SIZES[name] | given for name in args.size or [DEFAULT_SIZE]}


def _speed(size: str, args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
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
    sizes = _sizes(args)[size]
    ours = LatentTransformer(layout.to_config(), num_classes=1000, **sizes).to(device)
    plain = {name: sizes[name] for name in OF_THE_DIT}
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
