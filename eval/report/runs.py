"""What stands in the folder of a run: records, logs and pictures, read once for the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from vidtwin_gen.files import check_reachable, read_json, read_log
from vidtwin_gen.records import (
    AccuracyResult,
    CostResult,
    DiagnoseResult,
    FVDResult,
    GeneratedRecord,
    NearestResult,
    ReconResult,
    Result,
    SensitivityResult,
)
from vidtwin_gen.records.json_types import check_type

Record = dict[str, Any]
R = TypeVar("R", bound=Result)


class DemoRecord(TypedDict, total=False):
    """demo.json."""

    preset: str
    data: str | None
    stages: dict[str, float]
    peak_memory_mb: float
    machine: str


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
# results that only some runs have, with the pictures whose names begin alike
OPTIONAL: dict[str, tuple[type[DiagnoseResult | SensitivityResult | NearestResult], str]] = {
    "nearest": (NearestResult, "How near training clips"),
    "diagnose": (DiagnoseResult, "Diagnosis of the latent"),
    "sensitivity": (SensitivityResult, "What the distance is sensitive to"),
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
    recon: ReconResult | None
    fvd: tuple[FVDResult, ...]
    accuracy: AccuracyResult | None
    cost: CostResult | None
    generated: GeneratedRecord | None
    logs: dict[str, list[Record]]
    optional: dict[str, DiagnoseResult | SensitivityResult | NearestResult]

    @property
    def class_names(self) -> list[str] | None:
        """Of the data, as far as the run tells: two data sets share no protocol."""
        for record in (self.accuracy, self.generated):  # of the second only those that clips were made of
            if record and record.class_names:
                return sorted(record.class_names)
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
    check_reachable(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: name the folder of a run, or NAME=FOLDER")
    results = folder / "eval"
    plain = results / "fvd.json"
    distances = [plain, *sorted(path for path in results.glob("fvd*.json") if path != plain)]
    run = Run(
        name,
        folder,
        demo=_read_demo(folder / "demo.json"),
        recon=_read(ReconResult, results / "recon.json"),
        fvd=tuple(FVDResult.read(path) for path in distances if path.is_file()),
        accuracy=_read(AccuracyResult, results / "accuracy.json"),
        cost=_read(CostResult, results / "cost.json"),
        generated=_read(GeneratedRecord, folder / "generated" / "generated.json"),
        logs={stage: read_log(folder / stage / "metrics.jsonl") for stage in STAGES},
        optional={
            stem: record
            for stem, (kind, _) in OPTIONAL.items()
            if (record := _read(kind, results / f"{stem}.json")) is not None
        },
    )
    if not any(_contents(run)):
        raise ValueError(
            f"{folder} is no run: none of {', '.join(COMMANDS)} is there; name the folder that these lie in"
        )
    return run


def prefix(run: Run, runs: Sequence[Run]) -> str:
    """What a sentence about one of several runs begins with; a backtick of its name would begin code."""
    return f"{run.name.replace('`', chr(39))}: " if len(runs) > 1 else ""


def not_here(run: Run, runs: Sequence[Run], piece: str) -> str:
    """A sentence for a report: `piece`, a key of `COMMANDS`, is missing, and the command that writes it."""
    return f"Not here: {prefix(run, runs)}{piece} was not found. It is written by `{COMMANDS[piece]}`."


def _contents(run: Run) -> list[Any]:
    records = (run.demo, run.recon, run.accuracy, run.cost, run.generated)
    pictures = [(run.folder / "eval" / "recon.gif").is_file(), *(run.pictures(stem) for stem in OPTIONAL)]
    there = [record is not None for record in records]
    return [*there, run.fvd, run.optional, *run.logs.values(), run.clips(), *pictures]


def _read(kind: type[R], path: Path) -> R | None:
    return kind.read(path) if path.is_file() else None


def _read_demo(path: Path) -> Record | None:
    if not path.is_file():
        return None
    way_out = f"write it anew with `{COMMANDS['demo.json']}`, or delete it"
    record = read_json(path, way_out)
    try:
        check_type(path.name, record, DemoRecord)
    except ValueError as error:
        raise ValueError(f"{path.parent}: {error}; {way_out}") from None
    return record
