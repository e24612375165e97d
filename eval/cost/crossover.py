"""From which size of clip on VidTwin's latents cost a DiT less than MAGVIT-v2's: counted, not measured."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from autoencoder.model.layout import vidtwin_layout
from autoencoder.model.presets import SETTINGS, preset
from autoencoder.model.vidtwin import AutoencoderVidTwin
from eval.cost.tokenizers import find, magvit_v2
from vidtwin_gen.records import Crossover

LARGEST = 1024  # pixels a side
# published latents -> the preset that has them
PRESETS = {f"vidtwin-{setting}": f"base-{setting}" for setting in SETTINGS} | {"vidtwin-released": "released"}


def crossovers(configs: Mapping[str, Mapping[str, Any]], patch_sizes: Sequence[int]) -> list[Crossover]:
    """Of autoencoders by their names, each the arguments of `AutoencoderVidTwin`."""
    return [_crossover(name, config, patch) for patch in patch_sizes for name, config in configs.items()]


def published_configs(names: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Of those published latents that are VidTwin's the names, as in tables, and the configurations."""
    defaults = {
        name: argument.default for name, argument in inspect.signature(AutoencoderVidTwin).parameters.items()
    }
    for name in names:
        if name in PRESETS:
            yield find([name])[0].name, defaults | preset(PRESETS[name])


def _crossover(name: str, config: Mapping[str, Any], patch_size: int) -> Crossover:
    """Square clips of the configuration's length, at its down-sampling: of each side that both can divide."""
    step = math.lcm(config["patch_size"], 8)
    num_tokens = {}
    for side in range(step, LARGEST + 1, step):
        ours = vidtwin_layout(SimpleNamespace(**{**config, "height": side, "width": side}))
        theirs = magvit_v2(config["num_frames"], side, side).layout
        num_tokens[side] = [layout.num_tokens(patch_size) for layout in (ours, theirs)]
    dearer = [side for side, (ours, theirs) in num_tokens.items() if ours >= theirs]
    cheaper_from = next((side for side in num_tokens if not dearer or side > dearer[-1]), None)
    return Crossover(
        tokenizer=name,
        other="MAGVIT-v2",
        num_frames=config["num_frames"],
        patch_size=patch_size,
        largest=max(num_tokens),
        cheaper_from=cheaper_from,
        num_tokens=num_tokens[cheaper_from or max(num_tokens)],
    )
