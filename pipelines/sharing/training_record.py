"""What is known of how a pipeline was made: `training` in its config, as JSON, for its model card.

data      scalars of latents.json: windows per split, rate, fold, the autoencoder's digest; `name`
flags     of train_dit.py, without places on the machine, but of `init_from` the last part; num_processes: how
          many it ran in; num_steps: how many steps it had done, where these were not all
sampling  of the generated clips that the metrics are of: scheduler, steps, guidance, seed
metrics   by name, as `pipelines.sharing.metrics.Metric` writes them
license   of the weights
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.flags import CardFlags
from pipelines.sharing.metrics import SCALAR, Metric, metrics_of
from pipelines.sharing.model_card import CARD, INDEX, SAVE_AGAIN, write_card
from pipelines.sharing.record_types import check_record
from vidtwin_gen.files import read_json, write_json
from vidtwin_gen.records import GeneratedRecord, read_result
from vidtwin_gen.training.config import FREE_ON_RESUME, PLACES

Record = dict[str, Any]

NOT_LEARNED = {*PLACES, *FREE_ON_RESUME}
SAMPLING = ("scheduler", "guidance_scale", "num_inference_steps", "num_videos", "seed")
SAID_IF_OTHER = {"guidance_interval": [0.0, 1.0], "internal_guidance_scale": 1.0, "dtype": None}


def training_record(
    config: Any, latents: Mapping[str, Any], num_processes: int, num_steps: int | None = None
) -> Record:
    """The record of a run of train_dit.py.

    Args:
        config: the run's flags, a dataclass. latents: what latents.json says. Lists in it, such as the class
            names and the whitening, stand elsewhere in the pipeline and are not repeated. num_steps: that
            the run had done, all where left out.
    """
    flags = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    learned = {name: value for name, value in flags.items() if name not in NOT_LEARNED}
    if config.init_from:
        learned["init_from"] = _without_place(config.init_from)
    record = {
        "data": {
            name: _without_place(value)
            for name, value in latents.items()
            if _is_plain(value) and name != "command"  # of the same values, and digests
        },
        "flags": learned,
        "num_processes": num_processes,
    }
    is_at_its_end = num_steps in (None, config.max_train_steps)
    return record if is_at_its_end else record | {"num_steps": num_steps}


def with_metrics(record: Record, paths: Sequence[str | Path]) -> tuple[Record, list[Path]]:
    """The record with the results in these files, and the files that a card shows nothing of.

    It shows what `python -m eval fvd`, `recon` and `accuracy` write, and the generated.json of `python -m
    pipelines generate`. A metric that is in the record already is replaced.

    Raises:
        ValueError: a file that is missing, is no JSON or not of its kind, or none that a card shows.
    """
    metrics, sampling = dict(record.get("metrics", {})), record.get("sampling")
    added: dict[str, Metric] = {}
    unknown = []
    for path in map(Path, paths):
        try:
            result = read_result(path)
        except ValueError as error:
            raise ValueError(f"--metrics {path}: {error}") from None
        found = metrics_of(result)
        for name, metric in found.items():
            if name in added and metric.protocol != added[name].protocol:
                name = f"{name} ({metric.protocol.get('name', path.name)})"
            if name in added:
                raise ValueError(
                    f"--metrics {path}: another of them has {name} by the same protocol: name one"
                )
            added[name] = metric
            metrics[name] = metric.to_json()
        if isinstance(result, GeneratedRecord):
            others = [name for name, plain in SAID_IF_OTHER.items() if getattr(result, name) != plain]
            sampling = {name: getattr(result, name) for name in (*SAMPLING, *others)}
        elif not found:
            unknown.append(path)
    if paths and len(unknown) == len(paths):
        named = ", ".join(map(str, unknown))
        raise ValueError(f"--metrics {named}: no result of eval fvd, recon or accuracy, nor generated.json")
    record = record | ({"metrics": metrics} if metrics else {})
    return record | ({"sampling": sampling} if sampling else {}), unknown


def card(flags: CardFlags) -> None:
    """python -m pipelines card: what is known of a saved pipeline, into its config and its model card."""
    folder = Path(flags.pipeline)
    index = read_json(folder / INDEX, SAVE_AGAIN)
    check_record(index.get("training"))
    record, unknown = with_metrics(index.get("training") or {}, flags.metrics or ())
    for name in ("dataset", "license"):
        _check_utf8(getattr(flags, name), f"--{name}")
    if flags.dataset is not None:
        record |= {"data": record.get("data", {}) | {"name": flags.dataset}}
    if flags.license is not None:
        record |= {"license": flags.license}
    write_json(folder / INDEX, index | {"training": record or None}, sort_keys=True)
    for path in unknown:
        print(f"{path} left out: no result of eval fvd, recon or accuracy, nor generated.json")
    path, written = folder / CARD, write_card(folder)
    print(f"wrote {path}" if written else f"{path} was written by hand and is left as it is")


def _check_utf8(text: str | None, flag: str) -> None:
    """Raises ValueError where bytes of the command line were none, of which Python makes surrogates."""
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        raise ValueError(f"{flag} {text!r} is not UTF-8: type it anew") from None


def _is_plain(value: Any) -> bool:
    values = value.values() if isinstance(value, Mapping) else [value]
    return all(isinstance(item, SCALAR) for item in values)


def _without_place(value: Any) -> Any:
    """A path says where it was on one machine; its last part is its name."""
    return Path(value).name if isinstance(value, str) and "/" in value else value
