"""What a training makes: the pipeline of its parts, and the autoencoder or pipeline of any checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
from diffusers import DiffusionPipeline
from diffusers.models.modeling_utils import ModelMixin

from autoencoder import adapter
from autoencoder.loading import load_video_autoencoder
from pipelines.flags import CheckpointFlags
from pipelines.pipeline_vidtwin import VidTwinPipeline
from pipelines.sharing.training_record import training_record
from vidtwin_gen.data.latent_checks import classes_without_rows
from vidtwin_gen.data.latent_dataset import latents_sha256, load_latents
from vidtwin_gen.data.names import some
from vidtwin_gen.data.ucf101 import column
from vidtwin_gen.diffusion import make_scheduler
from vidtwin_gen.files import new_or_same_folder
from vidtwin_gen.models.parametrization import noise_shift
from vidtwin_gen.models.transformer import LatentTransformer
from vidtwin_gen.training.checkpoints import damage_of, record_of, saved_progress
from vidtwin_gen.training.config import RUN_RECORD
from vidtwin_gen.training.dit_config import DiTConfig
from vidtwin_gen.weights import weights_sha256


def load_inputs(
    config: DiTConfig,
) -> tuple[ModelMixin, dict[str, datasets.Dataset], dict[str, Any]]:
    """The autoencoder with the latents' whitening, the latents' rows by split, and their metadata. Raises
    ValueError where the latents were made by another autoencoder, or lack a class."""
    rows, metadata = load_latents(config.latents)
    if weights_sha256(config.vae) != metadata["autoencoder_sha256"]:
        raise ValueError(
            f"--latents {config.latents} were encoded by other weights than --vae {config.vae} holds: "
            "encode again with this autoencoder"
        )
    empty = classes_without_rows(column(rows["train"], "label"), metadata["class_names"])
    if empty and not config.allow_empty_classes:
        raise ValueError(
            f"--latents {config.latents} has no training rows of {some(empty)}, which a generator would not "
            "learn: encode videos of them, or train as it is with --allow_empty_classes"
        )
    vae = load_video_autoencoder(config.vae).requires_grad_(False)
    if adapter.is_ours(vae):  # the pipeline's copy; of another class these would mean something else
        vae.register_to_config(**{name: metadata[name] for name in ("latents_mean", "latents_std")})
    return vae, rows, metadata


def make_pipeline(
    transformer: LatentTransformer,
    vae: ModelMixin,
    metadata: Mapping[str, Any],
    config: DiTConfig,
    num_processes: int,
    num_steps: int | None = None,
) -> VidTwinPipeline:
    """The pipeline of a DiT that so many processes trained on these latents of this autoencoder; before the
    end of its run, for so many steps."""
    names = () if adapter.is_ours(vae) else ("latents_mean", "latents_std")  # ours has them in its config
    return VidTwinPipeline(
        vae,
        transformer,
        make_scheduler(config.objective, noise_shift(config.shift, transformer.layout.num_elements)),
        metadata["class_names"],
        fps=metadata["fps"],
        training=training_record(config, metadata, num_processes, num_steps),
        **{name: metadata[name] for name in names},
    )


def load_checkpoint(flags: CheckpointFlags) -> ModelMixin | DiffusionPipeline:
    """The autoencoder, or the pipeline, that a run would have exported at its checkpoint.

    Raises:
        ValueError: it is no checkpoint with folders of models, or damaged; the latents are not those that it
            was trained on; or as `load_inputs`.
    """
    checkpoint = Path(flags.checkpoint)
    kinds = [kind for kind in ("autoencoder", "transformer") if (checkpoint / kind).is_dir()]
    if not kinds:
        raise ValueError(
            f"{checkpoint} holds neither autoencoder/ nor transformer/: name a checkpoint-<step> of "
            "train_vae.py or train_dit.py; a checkpoint written by 0.1.0 gets them when its run resumes"
        )
    if damage := damage_of(checkpoint):
        raise ValueError(f"{checkpoint} is damaged, {damage}: name another checkpoint")
    average = checkpoint / f"{kinds[0]}_ema"
    is_average = average.is_dir() and not flags.no_ema
    folder = average if is_average else checkpoint / kinds[0]
    if kinds == ["autoencoder"]:
        return load_video_autoencoder(folder)
    record = record_of(checkpoint)
    progress = saved_progress(checkpoint)
    names = {field.name for field in dataclasses.fields(DiTConfig)}
    known = {name: value for name, value in record.items() if name in names}
    known |= {"vae": flags.vae or known["vae"], "latents": flags.latents or known["latents"]}
    config = DiTConfig(**known | {"use_ema": is_average})
    vae, _, metadata = load_inputs(config)
    if (checkpoint / RUN_RECORD).is_file():  # of earlier versions its run may have gone on with other latents
        _check_latents(config.latents, record, checkpoint)
    transformer = LatentTransformer.from_pretrained(folder)
    return make_pipeline(transformer, vae, metadata, config, progress["num_processes"], progress["step"])


def _check_latents(latents: str, record: Mapping[str, Any], checkpoint: Path) -> None:
    """Raises ValueError where the checkpoint's record says that it was trained on others."""
    recorded = record.get("latents (sha256)", "")  # 0.1.0 did not record it
    if recorded and (digest := latents_sha256(latents)) != recorded:
        raise ValueError(
            f"--latents {latents} ({digest[:12]}) are not those that {checkpoint} was trained on, "
            f"{record['latents']} ({recorded[:12]}), by the sha256 of latents.json: name these, or encode "
            "them again"
        )


def export(flags: CheckpointFlags) -> None:
    """python -m vidtwin_gen export"""
    with new_or_same_folder(flags.out) as folder:
        load_checkpoint(flags).save_pretrained(folder)
