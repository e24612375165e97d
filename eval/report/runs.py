"""What stands in the folder of a run: records, logs and pictures, read once for the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Record = dict[str, Any]

STAGES = {"vae": "Stage 1, autoencoder", "dit": "Stage 2, generator"}
# what writes each piece; a report says so where the piece is missing
COMMANDS = {
    "eval/recon.gif": "python -m eval recon --vae … --data … --out … --gif …",
    "generated/<Class>/*.gif": "python -m pipelines generate --pipeline … --out … --format gif",
    "vae/metrics.jsonl": "python train_vae.py",
    "dit/metrics.jsonl": "python train_dit.py",
    "eval/recon.json": "python -m eval recon",
    "eval/fvd.json": "python -m eval fvd",
    "eval/accuracy.json": "python -m eval accuracy",
    "eval/cost.json": "python -m eval cost",
    "demo.json": "python -m vidtwin_gen demo",
}
# without these keys a file is not what its name says
NEEDED = {
    "eval/recon.json": ("both",),
    "eval/fvd.json": ("fvd",),
    "eval/accuracy.json": ("generated", "real"),
    "eval/cost.json": ("rows",),
}
# results that only some runs have: shown as they are, with the pictures whose names begin alike
OPTIONAL = {
    "diagnose": "Diagnosis of the latent",
    "sensitivity": "What the distance is sensitive to",
}


@dataclass(frozen=True)
class Run:
    """The folder of a run and what was read there; what is missing is None or empty.

    fvd: every `eval/fvd*.json`, the plain one first. logs: of `STAGES`, the lines of `metrics.jsonl`.
    optional: of `OPTIONAL`, the JSON in `eval/`.
    """

    name: str
    folder: Path
    demo: Record | None
    recon: Record | None
    fvd: tuple[Record, ...]
    accuracy: Record | None
    cost: Record | None
    generated: Record | None
    logs: dict[str, list[Record]]
    optional: dict[str, Record]

    @property
    def class_names(self) -> list[str] | None:
        """Of the data, as far as the run tells: two data sets share no protocol."""
        for record in (self.generated, self.accuracy):
            if record and record.get("class_names"):
                return sorted(record["class_names"])
        return None

    def clips(self) -> dict[str, list[Path]]:
        """Class name: its generated GIFs, in order."""
        found = {
            folder.name: sorted(folder.glob("*.gif"))
            for folder in sorted((self.folder / "generated").glob("*"))
        }
        return {name: paths for name, paths in found.items() if paths}

    def real_clip(self, class_name: str) -> Path | None:
        path = self.folder / "eval" / "real" / f"{class_name}.gif"
        return path if path.is_file() else None

    def pictures(self, stem: str) -> list[Path]:
        """`eval/<stem>*.png`."""
        return sorted((self.folder / "eval").glob(f"{stem}*.png"))


def read_runs(words: Sequence[str]) -> list[Run]:
    """Runs by folder or `NAME=FOLDER`, named like their folder unless told otherwise.

    Raises:
        ValueError: two runs of one name, or as `read_run`.
    """
    runs: dict[str, Run] = {}
    for word in words:
        name, separator, path = str(word).partition("=")
        if not separator or Path(word).is_dir():
            name, path = Path(word).resolve().name, str(word)
        if name in runs:
            raise ValueError(
                f"two runs are called {name}, {runs[name].folder} and {path}: give one of them another name, "
                f"as in other={path}"
            )
        runs[name] = read_run(path, name)
    return list(runs.values())


def read_run(folder: str | Path, name: str) -> Run:
    """Reads whatever is there.

    Raises:
        ValueError: no folder, nothing of a run in it, or a file that is not what its name says.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: name the folder of a run, or NAME=FOLDER")
    plain = folder / "eval" / "fvd.json"
    others = sorted(path for path in (folder / "eval").glob("fvd*.json") if path != plain)
    distances = [_read_json(path, folder, "eval/fvd.json") for path in (plain, *others)]
    run = Run(
        name,
        folder,
        demo=_read_json(folder / "demo.json", folder),
        recon=_read_json(folder / "eval" / "recon.json", folder),
        fvd=tuple(_check_distance(record, folder) for record in distances if record is not None),
        accuracy=_read_json(folder / "eval" / "accuracy.json", folder),
        cost=_read_json(folder / "eval" / "cost.json", folder),
        generated=_read_json(folder / "generated" / "generated.json", folder),
        logs={stage: _read_log(folder / stage / "metrics.jsonl") for stage in STAGES},
        optional={
            stem: record
            for stem in OPTIONAL
            if (record := _read_json(folder / "eval" / f"{stem}.json", folder)) is not None
        },
    )
    if not any(_contents(run)):
        raise ValueError(
            f"{folder} is no run: none of {', '.join(COMMANDS)} is there; name the folder that these lie in"
        )
    return run


def prefix(run: Run, runs: Sequence[Run]) -> str:
    """What a sentence about one of several runs begins with."""
    return f"{run.name}: " if len(runs) > 1 else ""


def missing(piece: str) -> str:
    """One sentence for a report: `piece`, a key of `COMMANDS`, and the command that writes it."""
    return f"{piece} was not found. It is written by `{COMMANDS[piece]}`."


def _contents(run: Run) -> list[Any]:
    records = (run.demo, run.recon, run.accuracy, run.cost, run.generated)
    pictures = [(run.folder / "eval" / "recon.gif").is_file(), *(run.pictures(stem) for stem in OPTIONAL)]
    there = [record is not None for record in records]
    return [*there, run.fvd, run.optional, *run.logs.values(), run.clips(), *pictures]


def _check_distance(record: Record, folder: Path) -> Record:
    if record["fvd"] is not None and not {"num_real", "num_generated", "protocol"} <= record.keys():
        raise ValueError(
            f"{folder}: the FVD {record['fvd']} stands without its N and protocol and can't be compared with "
            f"anything: write it anew with `{COMMANDS['eval/fvd.json']}`"
        )
    return record


def _read_json(path: Path, folder: Path, kind: str | None = None) -> Record | None:
    """`kind`: the key of `NEEDED` and `COMMANDS`, where it is not the path inside the run's folder."""
    if not path.is_file():
        return None
    kind = kind or path.relative_to(folder).as_posix()
    way_out = f"write it anew with `{COMMANDS[kind]}`, or delete it" if kind in COMMANDS else "delete it"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} can't be read as JSON ({error}): {way_out}") from None
    needed = NEEDED.get(kind, ())
    if not isinstance(record, dict) or not set(needed) <= record.keys():
        expected = f"an object with {', '.join(needed)}" if needed else "an object"
        raise ValueError(f"{path} is expected to hold {expected}, and does not: {way_out}")
    return record


def _read_log(path: Path) -> list[Record]:
    """The complete lines: a training that is going on may be writing the last one."""
    if not path.is_file():
        return []
    records = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(keepends=True), 1):
        if not line.strip() or not line.endswith("\n"):
            continue
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}, line {number}, can't be read as JSON ({error}): delete that line"
            ) from None
    return records
