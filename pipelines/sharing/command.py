"""The verbs `export` and `card` of `python -m pipelines`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pipelines.sharing.export import export_pipeline
from pipelines.sharing.model_card import CARD, write_card
from pipelines.sharing.training_record import update_record


def add_parsers(verbs: Any) -> None:
    """Their flags, to the sub-parsers of all verbs."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--pipeline", required=True, help="folder of a saved VidTwinPipeline")

    told = "a saved pipeline with its code, for where this package is not"
    verb = verbs.add_parser("export", parents=[shared], help=told)
    verb.add_argument("--out", required=True, help="folder for it, new or empty")

    told = "write what was measured into a saved pipeline's model card"
    verb = verbs.add_parser("card", parents=[shared], help=told)
    verb.add_argument(
        "--metrics",
        nargs="+",
        default=[],
        metavar="JSON",
        help="results of `python -m eval fvd`, recon, accuracy; generated.json tells how clips were sampled",
    )
    verb.add_argument("--dataset", help="name of the training data")
    verb.add_argument("--license", help="of the weights, as the hub spells it; left out: apache-2.0")


def export(args: argparse.Namespace) -> None:
    """A saved pipeline with its code, for where this package is not."""
    out = export_pipeline(args.pipeline, args.out)
    loads = f"diffusers.DiffusionPipeline.from_pretrained({str(out)!r}, trust_remote_code=True)"
    print(f"wrote {out}: {loads} loads it")


def card(args: argparse.Namespace) -> None:
    """What is known of a saved pipeline, into its config and its model card."""
    unknown = update_record(args.pipeline, args.metrics, dataset=args.dataset, licence=args.license)
    for path in unknown:
        print(f"{path} left out: no result of eval fvd, recon or accuracy, nor generated.json")
    path, written = Path(args.pipeline) / CARD, write_card(args.pipeline)
    print(f"wrote {path}" if written else f"{path} was written by hand and is left as it is")
