"""Which numbers of several runs, and which published ones, share a row, a table or a panel."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from eval.fvd.protocols import PROTOCOLS
from eval.fvd.selection import Settings
from eval.report.comparison import Measured, compare, differing_fields, headline, merged_table
from eval.report.cost_section import quality_panels
from eval.report.published import published_groups
from eval.report.report import write_report
from eval.report.runs import read_runs
from tests.builders.extractors import FilterResponses
from tests.builders.results import (
    PROTOCOL,
    ROW,
    accuracy_result,
    cost_result,
    fvd_result,
    generated_record,
    recon_result,
    table_rows,
)
from vidtwin_gen.records import FVDProtocol
from vidtwin_gen.records.cost import OWN


def test_numbers_stand_in_one_row_only_under_one_protocol(several: Path) -> None:
    text = (several / "report.md").read_text().partition("## Metrics")[2]
    assert "| quantity | protocol | first | renamed | third |" in text
    same, other = table_rows(text, "FVD, generated")
    count = "N = 32 real, 32 generated, rank-deficient"
    assert same[1:] == ["F1 quick-32", f"321.5, {count}", f"222.2, {count}", "–"]  # the seed may differ
    assert other[1:4] == ["F2 quick-64", "–", "–"] and other[4].startswith("111.1, N = 64 real")
    assert "from F1 in name (quick-64, not quick-32), num_real (64, not 32), num_generated (64, not" in text
    assert len(table_rows(text, "PSNR (dB), reconstruction")) == 1
    assert table_rows(text, "Tokens of a clip") == [["Tokens of a clip", "C1", "100", "100", "100"]]
    assert "published, same protocol" not in text


def test_a_panel_holds_one_protocol(several: Path) -> None:
    runs = read_runs([several.parent / name for name in ("first", "second", "third")])
    first, other = quality_panels(compare(runs), runs)
    assert first.points == [("first", 2.0, 321.5), ("second", 2.0, 222.2)]
    assert first.title == "FVD, generated: F1 quick-32" and first.floors.keys() == {"first", "second"}
    assert other.points == [("third", 2.0, 111.1)] and other.floors == {"third": 123.25}


def test_a_panel_holds_the_dits_of_pipelines_each_at_its_own_patch(tmp_path: Path) -> None:
    """Latents at one patch, of no pipeline or as earlier versions counted it, are plotted at that patch
    alone."""
    for name, size, patch_size in (
        ("one", OWN, {"structure": [2, 1, 1]}),
        ("two", OWN, 2),
        ("latents", "S", 1),
        ("others", "S", 2),
        ("earlier", OWN, 1),
    ):
        own_dit = True if name in ("one", "two") else None
        row = dataclasses.replace(ROW, size=size, patch_size=patch_size, own_dit=own_dit)
        other = dataclasses.replace(row, tokenizer="VidTwin (this run's latents)", patch_size=1, own_dit=None)
        cost_result(row, other).write(tmp_path / name / "eval/cost.json")
        fvd_result(10.0).write(tmp_path / name / "eval/fvd.json")
    runs = read_runs([tmp_path / name for name in ("one", "two", "latents", "others", "earlier")])
    panels = quality_panels(compare(runs), runs)
    assert sorted([point[0] for point in panel.points] for panel in panels) == [
        ["earlier"],
        ["latents"],
        ["one", "two"],
        ["others"],
    ]
    (own,) = (panel for panel in panels if len(panel.points) == 2)
    assert "each DiT at its own patch" in own.cost_axis


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(FVDProtocol)])
def test_every_field_but_the_seed_keeps_protocols_apart(field: str) -> None:
    fields = dataclasses.asdict(PROTOCOL)
    changed = fields | {field: "another"}
    first, other = (Measured("FVD, generated", 1.0, "1", "F", protocol) for protocol in (fields, changed))
    absent = Measured("FVD, generated", 1.0, "1", "F", {k: v for k, v in fields.items() if k != field})
    assert (first.key == other.key) == (field == "seed") == (first.key == absent.key)
    assert (field in differing_fields(fields, changed)) == (field != "seed")


def test_two_data_sets_share_no_protocol(tmp_path: Path) -> None:
    for name, class_names in (("one", ["Ball", "Door"]), ("two", ["Archery", "Biking"])):
        fvd_result(10.0).write(tmp_path / name / "eval/fvd.json")
        generated_record(class_names=class_names).write(tmp_path / name / "generated/generated.json")
    comparison = compare(read_runs([tmp_path / "one", tmp_path / "two"]))
    assert list(comparison.protocols) == ["F1", "F2"]


def test_ssim_of_other_windows_stands_in_another_row(tmp_path: Path) -> None:
    for name, windows in (("earlier", None), ("now", "11x11, 'valid'")):
        recon_result(ssim_windows=windows).write(tmp_path / name / "eval/recon.json")
    text = write_report([tmp_path / "earlier", tmp_path / "now"]).with_suffix(".md").read_text()
    text = text.partition("## Metrics")[2]
    (psnr,) = table_rows(text, "PSNR (dB), reconstruction")
    earlier, now = table_rows(text, "SSIM, reconstruction")
    assert "–" not in psnr and earlier[3] == now[2] == "–"
    assert "from S1 in windows (11x11, 'valid', not 11x11 Gaussian, sigma 1.5, around every pixel" in text


def test_reconstructions_of_two_precisions_stand_in_two_rows(tmp_path: Path) -> None:
    for name, dtype in (("exact", None), ("half", "bfloat16")):
        recon_result(dtype=dtype).write(tmp_path / name / "eval/recon.json")
    comparison = compare(read_runs([tmp_path / "exact", tmp_path / "half"]))
    assert list(comparison.protocols) == ["R1", "S1", "R2", "S2"]


def test_published_numbers_stand_beside_ours_only_under_their_protocol(tmp_path: Path) -> None:
    names = ["ApplyEyeMakeup", "YoYo", *map(str, range(99))]
    magvit = dataclasses.replace(
        PROTOCOL, name="magvit-10k", num_real=10_000, num_generated=10_000, height=128, width=128
    )

    def header(
        protocol: FVDProtocol, class_names: list[str], class_counts: dict[str, int] | None = None
    ) -> tuple[str, ...]:
        fvd_result(50.0, protocol, class_counts=class_counts).write(tmp_path / "run/eval/fvd.json")
        generated_record(class_names=class_names).write(tmp_path / "run/generated/generated.json")
        table = merged_table(compare(read_runs([tmp_path / "run"])))
        if len(table.header) == 4:
            assert "W.A.L.T-XL 36 ± 2 (" in table.rows[0][3] and "FAR" not in table.rows[0][3]
        return tuple(table.header)

    assert header(magvit, names)[3:] == ("published, same protocol",)
    assert len(header(magvit, names[1:])) == 3
    assert len(header(magvit, names[:-1])) == 3  # one class is missing, but none that is looked for
    # the record's own classes, whatever lies in the folder generated/
    assert len(header(magvit, ["another"], dict.fromkeys(names, 99))) == 4
    assert len(header(magvit, names, dict.fromkeys(names[1:], 100))) == 3
    scripted = dataclasses.replace(magvit, feature_extractor="i3d-kinetics-400-torchscript")
    assert len(header(scripted, names)) == 4
    for change in (
        {"name": "quick-10000"},
        {"num_generated": 2048},
        {"stride": 3},
        {"split": "test"},
        {"feature_extractor": "videomae x"},
        {"codec": "mp4"},
    ):
        assert len(header(dataclasses.replace(magvit, **change), names)) == 3


def test_a_floor_stands_under_its_own_protocol_where_it_names_one(tmp_path: Path) -> None:
    other = dataclasses.replace(PROTOCOL, name="quick-64", num_real=64)
    floors = {
        "real": {"fvd": 47.0, "kvd": None, "protocol": other.to_json(), "num_real": 64},
        "reconstructions": {"fvd": 81.0, "kvd": None},
    }
    fvd_result(50.0, floors=floors).write(tmp_path / "run/eval/fvd.json")
    comparison = compare(read_runs([tmp_path / "run"]))
    rows = merged_table(comparison).rows
    assert [row[:3] for row in headline(comparison).rows] == [row[:3] for row in rows]  # floors belong to it
    shown = {row[2].split(",")[0]: (row[1].split()[-1], row[2].split("N = ")[1].split()[0]) for row in rows}
    assert shown == {"50.0": ("quick-32", "32"), "47.0": ("quick-64", "64"), "81.0": ("quick-32", "32")}


def test_reconstructions_of_other_numbers_of_clips_share_no_row(tmp_path: Path) -> None:
    for name, count in (("few", 8), ("more", 9)):
        part = {"psnr": {"mean": 25.0, "ci95": None, "num_clips": count, "per_frame": [25.0]}}
        recon_result(both=part, structure=part, dynamics=part).write(tmp_path / name / "eval/recon.json")
    rows = merged_table(compare(read_runs([tmp_path / "few", tmp_path / "more"]))).rows
    assert [row[2:] for row in rows if row[0] == "PSNR (dB), reconstruction"] == [
        ("25.000, N = 8", "–"),
        ("–", "25.000, N = 9"),
    ]


def test_vraes_numbers_stand_beside_ours_with_what_is_our_choice(tmp_path: Path) -> None:
    settings = Settings(PROTOCOLS["vrae-2048"], fold=1, seed=0)
    ours = dataclasses.replace(settings.record(FilterResponses()), feature_extractor="i3d-kinetics-400")
    counts = dict.fromkeys(["ApplyEyeMakeup", "YoYo", *map(str, range(99))], 20)

    def beside(protocol: FVDProtocol) -> str:
        fvd_result(120.0, protocol, class_counts=counts).write(tmp_path / "eval/fvd.json")
        return " ".join(merged_table(compare(read_runs([tmp_path]))).rows[0][3:])

    text = beside(ours)
    assert text.startswith("V-JEPA2.1 117.86 (arXiv 2608.13556") and "EUPE 125.98" in text
    assert text.endswith(f"our choice: {PROTOCOLS['vrae-2048'].not_published}")
    assert beside(dataclasses.replace(ours, codec="mp4 h264 yuv444p")) == text  # videos of its generator
    for name in ("name", "generated_stride", "clip_resize", "codec", "covariance_divisor", "num_real"):
        assert beside(dataclasses.replace(ours, **{name: getattr(PROTOCOL, name)})) == ""
    (group,) = (group for group in published_groups() if group.protocol == "vrae-2048")
    assert not {"height", "width", "real_codec", "real_selection"} & set(group.fields)


def test_published_rows_say_where_they_are_from() -> None:
    assert len({group.title for group in published_groups()}) == len(published_groups())
    fields = {field.name for field in dataclasses.fields(FVDProtocol)}
    for group in published_groups():
        assert group.rows and group.source and set(group.fields) <= fields
        for row in group.rows:
            assert row.model and (row.fvd or row.rfvd)
            assert row.spread is None or 0 < row.spread < (row.fvd or 0)
    # as printed: arXiv 2412.17726, Table 2; CMD's two numbers of one model
    rows = [(row.model, row.fvd, row.spread) for group in published_groups() for row in group.rows]
    for known in (("VidTwin", 193, None), ("CMD", 73, 2), ("CMD", 107, 9), ("TATS", 332, 18)):
        assert known in rows


def test_the_page_says_that_published_numbers_are_not_ranked(several: Path) -> None:
    for name in ("report.md", "report.html"):
        assert "nothing is ranked across groups" in (several / name).read_text()
    text = (several / "report.md").read_text()
    (row,) = table_rows(text, "W.A.L.T-XL")
    assert row[1] == "36 ± 2" and row[4:9] == [
        "16×128×128",
        "10000",
        "train",
        "1",
        "W.A.L.T, arXiv 2312.06662",
    ]
    (row,) = table_rows(text, "VidTwin")
    assert row[1:] == ["193", *["not stated"] * 4, "arXiv 2412.17726, Table 2", row[-1]]


def test_two_distances_under_one_protocol_both_stand(tmp_path: Path) -> None:
    for name, value in (("fvd", 321.5), ("fvd_guidance_4", 99.25)):
        fvd_result(value, PROTOCOL).write(tmp_path / f"eval/{name}.json")
    text = write_report(tmp_path).with_suffix(".md").read_text()
    (row,) = [line for line in text.splitlines() if line.startswith("| FVD, generated |")][:1]
    assert "321.5" in row and "99.2" in row


def test_accuracies_of_clips_with_and_without_a_codec_share_no_row(tmp_path: Path) -> None:
    runs = [tmp_path / name for name in ("plain", "coded")]
    for run, about in zip(runs, ({}, {"codec": "h264 yuv420p", "note": "h264 moves it"}), strict=True):
        accuracy_result(**about).write(run / "eval/accuracy.json")
    text = write_report(runs).with_suffix(".md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| Class accuracy, generated |")]
    assert {row.split(" | ")[1] for row in rows} == {"A1", "A2"} and "h264 yuv420p" in text


def test_results_that_other_things_decide_share_no_row(tmp_path: Path) -> None:
    """Of accuracy the classes that there are to confuse, of LPIPS the weights, of quick-N the real clips that
    follow the generated ones; and of reconstructions not which classes clips were made of."""
    few, many = tmp_path / "few", tmp_path / "many"
    names = ["Ball", "Door", "Lamp"]
    for run, classes, weights, counts in (
        (few, names[:2], "a" * 64, {"Ball": 16, "Door": 16}),
        (many, names, "b" * 64, {"Ball": 31, "Door": 1}),
    ):
        generated_record(class_names=names[:2]).write(run / "generated/generated.json")
        accuracy_result(class_names=classes).write(run / "eval/accuracy.json")
        lpips = {"measured": True, "weights_sha256": weights}
        part = {key: {"mean": 1.0, "ci95": None, "num_clips": 2} for key in ("psnr", "lpips")}
        parts = dict.fromkeys(("both", "structure", "dynamics"), part)
        recon_result(lpips=lpips, **parts).write(run / "eval/recon.json")
        fvd_result(10.0, class_counts=counts).write(run / "eval/fvd.json")
    kinds = [label[0] for label in compare(read_runs([few, many])).protocols]
    assert {kind: kinds.count(kind) for kind in "AF"} == {"A": 2, "F": 2}
    same = [run / "eval/recon.json" for run in (few, many)]
    same[1].write_text(same[0].read_text())
    for run, classes in ((few, names), (many, names)):
        accuracy_result(class_names=classes).write(run / "eval/accuracy.json")
    generated_record(class_names=names[:1]).write(few / "generated/generated.json")
    kinds = [label[0] for label in compare(read_runs([few, many])).protocols]
    assert kinds.count("A") == 1 and kinds.count("R") == 2  # PSNR, and LPIPS by its weights
