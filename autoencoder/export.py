"""An autoencoder with its code: a folder that loads where diffusers is and this package is not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers

from autoencoder.model.vidtwin import AutoencoderVidTwin
from vidtwin_gen.bundle import self_contained

CODE = "autoencoder_vidtwin"  # diffusers has the modules of all folders in one package, so names are unique
CONFIG = "config.json"


def autoencoder_code() -> str:
    """The source of a module that has `AutoencoderVidTwin` and needs no package of ours.

    Reading the released checkpoint stays behind: an exported autoencoder has its weights.
    """
    return self_contained(
        "autoencoder.model.vidtwin",
        "AutoencoderVidTwin (arXiv 2412.17726), a video autoencoder of Structure and Dynamics, for "
        "diffusers 0.42. With the weights beside it diffusers.AutoModel.from_pretrained(folder, "
        "trust_remote_code=True) loads it, and DiffusionPipeline.from_pretrained as part of a pipeline.",
        without=["AutoencoderVidTwin.from_released"],
    )


def export_autoencoder(vae: str | Path, out: str | Path) -> Path:
    """Copies a saved `AutoencoderVidTwin` into the new folder `out`, with its code and the `auto_map` by
    which `diffusers.AutoModel` finds it.

    Raises:
        ValueError: `vae` is no such folder, or `out` is there already.
    """
    source = Path(vae)
    config = read_json(source / CONFIG, "the folder of a saved AutoencoderVidTwin")
    name = config.get("_class_name")
    if name != AutoencoderVidTwin.__name__:
        # not the module itself: importing vidtwin_gen gives it our names too
        own = isinstance(name, str) and name in dir(diffusers)
        told = "diffusers has that class, so the folder loads as it is" if own else "that is not one of ours"
        raise ValueError(f"{source / CONFIG} is of {name}, not of an AutoencoderVidTwin; {told}")
    if not any(source.glob("*.safetensors")):
        raise ValueError(f"{source} holds no .safetensors file; name a folder written by save_pretrained")
    with new_folder(out) as folder:
        for path in sorted(source.iterdir()):
            if path.suffix in (".safetensors", ".json", ".md"):
                shutil.copy2(path, folder)
        (folder / f"{CODE}.py").write_text(autoencoder_code(), encoding="utf-8")
        write_json(folder / CONFIG, config | {"auto_map": {"AutoModel": f"{CODE}.{name}"}})
    return Path(out)


@contextmanager
def new_folder(out: str | Path) -> Iterator[Path]:
    """A folder to write to, which is `out` when all is written.

    Raises:
        ValueError: `out` is a file or a folder with something in it.
    """
    final = Path(out)
    if final.is_file() or (final.is_dir() and any(final.iterdir())):
        raise ValueError(f"{final} is there already and would be overwritten: name a new folder")
    partial = final.with_name(f"{final.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    if final.exists():  # empty
        final.rmdir()
    partial.rename(final)


def read_json(path: Path, wanted: str) -> dict[str, Any]:
    """Raises ValueError where the file is missing or holds no JSON object; `wanted` says what to name."""
    if not path.is_file():
        seen = f"holds no {path.name}" if path.parent.is_dir() else "does not exist"
        raise ValueError(f"{path.parent} {seen}; name {wanted}")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of JSON or of UTF-8
        raise ValueError(f"{path} can't be read as JSON: {error}; copy the folder again") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no JSON object; name {wanted}")
    return value


def write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
