"""Types of flags: what a word of the command line must be, refused in one line with the way out."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

VAE = (
    "name the folder of a saved AutoencoderVidTwin, the one that train_vae writes or a pipeline's vae/, or "
    "of a video autoencoder of diffusers"
)
PIPELINE = "name the folder of a saved VidTwinPipeline, the one that train_dit writes"


def positive(text: str) -> int:
    """A whole number from 1 on."""
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}") from None
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be positive, got {number}")
    return number


def vae_folder(text: str) -> Path:
    return _folder_with("config.json", text, VAE)


def pipeline_folder(text: str) -> Path:
    return _folder_with("model_index.json", text, PIPELINE)


def data_folder(text: str) -> Path:
    if not Path(text).expanduser().is_dir():
        raise argparse.ArgumentTypeError(
            f"{text} is no folder; name the one that holds <class>/<video>, or write the embedded data set "
            "with `python -m vidtwin_gen data`"
        )
    return Path(text)


def generated_file(text: str) -> Path:
    path = Path(text)
    for file in (path, path.with_name("generated.json")):
        if not file.is_file():
            raise argparse.ArgumentTypeError(
                f"{file} is missing; name the clips.safetensors that "
                "`python -m pipelines generate --pipeline ... --out ...` writes beside generated.json"
            )
    return path


def path_ending(*suffixes: str, note: str = "") -> Callable[[str], Path]:
    """A path with one of these suffixes, which say what is written there."""

    def path(text: str) -> Path:
        if Path(text).suffix not in suffixes:
            raise argparse.ArgumentTypeError(f"{text} does not end in {' or '.join(suffixes)}{note}")
        return Path(text)

    return path


def _folder_with(file: str, text: str, way_out: str) -> Path:
    """diffusers would take any other for a name on its hub."""
    if not (Path(text) / file).is_file():
        raise argparse.ArgumentTypeError(f"{text} holds no {file}; {way_out}")
    return Path(text)
