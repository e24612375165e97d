"""What a study compares, as its JSON says it, and what each row costs before anything is trained."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import init_empty_weights
from torch._subclasses.fake_tensor import FakeTensorMode

from autoencoder.adapter import latent_layout
from autoencoder.loading import build_video_autoencoder
from autoencoder.trainable import return_posterior
from autoencoder.training_config import PRESETS as VAE_PRESETS
from autoencoder.training_config import VAEConfig
from eval.cost.dit import count_step, dit_cost
from eval.cost.geometry import Tokenizer
from vidtwin_gen.files import read_json
from vidtwin_gen.models.transformer import LatentTransformer
from vidtwin_gen.records.result import make
from vidtwin_gen.training.config import parse_config
from vidtwin_gen.training.dit_config import PRESETS, DiTConfig

Kind = TypeVar("Kind")
NEAR = 0.05  # a point closer than this to an end, relatively, is left out
TAKEN = ("data", "features", "real")  # folders of a study beside those of its rows
# With a constant learning rate after warm-up, a shorter training is a prefix of a longer one, so one run
# gives every point.
CONSTANT = ["--lr_scheduler", "constant_with_warmup"]


@dataclass(frozen=True, kw_only=True)
class StudyRow:
    """Args:
    autoencoder: a JSON file of a class and its sizes, which is trained, or a saved folder, as it is.
    patch_size: of the DiT. train_vae, train_dit: flags of this row, after the study's.
    """

    autoencoder: str
    patch_size: Any = 1
    train_vae: str = ""
    train_dit: str = ""

    @property
    def is_trained(self) -> bool:
        return Path(self.autoencoder).is_file()

    @property
    def config(self) -> Path:
        path = Path(self.autoencoder)
        return path if self.is_trained else path / "config.json"


@dataclass(frozen=True, kw_only=True)
class Study:
    """Args:
    rows: what is compared, by name. base: the row whose training of stage 2 is the budget.
    train_vae, train_dit: flags of all rows' trainings, `--max_train_steps` among them.
    data: the videos, None for the embedded ones; fold, stride: how they are split and read.
    num_frames, height, width: of all clips. windows_per_video: encoded of a training video.
    seeds: of stage 2 and of sampling. points: of each reading's end, where clips are made.
    num_clips: generated at each point, for class accuracy; num_fvd_clips: of them, for FVD and KVD, None for
        all. guidance_scale: of them.
    num_inference_steps: of them; more_inference_steps: also, where the rows have had equal steps.
    """

    rows: Mapping[str, StudyRow]
    base: str
    train_vae: str
    train_dit: str
    num_frames: int
    height: int
    width: int
    data: str | None = None
    fold: int = 1
    stride: int = 1
    windows_per_video: int = 4
    seeds: tuple[int, ...] = (0, 1, 2)
    points: tuple[float, ...] = (0.25, 0.5, 1.0)
    num_clips: int = 256
    num_fvd_clips: int | None = None
    guidance_scale: float = 2.0
    num_inference_steps: int = 25
    more_inference_steps: tuple[int, ...] = (10, 50)

    def __post_init__(self) -> None:
        for name in ("seeds", "points", "more_inference_steps"):  # lists, as JSON has them
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.num_frames, self.height, self.width

    @property
    def fvd_clips(self) -> int:
        return self.num_clips if self.num_fvd_clips is None else self.num_fvd_clips


def read_study(path: Path) -> Study:
    """Raises ValueError for what is no study: a key that is unknown, missing, or of another type."""
    spec = read_json(path, "name the JSON of a study, such as benchmarks/study/moving_shapes.json")
    rows = spec.get("rows")
    if not isinstance(rows, dict) or not rows:
        raise ValueError(f"{path}: rows is an object with an autoencoder by each name, got {rows!r}")
    made = {name: _make(StudyRow, row, f"{path}: row {name}") for name, row in rows.items()}
    study = _make(Study, spec | {"rows": made}, str(path))
    if study.base not in study.rows:
        raise ValueError(f"{path}: base {study.base!r} is no row; there are {', '.join(study.rows)}")
    if not study.points or not all(0 < point <= 1 for point in study.points) or max(study.points) < 1:
        raise ValueError(f"{path}: points are above 0 and at most 1, the end, got {list(study.points)}")
    if not study.seeds or min(study.seeds) < 0:
        raise ValueError(f"{path}: seeds are one or more from 0 on, e.g. [0, 1, 2], got {list(study.seeds)}")
    for field in dataclasses.fields(study):
        value = getattr(study, field.name)
        numbers = [
            number for number in (value if isinstance(value, tuple) else [value]) if type(number) is int
        ]
        if field.name not in ("seeds", "guidance_scale") and numbers and min(numbers) < 1:
            raise ValueError(f"{path}: {field.name} is 1 or more, got {min(numbers)}")
    if not 0 <= study.guidance_scale < math.inf:
        raise ValueError(f"{path}: guidance_scale is 0 or more, got {study.guidance_scale}")
    if not 2 <= study.fvd_clips <= study.num_clips:
        raise ValueError(
            f"{path}: num_fvd_clips is from 2 to num_clips, {study.num_clips}, got {study.fvd_clips}"
        )
    for name, row in study.rows.items():
        is_file = Path(name).suffix in (".html", ".json", ".md", ".png")
        if name in TAKEN or is_file or name[:1] in ("", ".") or Path(name).name != name:
            raise ValueError(
                f"{path}: row {name!r} is to be a folder beside the study's own files: name it otherwise, "
                f"without / or a dot at its beginning, not as a file, and not {', '.join(TAKEN)}"
            )
        if not row.config.is_file():
            raise ValueError(
                f"{path}: row {name}: {row.autoencoder} is neither a JSON file nor a saved autoencoder"
            )
    return study


def _make(kind: type[Kind], values: Any, where: str) -> Kind:
    keys = ", ".join(field.name for field in dataclasses.fields(kind))  # type: ignore[arg-type]
    return make(kind, values, where, f"its keys are {keys}")


@dataclass(frozen=True)
class RowCost:
    """What a row's two networks cost: FLOPs of a clip, in a training step and, of the DiT, in one call; bytes
    of a training step of one clip, predicted."""

    autoencoder_class: str
    num_elements: int
    num_tokens: int
    autoencoder_parameters: int
    autoencoder_training_flops: int
    dit_parameters: int
    dit_forward_flops: int
    dit_training_flops: int
    dit_training_memory: int
    clips_per_step: int


def vae_flags(study: Study, row: StudyRow) -> list[str]:
    """Of `train_vae.py`, without its places."""
    frames, height, width = map(str, study.shape)
    size = ["--num_frames", frames, "--height", height, "--width", width]
    own = [*shlex.split(study.train_vae), *shlex.split(row.train_vae)]
    rate = ["--stride", str(study.stride), "--fold", str(study.fold)]
    return [*own, *size, "--autoencoder", row.autoencoder, *rate]


def dit_flags(study: Study, row: StudyRow) -> list[str]:
    """Of `train_dit.py`, without its places, its seed and its steps."""
    patch_size = ["--patch_size", json.dumps(row.patch_size)]
    return [*shlex.split(study.train_dit), *patch_size, *shlex.split(row.train_dit), *CONSTANT]


def dit_config(study: Study, row: StudyRow) -> DiTConfig:
    places = ["--vae", "unused", "--latents", "unused", "--output_dir", "unused"]
    return parse_config(DiTConfig, PRESETS, [*dit_flags(study, row), *places])


def vae_config(study: Study, row: StudyRow) -> VAEConfig:
    places = ["--data", "unused", "--output_dir", "unused"]
    return parse_config(VAEConfig, VAE_PRESETS, [*vae_flags(study, row), *places])


def cost_of(study: Study, row: StudyRow, num_classes: int) -> RowCost:
    """Nothing is allocated or computed. Raises ValueError for an autoencoder that cannot take part;
    unknown flags of the trainings end the program."""
    if row.is_trained:
        vae_config(study, row)
    with init_empty_weights():
        empty = build_video_autoencoder(row.config)
        layout = latent_layout(empty, *study.shape)
    with FakeTensorMode():  # where init_empty_weights, by which a class is checked, fails before torch 2.13
        vae = type(empty).from_config(empty.config).train()
        return_posterior(vae, layout)
        clip = torch.zeros(1, 3, *study.shape)
        _, of_vae = count_step(lambda: vae(clip, sample_posterior=True).sample)
    config = dit_config(study, row)
    tokenizer = Tokenizer(type(vae).__name__, layout, study.shape, row.autoencoder)
    dit = dit_cost(
        tokenizer,
        patch_size=row.patch_size,
        hidden_size=config.hidden_size,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        conditioning=config.conditioning,
        make_model=partial(
            LatentTransformer,
            num_classes=num_classes,
            block_type=config.block_type,
            internal_layer=config.early_layer if config.internal_guidance else None,
        ),
    )
    return RowCost(
        type(vae).__name__,
        layout.num_elements,
        dit.num_tokens,
        vae.num_parameters(),
        of_vae,
        dit.num_parameters,
        dit.forward_flops,
        dit.training_flops,
        dit.training_memory_bytes["peak"],
        config.train_batch_size * config.gradient_accumulation_steps,
    )


def ends(study: Study, costs: Mapping[str, RowCost]) -> dict[str, dict[str, int]]:
    """By row and reading the steps of stage 2: as many as the base's, and as many as cost its FLOPs."""
    steps = dit_config(study, study.rows[study.base]).max_train_steps
    per_step = {name: cost.dit_training_flops * cost.clips_per_step for name, cost in costs.items()}
    return {
        name: {"steps": steps, "flops": max(1, round(steps * per_step[study.base] / of_row))}
        for name, of_row in per_step.items()
    }


def points_of(study: Study, row_ends: Mapping[str, int]) -> list[int]:
    """The steps of stage 2 after which clips are made, in their order: the ends, and what comes before them
    unless it is as good as an end."""
    last = set(row_ends.values())
    on_the_way = {max(1, round(point * end)) for point in study.points for end in last}
    return sorted(last | {steps for steps in on_the_way if all(abs(steps / end - 1) > NEAR for end in last)})
