"""The flags of `python -m eval cost`, and which of them go together."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.cost.memory import ATTENTION
from eval.flag_types import PIPELINE, VAE, pipeline_folder, positive, vae_folder

OF_THE_DIT = ("hidden_size", "num_layers", "num_heads")
OF_THE_CLIP = ("num_frames", "height", "width")
# what a flag left out means; argparse is told None, so that a flag that was given is known
DEFAULTS: dict[str, Any] = {"attention": ["fused"], "num_classes": 101, "dtype": "float32"}
# flags that the kinds of latents have no use for, each with the reason
USELESS: dict[str, tuple[tuple[str, ...], str]] = {
    "pipeline": (
        ("size", *OF_THE_DIT, "num_classes", *OF_THE_CLIP, "ratios", "skip_training", "markdown"),
        "the pipeline's own DiT is counted, on its own clips",
    ),
    "vae": (
        ("ratios", "skip_training", "markdown"),
        "a DiT on its latents is counted beside the same one on MAGVIT-v2's",
    ),
    "autoencoder": (
        ("size", *OF_THE_DIT, "num_classes", *OF_THE_CLIP, "patch_size", "attention")
        + ("measure", "markdown", "paper_size"),
        "the autoencoder itself is measured, and no DiT",
    ),
    "tokenizers": (
        (*OF_THE_CLIP, "paper_size", "skip_training"),
        "published latents are counted at the clips that they are published for",
    ),
}


def cost_flags(verb: argparse.ArgumentParser, sizes: Sequence[str]) -> None:
    """`sizes` are the DiTs that have names."""
    latents = verb.add_mutually_exclusive_group()
    latents.add_argument(
        "--pipeline",
        type=pipeline_folder,
        help=f"a saved pipeline, its latents and its DiT: {PIPELINE}",
    )
    latents.add_argument(
        "--vae", type=vae_folder, help=f"a saved autoencoder, for a DiT of the sizes below: {VAE}"
    )
    latents.add_argument(
        "--autoencoder",
        metavar="PRESET",
        help="no DiT but the autoencoder itself: small, base, large (at another setting: base-2), released, "
        "or the folder of a saved one; its parameters, FLOPs, memory, and its speed on this device",
    )
    latents.add_argument(
        "--tokenizers",
        metavar="NAME",
        nargs="+",
        help="published latents by their names in eval/cost/tokenizers.py, or all of them; left out: "
        "vidtwin-1 magvit-v2",
    )
    verb.add_argument(
        "--size",
        nargs="+",
        choices=sizes,
        help="one or several sizes of the DiT: of the paper's Figure 5, of its generator, and DiT's own "
        "(default S); the next three flags change single numbers of them",
    )
    for name in OF_THE_DIT:
        verb.add_argument(f"--{name}", type=positive)
    for name in OF_THE_CLIP:
        verb.add_argument(f"--{name}", type=positive, help="of the clips, where --vae is not of our class")
    verb.add_argument(
        "--attention",
        nargs="+",
        choices=ATTENTION,
        help="one kernel, which keeps no scores (the default), or products and a softmax one after the "
        "other; or both",
    )
    verb.add_argument(
        "--patch_size",
        type=positive,
        nargs="+",
        help="one or several, each counted on all latents; left out: the pipeline's own, else 1",
    )
    verb.add_argument("--batch_size", type=positive, default=1)
    verb.add_argument("--num_classes", type=positive, help="of the DiT (default 101)")
    verb.add_argument("--gradient_checkpointing", action="store_true", help="in training steps")
    verb.add_argument(
        "--paper_size",
        action="store_true",
        help="with --pipeline or --vae: also count VidTwin's setting 1 and MAGVIT-v2 at 16 x 224 x 224 with "
        "a DiT of the sizes of the paper's Figure 5, whose own patch size is 2",
    )
    verb.add_argument(
        "--measure",
        action="store_true",
        help="also make training steps and forward passes on --device, each row in processes of its own: "
        "their seconds, and their peak memory beside the predicted one",
    )
    verb.add_argument("--markdown", type=Path, help="with --tokenizers: also write the tables to this file")
    _add_measured(verb.add_argument_group("with --autoencoder, --measure or --ratios"))
    verb.add_argument("--out", required=True, help="JSON file to write")


def _add_measured(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--device", default="cpu")
    group.add_argument("--dtype", choices=("float32", "bfloat16"), help="default float32")
    group.add_argument("--repeats", type=positive, default=5, help="how often each pass is timed")
    group.add_argument(
        "--skip_training", action="store_true", help="with --autoencoder: measure encode and decode only"
    )
    group.add_argument(
        "--ratios",
        action="store_true",
        help="with --autoencoder: time encode and decode also against a plain eager computation of the same, "
        "and against their own matrix products alone; with --tokenizers: time a training step and a step of "
        "sampling of the DiT of each --size against diffusers' DiTTransformer2DModel",
    )


def check_cost(args: argparse.Namespace) -> None:
    """Fills in what was left out.

    Raises:
        ValueError: a flag that would change nothing.
    """
    kind = next((kind for kind in USELESS if getattr(args, kind)), "tokenizers")
    flags, reason = USELESS[kind]
    for flag in flags:
        if getattr(args, flag):
            told = f"with --{kind}" if getattr(args, kind) else "without --pipeline, --vae or --autoencoder"
            raise ValueError(f"--{flag} means nothing {told}: {reason}; leave --{flag} out")
    if args.dtype == "bfloat16":
        if args.measure:
            raise ValueError(f"--measure: the memory predicted is that of float32, got --dtype {args.dtype}")
        if not (args.autoencoder or args.ratios):
            raise ValueError(
                f"--dtype {args.dtype} is of what is measured with --autoencoder or --ratios; counting knows "
                "float32 alone: leave it out"
            )
    for name, default in DEFAULTS.items():
        if getattr(args, name) is None:
            setattr(args, name, default)
