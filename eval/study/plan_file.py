"""plan.json of a study: what it compares, and digests of what that is made from, as all its commands agree on
them. It may gain rows and seeds and loses none."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoencoder.trainable import source_sha256
from eval.study.plan import Study, StudyRow, dit_config, vae_config
from vidtwin_gen.data.ucf101 import build_indices, index_sha256
from vidtwin_gen.files import changed_flags, file_sha256
from vidtwin_gen.training.config import FREE_ON_RESUME, PLACES, TrainingConfig
from vidtwin_gen.unpack.cached import video_folder

PLAN = "plan.json"


def as_json(plan: Study) -> dict[str, Any]:
    """As JSON gives it back."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(plan)))
    return values


def extended(path: Path, before: Mapping[str, Any], plan: Study, *, some_rows: bool) -> dict[str, Any]:
    """What plan.json says with the rows and seeds that this command's JSON adds.

    Args:
        before: what it says so far, nothing of a new study.
        some_rows: the command writes no page (`--rows`), and its JSON may lack what others have added.

    Raises:
        ValueError: anything else differs, or the JSON lacks a row.
    """
    spec = as_json(plan)
    if not before:
        return spec
    rows, seeds = before.get("rows", {}), before.get("seeds", [])
    if not some_rows and (lacking := [name for name in rows if name not in spec["rows"]]):
        raise ValueError(
            f"{path} has the row {lacking[0]}, which is not in the study's JSON: put it back, or name another"
            " --out"
        )
    changed = [
        name for name, value in spec.items() if name not in ("rows", "seeds") and before.get(name) != value
    ]
    changed += [f"row {name}" for name, row in spec["rows"].items() if rows.get(name, row) != row]
    more, fewer = _begins(spec["seeds"], seeds), some_rows and _begins(seeds, spec["seeds"])
    if not (more or fewer):
        changed.append("seeds")
    if changed:
        raise ValueError(f"{path} is of another study ({', '.join(changed)} differ): name another --out")
    return {**before, "rows": rows | spec["rows"], "seeds": spec["seeds"] if more else seeds}


def sources_of(plan: Study) -> dict[str, str]:
    """The digests of each row's saved weights and their config, or of the JSON of its class, by its name; and
    as `data`, the name that no row has, of the class, name and size of each video."""
    digests = {name: _digest(row) for name, row in plan.rows.items()}
    if plan.data:
        indices = build_indices(video_folder(plan.data), ("train", "test"), fold=plan.fold)
        digests["data"] = index_sha256(*indices.values())
    return digests


def _digest(row: StudyRow) -> str:
    source = source_sha256(row.autoencoder)
    return source if row.is_trained else f"{source} {file_sha256(row.config)}"


def check_sources(
    path: Path, before: Mapping[str, Any], plan: Study, digests: Mapping[str, str]
) -> dict[str, str]:
    """The digests that plan.json has, and those of what it has none of: of new rows, or of all where an
    earlier version wrote it. Raises ValueError where one has changed."""
    known: dict[str, str] = before.get("sha256", {})
    for name, digest in digests.items():
        if known.get(name, digest) != digest:
            place = (
                f"row {name}: {plan.rows[name].autoencoder}" if name in plan.rows else f"data: {plan.data}"
            )
            raise ValueError(
                f"{place} is not what it was when {path} was written, and what is measured would not belong "
                "together: put it back as it was, or name another --out"
            )
    return {**digests, **known}


def check_trainings(path: Path, before: Mapping[str, Any], plan: Study) -> dict[str, dict[str, Any]]:
    """By row the values that decide what its trainings learn, from the flags and presets of now. Raises
    ValueError where plan.json has others: another version may have changed a preset."""
    known, now = before.get("trainings", {}), dict[str, dict[str, Any]]()
    for name, row in plan.rows.items():
        configs: dict[str, TrainingConfig] = {"train_dit": dit_config(plan, row)}
        if row.is_trained:
            configs["train_vae"] = vae_config(plan, row)
        now[name] = {stage: _learned(config) for stage, config in configs.items()}
        for stage, values in now[name].items():
            earlier = values | known.get(name, {}).get(stage, {})  # a flag may be younger
            if changed := changed_flags(earlier, earlier | values):
                raise ValueError(
                    f"row {name}: {stage} is not what it was when {path} was written ({changed}), and rows "
                    "would not be trained alike: go on with the version of then, or name another --out"
                )
    return {**known, **now}


def _learned(config: TrainingConfig) -> dict[str, Any]:
    left_out = FREE_ON_RESUME | PLACES | {"seed"}
    values: dict[str, Any] = json.loads(
        json.dumps({name: value for name, value in config.public().items() if name not in left_out})
    )
    return values


def _begins(values: list[Any], beginning: list[Any]) -> bool:
    return values[: len(beginning)] == beginning
