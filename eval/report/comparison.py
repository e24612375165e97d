"""The numbers of several runs in one table, where a row holds one quantity under one protocol."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eval.fvd.protocols import quick_count
from eval.report.page import Table
from eval.report.published import published_groups
from eval.report.runs import Record, Run
from vidtwin_gen.records import AccuracyResult, CostResult, CostRow, FVDResult, ReconResult, kvd_text
from vidtwin_gen.records.autoencoder import PART_TITLES
from vidtwin_gen.records.cost import OWN

NONE = "–"
KINDS = "FRSACT"  # Fréchet and kernel distance, reconstruction, SSIM, accuracy, cost, time
GENERATED, REAL, RECONSTRUCTED = "FVD, generated", "FVD, real against real (floor)", "rFVD, reconstructions"
SEEDS = {"seed", "seeds"}  # the fields of a protocol in which two comparable numbers may differ
FLOORS = {"real": REAL, "reconstructions": RECONSTRUCTED}
# the Fréchet distances by name, each with the name of the kernel distance of the same clips
KERNEL = {name: name.replace("FVD", "KVD") for name in (GENERATED, REAL, RECONSTRUCTED)}
# fields that a floor takes over from its distance, unless it has its own
INHERITED = ("num_real", "num_generated", "protocol", "rank_deficient", "class_counts")
# of SSIM in records that do not say it; written out, since the module that measures it needs torch
EARLIER_SSIM_WINDOWS = "11x11 Gaussian, sigma 1.5, around every pixel, mirrored borders"
UNITS = {"psnr": "PSNR (dB)", "ssim": "SSIM", "lpips": "LPIPS"}
ACCURACY, ACCURACY_OF_REAL = "Class accuracy, generated", "Class accuracy, real held-out"
HEADLINE = {  # each distance with its floors, the accuracy with that of real clips
    *KERNEL,
    *KERNEL.values(),
    ACCURACY,
    ACCURACY_OF_REAL,
    *(f"{unit}, {PART_TITLES['both']}" for unit in UNITS.values()),
}
# what in a record besides its numbers says how they came about
RECON_FIELDS = (
    *("split", "videos", "fold", "resolution", "frame_rate", "data_range", "latent", "resize"),
    "dtype",
)
ACCURACY_FIELDS = ("num_train", "fold", "resolution", "frame_rate", "num_steps", "horizontal_flip")
COST_FIELDS = ("size", "clip_shape", "patch_size", "batch_size", "attention", "gradient_checkpointing")


@dataclass(frozen=True)
class Measured:
    """A number of a run, as it is shown, and what it depends on besides the run.

    kind: one of `KINDS`; the protocols of each are numbered for themselves. std: over seeds, where several
    were measured.
    """

    quantity: str
    value: float
    text: str
    kind: str
    protocol: Mapping[str, Any]
    std: float | None = None

    @property
    def key(self) -> str:
        """Equal for two numbers that compare: every field of the protocol but its seed."""
        fields = {name: value for name, value in self.protocol.items() if name not in SEEDS}
        return f"{self.kind} {json.dumps(fields, sort_keys=True)}"


@dataclass
class Comparison:
    """All numbers of the runs, by run, and the label of each protocol in the order they appear.

    labels: `Measured.key` to a letter and a number. protocols: label to the first number that has it.
    """

    measured: dict[str, list[Measured]]
    labels: dict[str, str] = field(default_factory=dict)
    protocols: dict[str, Measured] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for number in self.all():
            if number.key not in self.labels:
                count = sum(other.kind == number.kind for other in self.protocols.values())
                self.labels[number.key] = f"{number.kind}{count + 1}"
                self.protocols[self.labels[number.key]] = number

    def all(self) -> Iterator[Measured]:
        for numbers in self.measured.values():
            yield from numbers

    def name(self, number: Measured) -> str:
        """The label of its protocol, and the protocol's own name if it has one."""
        return f"{self.labels[number.key]} {number.protocol.get('name', '')}".strip()


def compare(runs: Sequence[Run]) -> Comparison:
    return Comparison({run.name: list(measurements(run)) for run in runs})


def headline(comparison: Comparison) -> Table:
    """The few numbers that a run is judged by: a row for each under each protocol."""
    numbers = {
        run: [number for number in numbers if number.quantity in HEADLINE]
        for run, numbers in comparison.measured.items()
    }
    few = merged_table(dataclasses.replace(comparison, measured=numbers))
    return dataclasses.replace(few, headline=True)


def merged_table(comparison: Comparison) -> Table:
    """A row for each quantity under each protocol, a column for each run; numbers that others have published
    under the very same protocol in a column of their own."""
    cells: dict[tuple[str, str], dict[str, list[str]]] = {}  # by run, of several results each
    rows: dict[tuple[str, str], Measured] = {}
    for run, numbers in comparison.measured.items():
        for number in numbers:
            place = (number.quantity, number.key)
            rows.setdefault(place, number)
            cells.setdefault(place, {}).setdefault(run, []).append(number.text)
    first = [name for pair in KERNEL.items() for name in pair]
    quantities = list(dict.fromkeys([*first, *(quantity for quantity, _ in rows)]))
    order = sorted(rows, key=lambda place: quantities.index(place[0]))
    published = {place: _published(rows[place]) for place in order}
    beside = ["published, same protocol"] if any(published.values()) else []
    return Table(
        ("quantity", "protocol", *comparison.measured, *beside),
        [
            (
                place[0],
                comparison.name(rows[place]),
                *("; ".join(dict.fromkeys(cells[place].get(run, [NONE]))) for run in comparison.measured),
                *([published[place] or NONE] if beside else []),
            )
            for place in order
        ],
    )


def protocol_table(comparison: Comparison) -> Table:
    """What each label stands for, and in what it differs from the first of its kind."""
    rows = []
    for label, number in sorted(comparison.protocols.items(), key=lambda pair: KINDS.index(pair[1].kind)):
        first = comparison.protocols[f"{number.kind}1"]
        differences = "" if number is first else differing_fields(first.protocol, number.protocol)
        fields = (f"{key} {_short(value)}" for key, value in number.protocol.items() if key not in SEEDS)
        rows.append((label, ", ".join(fields), differences and f"from {first.kind}1 in {differences}"))
    return Table(("protocol", "what it fixes", "differs"), rows)


def differing_fields(first: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The fields that differ, with both values: the other's, then the first's."""
    return ", ".join(
        f"{name} ({_short(other.get(name, 'not recorded'))}, not {_short(first.get(name, 'not recorded'))})"
        for name in dict.fromkeys([*first, *other])
        if name not in SEEDS and first.get(name, "not recorded") != other.get(name, "not recorded")
    )


def measurements(run: Run) -> Iterator[Measured]:
    """Every number of a run that has a row in the table, in the table's order."""
    for record in run.fvd:
        yield from _distances(record, run)
    if run.recon:
        yield from _distance(run.recon.rfvd, RECONSTRUCTED, run)
        yield from _reconstruction(run.recon, run)
    if run.accuracy:
        yield from _accuracy(run.accuracy)
    if run.cost:
        yield from _cost(run.cost)
    yield from _times(run.demo or {})


def own_rows(cost: CostResult) -> list[CostRow]:
    """The rows that are about the run's own latents, one for each way of counting. Of a pipeline these are
    its own DiT's, without those at other patch sizes, where the record marks its own."""
    own_dits = [row for row in cost.rows if row.own_dit]
    return own_dits or [row for row in cost.rows if row.tokenizer.endswith(f"({OWN})")]


def cost_protocol(row: CostRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in COST_FIELDS}


def _distances(result: FVDResult, run: Run) -> Iterator[Measured]:
    """The distances of generated clips and of their two floors, under their protocol unless they name
    another."""
    record = result.to_json()
    yield from _distance(record, GENERATED, run)
    inherited = {name: record[name] for name in INHERITED if name in record}
    for key, title in FLOORS.items():
        if result.floors and key in result.floors and result.fvd is not None:
            others = "other real" if key == "real" else "decoded"
            yield from _distance(inherited | result.floors[key], title, run, others)


def _distance(
    record: Record | None, quantity: str, run: Run, others: str = "generated"
) -> Iterator[Measured]:
    if record is None or record["fvd"] is None:
        return
    counts, kvd = record.get("class_counts"), record.get("kvd")
    protocol = record["protocol"] | {"classes": sorted(counts) if counts else run.class_names}
    if counts and len(set(counts.values())) > 1 and quick_count(str(protocol.get("name"))):
        protocol["class_counts"] = counts  # the real clips are of as many
    several = record.get("std") is not None
    seeds = f" ({record['num_seeds']} seeds)" if several else ""
    size = f"{seeds}, N = {record['num_real']:,} real, {record['num_generated']:,} {others}"
    value = float(record["fvd"])
    text = f"{value:.1f}" if value >= 10 else f"{value:.2f}"
    text += f" ± {record['std']:.1f}" if several else ""
    flag = ", rank-deficient" if record["rank_deficient"] else ""
    yield Measured(quantity, value, f"{text}{size}{flag}", "F", protocol, record.get("std"))
    if kvd is not None:
        text = f"{kvd_text(kvd, record.get('kvd_std'))}{size}"
        yield Measured(KERNEL[quantity], kvd, text, "F", protocol)


def _reconstruction(recon: ReconResult, run: Run) -> Iterator[Measured]:
    fields = recon.to_json()
    protocol = {name: fields[name] for name in RECON_FIELDS if name in fields}
    for part, title in PART_TITLES.items():
        for key, unit in UNITS.items():
            value = fields.get(part, {}).get(key)
            if value is None:
                continue
            interval = f" ± {value['ci95']:.3f} (95 %)" if value["ci95"] is not None else ""
            text = f"{value['mean']:.3f}{interval}, N = {value['num_clips']:,}"
            fixed = protocol | {"num_clips": value["num_clips"]} | {"classes": run.class_names}
            kind = "R"
            if key == "lpips" and (weights := recon.lpips.get("weights_sha256")):
                fixed["lpips_weights_sha256"] = weights
            if key == "ssim":
                kind, fixed = "S", {"windows": recon.ssim_windows or EARLIER_SSIM_WINDOWS} | fixed
            yield Measured(f"{unit}, {title}", value["mean"], text, kind, fixed)


def _accuracy(result: AccuracyResult) -> Iterator[Measured]:
    protocol = {name: getattr(result, name) for name in ACCURACY_FIELDS}
    protocol["classes"] = sorted(result.class_names)
    if result.note:  # also of versions whose codec was no field of its own
        protocol["codec"] = result.codec or "of videos"
    for side, title in (("generated", ACCURACY), ("real", ACCURACY_OF_REAL)):
        share, count = getattr(result, side)["accuracy"], getattr(result, side)["num_clips"]
        yield Measured(title, share, f"{result.text(side)}, N = {count:,}", "A", protocol)


def _cost(cost: CostResult) -> Iterator[Measured]:
    """Counted for the run's own latents; the transformer's size is part of the run, not of the protocol."""
    for row in own_rows(cost):
        for quantity, value, text in (
            ("Tokens of a clip", row.num_tokens, f"{row.num_tokens:,}"),
            ("Parameters of the DiT", row.num_parameters, f"{row.num_parameters:,}"),
            ("GFLOPs, forward", row.forward_flops, f"{row.forward_flops / 1e9:,.3f}"),
            ("GFLOPs, training step", row.training_flops, f"{row.training_flops / 1e9:,.3f}"),
            ("Training memory, counted (MiB)", row.peak_bytes, f"{row.peak_bytes / 2**20:,.1f}"),
        ):
            yield Measured(quantity, value, text, "C", cost_protocol(row))


def _times(demo: Record) -> Iterator[Measured]:
    seconds = [value for name, value in demo.get("stages", {}).items() if name.startswith("stage ")]
    if seconds:
        text = f"{sum(seconds) / 60:,.1f} min"
        yield Measured("Training, both stages", sum(seconds), text, "T", {"machine": demo.get("machine")})


def _published(number: Measured) -> str:
    if number.quantity != GENERATED:
        return ""
    rows = [
        f"{row.model} {row.shown} ({row.source or group.source})"
        for group in published_groups()
        if group.compares_with(number.protocol)
        for row in group.rows
        if row.fvd is not None
    ]
    if rows and (chosen := number.protocol.get("not_published")):
        rows.append(f"of this protocol not published, but our choice: {chosen}")
    return "; ".join(rows)


def _short(value: Any) -> str:
    if isinstance(value, list) and len(value) > 4:
        return f"{len(value)} of {value[0]} … {value[-1]}"
    if isinstance(value, (list, tuple)):
        return (", " if any(isinstance(item, str) for item in value) else "×").join(map(str, value))
    if isinstance(value, dict):
        return " ".join(f"{name} {_short(item)}" for name, item in value.items())
    return f"{value[:12]}…" if isinstance(value, str) and len(value) == 64 else str(value)
