"""The table: a line a row and a sampling, the mean over the seeds and its spread."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import Any

from benchmarks.recipe.inputs import FLOORS
from benchmarks.recipe.rows import STAGES
from eval.study.curves import cell

READINGS = {"steps": "Equal steps", "seconds": "Equal processor seconds"}
COLUMNS = {
    1: ["row", "flags", "steps", "s/step", "parameters", "PSNR, dB", "SSIM", "LPIPS"],
    2: ["row", "sampled", "passes", "steps", "s/step", "parameters", "val loss", "accuracy, %", "FVD", "KVD"],
}
NOTE = {
    1: "Of held-out clips, by the averaged weights.",
    2: "Accuracy of {num_clips} clips; FVD and KVD of {num_fvd_clips}, from training clips, in brackets the "
    "FVD over that of reconstructions. Validation losses in brackets are of other noise levels and do not "
    "compare; x0's is the velocity's, but for the few levels below 0.05.",
}


def markdown(record: Mapping[str, Any]) -> str:
    """Of what the command writes as JSON."""
    settings = record["settings"]
    stage, columns = settings["stage"], COLUMNS[settings["stage"]]
    lines = [f"# Stage {stage}, preset {settings['size']}", "", f"`{record['command']}`", ""]
    machine = ", ".join(f"{name} {value}" for name, value in record["machine"].items())
    about = f"{machine}; commit {' and '.join(record['commits'])}"
    note = NOTE[stage].format(**settings)
    lines += [f"{about}. Mean ± standard deviation over seeds. {note}", ""]
    floors = record.get("floors", {})
    if floors:
        lines += [f"- held-out clips, real: accuracy {100 * floors['accuracy']:.1f} %"]
    for kind in (name for name in FLOORS if name in floors):
        fvd, kvd = cell([floors[kind]["fvd"]], 1), cell([floors[kind]["kvd"]], 4)
        lines += [f"- held-out clips, {kind}: FVD {fvd}, KVD {kvd}"]
    for reading, title in READINGS.items():
        rows = [line for name in record["rows"] for line in lines_of(record, name, reading)]
        if rows:
            lines += ["", f"## {title}", "", " | ".join(columns).join(("| ", " |"))]
            lines += ["|---" * len(columns) + "|", *(" | ".join(row).join(("| ", " |")) for row in rows)]
    return "\n".join(lines) + "\n"


def lines_of(record: Mapping[str, Any], name: str, reading: str) -> Iterator[list[str]]:
    """The cells of a row's lines."""
    row, stage = record["rows"][name], record["settings"]["stage"]
    trained = list(row["readings"].get(reading, {}).values())
    seeds = [seed for seed in trained if "diverged" not in seed]
    if len(seeds) < len(trained):
        yield [name, f"{len(trained) - len(seeds)} of {len(trained)} seeds diverged"]
    if not seeds:
        return
    costs = [str(row["steps"][reading]), f"{row['seconds_per_step']:.4f}", f"{row['parameters']:,}"]
    if stage == 1:
        quality = [
            cell([seed.get(measure) for seed in seeds], digits)
            for measure, digits in (("val_psnr", 2), ("val_ssim", 4), ("val_lpips", 4))
        ]
        yield [name, f"`{row['flags']}`" if row["flags"] else "", *costs, *quality]
        return
    loss = cell([seed["val_loss"] for seed in seeds], 4)
    costs += [loss if STAGES[2][name].comparable else f"({loss})"]
    floor = (record["floors"].get("reconstructions") or {}).get("fvd")
    for sampling in seeds[0]["samplings"]:
        values = [seed["samplings"][sampling] for seed in seeds]
        accuracy = cell([100 * value["accuracy"] for value in values], 1)
        fvds, kvds = ([value.get(measure) for value in values] for measure in ("fvd", "kvd"))
        fvd = cell(fvds, 0) + (f" ({fmean(fvds) / floor:.2f})" if floor and None not in fvds else "")
        yield [name, sampling, str(values[0]["passes"]), *costs, accuracy, fvd, cell(kvds, 4)]
