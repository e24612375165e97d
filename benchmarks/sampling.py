"""What guidance and the steps of the sampler make of a trained pipeline: class accuracy, FVD and KVD of each.

    python -m benchmarks.sampling --pipeline pretrained/moving-shapes --data runs/demo/data \\
        --guidance_scale 1 2 4 --num_inference_steps 10 25 50 --out runs/sampling

Real clips are those of --split, read as the pipeline's own data were. From training clips the distances of
held-out ones are measured, too, as they are and as the pipeline's autoencoder gives them back: what a perfect
generator would have, and a perfect one of these latents. Writes <out>/sampling.json and .md. What was
measured once stays in --out, so the same command goes on, also with further values.
"""

from __future__ import annotations

import argparse
import itertools
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.flags import SPLITS, Split, data_folder, pipeline_folder
from eval.study.curves import cell
from eval.study.distances import ClipDistances
from eval.study.judge import Judge
from eval.study.stages import generated, once
from vidtwin_gen.files import owned_folder, read_json, write_json, write_text
from vidtwin_gen.flags import add_flags, flag, positive, whole
from vidtwin_gen.program.errors import user_errors
from vidtwin_gen.weights import weights_sha256

PROGRAM = "python -m benchmarks.sampling"
READ_AS = ("fold", "stride", "fps", "num_frames", "height", "width")


@dataclass(kw_only=True)
class SamplingFlags:
    pipeline: Path = flag("the saved pipeline", type=pipeline_folder, required=True)
    data: Path = flag("folder of its videos, <root>/<class>/<video>", type=data_folder, required=True)
    split: Split = flag("the real clips of FVD and KVD (default test)", "test", choices=SPLITS)
    guidance_scale: list[float] = flag("classifier-free guidance", required=True, type=float, nargs="+")
    num_inference_steps: list[int] = flag("of the sampler", required=True, type=positive, nargs="+")
    num_clips: int = flag("generated of each kind (default 256)", 256, type=positive)
    num_fvd_clips: int = flag("of them, for FVD and KVD (default 64; 0: none)", 64, type=whole)
    seed: int = flag("of sampling (default 0)", 0, type=whole)
    out: Path = flag("folder of everything that is made", type=Path, required=True)


@dataclass(frozen=True)
class Bench:
    """What measures every sampling. per_class: clips of each class."""

    pipeline: Path
    out: Path
    comparison: ClipDistances
    judge: Judge
    per_class: int

    def of(self, guidance_scale: float, num_inference_steps: int, seed: int) -> dict[str, Any]:
        folder = self.out / f"guidance_{guidance_scale:g}_steps_{num_inference_steps}_seed_{seed}"
        clips = generated(
            self.pipeline,
            folder,
            per_class=self.per_class,
            seed=seed,
            guidance_scale=guidance_scale,
            num_inference_steps=num_inference_steps,
        )
        values = once(folder / "accuracy.json", lambda: {"accuracy": self.judge.of_generated(clips)})
        if self.comparison.num_clips:
            values |= self.comparison.of(clips, folder / "fvd.json")
        return {"guidance_scale": guidance_scale, "num_inference_steps": num_inference_steps, **values}

    def floors(self) -> dict[str, Any]:
        """By name, the FVD and KVD of held-out clips from training clips; nothing from others."""
        if self.comparison.split != "train" or not self.comparison.num_clips:
            return {}
        vae_of = {"held-out clips": None, "reconstructions of them": self.pipeline / "vae"}
        folders = {name: self.out / "floors" / name.partition(" ")[0] for name in vae_of}
        return {
            name: self.comparison.of_held_out(folders[name], self.per_class, vae)
            for name, vae in vae_of.items()
        }


def sweep(flags: SamplingFlags, command: str) -> None:
    """The rows of earlier calls stay in the table. Raises ValueError for a pipeline that does not say what it
    was trained on, for counts that do not fit, and for an `--out` of other counts, weights or videos."""
    if not 0 <= flags.num_fvd_clips <= flags.num_clips or flags.num_fvd_clips == 1:
        raise ValueError(
            f"--num_fvd_clips is 0, or from 2 to --num_clips {flags.num_clips}, got {flags.num_fvd_clips}"
        )
    index = read_json(flags.pipeline / "model_index.json", "name a saved pipeline")
    about = (index.get("training") or {}).get("data")
    if not about:
        raise ValueError(f"--pipeline {flags.pipeline} does not say how its data were read: train it here")
    read_as = {name: about[name] for name in READ_AS if about.get(name) is not None}
    rate = {"stride": read_as["stride"]} if "stride" in read_as else {"fps": read_as["fps"]}
    shape, fold = (read_as["num_frames"], read_as["height"], read_as["width"]), read_as["fold"]
    per_class = math.ceil(flags.num_clips / len(index["class_names"]))
    fixed = {
        "pipeline": str(flags.pipeline),
        **{f"{part}_sha256": weights_sha256(flags.pipeline / part) for part in ("transformer", "vae")},
        "data": str(flags.data),
        "shape": list(shape),
        "split": flags.split,
        "num_clips": per_class * len(index["class_names"]),
        "num_fvd_clips": flags.num_fvd_clips,
        "seed": flags.seed,
    }
    path = flags.out / "sampling.json"
    before = read_json(path, "remove it") if path.exists() else {}
    if changed := [name for name, value in fixed.items() if before.get(name, value) != value]:
        raise ValueError(
            f"{path} has {changed[0]} {before[changed[0]]}, not {fixed[changed[0]]}: name another --out"
        )
    bench = Bench(
        flags.pipeline,
        flags.out,
        ClipDistances(
            flags.data, fold, rate, shape, flags.out / "features", flags.num_fvd_clips, flags.split
        ),
        Judge(flags.data, fold, rate, shape),
        per_class,
    )
    real = once(flags.out / "real.json", lambda: {"accuracy": bench.judge.of_held_out()})
    record: dict[str, Any] = {"command": command, **fixed, "real": real, "floors": bench.floors()}
    rows = {(row["guidance_scale"], row["num_inference_steps"]): row for row in before.get("samplings", [])}
    for sampling in itertools.product(flags.guidance_scale, flags.num_inference_steps):
        rows[sampling] = bench.of(*sampling, flags.seed)
        record["samplings"] = [rows[key] for key in sorted(rows)]
        write_json(path, record)
    write_text(flags.out / "sampling.md", markdown(record))
    print(markdown(record))


def markdown(record: Mapping[str, Any]) -> str:
    """A line a sampling; guidance costs a second pass in each step."""
    lines = [
        "# Guidance and steps",
        "",
        f"`{record['command']}`",
        "",
        f"Accuracy of {record['num_clips']} clips by a classifier that recognises "
        f"{100 * record['real']['accuracy']:.1f} % of held-out real clips; FVD and KVD of "
        f"{record['num_fvd_clips']}, from as many clips of the split {record['split']}.",
        "",
        "| guidance | steps | passes | accuracy, % | FVD | KVD |",
        "|---|---|---|---|---|---|",
    ]
    for row in record["samplings"]:
        passes = row["num_inference_steps"] * (2 if row["guidance_scale"] > 1 else 1)
        quality = [cell([100 * row["accuracy"]], 1), cell([row.get("fvd")], 0), cell([row.get("kvd")], 1)]
        cells = [f"{row['guidance_scale']:g}", str(row["num_inference_steps"]), str(passes), *quality]
        lines.append(f"| {' | '.join(cells)} |")
    for name, floor in record["floors"].items():
        lines.append(f"| *{name}* | | | | {cell([floor['fvd']], 0)} | {cell([floor['kvd']], 1)} |")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog=PROGRAM, description=(__doc__ or "").splitlines()[0])
    add_flags(parser, SamplingFlags)
    flags = SamplingFlags(**vars(parser.parse_args(words)))
    with user_errors(PROGRAM), owned_folder(flags.out, "name another --out"):
        sweep(flags, shlex.join([*PROGRAM.split(), *words]))


if __name__ == "__main__":
    main()
