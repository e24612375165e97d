"""A pipeline with its code: a folder that loads where diffusers is and this package is not."""

from __future__ import annotations

import shutil
from pathlib import Path

from autoencoder.export import CODE as AUTOENCODER_CODE
from autoencoder.export import autoencoder_code, copier
from pipelines.flags import ExportFlags
from pipelines.labels import labels_by_name, names_in_order
from pipelines.pipeline_vidtwin import VidTwinPipeline
from pipelines.sharing.model_card import CARD, INDEX, write_card
from vidtwin_gen.bundle import self_contained
from vidtwin_gen.data.names import some
from vidtwin_gen.files import new_or_same_folder, read_json, write_json, write_text

PIPELINE_CODE = "pipeline_vidtwin"
TRANSFORMER_CODE = "latent_transformer"

WANTED = "name the folder of a saved VidTwinPipeline, which holds a model_index.json"
PACKAGED = "vidtwin_gen"  # the library of our components in a pipeline that was saved and not exported
INSTALLED = ("diffusers", "transformers")
HOW = "It is loaded by diffusers.DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)."


def transformer_code() -> str:
    """The source of a module that has `LatentTransformer` and needs no package of ours."""
    about = (
        "LatentTransformer, a diffusion transformer over a video autoencoder's latents, for diffusers 0.42."
    )
    return self_contained("vidtwin_gen.models.transformer", f"{about} {HOW}")


def pipeline_code() -> str:
    """The source of a module that has `VidTwinPipeline` and needs no package of ours.

    The models' modules stay out: a component's class is the one in its own file. So does the writing of model
    cards: a pipeline that was loaded by its code saves as diffusers does.
    """
    model = ("diffusers.models.modeling_utils", "ModelMixin")
    return self_contained(
        "pipelines.pipeline_vidtwin",
        f"VidTwinPipeline, from class labels to videos, for diffusers 0.42. {HOW}",
        without=["SharingMixin.save_pretrained", "SharingMixin.push_to_hub", "SharingMixin._push"],
        elsewhere={"autoencoder.model.vidtwin": model, "vidtwin_gen.models.transformer": model},
    )


COMPONENTS = {
    "AutoencoderVidTwin": (AUTOENCODER_CODE, autoencoder_code),
    "LatentTransformer": (TRANSFORMER_CODE, transformer_code),
}


def export_pipeline(pipeline: str | Path, out: str | Path) -> Path:
    """Copies a saved `VidTwinPipeline` into the new folder `out`, each model of ours with its code, and the
    pipeline's own code beside model_index.json. Weights are copied as they are, all variants of them. Raises
    ValueError where `pipeline` is no such folder, names other components or leads out of it, or `out` is
    there already."""
    source = Path(pipeline)
    index = read_json(source / INDEX, WANTED)
    name = index.get("_class_name")
    if isinstance(name, list):
        raise ValueError(f"{source} was exported with its code already: copy the folder")
    if name != VidTwinPipeline.__name__:
        raise ValueError(f"{source / INDEX} is of {name}, not of a VidTwinPipeline; {WANTED}")
    components = {key: index[key] for key in index if (source / key).is_dir()}
    own, _ = VidTwinPipeline._get_signature_keys(VidTwinPipeline)
    if others := components.keys() - set(own):
        raise ValueError(
            f"{source / INDEX} names {some(sorted(others))} as a component, and a VidTwinPipeline has "
            f"{', '.join(own)}: remove it from there"
        )
    for key, (library, class_name) in components.items():
        if library not in INSTALLED and (library != PACKAGED or class_name not in COMPONENTS):
            raise ValueError(f"{source}: {key} is a {class_name} of {library}, whose code can't be exported")
    copy = copier(source)
    with new_or_same_folder(out) as folder:
        for key, (library, class_name) in components.items():
            shutil.copytree(source / key, folder / key, copy_function=copy)
            if library == PACKAGED:
                module, code = COMPONENTS[class_name]
                write_text(folder / key / f"{module}.py", code())
                index[key] = [module, class_name]
        write_text(folder / f"{PIPELINE_CODE}.py", pipeline_code())
        names = names_in_order(index.get("class_names"))  # a list in what older versions saved
        index["class_names"] = labels_by_name(names)
        write_json(folder / INDEX, index | {"_class_name": [PIPELINE_CODE, name]}, sort_keys=True)
        if (source / CARD).is_file():
            for file in (source / CARD, *source.glob("*.png"), *source.glob("*.gif")):
                copy(file, folder)
        if not write_card(folder):
            print(f"{CARD} was written by hand and is left as it is: see that its code loads this folder")
    return Path(out)


def export(flags: ExportFlags) -> None:
    """python -m pipelines export"""
    out = export_pipeline(flags.pipeline, flags.out)
    loads = f"diffusers.DiffusionPipeline.from_pretrained({str(out)!r}, trust_remote_code=True)"
    print(f"{loads} loads it")
