"""One report of one run or of several: `report.md`, and a `report.html` that needs no network and no file.

Whatever is in a run's folder is shown; what is missing is named together with the command that makes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from eval.report.comparison import (
    FLOORS,
    GENERATED,
    KERNEL,
    NONE,
    RECONSTRUCTED,
    Comparison,
    compare,
    headline,
    merged_table,
    protocol_table,
)
from eval.report.cost_section import cost_section, quality_section
from eval.report.figures import draw_curves, in_full, plotted, short_names
from eval.report.flags import ReportFlags
from eval.report.page import Section, Table, to_html, to_markdown
from eval.report.pictures import Picture, PictureRow
from eval.report.published import published_groups, published_section
from eval.report.runs import OPTIONAL, STAGES, Run, not_here, prefix, read_runs
from vidtwin_gen.files import write_text
from vidtwin_gen.records.autoencoder import PART_TITLES

GIFS_PER_CLASS = 4  # of one run; several share them
MAX_GIFS = 80  # of all classes, but one of each at least


def report(flags: ReportFlags) -> None:
    print(f"report: {write_report(flags.runs, flags.out, flags.baseline or '')}")


def write_report(
    runs: str | Path | Sequence[str | Path], out: str | Path | None = None, baseline: str = ""
) -> Path:
    """Write `report.md` and `report.html` from the JSON, logs and pictures of the runs; figures go to
    `figures` beside them. Returns the path of the HTML file.

    Args:
        runs: folders, or `NAME=FOLDER`.
        out: the report's folder; by default that of the only run, or `report` beside the first of several.
        baseline: the latents, by a part of their name, that the cost bars are multiples of.

    Raises:
        ValueError: as `read_runs`, or as `cost_section` for the baseline.
    """
    found = read_runs([str(run) for run in ([runs] if isinstance(runs, (str, Path)) else runs)])
    if out is None:
        out = found[0].folder if len(found) == 1 else found[0].folder.resolve().parent / "report"
    out = Path(out)
    figures = out / "figures"
    comparison = compare(found)
    pictures = [reconstructions(found), generated_clips(found), loss_curves(found, figures)]
    numbers = [
        metrics(found, comparison),
        quality_section(comparison, found, published_groups(), figures),
        cost_section(found, figures, baseline),
        *other_results(found),
        published_section(published_groups()),
        timings(found),
    ]
    first, second = (pictures, numbers) if len(found) == 1 else (numbers, pictures)
    sections = [what_it_is(found, comparison), *first, *second]
    title = f"vidtwin-gen: report of {'a run' if len(found) == 1 else f'{len(found)} runs'}"
    write_text(out / "report.md", to_markdown(sections, out, title))
    page = out / "report.html"
    write_text(page, to_html(sections, title))
    return page


def what_it_is(runs: Sequence[Run], comparison: Comparison) -> Section:
    few = headline(comparison)
    section = Section(
        "In short",
        [
            *([few] if few.rows else []),
            "A video autoencoder (VidTwin, arXiv 2412.17726) that splits a clip into Structure and Dynamics, "
            "and a diffusion transformer that generates both from a class label. This page shows what "
            f"{'one run' if len(runs) == 1 else f'{len(runs)} runs'} of the two stages gave.",
        ],
    )
    presets = [(run.name, (run.demo or {}).get("preset", NONE)) for run in runs]
    if len(runs) > 1:
        section.body.append(Table(("run", "preset"), presets))
    elif presets[0][1] != NONE:
        section.body.append(f"Preset: {presets[0][1]}.")
    return section


def reconstructions(runs: Sequence[Run]) -> Section:
    section = Section("Reconstructions")
    for run in runs:
        gif = run.folder / "eval" / "recon.gif"
        kinds = ["original", *PART_TITLES.values()]
        if run.recon is not None and run.recon.structure is None:  # an autoencoder without parts
            kinds = kinds[:2]
        if gif.is_file():
            caption = f"{prefix(run, runs)}Rows: {'; '.join(kinds)}"
            section.body.append(PictureRow([Picture(gif, caption, len(kinds))]))
        else:
            section.body.append(not_here(run, runs, "eval/recon.gif"))
    return section


def generated_clips(runs: Sequence[Run]) -> Section:
    """Per class a row: the first clips of each run, then a real one."""
    section = Section("Generated clips")
    clips = {run.name: run.clips() for run in runs}
    classes = sorted({name for found in clips.values() for name in found})
    for run in runs:
        if not clips[run.name]:
            section.body.append(not_here(run, runs, "generated/<Class>/*.gif"))
        if run.generated:
            names = ("num_videos", "scheduler", "num_inference_steps", "guidance_scale", "seed")
            settings = [f"{name.replace('_', ' ')} {getattr(run.generated, name)}" for name in names]
            text = f"Not selected: the first clips of each class ({', '.join(settings)})."
            section.body.append(prefix(run, runs) + text)
    of_class = min(GIFS_PER_CLASS, MAX_GIFS // max(1, len(classes)))
    count = max(1, of_class // len(runs))
    for class_name in classes:
        row = [
            Picture(path, "generated" if len(runs) == 1 else f"generated, {run.name}", first=number == 0)
            for run in runs
            for number, path in enumerate(clips[run.name].get(class_name, ())[:count])
        ]
        real = [path for run in runs if (path := run.real_clip(class_name))]
        row += [Picture(path, "real video", first=True) for path in real[:1]]
        section.body.append(PictureRow(row, class_name))
    return section


def loss_curves(runs: Sequence[Run], folder: Path) -> Section:
    section = Section("Training")
    short = short_names([run.name for run in runs])
    for stage, title in STAGES.items():
        drawn = [run.name for run in runs if run.logs[stage]]
        logs = {short[run.name]: run.logs[stage] for run in runs if run.logs[stage]}
        section.body += [not_here(run, runs, f"{stage}/metrics.jsonl") for run in runs if not run.logs[stage]]
        if logs:
            caption = f"{title}: what {'its log holds' if len(runs) == 1 else 'the logs hold'}, over steps"
            caption += in_full(short, drawn) if len(drawn) > 1 else ""
            draw = partial(draw_curves, logs, title)
            section.body.append(plotted(folder / f"{stage}_loss.png", caption, draw))
    if len(runs) > 1:
        section.body.append("Losses compare only where data, latents and weights of the loss are the same.")
    return section


def metrics(runs: Sequence[Run], comparison: Comparison) -> Section:
    section = Section("Metrics")
    if comparison.labels:
        section.body += [merged_table(comparison), protocol_table(comparison)]
        section.body.append(
            "A row holds one quantity under one protocol, and only numbers in one row compare. Seeds apart, "
            "protocols are the same when all their fields are."
        )
    if any(", rank-deficient" in number.text for number in comparison.all()):
        section.body.append(
            "Rank-deficient: too few clips for a full covariance, compare only within this script and N."
        )
    if any(number.quantity in KERNEL.values() for number in comparison.all()):
        section.body.append(
            "KVD may be below 0: it is unbiased of clips drawn independently, and lower where both sides "
            "have as many clips of each class. Read that of generated clips against that of real ones."
        )
    for run in runs:
        for record, piece in ((run.recon, "recon"), (run.fvd, "fvd"), (run.accuracy, "accuracy")):
            if not record:
                section.body.append(not_here(run, runs, f"eval/{piece}.json"))
        notes = dict.fromkeys(result.note for result in (*run.fvd, run.accuracy) if result and result.note)
        section.body += [f"{prefix(run, runs)}{note}." for note in notes]
        section.body += [
            f"{prefix(run, runs)}{title}: not measured. {reason}".rstrip()
            for title, reason in dict.fromkeys(_unmeasured(run))
        ]
    return section


def _unmeasured(run: Run) -> Iterator[tuple[str, str]]:
    """What a result has no number for, and the reason that it gives."""
    for result in run.fvd:
        if result.fvd is None:
            yield GENERATED, result.reason or ""
        elif result.kvd_reason:
            yield KERNEL[GENERATED], result.kvd_reason
        for key, floor in (result.floors or {}).items():
            if floor["fvd"] is None:
                yield FLOORS[key], floor.get("reason", "")
    if run.recon is None:
        return
    if run.recon.rfvd is not None and run.recon.rfvd["fvd"] is None:
        yield RECONSTRUCTED, run.recon.rfvd["reason"]
    if not run.recon.lpips["measured"]:
        yield "LPIPS", run.recon.lpips["reason"]


def other_results(runs: Sequence[Run]) -> list[Section]:
    """A section for each of `OPTIONAL` that is there: what it found, in words, and its pictures."""
    sections = []
    for stem, (_, title) in OPTIONAL.items():
        section = Section(title)
        words = {run.name: run.optional[stem].in_words() for run in runs if stem in run.optional}
        if names := list(dict.fromkeys(name for found in words.values() for name in found)):
            rows = [(name, *(words.get(run.name, {}).get(name, NONE) for run in runs)) for name in names]
            section.body.append(Table(("result", *(run.name for run in runs)), rows))
        for run in runs:
            if paths := run.pictures(stem):
                captions = (f"{prefix(run, runs)}{title}, {path.stem}" for path in paths)
                section.body.append(PictureRow([*map(Picture, paths, captions)]))
        if section.body:
            sections.append(section)
    return sections


def timings(runs: Sequence[Run]) -> Section:
    section = Section("Time and machine")
    stages = {run.name: (run.demo or {}).get("stages", {}) for run in runs}
    names = list(dict.fromkeys(name for found in stages.values() for name in found))
    if names:
        rows = [(name, *(_seconds(stages[run.name].get(name)) for run in runs)) for name in names]
        rows.append(("in all", *(_seconds(sum(stages[run.name].values()) or None) for run in runs)))
        header = ["time"] if len(runs) == 1 else [run.name for run in runs]
        section.body.append(Table(("stage", *header), rows))
    for run in runs:
        if not run.demo:
            section.body.append(not_here(run, runs, "demo.json"))
            continue
        facts = []
        if "peak_memory_mb" in run.demo:
            facts.append(f"Peak memory {run.demo['peak_memory_mb']:,.0f} MB.")
        if machine := run.demo.get("machine"):
            words = machine if isinstance(machine, str) else ", ".join(f"{k} {v}" for k, v in machine.items())
            facts.append(f"Machine: {words}.")
        if facts:
            section.body.append(prefix(run, runs) + " ".join(facts))
    return section


def _seconds(value: float | None) -> str:
    return NONE if value is None else f"{value:,.1f} s"
