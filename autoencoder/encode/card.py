"""The README.md of a folder of latents: what `datasets` reads first, and what a stranger needs to use it."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData

from autoencoder.model.vidtwin import AutoencoderVidTwin
from vidtwin_gen.data.names import markdown
from vidtwin_gen.files import write_text
from vidtwin_gen.latents import LatentLayout

TEMPLATE = """---
{{ card_data }}
---

# Latents of {{ data }}

Clips of {{ data }} as {{ about.autoencoder_class }} encodes them: {{ about.num_frames }} frames of \
{{ about.height }}×{{ about.width }} at {{ "%g"|format(about.fps) }} frames a second become one flat vector \
of {{ layout.num_elements }} numbers, of which the posterior's mean and log-variance are stored, raw. \
Made with vidtwin-gen, of which nothing is needed to use this folder: `datasets.load_dataset` reads it.

| split | rows | clips |
|---|---|---|
| train | {{ about.num_rows.train }} | random windows, {{ about.windows_per_video }} of each video\
{{ ", each as it is and mirrored" if about.flip else ", none mirrored" }} |
| test | {{ about.num_rows.test }} | the centre of each video, not mirrored |

## Rows

| column | what |
|---|---|
| `mean`, `logvar` | {{ about.dtype }} ({{ layout.num_elements }},): the Gaussian posterior of the clip |
| `label`, `class_name` | the class, as a number and by its name; {{ about.class_names|length }} classes |
| `path` | of the video, below the folder of {{ data }} |
| `split` | train or test |
| `group` | the recording that the video was cut from (`v_Biking_g07`); null where its name tells none |
| `start` | the clip's first frame in the video, from 0 on |
| `flipped` | whether the clip was mirrored, left to right, before it was encoded |\
{% if about.features %}
| `features` | float16 ({{ about.features.grid|join("·") }}·{{ about.features.dim }},): of the clip, by \
{{ markdown(about.features.encoder) }} |
{%- endif %}

## Layout

The flat vector is the grids one after the other; within a grid the order is row-major over its axes, the \
channels last and fastest.

| grid | axes | shape | channels | numbers | from |
|---|---|---|---|---|---|
{% for grid, offset in grids -%}
| {{ grid.name }} | {{ grid.axes|join(", ") }} | {{ grid.shape|join("×") }} | {{ grid.channels }} | \
{{ grid.num_elements }} | {{ offset }} |
{% endfor %}
## Whitening

A generator learns `(z - mean) / std` by grid and channel, and its samples are decoded after the way back. \
These are the statistics of samples of the training rows' posteriors, the same as `latents_mean` and \
`latents_std` in `latents.json`, which has one number per grid and channel in this order.

| grid | channel | mean | std |
|---|---|---|---|
{% for name, channel, mean, std in statistics -%}
| {{ name }} | {{ channel }} | {{ "%.5g"|format(mean) }} | {{ "%.5g"|format(std) }} |
{% endfor %}
## How it was made

```bash
{{ command }}
```

Frames are resized until they cover the clip's \
size and cropped in the middle. The autoencoder's weights have the sha256 \
`{{ about.autoencoder_sha256 }}`.
{%- if about.features %} The features are last hidden states of \
{{ markdown(about.features.encoder) }} (weights of sha256 \
`{{ about.features.encoder_sha256 }}`), averaged to a grid {{ about.features.grid|join("×") }} of \
time, height and width; flat, row-major, the {{ about.features.dim }} channels last and fastest.{% endif %}
{%- for complaint in about.bad_videos %} Left out, {{ markdown(complaint) }}.{% endfor %}

## Licence

Latents are made from the videos and decode to something near them, so the videos' terms hold for them too. \
Videos of UCF-101 are research data, collected from public web videos (Soomro, Zamir and Shah, 2012, arXiv \
1212.0402).

## Example

Trains a small class-conditional generator and decodes a sample. `latents` is this folder, `autoencoder` \
the autoencoder that made it, exported with its code where it is no class of diffusers. \
It needs torch, datasets and diffusers.

```python
import json, math, datasets, torch
from diffusers import AutoModel
from diffusers.utils import export_to_gif
from diffusers.video_processor import VideoProcessor
from torch import nn

rows = datasets.load_dataset("latents", split="train").select_columns(["mean", "logvar", "label"])
batches = torch.utils.data.DataLoader(rows.with_format("torch"), batch_size=64, shuffle=True)
about = json.load(open("latents/latents.json"))

def flat(values):  # one per grid and channel -> one per latent number
    parts = torch.tensor(values).split([grid["channels"] for grid in about["layout"]])
    return torch.cat([part.repeat(math.prod(grid["shape"])) for part, grid in zip(parts, about["layout"])])

mean, std = flat(about["latents_mean"]), flat(about["latents_std"])
length, num_classes, width = len(mean), len(about["class_names"]), 512
embed, enter = nn.Embedding(num_classes, width), nn.Linear(length + 1, width)
layers = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, length))
generator = nn.ModuleList([embed, enter, layers])
optimizer = torch.optim.AdamW(generator.parameters(), lr=1e-3)

def clean(z, t, label):  # white latents out of their mixture with noise, of which t is the share
    return layers(enter(torch.cat([z, t], dim=1)) + embed(label))

for epoch in range(20):
    for batch in batches:
        z = batch["mean"] + (batch["logvar"] / 2).exp() * torch.randn_like(batch["mean"])
        z, noise, t = (z - mean) / std, torch.randn_like(z), torch.rand(len(z), 1)
        loss = (clean(z.lerp(noise, t), t, batch["label"]) - z).square().mean()
        optimizer.zero_grad(), loss.backward(), optimizer.step()
    print(f"epoch {epoch}: {loss.item():.3f}")

vae = AutoModel.from_pretrained("autoencoder"{% if is_ours %}, trust_remote_code=True{% endif %})
z, label = torch.randn(1, length), torch.tensor([about["class_names"].index({{ name|tojson }})])
with torch.no_grad():
    for t in torch.linspace(1, 0.02, 50):
        z = z.lerp(clean(z, t.view(1, 1), label), 0.02 / t)
    video = {{ decode }}  # (1, 3, F, H, W) in [-1, 1]
export_to_gif(VideoProcessor().postprocess_video(video, "pil")[0], "sample.gif", fps=round(about["fps"]))
```
"""


def write_card(folder: Path, about: Mapping[str, Any], *, vae: str, data: str, decode: str) -> None:
    """Writes `README.md` into a folder of latents.

    Args:
        about: what stands in its `latents.json`.
        vae, data: names of the folders of autoencoder and videos.
        decode: what the example decodes with (`ClipEncoder.decode_example`).
    """
    layout = LatentLayout.from_config(about["layout"])
    starts = accumulate((grid.num_elements for grid in layout.grids), initial=0)
    channels = [(grid.name, channel) for grid in layout.grids for channel in range(grid.channels)]
    # `datasets` keeps what it has read under folder and configuration name, and does not look at the files
    # again: the name changes when they do
    known = {name: value for name, value in about.items() if name != "command"}
    digest = hashlib.sha256(json.dumps(known).encode()).hexdigest()[:8]
    card_data = DatasetCardData(
        pretty_name=f"Latents of {data}",
        license="other",
        tags=["video", "latents", "vidtwin-gen"],
        configs=[
            {
                "config_name": f"encoding-{digest}",
                "data_files": [
                    {"split": split, "path": f"data/{split}-*.parquet"}
                    for split, count in about["num_rows"].items()
                    if count
                ],
            }
        ],
    )
    card = DatasetCard.from_template(
        card_data,
        template_str=TEMPLATE,
        about=about,
        data=markdown(data),
        layout=layout,
        grids=list(zip(layout.grids, starts, strict=False)),
        statistics=[
            (*channel, mean, std)
            for channel, mean, std in zip(channels, about["latents_mean"], about["latents_std"], strict=True)
        ],
        command=command_line(about, vae, data, folder.name.removesuffix(".partial")),
        name=about["class_names"][0],
        decode=decode,
        is_ours=about["autoencoder_class"] == AutoencoderVidTwin.__name__,
        markdown=markdown,
    )
    write_text(folder / "README.md", str(card))


def command_line(about: Mapping[str, Any], vae: str, data: str, out: str) -> str:
    """The command that makes the same latents, with names of folders in place of their paths."""
    words = ["python", "-m", "vidtwin_gen", "encode", "--vae", vae, "--data", data, "--out", out]
    rate = "fps" if about["stride"] is None else "stride"
    for name in ("fold", rate, "windows_per_video", "dtype", "windows_per_file", "seed"):
        words += [f"--{name}", str(about[name])]
    if about["autoencoder_class"] != AutoencoderVidTwin.__name__:  # which alone has one size
        for name in ("num_frames", "height", "width"):
            words += [f"--{name}", str(about[name])]
    words += ["--flip"] if about["flip"] else []
    if about["bad_videos"] and "max_bad_fraction" in about:  # of which earlier versions said nothing
        words += ["--max_bad_fraction", str(about["max_bad_fraction"])]
    words += ["--vae_dtype", about["vae_dtype"]] if "vae_dtype" in about else []
    if features := about.get("features"):
        words += ["--features", features["encoder"].split("@")[0]]
        words += ["--features_grid", *map(str, features["grid"])]
    return shlex.join(words)
