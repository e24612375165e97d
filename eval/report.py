"""One report of a run: `report.md`, and a `report.html` that needs no network and no other file.

Whatever is in the run's folder is shown; what is missing is named together with the command that makes it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.figures import plot_cost, plot_curves
from eval.page import Picture, Section, Table, to_html, to_markdown

GIFS_PER_CLASS = 4


def write_report(run_dir: str | Path) -> Path:
    """Write `report.md` and `report.html` into `run_dir` from the JSON, logs and GIFs there; figures go to
    `run_dir/figures`. Returns the path of the HTML file.

    Raises:
        ValueError: `run_dir` is no folder.
    """
    run_dir = Path(run_dir)
    if not run_dir.is_dir():
        raise ValueError(f"{run_dir} is not a folder: name the folder of a run")
    (run_dir / "figures").mkdir(exist_ok=True)
    sections = [
        what_it_is(run_dir),
        reconstructions(run_dir),
        generated_clips(run_dir),
        loss_curves(run_dir),
        metrics(run_dir),
        cost(run_dir),
        timings(run_dir),
    ]
    (run_dir / "report.md").write_text(to_markdown(sections, run_dir), encoding="utf-8")
    page = run_dir / "report.html"
    page.write_text(to_html(sections), encoding="utf-8")
    return page


def what_it_is(run_dir: Path) -> Section:
    demo = _read_json(run_dir / "demo.json") or {}
    preset = f" Preset: {demo['preset']}." if "preset" in demo else ""
    return Section(
        "What this is",
        [
            "A video autoencoder (VidTwin, arXiv 2412.17726) that splits a clip into Structure and Dynamics, "
            "and a diffusion transformer that generates both from a class label. This page shows what one "
            f"run of the two stages gave.{preset}"
        ],
    )


def reconstructions(run_dir: Path) -> Section:
    section = Section("Reconstructions")
    gif = run_dir / "eval" / "recon.gif"
    if gif.is_file():
        section.body.append(
            [Picture(gif, "Rows: original; reconstruction; from Structure alone; from Dynamics alone", 4)]
        )
    else:
        section.body.append(_missing(gif, run_dir, "python -m eval recon --vae … --data … --out … --gif …"))
    return section


def generated_clips(run_dir: Path) -> Section:
    section = Section("Generated clips")
    real = run_dir / "eval" / "real"
    generated = run_dir / "generated"
    folders = sorted(path for path in generated.glob("*") if any(path.glob("*.gif")))
    if not folders:
        command = "python -m pipelines generate --pipeline … --out … --format gif"
        section.body.append(_missing(generated / "<Class>/*.gif", run_dir, command))
    record = _read_json(generated / "generated.json") or {}
    settings = [
        f"{name.replace('_', ' ')} {record[name]}"
        for name in ("num_videos", "scheduler", "num_inference_steps", "guidance_scale", "seed")
        if name in record
    ]
    if settings:
        section.body.append(f"Not selected: the first clips of each class ({', '.join(settings)}).")
    for folder in folders:
        pictures = [
            Picture(path, f"{folder.name}, generated")
            for path in sorted(folder.glob("*.gif"))[:GIFS_PER_CLASS]
        ]
        if (real / f"{folder.name}.gif").is_file():
            pictures.append(Picture(real / f"{folder.name}.gif", f"{folder.name}, real"))
        section.body.append(pictures)
    return section


def loss_curves(run_dir: Path) -> Section:
    section = Section("Training")
    for stage, title in (("vae", "Stage 1, autoencoder"), ("dit", "Stage 2, generator")):
        log = run_dir / stage / "metrics.jsonl"
        records = _read_jsonl(log)
        if not records:
            section.body.append(_missing(log, run_dir, f"python train_{stage}.py"))
            continue
        path = run_dir / "figures" / f"{stage}_loss.png"
        plot_curves(records, title, path)
        section.body.append([Picture(path, f"{title}: what its log holds, over optimiser steps")])
    return section


def metrics(run_dir: Path) -> Section:
    rows: list[Sequence[str]] = []
    notes: list[str] = []
    recon = _read_json(run_dir / "eval" / "recon.json")
    if recon:
        protocol = f"{recon['split']} split, {recon['resolution']}"
        for part, title in (
            ("both", "reconstruction"),
            ("structure", "Structure alone"),
            ("dynamics", "Dynamics alone"),
        ):
            for key, unit in (("psnr", "PSNR (dB)"), ("ssim", "SSIM"), ("lpips", "LPIPS")):
                if (value := recon[part].get(key)) is None:
                    continue
                rows.append((f"{unit}, {title}", _interval(value), str(value["num_clips"]), protocol))
    else:
        notes.append(_missing(run_dir / "eval/recon.json", run_dir, "python -m eval recon"))
    for record, title in (
        (_read_json(run_dir / "eval" / "fvd.json"), "FVD, generated"),
        ((recon or {}).get("rfvd"), "rFVD, reconstructions"),
    ):
        if record is None:
            if title.startswith("FVD"):
                notes.append(_missing(run_dir / "eval/fvd.json", run_dir, "python -m eval fvd"))
        elif record["fvd"] is None:
            notes.append(f"{title}: not measured. {record['reason']}")
        else:
            rows += _fvd_rows(record, title)
    accuracy = _read_json(run_dir / "eval" / "accuracy.json")
    if accuracy:
        protocol = f"classifier trained on {accuracy['num_train']} real clips, seed {accuracy['seed']}"
        for key, title in (
            ("generated", "Class accuracy, generated"),
            ("real", "Class accuracy, real held-out"),
        ):
            rows.append(
                (title, f"{accuracy[key]['accuracy']:.1%}", str(accuracy[key]["num_clips"]), protocol)
            )
    else:
        notes.append(_missing(run_dir / "eval/accuracy.json", run_dir, "python -m eval accuracy"))
    body: list[str | Table | list[Picture]] = []
    if rows:
        body.append(Table(("metric", "value", "N", "protocol"), rows))
    return Section("Metrics", [*body, *notes])


def cost(run_dir: Path) -> Section:
    record = _read_json(run_dir / "eval" / "cost.json")
    if not record:
        return Section("Cost", [_missing(run_dir / "eval/cost.json", run_dir, "python -m eval cost")])
    section = Section(
        "Cost",
        [
            "The same transformer on two kinds of latents. FLOPs and memory are counted, not measured: "
            "attention is included, memory is float32 with Adam at its peak in one training step."
        ],
    )
    for key, file, remark in (
        ("rows", "cost.png", ""),
        ("paper_size_rows", "cost_paper_size.png", ": paper size, the sizes of its Figure 5"),
    ):
        if key in record:
            path = run_dir / "figures" / file
            plot_cost(record[key], path)
            section.body.append(_cost_table(record[key], remark))
            section.body.append([Picture(path, "Relative to the first row above; shorter is cheaper")])
    return section


def timings(run_dir: Path) -> Section:
    demo = _read_json(run_dir / "demo.json")
    if not demo:
        return Section(
            "Time and machine", [_missing(run_dir / "demo.json", run_dir, "python -m vidtwin_gen demo")]
        )
    rows = [(name, f"{seconds:.1f} s") for name, seconds in demo.get("stages", {}).items()]
    body: list[str | Table | list[Picture]] = []
    if rows:
        rows.append(("in all", f"{sum(demo['stages'].values()):.1f} s"))
        body.append(Table(("stage", "time"), rows))
    facts = []
    if "peak_memory_mb" in demo:
        facts.append(f"Peak memory {demo['peak_memory_mb']:,.0f} MB.")
    machine = demo.get("machine")
    if machine:
        words = machine if isinstance(machine, str) else ", ".join(f"{k} {v}" for k, v in machine.items())
        facts.append(f"Machine: {words}.")
    return Section("Time and machine", [*body, *([" ".join(facts)] if facts else [])])


def _fvd_rows(record: dict[str, Any], title: str) -> list[Sequence[str]]:
    protocol = record["protocol"]
    count = f"{record['num_real']} real, {record['num_generated']} generated"
    rate = f"{protocol['fps']:g} fps" if protocol["fps"] else f"stride {protocol['stride']}"
    text = (
        f"{protocol['name']}: {protocol['split']} split, {protocol['num_frames']}×{protocol['height']}×"
        f"{protocol['width']}, {rate}, {protocol['feature_extractor']}"
    )
    if record["rank_deficient"]:
        text += "; rank-deficient: too few clips for a full covariance, compare only within this script and N"
    rows: list[Sequence[str]] = [(title, f"{record['fvd']:.1f}", count, text)]
    if record.get("floor") is not None:
        halves = f"{record['num_real']} real, {record['num_real']} other real"
        rows.append(
            (f"{title.split(',')[0]}, real against real (floor)", f"{record['floor']:.1f}", halves, text)
        )
    return rows


def _cost_table(rows: Sequence[dict[str, Any]], remark: str) -> Table:
    """The first column says for which clips and which transformer all rows are."""
    first = rows[0]
    title = (
        f"latents of {'×'.join(map(str, first['clip_shape']))} clips, depth {first['num_layers']}, width "
        f"{first['hidden_size']}, {first['num_heads']} heads, batch {first['batch_size']}{remark}"
    )
    columns = ("patch", "elements", "rate", "tokens", "parameters")
    counted = ("GFLOPs forward", "GFLOPs training", "MiB training")
    return Table(
        (title, *columns, *counted),
        [
            (
                row["tokenizer"],
                str(row["patch_size"]),
                f"{row['num_elements']:,}",
                f"{row['compression_rate']:.3%}",
                f"{row['num_tokens']:,}",
                f"{row['num_parameters']:,}",
                f"{row['forward_flops'] / 1e9:,.3f}",
                f"{row['training_flops'] / 1e9:,.3f}",
                f"{row['training_memory_bytes']['peak'] / 2**20:,.1f}",
            )
            for row in rows
        ],
    )


def _missing(path: Path, run_dir: Path, command: str) -> str:
    return f"Not here: {path.relative_to(run_dir)} was not found. It is written by `{command}`."


def _interval(value: dict[str, Any]) -> str:
    if value["ci95"] is None:
        return f"{value['mean']:.3f}"
    return f"{value['mean']:.3f} ± {value['ci95']:.3f} (95 %)"


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _read_jsonl(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
