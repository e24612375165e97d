"""What `python -m eval cost` does with its flags: builds the models that the counters are given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm.auto import tqdm

from autoencoder import adapter
from autoencoder.loading import load_video_autoencoder
from autoencoder.model.presets import preset
from autoencoder.model.vidtwin import AutoencoderVidTwin
from eval.cost.autoencoder import Workload, autoencoder_cost, describe
from eval.cost.crossover import crossovers, published_configs
from eval.cost.dit import dit_cost, example
from eval.cost.flags import FIGURE_5_DIT, OF_THE_DIT, TITLE, CostFlags
from eval.cost.geometry import Tokenizer
from eval.cost.measured_step import free_memory, measure_step
from eval.cost.table import own_sentence, sentences, sources, tables
from eval.cost.tokenizers import find, magvit_v2, published, unpublished
from vidtwin_gen.devices import find_device
from vidtwin_gen.files import write_text
from vidtwin_gen.latents import LatentGrid, LatentLayout, PatchSize
from vidtwin_gen.models.transformer import LatentTransformer
from vidtwin_gen.records import AutoencoderCostResult, CostResult, CostRow, Crossover, Result
from vidtwin_gen.records.cost import OWN

# of a saved DiT's config, what its cost depends on and a row says
SIZES_OF_A_ROW = (*OF_THE_DIT, "mlp_ratio", "conditioning")
SMALL_DIT: dict[str, Any] = {"hidden_size": 32, "num_layers": 1, "num_heads": 2}
EXPLANATION = "\n".join(
    (
        "- FLOPs are counted by torch's FlopCounterMode, a multiply-add is two of them, attention included; "
        "training is forward and backward.",
        "- Memory is the peak of one float32 training step with Adam, predicted.",
        "- Rates are latent numbers per pixel number of the clip.",
        "- The last two columns are the tokens of the paper's Figure 5, with the last patch of an axis "
        "padded or left out, and what its counter gives for its own network of 6 layers of width 512, "
        "whatever the DiT: multiply-adds without attention.",
    )
)


def measure_cost(flags: CostFlags) -> None:
    device = find_device(flags.device)
    result: Result
    if flags.autoencoder:
        result, text = of_autoencoder(flags, flags.autoencoder, device)
    elif flags.pipeline or flags.vae:
        result, text = of_latents(flags)
    else:
        result, text = of_tokenizers(flags)
    result.write(flags.out)
    print(text)


def autoencoder_config(name: str) -> Mapping[str, Any]:
    """Of a preset or of a saved autoencoder's folder. Raises ValueError where it is neither, or another
    class's."""
    if Path(name, "config.json").is_file():
        config = AutoencoderVidTwin.load_config(name)
        saved = config.get("_class_name", AutoencoderVidTwin.__name__)
        if saved != AutoencoderVidTwin.__name__:
            raise ValueError(
                f"--autoencoder {name} is of {saved}, and this measures AutoencoderVidTwin's steps; what a "
                "DiT on its latents costs is measured with --vae"
            )
        return config
    try:
        return preset(name)
    except ValueError as error:
        raise ValueError(f"--autoencoder: no folder with a config.json, and {error}") from None


def of_autoencoder(flags: CostFlags, name: str, device: torch.device) -> tuple[AutoencoderCostResult, str]:
    workload = Workload(
        device=device,
        dtype=getattr(torch, flags.dtype or "float32"),
        batch_size=flags.batch_size,
        gradient_checkpointing=flags.gradient_checkpointing,
        repeats=flags.repeats,
        training=not flags.skip_training,
    )
    record = autoencoder_cost(autoencoder_config(name), workload)
    return AutoencoderCostResult(command=flags.command, autoencoder=name, **record), describe(record)


class CountedLatents(NamedTuple):
    """What is counted of a saved autoencoder or pipeline: its latents of a clip (num_frames, height, width),
    and DiTs of these sizes. patch_sizes: those at which MAGVIT-v2's latents are counted, too.
    own_patch_size: the pipeline's. make_model: builds them; make_plain: without the pipeline's options."""

    layout: LatentLayout
    shape: tuple[int, int, int]
    sizes: Mapping[str, Mapping[str, Any]]
    patch_sizes: Sequence[int]
    own_patch_size: PatchSize | None
    make_model: Callable[..., Any]
    make_plain: Callable[..., Any]


def of_pipeline(flags: CostFlags, pipeline: Path, vae: Any) -> CountedLatents:
    config = LatentTransformer.load_config(pipeline, subfolder="transformer")
    layout = LatentLayout.from_config(config["layout"])
    arguments, *_ = LatentTransformer.extract_init_dict(config)
    of_a_row = {"layout", "patch_size", *SIZES_OF_A_ROW}
    others = {name: value for name, value in arguments.items() if name not in of_a_row}
    own = config["patch_size"]
    return CountedLatents(
        layout,
        adapter.clip_size(vae, layout),
        {OWN: {name: config[name] for name in SIZES_OF_A_ROW if name in config}},
        flags.patch_size or ([own] if isinstance(own, int) else []),
        own,
        partial(LatentTransformer, **others),
        partial(LatentTransformer, num_classes=config["num_classes"]),
    )


def of_vae(flags: CostFlags, vae: Any) -> CountedLatents:
    shape = adapter.requested_size(vae, flags.num_frames, flags.height, flags.width)
    layout, make = adapter.latent_layout(vae, *shape), _make_model(flags)
    return CountedLatents(layout, shape, flags.sizes, flags.patch_size or [1], None, make, make)


def of_latents(flags: CostFlags) -> tuple[CostResult, str]:
    """The latents of a saved autoencoder or pipeline beside MAGVIT-v2's at the same clip, and a pipeline's
    DiT as it is, whose patch size may be by grid."""
    folder = flags.pipeline / "vae" if flags.pipeline else flags.vae
    assert folder is not None
    vae = load_video_autoencoder(folder)
    name = "VidTwin" if adapter.is_ours(vae) else type(vae).__name__
    counted = of_pipeline(flags, flags.pipeline, vae) if flags.pipeline else of_vae(flags, vae)
    ours = Tokenizer(f"{name} ({OWN})", counted.layout, counted.shape, "the autoencoder measured")
    others, left_out = list[Tokenizer](), list[dict[str, str]]()
    try:
        others.append(magvit_v2(*counted.shape))
        if not counted.patch_sizes:
            raise ValueError(
                f"the DiT's patch size {counted.own_patch_size} is by grid, and MAGVIT-v2's latents have "
                "another grid; --patch_size, one number or several, counts both with it"
            )
    except ValueError as error:
        left_out.append({"tokenizer": "MAGVIT-v2", "reason": str(error)})
    rows = list[CostRow]()
    if counted.own_patch_size is None:
        rows += count_rows(flags, [ours, *others], counted.sizes, counted.patch_sizes, counted.make_model)
    else:
        own = count_rows(flags, [ours], counted.sizes, [counted.own_patch_size], counted.make_model)
        rows += (dataclasses.replace(row, own_dit=True) for row in own)
        at_another_patch = dataclasses.replace(ours, name=f"{ours.name[:-1]}'s latents)")
        for patch_size in counted.patch_sizes:
            compared = others if patch_size == counted.own_patch_size else [at_another_patch, *others]
            rows += count_rows(flags, compared, counted.sizes, [patch_size], counted.make_model)
    check_measured(flags, rows)
    lines = [f"{entry['tokenizer']} is not counted: {entry['reason']}" for entry in left_out]
    lines += [own_sentence(row) for row in rows if row.own_dit]
    lines += sentences(rows)
    if counted.own_patch_size is None and not others:
        lines.append(tables(rows))
    crossed: list[Crossover] = []
    if adapter.is_ours(vae) and not left_out:
        configs = {ours.name: vae.config, **dict(published_configs(["vidtwin-1"]))}
        crossed = crossovers(configs, counted.patch_sizes)
    lines += map(str, crossed)
    paper_size_rows = None
    if flags.paper_size:
        of_the_paper, figure_5 = find(["vidtwin-1", "magvit-v2"]), {"figure5": FIGURE_5_DIT}
        paper_size_rows = count_rows(
            flags, of_the_paper, figure_5, counted.patch_sizes or [1], counted.make_plain
        )
        check_measured(flags, paper_size_rows)
        lines += sentences(paper_size_rows)
    result = CostResult(
        command=flags.command,
        rows=rows,
        not_counted=left_out,
        paper_size_rows=paper_size_rows,
        crossovers=crossed,
    )
    return result, "\n".join(lines)


def of_tokenizers(flags: CostFlags) -> tuple[CostResult, str]:
    """Published latents under DiTs of several sizes."""
    names = flags.tokenizers or ["vidtwin-1", "magvit-v2"]
    left_out = unpublished() if names == ["all"] else []
    rows = count_rows(flags, find(names), flags.sizes, flags.patch_size or [1], _make_model(flags))
    check_measured(flags, rows)
    table = tables(rows, left_out)
    crossed: list[Crossover] = []
    if "magvit-v2" in names or names == ["all"]:
        counted = list(published()) if names == ["all"] else names
        crossed = crossovers(dict(published_configs(counted)), flags.patch_size or [1])
    if flags.markdown:
        made_by = f"Made by `{flags.command}`."
        parts = [TITLE, made_by, EXPLANATION, table]
        parts += [f"{line}." for line in crossed] + [sources(rows)]
        write_text(flags.markdown, "\n\n".join(parts) + "\n")
    not_published = [dataclasses.asdict(entry) for entry in left_out]
    result = CostResult(command=flags.command, rows=rows, not_published=not_published, crossovers=crossed)
    return result, "\n".join([table, *sentences(rows), *map(str, crossed)])


def count_rows(
    flags: CostFlags,
    tokenizers: Sequence[Tokenizer],
    sizes: Mapping[str, Mapping[str, Any]],
    patch_sizes: Sequence[PatchSize],
    make_model: Callable[..., Any],
) -> list[CostRow]:
    """A row for each tokenizer under each transformer; with --measure what was measured beside it."""
    cases = list(product(sizes.items(), flags.attention or ["fused"], patch_sizes, tokenizers))
    rows = []
    for (name, size), attention, patch_size, tokenizer in tqdm(cases, desc="counting", unit="model"):
        options = {
            "patch_size": patch_size,
            "batch_size": flags.batch_size,
            "gradient_checkpointing": flags.gradient_checkpointing,
            **size,
        }
        row = dit_cost(tokenizer, make_model=make_model, attention=attention, size=name, **options)
        if flags.measure:
            make = partial(example, tokenizer.layout, make_model, **options)
            row = dataclasses.replace(row, measured=measure_row(row, make, make_model, flags))
        rows.append(row)
    return rows


def check_measured(flags: CostFlags, rows: Sequence[CostRow]) -> None:
    """Raises ValueError where --measure found no row that fits."""
    if flags.measure and all("reason" in (row.measured or {}) for row in rows):
        raise ValueError(f"--measure: nothing fits: {(rows[0].measured or {})['reason']}")


def measure_row(
    row: CostRow, make: Callable[[], Any], make_model: Callable[..., Any], flags: CostFlags
) -> dict[str, Any]:
    """What `measure_step` finds, or the reason why it was not asked or found nothing."""
    device = str(find_device(flags.device))
    needed, free = row.peak_bytes, free_memory(device)
    if needed > free:
        return {
            "reason": f"needs {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB of {device} are free; "
            "take a smaller --size or --batch_size, or --gradient_checkpointing"
        }
    small = LatentLayout((LatentGrid("video", ("time",), (64,), 4),))
    sizes = SMALL_DIT | {"conditioning": row.conditioning}
    make_small = partial(example, small, make_model, batch_size=1, internal_layer=None, **sizes)
    try:
        how: dict[str, Any] = {"attention": row.attention, "device": device, "repeats": flags.repeats}
        measured = measure_step(make, make_small, **how)
    except ValueError as error:
        return {"reason": str(error)}  # the other rows stand
    return measured | {"predicted_over_measured": needed / measured["peak_bytes"]}


def _make_model(flags: CostFlags) -> Callable[..., Any]:
    return partial(LatentTransformer, num_classes=flags.num_classes or 101)
