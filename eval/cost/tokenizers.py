"""Published latent geometries, each with its source, as layouts that the cost counters and the DiT take.

They are data, in tokenizers.json; a new one is an entry there.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from eval.cost.geometry import Tokenizer, Unpublished
from vidtwin_gen.files import read_json
from vidtwin_gen.latents import LatentGrid, LatentLayout

DATA = Path(__file__).with_suffix(".json")


@cache
def published() -> Mapping[str, Tokenizer | Unpublished]:
    """All of them, by the names that the command line takes."""
    found: dict[str, Tokenizer | Unpublished] = {}
    for name, entry in read_json(DATA, "install the package again").items():
        if "missing" in entry:
            found[name] = Unpublished(**entry)
        else:
            entry["layout"] = LatentLayout.from_config(entry["layout"])
            entry["clip_shape"] = tuple(entry["clip_shape"])
            found[name] = Tokenizer(**entry)
    return found


def magvit_v2(num_frames: int = 16, height: int = 224, width: int = 224) -> Tokenizer:
    """MAGVIT-v2 as VidTwin's paper counts it (arXiv 2412.17726, appendix C.1): one position for 4 x 8 x 8
    pixels, 5 channels; 4 x 28 x 28 positions at 16 x 224 x 224. Other clip sizes scale by the same factors.
    Of 4k + 1 frames the first has a position of its own, k + 1 in all, as Open-MAGVIT2 has it.

    Raises:
        ValueError: a clip that the factors do not divide.
    """
    (as_published,) = find(["magvit-v2"])
    if (num_frames, height, width) == as_published.clip_shape:
        return as_published
    causal = num_frames % 4 == 1
    if num_frames % 4 > 1 or height % 8 or width % 8:
        raise ValueError(
            f"MAGVIT-v2 divides a clip by 4 x 8 x 8, one more frame allowed; {num_frames} x {height} x "
            f"{width} is no such clip: compare at a size that is"
        )
    shape = (num_frames // 4 + causal, height // 8, width // 8)
    return Tokenizer(
        name="MAGVIT-v2 (factors scaled to this clip)",
        layout=LatentLayout((LatentGrid("video", ("time", "height", "width"), shape, 5),)),
        clip_shape=(num_frames, height, width),
        source=as_published.source
        + ("; 4k + 1 frames as k + 1 positions: TencentARC/SEED-Voken" if causal else ""),
        codebook_size=as_published.codebook_size,
        remark="the first frame is a position of its own, as in Open-MAGVIT2" if causal else None,
    )


def find(names: Sequence[str]) -> list[Tokenizer]:
    """The tokenizers of these names; `["all"]` is all of them that can be counted.

    Raises:
        ValueError: a name that is not there, or a tokenizer that has no fixed geometry.
    """
    entries = published()
    if list(names) == ["all"]:
        return [entry for entry in entries.values() if isinstance(entry, Tokenizer)]
    found = []
    for name in names:
        entry = entries.get(name)
        if isinstance(entry, Unpublished):
            raise ValueError(
                f"tokenizer {name!r} cannot be counted: it has {entry.missing} ({entry.source}); leave it out"
            )
        if name == "all":
            raise ValueError(f"--tokenizers all stands alone, got {' '.join(names)}")
        if entry is None:
            near = difflib.get_close_matches(name, entries, n=3, cutoff=0.4)
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            raise ValueError(f"no tokenizer {name!r}; {hint}There are all, {', '.join(entries)}")
        found.append(entry)
    return found


def unpublished() -> list[Unpublished]:
    return [entry for entry in published().values() if isinstance(entry, Unpublished)]
