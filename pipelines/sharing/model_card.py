"""README.md of a saved pipeline: what the hub shows of it, from what stands in its folder.

The text is written here and not by diffusers' template, which needs Jinja2 and says nothing of a model.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
from accelerate import init_empty_weights
from huggingface_hub import ModelCardData

from autoencoder import adapter
from autoencoder.model.vidtwin import AutoencoderVidTwin
from pipelines.labels import names_in_order
from pipelines.sharing.metrics import Metric
from vidtwin_gen.files import read_json, write_text
from vidtwin_gen.latents import LatentLayout
from vidtwin_gen.models.transformer import LatentTransformer

INDEX = "model_index.json"
CARD = "README.md"
MARK = "<!-- Written by vidtwin-gen on saving. A card without this line is left as it is. -->"
TAGS = [
    "diffusers",
    "video-generation",
    "class-conditional",
    "diffusion-transformer",
    "vidtwin",
    "vidtwin-gen",
]
LICENCE = "apache-2.0"
SAVE_AGAIN = "name the folder of a saved VidTwinPipeline"
UNKNOWN = "not recorded"
MODELS = {model.__name__: model for model in (AutoencoderVidTwin, LatentTransformer)}

RECIPE = {  # what of the flags the table shows; all of them are in the command
    "objective": "objective",
    "max_train_steps": "steps",
    "learning_rate": "learning rate, its peak",
    "lr_scheduler": "schedule",
    "lr_warmup_steps": "warm-up, steps",
    "adam_weight_decay": "weight decay",
    "max_grad_norm": "gradients clipped to",
    "ema_decay": "EMA decay",
    "class_dropout": "labels dropped for guidance, share",
    "sample_posterior": "latents drawn from their posteriors (else their means)",
    "mixed_precision": "mixed precision",
    "seed": "seed",
}


@dataclass(frozen=True)
class Saved:
    """What of a saved pipeline the card needs: its index, the transformer's config, the models' sizes, and
    the frames, height and width of its clips."""

    index: dict[str, Any]
    transformer: dict[str, Any]
    num_parameters: dict[str, int]
    clip_size: adapter.ClipSize

    @property
    def class_names(self) -> list[str]:
        return names_in_order(self.index.get("class_names")) or []

    @property
    def training(self) -> dict[str, Any]:
        return self.index.get("training") or {}


def write_card(folder: str | os.PathLike[str], repo_id: str | None = None) -> bool:
    """Writes README.md into the folder of a saved pipeline, unless there is one that was not written here.

    `repo_id`: the name on the hub, which the card's code then loads.
    """
    path = Path(folder) / CARD
    if path.is_file() and MARK not in path.read_text(encoding="utf-8"):
        return False
    write_text(path, card_text(read_saved(folder), repo_id))
    return True


def read_saved(folder: str | os.PathLike[str]) -> Saved:
    """What `save_pretrained` wrote, weights apart: they may be of any variant."""
    index = read_json(Path(folder) / INDEX, SAVE_AGAIN)
    models = {}
    for name in ("vae", "transformer"):
        class_name = index[name][1]
        config = read_json(Path(folder) / name / "config.json", SAVE_AGAIN)
        with init_empty_weights():
            models[name] = (MODELS.get(class_name) or getattr(diffusers, class_name)).from_config(config)
    return Saved(
        index,
        transformer=dict(models["transformer"].config),
        num_parameters={name: model.num_parameters() for name, model in models.items()},
        clip_size=adapter.clip_size(models["vae"], models["transformer"].layout),
    )


def card_text(saved: Saved, repo_id: str | None = None) -> str:
    """Metadata in YAML, then the text in Markdown."""
    licence = saved.training.get("license", LICENCE)
    data = ModelCardData(library_name="diffusers", license=licence, tags=TAGS)
    parts = [
        f"---\n{data.to_yaml()}\n---",
        MARK,
        f"# {repo_id.split('/')[-1] if repo_id else 'VidTwinPipeline'}",
        _what(saved),
        f"## Use\n\n{_use(saved, repo_id)}",
        f"## Training data\n\n{_data(saved)}",
        f"## Recipe\n\n{_recipe(saved.training)}",
        f"## Metrics\n\n{_metrics(saved.training)}",
        f"## Intended use and limits\n\n{_limits(saved)}",
        f"## Licence\n\nCode: Apache-2.0 (vidtwin-gen). Weights: {licence}. Data have terms of their own.",
    ]
    return "\n\n".join(parts) + "\n"


def _what(saved: Saved) -> str:
    layout = LatentLayout.from_config(saved.transformer["layout"])
    grids = ", ".join(
        f"{grid.name} {'×'.join(map(str, grid.shape))} of {grid.channels}" for grid in layout.grids
    )
    rows = {
        "autoencoder": f"{saved.index['vae'][1]}, {saved.num_parameters['vae']:,} parameters",
        "generator": f"{saved.index['transformer'][1]}, {saved.num_parameters['transformer']:,} parameters",
        "scheduler": saved.index["scheduler"][1],
        "clip": f"{_text(saved.clip_size)}, {_or_unknown(saved.index.get('fps'))} frames a second",
        "latent": f"{layout.num_elements:,} numbers: {grids}",
        "classes": str(saved.transformer["num_classes"]),
    }
    return (
        "Generates short videos of a class: a diffusion transformer makes the latent of a video autoencoder, "
        "which decodes it. VidTwin's latent (arXiv 2412.17726) is Structure, what is there, and Dynamics, "
        f"how it moves. Trained with vidtwin-gen.\n\n{_table(rows)}"
    )


def _use(saved: Saved, repo_id: str | None) -> str:
    with_code = isinstance(saved.index["_class_name"], list)
    loader = "diffusers import DiffusionPipeline" if with_code else "vidtwin_gen import VidTwinPipeline"
    place = f'"{repo_id or "."}"' + (", trust_remote_code=True" if with_code else "")
    sampling, fps = saved.training.get("sampling", {}), saved.index.get("fps")
    options = [
        f"{name}={sampling[name]}" for name in ("guidance_scale", "num_inference_steps") if name in sampling
    ]
    label = f'"{saved.class_names[0]}"' if saved.class_names else "0"
    lines = [
        "import torch",
        "from diffusers.utils import export_to_video",
        f"from {loader}",
        "",
        f"pipe = {loader.split()[-1]}.from_pretrained({place})",
        "generator = torch.Generator().manual_seed(0)",
        f"frames = pipe({', '.join([label, *options, 'generator=generator'])}).frames[0]",
        f'export_to_video(frames, "video.mp4"{f", fps={round(fps)}" if fps else ""})',
    ]
    needs = (
        "diffusers 0.42, transformers and einops; the code is in this folder" if with_code else "vidtwin-gen"
    )
    named = f"\n\nClasses: {', '.join(saved.class_names)}." if saved.class_names else ""
    where = (
        ""
        if repo_id
        else ', run in this folder; elsewhere its path, or its name on the hub, is in place of "."'
    )
    return f"With {needs}{where}:\n\n```python\n" + "\n".join(lines) + f"\n```{named}"


def _data(saved: Saved) -> str:
    data = dict(saved.training.get("data", {}))
    name = data.pop("name", None)
    summary = f"Data set: {_or_unknown(name)}. Clips of {saved.transformer['num_classes']} classes."
    rows = {key.replace("_", " "): _phrase(value) for key, value in data.items()}
    return f"{summary}\n\n{_table(rows)}" if rows else f"{summary} What of it was used: {UNKNOWN}."


def _recipe(training: Mapping[str, Any]) -> str:
    flags = training.get("flags", {})
    rows = {
        words: _or_unknown(flags.get(name)) for name, words in RECIPE.items() if name != "objective" or flags
    }
    batch = [flags.get(name) for name in ("train_batch_size", "gradient_accumulation_steps")]
    batch.append(training.get("num_processes"))
    product = (
        f"{batch[0] * batch[1] * batch[2]} ({batch[0]} × {batch[1]} × {batch[2]} processes)"
        if all(batch)
        else None
    )
    rows["batch, clips a step"] = _or_unknown(product)
    rows["optimizer"] = (
        f"AdamW, betas {flags['adam_beta1']} and {flags['adam_beta2']}" if "adam_beta1" in flags else UNKNOWN
    )
    if not flags.get("use_ema", True):
        rows[RECIPE["ema_decay"]] = "none"
    return f"{_table(rows)}\n\n{_command(flags)}"


def _command(flags: Mapping[str, Any]) -> str:
    if not flags:
        return f"Command: {UNKNOWN}."
    words = [
        f"--{name} {shlex.quote(value) if isinstance(value, str) else value}" for name, value in flags.items()
    ]
    lines = ["python train_dit.py --vae AUTOENCODER --latents LATENTS --output_dir RUN"]
    lines += [" ".join(words[i : i + 3]) for i in range(0, len(words), 3)]
    return "```bash\n" + " \\\n    ".join(lines) + "\n```"


def _metrics(training: Mapping[str, Any]) -> str:
    metrics = training.get("metrics", {})
    if not metrics:
        return f"Metrics: {UNKNOWN}."
    lines = ["| metric | value | protocol |", "|---|---|---|"]
    for name, saved in metrics.items():
        metric = Metric(**saved)
        lines.append(f"| {name} | {metric} | {_phrase(metric.protocol)} |")
    sampling = training.get("sampling")
    options = _phrase(sampling) if sampling else UNKNOWN
    return "\n".join(lines) + f"\n\nGenerated clips were sampled with: {options}."


def _limits(saved: Saved) -> str:
    return (
        "For research on video generation and for teaching. It knows its classes and nothing else: no text, "
        f"no other length or size than {_text(saved.clip_size)}. What it generates shows what its training "
        "data show, with their bias, and may resemble single clips of them; it is no record of anything that "
        "happened. Metrics can only be compared under the same protocol, the number of clips included."
    )


def _text(size: adapter.ClipSize) -> str:
    return "×".join(map(str, size))


def _table(rows: Mapping[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def _phrase(value: Any) -> str:
    """A protocol in words: its names and values in order."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key.replace('_', ' ')} {_phrase(item)}" for key, item in value.items())
    return _or_unknown(value)


def _or_unknown(value: Any) -> str:
    return UNKNOWN if value is None else f"{value:g}" if isinstance(value, float) else str(value)
