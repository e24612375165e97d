"""What a DiT costs on each published latent, counted as `python -m eval cost` does."""

from __future__ import annotations

from functools import cache, partial

from eval.app.jobs import in_child
from eval.cost.dit import dit_cost
from eval.cost.flags import DIT_SIZES
from eval.cost.geometry import Tokenizer
from eval.cost.tokenizers import find, published
from vidtwin_gen.models.transformer import LatentTransformer
from vidtwin_gen.records import CostRow

NUM_CLASSES = 101
PATCHES = (1, 2, 4)
COMPARED = ("vidtwin-1", "magvit-v2")


def clip_sizes() -> dict[str, list[str]]:
    """By size of clip, the names of the tokenizers that are published for it. The size that most are
    published for comes first, and within a size those that the paper compares."""
    sizes: dict[str, list[str]] = {}
    for name, entry in sorted(published().items(), key=lambda item: item[0] not in COMPARED):
        if isinstance(entry, Tokenizer):
            sizes.setdefault("×".join(map(str, entry.clip_shape)), []).append(name)
    return dict(sorted(sizes.items(), key=lambda item: -len(item[1])))


@cache
def cost_row(tokenizer: str, size: str, patch_size: int) -> CostRow:
    """In a process of its own: the counters hook into all modules, those of other threads too."""
    return in_child(_count, tokenizer, size, patch_size)


def _count(tokenizer: str, size: str, patch_size: int) -> CostRow:
    make_model = partial(LatentTransformer, num_classes=NUM_CLASSES)
    (geometry,) = find([tokenizer])
    return dit_cost(geometry, make_model=make_model, size=size, patch_size=patch_size, **DIT_SIZES[size])
