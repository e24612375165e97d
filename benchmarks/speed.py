"""Our speed beside others', in turns within one run.

    python -m benchmarks.speed --autoencoder base --repeats 3 --out runs/speed.json
    python -m benchmarks.speed --size S B --repeats 9 --out runs/dit_speed.json

--autoencoder times encode and decode against a plain eager computation of the same and against their own
matrix products alone; --size times a training step and a step of sampling of the DiT against diffusers'
DiTTransformer2DModel, and guidance against an unguided step. Only ratios within one run mean anything on a
machine that others use.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from autoencoder.model.vidtwin import AutoencoderVidTwin
from benchmarks import eager_vidtwin
from benchmarks.gpu.sizes import SQUARE
from benchmarks.matrix_products import record_products, replay
from benchmarks.transformer_speed import describe as describe_transformer
from benchmarks.transformer_speed import guidance_speed, reference_dit, transformer_speed
from eval.cost.autoencoder import Workload, count, make_inputs, speed
from eval.cost.command import autoencoder_config
from eval.cost.flags import DIT_SIZES, OF_THE_DIT
from eval.cost.measured_step import fill_zeros
from eval.cost.timing import Spread
from vidtwin_gen.devices import find_device
from vidtwin_gen.files import write_json
from vidtwin_gen.flags import add_flags, flag, positive
from vidtwin_gen.models.transformer import LatentTransformer
from vidtwin_gen.program.errors import user_errors

# what rounding may change: root mean square of the difference, over that of the output
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.1}


@dataclass(kw_only=True)
class SpeedFlags:
    autoencoder: str | None = flag(
        "small, base, large (at another setting: base-2), released, or the folder of a saved one",
        metavar="PRESET",
        excludes="what!",
    )
    size: list[str] | None = flag("of the DiT", nargs="+", choices=DIT_SIZES, excludes="what!")
    batch_size: int = flag("clips at once", 1, type=positive)
    device: str = flag("where it runs", "cpu")
    dtype: str = flag("of encode and decode, or of the DiT", "float32", choices=("float32", "bfloat16"))
    repeats: int = flag("rounds", 5, type=positive)
    out: Path = flag("JSON file to write", type=Path, required=True)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    add_flags(parser, SpeedFlags)
    flags = SpeedFlags(**vars(parser.parse_args(argv)))
    with user_errors(parser.prog):
        device, dtype = find_device(flags.device), getattr(torch, flags.dtype)
        if flags.autoencoder:
            workload = Workload(device, dtype, flags.batch_size, repeats=flags.repeats, training=False)
            record = compare_autoencoder(autoencoder_config(flags.autoencoder), workload)
            lines = [describe_autoencoder(record)]
        else:
            sizes = flags.size or []
            record = {
                name: compare_transformer(DIT_SIZES[name], device, dtype, flags.batch_size, flags.repeats)
                for name in sizes
            }
            lines = [f"{name}: {describe_transformer(record[name])}" for name in sizes]
        write_json(flags.out, record)
        print("\n".join(lines))


@torch.no_grad()
def compare_autoencoder(config: Mapping[str, Any], workload: Workload) -> dict[str, Any]:
    """Times of encode and decode with random weights and clips.

    `baseline_ratio` is the time of a pass over that of `eager_vidtwin`'s and `floor_ratio` over that of the
    pass's own matrix products alone; in bfloat16 `float32_ratio` is over its own time in float32. All ratios
    are of times in the same round.

    Raises:
        ValueError: an ablation, which has no plain computation.
    """
    record = count(config, workload)
    torch.manual_seed(0)
    model: Any = AutoencoderVidTwin.from_config(config).to(workload.device).eval()
    types = model.config.structure_type, model.config.dynamics_type
    if types != ("qformer", "average"):
        raise ValueError(
            f"--autoencoder: the plain computation is that of VidTwin itself, and this one has the "
            f"structure_type {types[0]} and the dynamics_type {types[1]}"
        )
    fill_zeros(model)
    clips, latents = make_inputs(model, workload)
    functions: dict[str, dict[str, Callable[[], torch.Tensor]]] = {"encode": {}, "decode": {}}
    if workload.dtype != torch.float32:
        full = copy.deepcopy(model)
        functions["encode"]["float32"] = partial(encode, full, clips)
        functions["decode"]["float32"] = partial(decode, full, latents)
        model, clips, latents = (x.to(workload.dtype) for x in (model, clips, latents))
    weights = model.state_dict()
    functions["encode"] |= {
        "model": partial(encode, model, clips),
        "baseline": lambda: eager_vidtwin.encode(weights, model.config, clips),
    }
    functions["decode"] |= {
        "model": partial(decode, model, latents),
        "baseline": lambda: eager_vidtwin.decode(weights, model.config, latents),
    }
    num_frames = workload.batch_size * model.config.num_frames
    for name, passes in functions.items():
        difference = difference_between(passes["model"](), passes["baseline"]())
        assert difference["relative_rms"] < TOLERANCES[workload.dtype], f"{name}, baseline: {difference}"
        floor = replay(record_products(passes["model"]))
        record[name] = speed({**passes, "floor": floor}, workload, num_frames, record["flops"][name])
        record[name]["baseline_difference"] = difference
    return record


def encode(model: Any, clips: torch.Tensor) -> torch.Tensor:
    return model.encode(clips).latent_dist.parameters


def decode(model: Any, latents: torch.Tensor) -> torch.Tensor:
    return model.decode(latents).sample


def difference_between(output: torch.Tensor, expected: torch.Tensor) -> dict[str, float]:
    """Of two tensors of one shape: the largest, and the root mean square over that of `expected`."""
    error = (output - expected).double()
    relative = error.square().mean().sqrt() / expected.double().square().mean().sqrt()
    return {"max_abs": error.abs().max().item(), "relative_rms": relative.item()}


def describe_autoencoder(record: Mapping[str, Any]) -> str:
    """What the command prints, a line per pass."""
    lines = []
    for name in ("encode", "decode"):
        row = record[name]
        line = (
            f"{name}, {record['dtype']}, batch {record['batch_size']}: {Spread(**row['seconds'])} s; over "
            f"the eager baseline {Spread(**row['baseline_ratio'])}, over its matrix products "
            f"{Spread(**row['floor_ratio'])}, outputs at most "
            f"{row['baseline_difference']['max_abs']:.1e} apart"
        )
        if "float32_ratio" in row:
            line += f"; over float32 {Spread(**row['float32_ratio'])}"
        lines.append(line)
    return "\n".join(lines)


def compare_transformer(
    sizes: Mapping[str, Any], device: torch.device, dtype: torch.dtype, batch_size: int, repeats: int
) -> dict[str, Any]:
    """Ours on VidTwin's latents of a clip of 16 x 256 x 256 with 12 queries, which are as many tokens as
    diffusers' DiT has on 32 x 32: it takes squares only. Guidance is timed on the same with a head for the
    internal one, after a third of the blocks as train_dit.py has it."""
    torch.manual_seed(0)
    ours = LatentTransformer(SQUARE.to_config(), num_classes=1000, **sizes).to(device)
    plain = {name: sizes[name] for name in OF_THE_DIT}
    reference = reference_dit(SQUARE.num_tokens(), **plain).to(device)
    latents = torch.randn(batch_size, SQUARE.num_elements, device=device)
    record = transformer_speed(
        ours,
        reference,
        latents,
        torch.randn(batch_size, 4, 32, 32, device=device),
        dtype=dtype,
        repeats=repeats,
    )
    del ours, reference
    head = {"internal_layer": math.ceil(sizes["num_layers"] / 3)}
    model = LatentTransformer(SQUARE.to_config(), num_classes=1000, **sizes, **head).to(device)
    record["guidance"] = guidance_speed(model, latents, dtype=dtype, repeats=repeats)
    return record


if __name__ == "__main__":
    main()
