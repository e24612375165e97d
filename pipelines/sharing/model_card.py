"""README.md of a saved pipeline: what the hub shows of it, from what stands in its folder."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
from accelerate import init_empty_weights
from huggingface_hub import ModelCard, ModelCardData, hf_hub_download
from huggingface_hub.errors import RemoteEntryNotFoundError

from autoencoder import adapter
from autoencoder.model.vidtwin import AutoencoderVidTwin
from pipelines.labels import names_in_order
from pipelines.sharing.metrics import Metric
from pipelines.sharing.record_types import check_record
from vidtwin_gen.data.names import markdown
from vidtwin_gen.files import read_json, read_text, write_text
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
SAMPLING = ("guidance_scale", "guidance_interval", "internal_guidance_scale", "num_inference_steps")
MODELS = {model.__name__: model for model in (AutoencoderVidTwin, LatentTransformer)}

WEIGHTS = re.compile(r"diffusion_pytorch_model(?:\.(?P<variant>\w+))?(?:-\d+-of-\d+)?\.(?:safetensors|bin)")

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


TEMPLATE = """---
{{ card_data }}
---

{{ mark }}

# {{ repo_id.split("/")[-1] if repo_id else "VidTwinPipeline" }}

{% macro table(rows) -%}
| | |
|---|---|
{%- for name, value in rows.items() %}
| {{ name }} | {{ value }} |
{%- endfor %}
{%- endmacro -%}

Generates short videos from a class label: a diffusion transformer (DiT) generates the latent of a video \
autoencoder, which decodes it. VidTwin's latent (arXiv 2412.17726) has two parts: Structure (content and \
slow motion) and Dynamics (detail and fast motion). Trained with vidtwin-gen.

{{ table(models) }}

## Use

With {{ "diffusers 0.42, transformers, accelerate and einops, and imageio-ffmpeg for the last line; \
the code is in this folder" if with_code else "vidtwin-gen" }}\
{% if not repo_id %}, run in this folder; elsewhere put its path, or its name on the hub, \
in place of "."{% endif %}:

```python
import torch
from diffusers.utils import export_to_video
from {{ "diffusers" if with_code else "vidtwin_gen" }} import {{ loader }}

pipe = {{ loader }}.from_pretrained("{{ repo_id or "." }}"{{ ', variant="%s"'|format(variant) if variant }}\
{{ ", trust_remote_code=True" if with_code }})
generator = torch.Generator().manual_seed(0)
frames = pipe({{ call|join(", ") }}).frames[0]
export_to_video(frames, "video.mp4"{% if fps %}, fps={{ fps|round|int }}{% endif %})
```
{%- if class_names %}

Classes: {{ class_names|join(", ") }}.
{%- endif %}

## Training data

Data set: {{ phrase(dataset) }}. Clips of {{ num_classes }} classes.\
{% if data %}

{{ table(data) }}{% else %} What of it was used: {{ phrase(none) }}.{% endif %}

## Recipe

| | |
|---|---|
{%- for name, words in recipe.items() if name != "objective" or flags %}
| {{ words }} | {{ "none" if name == "ema_decay" and not flags.get("use_ema", true) \
else "%s of %s"|format(num_steps, flags[name]) if name == "max_train_steps" and num_steps \
else phrase(flags.get(name)) }} |
{%- endfor %}
{%- if flags.get("init_from") %}
| started from the weights | {{ phrase(flags.init_from) }} |
{%- endif %}
| batch, clips a step | {{ phrase(batch) }} |
| optimizer | {{ "Muon for the matrices of the blocks, else " if flags.get("optimizer") == "muon" }}\
{{ "AdamW, betas %s and %s"|format(flags.adam_beta1, flags.adam_beta2) \
if "adam_beta1" in flags else phrase(none) }} |

{% if flags -%}
```bash
{{ launcher }} train_dit.py --vae AUTOENCODER --latents LATENTS --output_dir RUN
{%- for words in command|batch(3) %} \\
    {{ words|join(" ") }}
{%- endfor %}
```
{%- if num_steps %}

The weights are those of step {{ num_steps }} of the {{ flags.max_train_steps }} that this command trains.
{%- endif %}
{%- else -%}
Command: {{ phrase(none) }}.
{%- endif %}

## Metrics

{% if metrics -%}
| metric | value | protocol |
|---|---|---|
{%- for name, metric in metrics.items() %}
| {{ name }} | {{ metric }} | {{ phrase(metric.protocol) }} |
{%- endfor %}

Generated clips were sampled with: {{ phrase(sampling or none) }}.
{%- else -%}
Metrics: {{ phrase(none) }}.
{%- endif %}

## Intended use and limits

For research on video generation and for teaching. It knows its classes and nothing else: no text, \
no other length or size than {{ clip_size }}. What it generates shows what its training \
data show, with their bias, and may resemble single clips of them; it is no record of anything that \
happened. Metrics can only be compared under the same protocol, the number of clips included.

## Licence

Code: Apache-2.0 (vidtwin-gen). Weights: {{ license }}. Data have terms of their own.
"""


def write_card(folder: str | os.PathLike[str], repo_id: str | None = None) -> bool:
    """Writes README.md into the folder of a saved pipeline, unless there is one that was not written here, or
    the pipeline was saved without one of its models. Returns whether it did.

    `repo_id`: the name on the hub, which the card's code then loads.
    """
    folder = Path(folder)
    path = folder / CARD
    if path.is_file() and MARK not in path.read_text(encoding="utf-8"):
        return False
    index = read_json(folder / INDEX, SAVE_AGAIN)
    if [None, None] in (index["vae"], index["transformer"]):
        path.unlink(missing_ok=True)  # it would tell of a model that is gone
        return False
    vae, transformer = (_without_weights(folder, name, index[name][1]) for name in ("vae", "transformer"))
    clip_size = "×".join(map(str, adapter.clip_size(vae, transformer.layout)))
    layout, num_classes = transformer.layout, transformer.config.num_classes
    grids = (f"{grid.name} {'×'.join(map(str, grid.shape))} of {grid.channels}" for grid in layout.grids)
    check_record(index.get("training"))
    training = index.get("training") or {}
    data = dict(training.get("data", {}))
    flags, sampling = training.get("flags", {}), training.get("sampling", {})
    batch = [flags.get(name) for name in ("train_batch_size", "gradient_accumulation_steps")]
    num_processes = training.get("num_processes")
    batch.append(num_processes)
    class_names = names_in_order(index.get("class_names"))
    with_code = isinstance(index["_class_name"], list)
    card = ModelCard.from_template(
        ModelCardData(library_name="diffusers", license=training.get("license", LICENCE), tags=TAGS),
        template_str=TEMPLATE,
        mark=MARK,
        phrase=_phrase,
        repo_id=repo_id,
        models={
            "autoencoder": f"{index['vae'][1]}, {vae.num_parameters():,} parameters",
            "generator": f"{index['transformer'][1]}, {transformer.num_parameters():,} parameters",
            "scheduler": index["scheduler"][1],
            "clip": f"{clip_size}, {_phrase(index.get('fps'))} frames a second",
            "latent": f"{layout.num_elements:,} numbers: {', '.join(grids)}",
            "classes": num_classes,
        },
        with_code=with_code,
        variant=_variant(folder / "transformer"),
        loader="DiffusionPipeline" if with_code else "VidTwinPipeline",
        call=[
            json.dumps(class_names[0], ensure_ascii=False) if class_names else "0",
            *(f"{name}={sampling[name]}" for name in SAMPLING if name in sampling),
            "generator=generator",
        ],
        fps=index.get("fps"),
        class_names=[markdown(name) for name in class_names or ()],
        dataset=data.pop("name", None),
        num_classes=num_classes,
        data={key.replace("_", " "): _phrase(value) for key, value in data.items()},
        recipe=RECIPE,
        flags=flags,
        num_steps=training.get("num_steps"),
        launcher=f"torchrun --nproc_per_node {num_processes}" if (num_processes or 1) > 1 else "python",
        batch=f"{math.prod(batch)} ({' × '.join(map(str, batch))} processes)" if all(batch) else None,
        command=[
            f"--{name} {shlex.quote(value) if isinstance(value, str) else value}"
            for name, value in flags.items()
        ],
        metrics={name: Metric.from_json(name, saved) for name, saved in training.get("metrics", {}).items()},
        sampling=sampling,
        clip_size=clip_size,
    )
    write_text(path, f"{card}\n")
    return True


def give_way(folder: str | os.PathLike[str], repo_id: str, **where: Any) -> None:
    """Removes the card from a folder that is to be pushed, where the repository has one that was written by
    hand and this one was written here. `where`: `subfolder` and `token` of `hf_hub_download`, whose error it
    raises where the hub doesn't say whether there is one."""
    own = Path(folder) / CARD
    if not own.is_file():
        return
    try:
        there = hf_hub_download(repo_id, CARD, **where)
    except RemoteEntryNotFoundError:
        return
    if MARK not in read_text(there) and MARK in read_text(own):
        own.unlink()


def _variant(folder: Path) -> str | None:
    """Of the weights, such as "fp16"; None where there are some without one."""
    found = [match["variant"] for file in folder.iterdir() if (match := WEIGHTS.fullmatch(file.name))]
    return found[0] if found and all(found) else None


def _without_weights(folder: Path, name: str, class_name: str) -> Any:
    """A model of the pipeline by its config alone: the weights may be of any variant."""
    config = read_json(folder / name / "config.json", SAVE_AGAIN)
    with init_empty_weights():
        return (MODELS.get(class_name) or getattr(diffusers, class_name)).from_config(config)


def _phrase(value: Any) -> str:
    """A value in words; of a protocol its names and values in order."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key.replace('_', ' ')} {_phrase(item)}" for key, item in value.items())
    return UNKNOWN if value is None else f"{value:g}" if isinstance(value, float) else markdown(str(value))
