"""An autoencoder with its code: a folder that loads where diffusers is and this package is not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import diffusers

from autoencoder.flags import ExportFlags
from autoencoder.loading import OF_RELEASED
from autoencoder.model.vidtwin import AutoencoderVidTwin
from vidtwin_gen.bundle import self_contained
from vidtwin_gen.files import new_or_same_folder, read_json, write_json, write_text

CODE = "autoencoder_vidtwin"  # diffusers has the modules of all folders in one package, so names are unique
CONFIG = "config.json"


def copier(source: Path) -> Callable[[str | Path, str | Path], object]:
    """`shutil.copy2` for the files below `source`, which are somebody else's and are made to be published: it
    raises ValueError where a link leads out of `source`. In the hub's cache files are links to blobs, of the
    repository or shared by all, so that there these count, too."""
    roots = [source.resolve()]
    for snapshots in roots[0].parents:
        if snapshots.name == "snapshots" and snapshots.parent.name.startswith("models--"):
            roots = [snapshots.parent, snapshots.parents[1] / "blobs"]

    def copy(file: str | Path, target: str | Path) -> object:
        if not any((real := Path(file).resolve()).is_relative_to(root) for root in roots):
            raise ValueError(
                f"{file} leads out of {source}, to {real}, and would be published: put a copy in its place, "
                "or remove it"
            )
        return shutil.copy2(file, target)

    return copy


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
    which `diffusers.AutoModel` finds it. Raises ValueError where `vae` is no such folder or leads out of it,
    or `out` is there already."""
    source = Path(vae)
    wanted = "name the folder of a saved AutoencoderVidTwin"
    config = read_json(source / CONFIG, OF_RELEASED if source.is_file() else wanted)
    name = config.get("_class_name")
    if name != AutoencoderVidTwin.__name__:
        # not the module itself: importing vidtwin_gen gives it our names too
        own = isinstance(name, str) and name in dir(diffusers)
        reason = (
            "diffusers has that class, so the folder loads as it is" if own else "that is not one of ours"
        )
        raise ValueError(f"{source / CONFIG} is of {name}, not of an AutoencoderVidTwin; {reason}")
    if not any(source.glob("*.safetensors")):
        raise ValueError(f"{source} holds no .safetensors file; name a folder written by save_pretrained")
    copy = copier(source)
    with new_or_same_folder(out) as folder:
        for path in sorted(source.iterdir()):
            if path.suffix in (".safetensors", ".json", ".md"):
                copy(path, folder)
        write_text(folder / f"{CODE}.py", autoencoder_code())
        write_json(folder / CONFIG, config | {"auto_map": {"AutoModel": f"{CODE}.{name}"}}, sort_keys=True)
    return Path(out)


def export(flags: ExportFlags) -> None:
    """python -m autoencoder export"""
    out = export_autoencoder(flags.vae, flags.out)
    print(f"diffusers.AutoModel.from_pretrained({str(out)!r}, trust_remote_code=True) loads it")
