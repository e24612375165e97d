"""What is known of how a pipeline was made: `training` in its config, as JSON, for its model card.

data      scalars of latents.json: windows per split, rate, fold, the autoencoder's digest; `name`
flags     of train_dit.py, without places on the machine; num_processes: how many it ran in
sampling  of the generated clips that the metrics are of: scheduler, steps, guidance, seed
metrics   name: {"value", "protocol"}, and what else the result says of the value
license   of the weights
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState

from vidtwin_gen.files import read_json, write_json
from vidtwin_gen.training.config import FREE_ON_RESUME

Record = dict[str, Any]

NOT_LEARNED = {"vae", "latents", *FREE_ON_RESUME}
SAMPLING = ("scheduler", "guidance_scale", "num_inference_steps", "num_videos", "seed")
SCALAR = (str, int, float, bool, type(None))


def training_record(config: Any, latents: Mapping[str, Any]) -> Record:
    """The record of a run of train_dit.py that ends in this process.

    Args:
        config: the run's flags, a dataclass. latents: what latents.json says. Lists in it, such as the class
            names and the whitening, stand elsewhere in the pipeline and are not repeated.
    """
    flags = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {
        "data": {name: _without_place(value) for name, value in latents.items() if _is_plain(value)},
        "flags": {name: value for name, value in flags.items() if name not in NOT_LEARNED},
        "num_processes": PartialState().num_processes,
    }


def with_metrics(record: Record, paths: Sequence[str | Path]) -> tuple[Record, list[Path]]:
    """The record with the results in these files, and the files that hold none of what it knows.

    It knows what `python -m eval fvd`, `recon` and `accuracy` write, and the generated.json of `python -m
    pipelines generate`. A metric that is in the record already is replaced.

    Raises:
        ValueError: a file that is missing or no JSON, or none that holds anything.
    """
    metrics, sampling = dict(record.get("metrics", {})), record.get("sampling")
    unknown = []
    for path in map(Path, paths):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"--metrics {path} can't be read as JSON: {error}") from None
        found = _metrics(result) if isinstance(result, dict) else {}
        metrics |= found
        if isinstance(result, dict) and "num_inference_steps" in result and "guidance_scale" in result:
            sampling = {name: result[name] for name in SAMPLING if name in result}
        elif not found:
            unknown.append(path)
    if paths and len(unknown) == len(paths):
        named = ", ".join(map(str, unknown))
        raise ValueError(f"--metrics {named}: no result of eval fvd, recon or accuracy, nor generated.json")
    record = record | ({"metrics": metrics} if metrics else {})
    return record | ({"sampling": sampling} if sampling else {}), unknown


def update_record(
    folder: str | Path,
    metrics: Sequence[str | Path] = (),
    *,
    dataset: str | None = None,
    licence: str | None = None,
) -> list[Path]:
    """Writes into the record of a saved pipeline; returns the files that `with_metrics` does not know.

    Raises:
        ValueError: the folder holds no model_index.json, or as `with_metrics`.
    """
    path = Path(folder) / "model_index.json"
    index = read_json(path, "name the folder of a saved VidTwinPipeline")
    record, unknown = with_metrics(index.get("training") or {}, metrics)
    if dataset is not None:
        record |= {"data": record.get("data", {}) | {"name": dataset}}
    if licence is not None:
        record |= {"license": licence}
    write_json(path, index | {"training": record or None}, sort_keys=True)
    return unknown


def _metrics(result: Mapping[str, Any]) -> dict[str, Record]:
    """Of one file, by name."""
    if isinstance(result.get("fvd"), float):
        return {"FVD, generated": _fvd(result)}
    if isinstance(result.get("generated"), dict) and "accuracy" in result["generated"]:
        shared = _plain(result, without=("class_names",))
        return {
            f"class accuracy, {side} clips": {
                "value": result[side]["accuracy"],
                "protocol": {**_plain(result[side], without=("accuracy",)), **shared},
            }
            for side in ("generated", "real")
        }
    if isinstance(result.get("both"), dict):
        shared = _plain(result)
        metrics = {
            f"{name.upper()}, reconstructed": {
                "value": value["mean"],
                "ci95": value.get("ci95"),
                "protocol": {"num_clips": value["num_clips"], **shared},
            }
            for name, value in result["both"].items()
        }
        if isinstance(result.get("rfvd"), dict) and isinstance(result["rfvd"].get("fvd"), float):
            metrics["FVD, reconstructed"] = _fvd(result["rfvd"])
        return metrics
    return {}


def _fvd(result: Mapping[str, Any]) -> Record:
    protocol = {name: value for name, value in result["protocol"].items() if value is not None}
    beside = {"floor": result["floor"]} if isinstance(result.get("floor"), float) else {}
    reconstructed = (result.get("floors") or {}).get("reconstructions", {}).get("fvd")
    if reconstructed is not None:
        beside["reconstructions"] = reconstructed
    if result.get("std") is not None:
        beside |= {"std": result["std"], "num_seeds": result["num_seeds"]}
    rank = {"rank_deficient": True} if result.get("rank_deficient") else {}
    return {"value": result["fvd"], **beside, **rank, "protocol": protocol}


def _plain(result: Mapping[str, Any], without: Sequence[str] = ()) -> Record:
    return {
        name: value for name, value in result.items() if isinstance(value, SCALAR) and name not in without
    }


def _is_plain(value: Any) -> bool:
    values = value.values() if isinstance(value, Mapping) else [value]
    return all(isinstance(item, SCALAR) for item in values)


def _without_place(value: Any) -> Any:
    """A path says where it was on one machine; its last part is its name."""
    return Path(value).name if isinstance(value, str) and "/" in value else value
