"""python -m pipelines generate | edit | mix | export | card: videos, and the pipeline for others."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from pipelines.edit import edit, mix
from pipelines.generate import generate
from pipelines.inpainting import PARTS
from pipelines.sharing.command import add_parsers, card, export
from vidtwin_gen.training.config import user_errors


def main(argv: list[str] | None = None) -> None:
    top = _parser()
    args = top.parse_args(argv)
    run = {"generate": generate, "edit": edit, "mix": mix, "export": export, "card": card}
    with user_errors(f"{top.prog} {args.verb}"):
        run[args.verb](args)


def _parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m pipelines", description=__doc__)
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    sampling = _sampling()

    verb = verbs.add_parser("generate", parents=[sampling], help="write videos of classes")
    classes = verb.add_mutually_exclusive_group()
    classes.add_argument(
        "--class_labels", nargs="+", default=[], metavar="CLASS", help="names or ids; left out: all classes"
    )
    classes.add_argument(
        "--labels_from",
        type=Path,
        metavar="FILE",
        help="as many videos of each class as here: a file of `python -m eval reference`, or JSON with a "
        "number for each class name",
    )
    verb.add_argument(
        "--num_videos_per_class", type=_positive, default=4, help="not with --labels_from, which says it"
    )
    verb.add_argument("--batch_size", type=_positive, default=16, help="clips at once; changes no clip")

    verb = verbs.add_parser(
        "edit", parents=[sampling], help="new Dynamics for the Structure of a video, or the reverse"
    )
    verb.add_argument("--video", required=True, help="a video file; one window of it is taken")
    verb.add_argument("--start", type=int, default=0, help="the window's first frame")
    verb.add_argument("--stride", type=_positive, default=1, help="every stride-th frame, as in training")
    verb.add_argument("--keep", choices=PARTS, required=True, help="the part of the video that stays")
    verb.add_argument("--class_labels", nargs="+", required=True, metavar="CLASS", help="of the new videos")
    verb.add_argument("--num_videos_per_class", type=_positive, default=3)
    verb.add_argument(
        "--num_resamples",
        type=int,
        default=1,
        help="more follow the kept part more closely; each costs as much as the sampling itself",
    )

    verb = verbs.add_parser("mix", parents=[sampling], help="generate two clips and swap their Dynamics")
    verb.add_argument("--class_labels", nargs=2, required=True, metavar="CLASS", help="of the two clips")
    verb.add_argument("--num_videos_per_class", type=_positive, default=1, help="pairs to mix")
    add_parsers(verbs)
    return top


def _sampling() -> argparse.ArgumentParser:
    """Flags of every verb that samples."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--pipeline", required=True, help="folder of a saved VidTwinPipeline")
    shared.add_argument("--out", required=True, help="new folder for the videos")
    shared.add_argument("--guidance_scale", type=float, default=4.0, help="1 means none, at half the cost")
    shared.add_argument(
        "--guidance_interval",
        type=float,
        nargs=2,
        default=[0.0, 1.0],
        metavar=("START", "STOP"),
        help="fractions of the steps between which guidance acts; the others cost half",
    )
    shared.add_argument("--num_inference_steps", type=_positive, default=50)
    shared.add_argument("--seed", type=int, default=0)
    shared.add_argument("--format", choices=["mp4", "gif", "both"], default="mp4")
    shared.add_argument("--fps", type=float, help="of the files; left out: the pipeline's own")
    shared.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return shared


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be positive, got {value}")
    return value


if __name__ == "__main__":
    main()
