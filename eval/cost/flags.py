"""The flags of `python -m eval cost`, and which of them go together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.flags import VAE, pipeline_folder, result_flag, vae_folder
from vidtwin_gen.flags import DEVICE, flag, positive, text_to_write
from vidtwin_gen.models.sizes import SIZES
from vidtwin_gen.records import AutoencoderCostResult, CostResult

# The sizes of the network by which VidTwin's Figure 5 compares latents. That network has no modulation and
# 12.6 million parameters by the paper's count, a DiT of these sizes has 30 million.
FIGURE_5_DIT: dict[str, int] = {"hidden_size": 512, "num_layers": 6, "num_heads": 8}
DIT_SIZES: dict[str, dict[str, Any]] = {"figure5": FIGURE_5_DIT} | SIZES
DEFAULT_SIZE = "S"
ATTENTION = ("fused", "math")
TITLE = "# What a DiT costs on published latents"  # of the tables' file
OF_THE_DIT = ("hidden_size", "num_layers", "num_heads")
OF_THE_CLIP = ("num_frames", "height", "width")
# flags that the kinds of latents have no use for, each with the reason
USELESS: dict[str, tuple[tuple[str, ...], str]] = {
    "pipeline": (
        ("size", *OF_THE_DIT, "num_classes", *OF_THE_CLIP, "skip_training", "markdown"),
        "the pipeline's own DiT is counted, on its own clips",
    ),
    "vae": (
        ("skip_training", "markdown"),
        "a DiT on its latents is counted beside the same one on MAGVIT-v2's",
    ),
    "autoencoder": (
        ("size", *OF_THE_DIT, "num_classes", *OF_THE_CLIP, "patch_size", "attention")
        + ("measure", "markdown", "paper_size"),
        "the autoencoder itself is measured, and no DiT",
    ),
    "tokenizers": (
        (*OF_THE_CLIP, "paper_size", "skip_training"),
        "published latents are counted at the clips that they are published for",
    ),
}


@dataclass(kw_only=True)
class CostFlags:
    pipeline: Path | None = flag(
        "a saved pipeline: count its DiT on its latents", type=pipeline_folder, excludes="latents"
    )
    vae: Path | None = flag(
        f"a saved autoencoder: count a DiT of the sizes below on its latents; {VAE}",
        type=vae_folder,
        excludes="latents",
    )
    autoencoder: str | None = flag(
        "count the autoencoder itself, not a DiT: parameters, FLOPs, memory, and speed on this device. "
        "small, base, large (at another setting: base-2), released, or the folder of a saved one",
        metavar="PRESET",
        excludes="latents",
    )
    tokenizers: list[str] | None = flag(
        "published latents by their names in eval/cost/tokenizers.json, or all of them; left out: vidtwin-1 "
        "magvit-v2",
        metavar="NAME",
        nargs="+",
        excludes="latents",
    )
    size: list[str] | None = flag(
        "one or several sizes of the DiT: figure5 is the paper's Figure 5, paper its generator, the others "
        "are DiT's own (default S); the next three flags change single numbers of them",
        nargs="+",
        choices=DIT_SIZES,
    )
    hidden_size: int | None = flag("width of the DiT", type=positive)
    num_layers: int | None = flag("blocks of the DiT", type=positive)
    num_heads: int | None = flag("attention heads of the DiT", type=positive)
    num_frames: int | None = flag("frames of a clip, if --vae is not VidTwin", type=positive)
    height: int | None = flag("height of a clip, if --vae is not VidTwin", type=positive)
    width: int | None = flag("width of a clip, if --vae is not VidTwin", type=positive)
    attention: list[str] | None = flag(
        "fused: one kernel, which stores no scores (the default); math: products and a softmax one after the "
        "other; one or both",
        nargs="+",
        choices=ATTENTION,
    )
    patch_size: list[int] | None = flag(
        "one or several patch sizes, each counted on all latents; left out: the pipeline's own, else 1",
        type=positive,
        nargs="+",
    )
    batch_size: int = flag("clips at once", 1, type=positive)
    num_classes: int | None = flag("classes of the DiT (default 101)", type=positive)
    gradient_checkpointing: bool = flag(
        "count training steps with gradient checkpointing", False, action="store_true"
    )
    paper_size: bool = flag(
        "with --pipeline or --vae: also count VidTwin's setting 1 and MAGVIT-v2 at 16 x 224 x 224 with the "
        "DiT of the paper's Figure 5, whose own patch size is 2",
        False,
        action="store_true",
    )
    measure: bool = flag(
        "also run training steps and forward passes on --device, each row in processes of its own, and "
        "report their seconds, and their peak memory beside the predicted one",
        False,
        action="store_true",
    )
    markdown: Path | None = flag(
        "with --tokenizers: also write the tables to this file, .md", type=text_to_write({".md": TITLE})
    )
    device: str | None = flag(f"device of --autoencoder and --measure; {DEVICE}")
    dtype: str | None = flag(
        "number type of --autoencoder (default float32)", choices=("float32", "bfloat16")
    )
    repeats: int = flag("with --autoencoder or --measure: how often each pass is timed", 5, type=positive)
    skip_training: bool = flag(
        "with --autoencoder: measure encode and decode only", False, action="store_true"
    )
    out: Path = result_flag(CostResult, AutoencoderCostResult, required=True)
    command: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError for a flag that would change nothing."""
        kind = next((kind for kind in USELESS if getattr(self, kind)), "tokenizers")
        flags, reason = USELESS[kind]
        for name in flags:
            if getattr(self, name):
                case = (
                    f"with --{kind}" if getattr(self, kind) else "without --pipeline, --vae or --autoencoder"
                )
                raise ValueError(f"--{name} means nothing {case}: {reason}; leave --{name} out")
        if self.dtype == "bfloat16" and not self.autoencoder:
            raise ValueError(
                f"--dtype {self.dtype} is of what is measured with --autoencoder; counting knows float32 "
                "alone, as does the memory that --measure is compared with: leave it out"
            )

    @property
    def sizes(self) -> dict[str, dict[str, Any]]:
        """Of the DiTs asked for by name, with what single flags change."""
        given = {name: getattr(self, name) for name in OF_THE_DIT if getattr(self, name) is not None}
        return {name: DIT_SIZES[name] | given for name in self.size or [DEFAULT_SIZE]}
