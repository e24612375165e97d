"""What each part of the recipe is worth here: trainings over the flags, seed by seed, and one table.

    python -m benchmarks.recipe --size demo --seeds 0 1 2 --out runs/recipe
    python -m benchmarks.recipe --stage 1 --rows base muon --seeds 0 --out runs/recipe

Every row (benchmarks/recipe/rows.py) trains over one autoencoder and one set of latents, for as many steps as
the base, and for as many as cost the processor seconds that the base's cost. Steps are timed once, in turns,
and written down. Writes <out>/stage_<stage>.json and .md after every run; the same command goes on where it
stopped, from that file alone on another machine too. Steps and their costs come from another such file with
--steps_from.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import safe_open

from benchmarks.recipe import autoencoders, generators
from benchmarks.recipe.calibration import costs, seconds_per_step
from benchmarks.recipe.inputs import Inputs, Settings, make_data, make_inputs, measure_floors
from benchmarks.recipe.record import open_record, steps_from, write
from benchmarks.recipe.rows import BASE, STAGES, TINY_STEPS, Row, chosen_rows
from benchmarks.recipe.table import READINGS, markdown
from vidtwin_gen.demo import DEMO_SIZES
from vidtwin_gen.files import owned_folder
from vidtwin_gen.flags import OneLineErrors, positive
from vidtwin_gen.program.errors import user_errors

PROGRAM = "python -m benchmarks.recipe"
SUBJECTS: dict[int, ModuleType] = {1: autoencoders, 2: generators}
TIMED = {"num_steps": 20, "rounds": 5}
WEIGHTS = ("vae/autoencoder", "dit/pipeline/transformer")


def parser() -> argparse.ArgumentParser:
    top = OneLineErrors(prog=PROGRAM, description=(__doc__ or "").splitlines()[0])
    top.add_argument("--out", type=Path, required=True, help="folder of everything that is made")
    top.add_argument("--stage", type=int, choices=STAGES, default=2, help="1: autoencoder, 2: DiT (default)")
    top.add_argument("--size", choices=sorted(DEMO_SIZES), default="demo", help="preset of both trainings")
    top.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of training and of sampling")
    top.add_argument("--rows", nargs="+", metavar="NAME", help="left out: all, see benchmarks/recipe/rows.py")
    top.add_argument("--readings", nargs="+", choices=READINGS, default=list(READINGS), help="left out: both")
    top.add_argument("--data", help="videos, <data>/<class>/<video>; left out: the embedded ones")
    top.add_argument("--vae", help="an autoencoder; left out: one is trained")
    top.add_argument("--latents", help="that it encoded; left out: they are encoded")
    top.add_argument("--features", help="of this video encoder beside the latents, for the row repa")
    top.add_argument("--max_train_steps", type=positive, help="of the base; left out: the preset's")
    top.add_argument("--steps_from", type=Path, metavar="JSON", help="of another run: its steps and seconds")
    top.add_argument("--num_clips", type=positive, help="generated for the class accuracy (default 256)")
    top.add_argument("--num_fvd_clips", type=int, help="of them, for FVD (default all; 0: none)")
    top.add_argument("--threads", type=positive, default=1)
    top.add_argument("--tiny", action="store_true", help="a rehearsal, as small as may be")
    return top


def settings_of(args: argparse.Namespace) -> Settings:
    """Raises ValueError for flags that do not go together."""
    if args.size == "cpu" and not args.data:
        raise ValueError("--size cpu is of real clips: name their folder with --data")
    if args.latents and not args.vae:
        raise ValueError(f"--latents {args.latents} needs --vae, the autoencoder that made them")
    if args.latents and args.features:
        raise ValueError(f"--features {args.features} are encoded with latents: leave --latents out")
    for name in ("vae", "features"):
        if args.stage == 1 and getattr(args, name):
            raise ValueError(f"--{name} {getattr(args, name)} is of --stage 2, which trains on latents")
    num_clips = args.num_clips or (16 if args.tiny else 256)
    num_fvd_clips = num_clips if args.num_fvd_clips is None else args.num_fvd_clips
    if not 0 <= num_fvd_clips <= num_clips or num_fvd_clips == 1:
        raise ValueError(f"--num_fvd_clips is 0, or from 2 to --num_clips {num_clips}, got {num_fvd_clips}")
    steps = TINY_STEPS if args.tiny else SUBJECTS[args.stage].PRESETS[args.size]["max_train_steps"]
    places = {name: getattr(args, name) for name in ("data", "vae", "latents", "features")}
    return Settings(
        args.stage,
        args.size,
        **{name: str(Path(place)) if place else None for name, place in places.items()},
        max_train_steps=args.max_train_steps or steps,
        num_clips=num_clips,
        num_fvd_clips=num_fvd_clips,
        threads=args.threads,
        tiny=args.tiny,
    )


def ablate(args: argparse.Namespace, command: str) -> None:
    """Runs what the record lacks, all rows of a seed before the next one."""
    settings, out, table = settings_of(args), args.out, STAGES[args.stage]
    torch.set_num_threads(settings.threads)
    path = out / f"stage_{settings.stage}.json"
    preset = SUBJECTS[settings.stage].PRESETS[settings.size]
    record = open_record(path, settings, command, preset)
    steps = steps_from(args.steps_from, settings) if args.steps_from else {}
    names = args.rows or list(steps) or None
    chosen_rows(table, names, {row.needs: None for row in table.values()})
    if steps and (missing := [name for name in names or () if name not in steps]):
        raise ValueError(f"--steps_from {args.steps_from} has no row {missing[0]}: leave it out of --rows")
    inputs = make_data(settings, out) if settings.stage == 1 else make_inputs(settings, out)
    rows = chosen_rows(table, names, inputs.about)
    add_rows(record, rows, settings, inputs, steps)
    write(path, record)
    if settings.stage == 2 and "floors" not in record:
        record["floors"] = measure_floors(inputs, settings, out)
    for seed in args.seeds:
        for reading in args.readings:
            for name, row in rows.items():
                if not measured_already(record["rows"][name], reading, seed):
                    run(record["rows"][name], row, settings, inputs, out / f"stage_{settings.stage}" / name,
                        reading, seed)  # fmt: skip
                write(path, record)
    print(markdown(record))
    print(f"wrote {path} and {path.with_suffix('.md')}")


def add_rows(
    record: dict[str, Any],
    rows: Mapping[str, Row],
    settings: Settings,
    inputs: Inputs,
    steps: Mapping[str, Mapping[str, Any]],
) -> None:
    """Rows that the record does not have yet, with the steps of each reading; without `steps` they are timed
    beside the base, here and now. Raises ValueError where one that it has had other flags."""
    for name, entry in record["rows"].items():
        if name in rows and entry["flags"] != rows[name].flags:
            flags = f"{rows[name].flags!r}, and was {entry['flags']!r}"
            raise ValueError(f"row {name} is {flags} when --out was begun: name another --out")
    new = {name: row for name, row in rows.items() if name not in record["rows"]}
    subject, table = SUBJECTS[settings.stage], STAGES[settings.stage]
    if new and not steps:
        commands = {
            name: [*subject.training(settings, inputs, row, 0), *subject.SHORT]
            for name, row in ({BASE: table[BASE]} | new).items()
        }
        timed = {"num_steps": 2, "rounds": 1} if settings.tiny else TIMED
        seconds = seconds_per_step(subject.main, commands, **timed)
        steps = {name: costs(settings.max_train_steps, seconds[BASE], seconds[name]) for name in new}
    for name, row in new.items():
        about = {"flags": row.flags, "source": row.source, **steps[name]}
        record["rows"][name] = about | {"parameters": None, "readings": {}}
    record["rows"] = {name: record["rows"][name] for name in table if name in record["rows"]}


def measured_already(entry: dict[str, Any], reading: str, seed: int) -> bool:
    """Whether the row's entry has the training, which may be that of another reading of as many steps."""
    for other, seeds in list(entry["readings"].items()):
        if str(seed) in seeds and entry["steps"][other] == entry["steps"][reading]:
            keep(entry, reading, seed, seeds[str(seed)])
            return True
    return False


def keep(entry: dict[str, Any], reading: str, seed: int, values: dict[str, Any]) -> None:
    """Puts a training's values where they belong, in order."""
    seeds = entry["readings"].get(reading, {}) | {str(seed): values}
    entry["readings"][reading] = dict(sorted(seeds.items(), key=lambda item: int(item[0])))
    entry["readings"] = {name: entry["readings"][name] for name in READINGS if name in entry["readings"]}


def run(
    entry: dict[str, Any],
    row: Row,
    settings: Settings,
    inputs: Inputs,
    out: Path,
    reading: str,
    seed: int,
) -> None:
    """One training and what is measured of it, into the row's entry of the record."""
    subject, num_steps = SUBJECTS[settings.stage], entry["steps"][reading]
    folder = out / f"steps_{num_steps}" / f"seed_{seed}"
    command = [*subject.training(settings, inputs, row, seed), "--max_train_steps", num_steps]
    seconds = entry["seconds_per_step"]
    try:
        values = subject.measure(settings, inputs, row, command, folder, seconds)
    except FloatingPointError as error:  # a result, too
        values = {"diverged": str(error)}
    keep(entry, reading, seed, values)
    for weights in (path for place in WEIGHTS for path in (folder / place).glob("*.safetensors")):
        with safe_open(weights, "pt") as file:
            entry["parameters"] = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118


def main(argv: Sequence[str] | None = None) -> None:
    words = list(sys.argv[1:] if argv is None else argv)
    args = parser().parse_args(words)
    with user_errors(PROGRAM), owned_folder(args.out, "name another --out"):
        ablate(args, shlex.join([*PROGRAM.split(), *words]))


if __name__ == "__main__":
    main()
