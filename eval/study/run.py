"""python -m eval study: autoencoders trained alike, the same DiT trained alike on the latents of each, and
quality beside cost in one row."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.machine import machine
from eval.study.distances import ClipDistances
from eval.study.flags import StudyFlags
from eval.study.judge import Judge
from eval.study.page import write_page
from eval.study.plan import (
    RowCost,
    Study,
    StudyRow,
    cost_of,
    dit_flags,
    ends,
    points_of,
    read_study,
    vae_flags,
)
from eval.study.plan_file import PLAN, as_json, check_sources, check_trainings, extended, sources_of
from eval.study.stages import do, generated, once
from vidtwin_gen.data.synthetic import CLASSES
from vidtwin_gen.data.ucf101 import build_index
from vidtwin_gen.demo import Stage
from vidtwin_gen.devices import find_device
from vidtwin_gen.files import file_lock, make_folder, owned_folder, read_json, read_log, write_json
from vidtwin_gen.training.config import METRICS, RUN_RECORD
from vidtwin_gen.unpack.cached import video_folder

RESULT = "study.json"


def study(flags: StudyFlags) -> None:
    """Runs what is missing, so that the same command goes on where it stopped, and writes the page. With
    `--rows` those rows only and no page: several processes share a study, each with its own rows.

    Raises:
        ValueError: the JSON is no study, a row cannot take part or another process has it, or `--out` is of
            another study, or of other weights or videos.
    """
    plan, out = read_study(flags.study), flags.out
    names = flags.rows or list(plan.rows)
    if unknown := [name for name in names if name not in plan.rows]:
        raise ValueError(f"--rows {unknown[0]} is no row of {flags.study}; there are {', '.join(plan.rows)}")
    make_folder(out)
    with ExitStack() as owned:
        with file_lock(out / ".prepared.lock"):  # until another process has prepared what all rows share
            record, costs = _planned(plan, flags)
            if flags.dry_run:
                return
            for name in names:
                owned.enter_context(owned_folder(out / name, "name other rows by --rows"))
            bench = _prepared(plan, out)
            record["real"] = bench.floors(out / "real", None) | once(
                out / "real.json", lambda: {"accuracy": bench.judge.of_held_out()}
            )
        rows = record["rows"]
        for name in names:
            rows[name] |= bench.stage_1(name, plan.rows[name], costs[name])
        for seed in plan.seeds:
            for name in names:
                points = bench.stage_2(name, plan.rows[name], seed, rows[name]["ends"])
                rows[name]["seeds"][str(seed)] = points
        if flags.rows:
            print("the same command without --rows runs what is missing and writes the page")
            return
        write_json(out / RESULT, record)
        write_page(out, record)
    print(f"wrote {out / RESULT} and {out / 'study.html'}")


def _planned(plan: Study, flags: StudyFlags) -> tuple[dict[str, Any], dict[str, RowCost]]:
    """The record without what is measured, and the cost of every row; plan.json is written, or gains
    rows and seeds."""
    out, path = flags.out, flags.out / PLAN
    before = read_json(path, "remove it") if path.exists() else {}
    now = extended(path, before, plan, some_rows=bool(flags.rows))
    if before or not flags.dry_run:
        now["sha256"] = check_sources(path, before, plan, sources_of(plan))
        now["trainings"] = check_trainings(path, before, plan)
    num_classes = len(_class_names(plan))
    files = {name: out / name / "cost.json" for name in plan.rows}
    # keep their cost, which another version may count otherwise
    begun = [name for name in before.get("rows", {}) if name in files and files[name].exists()]
    costs = {
        name: RowCost(**read_json(files[name], "remove it"))
        if name in begun
        else cost_of(plan, row, num_classes)
        for name, row in plan.rows.items()
    }
    row_ends = ends(plan, costs)
    for name, cost in costs.items():
        print(described(name, cost, row_ends[name], points_of(plan, row_ends[name])))
    if not flags.dry_run:
        for name in costs.keys() - begun:
            write_json(files[name], dataclasses.asdict(costs[name]))
        if now != before:
            write_json(path, now)
    rows = {
        name: {"cost": dataclasses.asdict(cost), "ends": row_ends[name], "seeds": {}}
        for name, cost in costs.items()
    }
    about = {"command": flags.command, "machine": machine(find_device(None)), "study": as_json(plan)}
    return about | {"rows": rows}, costs


def _prepared(plan: Study, out: Path) -> Bench:
    """What trains and measures, with the data drawn."""
    data, rate = Path(plan.data) if plan.data else out / "data", {"stride": plan.stride}
    if not plan.data:
        do(Stage("data", data, "vidtwin_gen", ["data", "--out", data]))
    per_class = math.ceil(plan.num_clips / len(_class_names(plan)))
    comparison = ClipDistances(data, plan.fold, rate, plan.shape, out / "features", plan.fvd_clips)
    return Bench(plan, out, data, comparison, Judge(data, plan.fold, rate, plan.shape), per_class)


def described(name: str, cost: RowCost, row_ends: Mapping[str, int], points: Sequence[int]) -> str:
    """A line before anything is trained."""
    networks = f"{cost.autoencoder_parameters / 1e6:.2f} M and {cost.dit_parameters / 1e6:.2f} M parameters"
    flops = f"{cost.autoencoder_training_flops / 1e9:.2f} and {cost.dit_training_flops / 1e9:.2f} GFLOPs"
    return (
        f"{name}: {cost.autoencoder_class}, {networks}; {cost.num_elements:,} numbers in {cost.num_tokens:,} "
        f"tokens; {flops} a clip in training; stage 2 for {row_ends['steps']:,} steps, and for "
        f"{row_ends['flops']:,} of equal FLOPs, looked at after {', '.join(map(str, points))}"
    )


def _class_names(plan: Study) -> list[str]:
    if plan.data is None:
        return list(CLASSES)
    names: list[str] = (
        build_index(video_folder(plan.data), split="train", fold=plan.fold).features["label"].names
    )
    return names


@dataclass(frozen=True)
class Bench:
    """What trains and measures a row.

    Args:
        data: the videos. comparison, judge: of all rows' clips. per_class: clips generated of each class.
    """

    plan: Study
    out: Path
    data: Path
    comparison: ClipDistances
    judge: Judge
    per_class: int

    @property
    def real(self) -> list[object]:
        return ["--data", self.data, "--stride", self.plan.stride, "--fold", self.plan.fold]

    @property
    def size(self) -> list[object]:
        frames, height, width = self.plan.shape
        return ["--num_frames", frames, "--height", height, "--width", width]

    def vae(self, name: str, row: StudyRow) -> Path:
        return self.out / name / "vae" / "autoencoder" if row.is_trained else Path(row.autoencoder)

    def stage_1(self, name: str, row: StudyRow, cost: RowCost) -> dict[str, Any]:
        """Trains the autoencoder, unless it is one that is trained already, measures it and encodes the
        videos."""
        plan, folder, vae = self.plan, self.out / name, self.vae(name, row)
        spent = 0
        if row.is_trained:
            train = [*vae_flags(plan, row), "--data", self.data, "--output_dir", vae.parent]
            do(Stage(f"{name}, the autoencoder", vae, "train_vae", train))
            run = read_json(vae.parent / RUN_RECORD, "")
            clips = run["train_batch_size"] * run["gradient_accumulation_steps"] * run["max_train_steps"]
            spent = clips * cost.autoencoder_training_flops
        measured: dict[str, Any] = {}
        for verb in ("recon", "diagnose"):
            result = folder / f"{verb}.json"
            words = [verb, "--vae", vae, *self.real, *self.size, "--num_clips", self.comparison.num_clips]
            words += ["--features_dir", self.comparison.features, "--num_workers", 0, "--out", result]
            do(Stage(f"{name}, {verb}", result, "eval", words))
            measured[verb] = read_json(result, "remove it")
        encode = ["encode", "--vae", vae, *self.real, *self.size, "--out", folder / "latents"]
        encode += ["--windows_per_video", plan.windows_per_video, "--num_workers", 0]
        do(Stage(f"{name}, latents", folder / "latents" / "latents.json", "vidtwin_gen", encode))
        both, diagnosed = measured["recon"]["both"], measured["diagnose"]
        quality = {name: both[name]["mean"] for name in ("psnr", "ssim", "lpips") if name in both}
        return {
            "quality": quality | {kind: (diagnosed.get(kind) or {}).get("fvd") for kind in ("rfvd", "tfvd")},
            "num_reconstructed": both["psnr"]["num_clips"],
            "reconstructions": self.floors(folder / "reconstructions", vae),
            "stage_1_flops": spent,
        }

    def floors(self, folder: Path, vae: Path | None) -> dict[str, Any]:
        """The distances of held-out clips, as they are or as an autoencoder gives them back."""
        return self.comparison.of_held_out(folder, self.per_class, vae)

    def stage_2(self, name: str, row: StudyRow, seed: int, row_ends: Mapping[str, int]) -> dict[str, Any]:
        """One training, and what is measured where it has come to each point, by its steps."""
        plan, folder = self.plan, self.out / name / f"seed_{seed}"
        places = ["--vae", self.vae(name, row), "--latents", self.out / name / "latents"]
        points: dict[str, Any] = {}
        for steps in points_of(plan, row_ends):
            calls = [plan.num_inference_steps]
            calls += plan.more_inference_steps if steps == row_ends["steps"] else ()
            at = folder / f"steps_{steps}"
            if not all((at / f"{count}_calls" / "values.json").exists() for count in calls):
                train = [*dit_flags(plan, row), *places, "--seed", seed, "--max_train_steps", steps]
                reached = at / "reached.json"  # the folder of the run goes on to the next point
                if not reached.exists():
                    run = Stage(f"{name}, seed {seed}, {steps} steps", reached, "train_dit",
                                [*train, "--output_dir", folder / "dit"])  # fmt: skip
                    do(run)
                    write_json(reached, _last_validation(folder / "dit" / METRICS))
            points[str(steps)] = read_json(at / "reached.json", "remove it") | {
                "sampled": {
                    str(count): self.sampled(folder / "dit" / "pipeline", at / f"{count}_calls", seed, count)
                    for count in calls
                }
            }
        return points

    def sampled(self, pipeline: Path, folder: Path, seed: int, num_inference_steps: int) -> dict[str, Any]:
        def measure() -> dict[str, Any]:
            clips = generated(
                pipeline,
                folder,
                per_class=self.per_class,
                seed=seed,
                guidance_scale=self.plan.guidance_scale,
                num_inference_steps=num_inference_steps,
            )
            accuracy = {"accuracy": self.judge.of_generated(clips)}
            return accuracy | self.comparison.of(clips, folder / "fvd.json")

        return once(folder / "values.json", measure)


def _last_validation(log: Path) -> dict[str, float]:
    return {"val_loss": [line["val_loss"] for line in read_log(log) if "val_loss" in line][-1]}
