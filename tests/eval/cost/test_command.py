"""`python -m eval cost`: several sizes, a pipeline's own DiT, published latents, what fails."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler

from autoencoder.model.vidtwin import AutoencoderVidTwin
from eval.__main__ import main
from eval.cost import command
from eval.cost.command import measure_row
from eval.cost.dit import count_flops, dit_flops
from eval.cost.flags import FIGURE_5_DIT, CostFlags
from eval.cost.table import tables
from eval.report.comparison import own_rows
from pipelines.pipeline_vidtwin import VidTwinPipeline
from tests.builders.autoencoders import WAN_CONFIG, build_autoencoder
from tests.builders.commands import refused, run
from vidtwin_gen.models.transformer import LatentTransformer
from vidtwin_gen.records import CostResult

SIZES: dict[str, Any] = {"hidden_size": 16, "num_layers": 1, "num_heads": 2}


@pytest.fixture(scope="module")
def vae() -> AutoencoderVidTwin:
    return build_autoencoder(width=24)


def save_pipeline(
    vae: AutoencoderVidTwin, folder: Path, patch_size: int | dict[str, Any], **others: Any
) -> Path:
    transformer = LatentTransformer(vae.layout.to_config(), 5, patch_size=patch_size, **SIZES | others)
    VidTwinPipeline(vae, transformer, FlowMatchEulerDiscreteScheduler()).save_pretrained(folder)
    return folder


def rows_of(record: dict[str, Any], key: str = "rows") -> list[tuple[str, int, int]]:
    return [(row["tokenizer"].split()[0], row["patch_size"], row["num_tokens"]) for row in record[key]]


@pytest.mark.slow
def test_cost_counts_several_patch_sizes_and_the_papers_size(
    vae: AutoencoderVidTwin,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipeline, out = save_pipeline(vae, tmp_path / "pipeline", patch_size=2), tmp_path / "eval/cost.json"
    monkeypatch.setattr(command, "FIGURE_5_DIT", SIZES)  # the six layers take seconds to count
    assert FIGURE_5_DIT == {"hidden_size": 512, "num_layers": 6, "num_heads": 8}
    record = run("cost", pipeline=pipeline, patch_size=[1, 2], out=out)
    by_two = [("VidTwin", 2, vae.layout.num_tokens(2)), ("MAGVIT-v2", 2, 1 * 1 * 2)]
    by_one = [("VidTwin", 1, vae.layout.num_tokens(1)), ("MAGVIT-v2", 1, 1 * 2 * 3)]
    assert rows_of(record) == [by_two[0], *by_one, by_two[1]] and "paper_size_rows" not in record
    told = capsys.readouterr().out
    assert told.count(" GFLOPs forward") == 2 + 1  # and the DiT as it is
    for row in record["rows"]:  # what a sentence says can be checked
        assert sum(grid["num_tokens"] for grid in row["grids"]) == row["num_tokens"]
        assert sum(grid["num_elements"] for grid in row["grids"]) == row["num_elements"]
    assert [(found["tokenizer"], found["patch_size"]) for found in record["crossovers"]] == [
        (name, patch) for patch in (1, 2) for name in ("VidTwin (this run)", "VidTwin (setting 1)")
    ]
    assert told.count("at no size of clip up to ") == 2 and "for clips from 32×32 on" in told

    record = run("cost", pipeline=pipeline, paper_size=True, out=out)
    assert rows_of(record) == by_two  # the pipeline's own patch size
    # arXiv 2412.17726, appendix C: 4 x 28 x 28 positions against 16 x 7 x 7 and two times 16 x 7
    assert rows_of(record, "paper_size_rows") == [("VidTwin", 2, 192), ("MAGVIT-v2", 2, 392)]
    for row in record["paper_size_rows"]:
        assert {name: row[name] for name in SIZES} == SIZES and row["clip_shape"] == [16, 224, 224]

    main(["report", str(tmp_path)])
    page = (tmp_path / "report.html").read_text()
    assert "latents of 4×16×24 clips, patch 2, depth 1, width 16" in page
    assert "latents of 16×224×224 clips, patch 2, depth 1, width 16" in page and "paper size" in page
    cost = page.partition("<h2>Cost</h2>")[2].partition("</section>")[0]
    assert cost.count("<tr>") == 2 * ((1 + 2) + (1 + 2))  # and as Figure 5 counts
    assert "at no size of clip up to" in cost and "for clips from 96×96 on" in cost


def test_published_latents_are_counted_and_measured_in_one_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, page = tmp_path / "cost.json", tmp_path / "cost.md"
    small = {"size": "figure5", "hidden_size": 16, "num_layers": 1, "num_heads": 2, "patch_size": 2}
    names = ["vidtwin-1", "magvit-v2"]
    record = run("cost", tokenizers=names, **small, attention="math", out=out, markdown=page)
    rows = record["rows"]
    assert [(row["attention"], row["num_tokens"]) for row in rows] == [("math", 192), ("math", 392)]
    first = rows[0]
    assert first["figure_5"]["num_parameters"] == 12_610_560 and first["size"] == "figure5"
    assert first["figure_5"]["num_tokens"] == {"padded": 184, "floored": 128}
    printed = capsys.readouterr().out
    assert (
        "| VidTwin (setting 1) | 16×224×224 | 2 | 4,928 | 0.205% | 192 |" in printed
        and "184 or 128 | 2.32 or 1.61" in printed
    )
    assert printed.count("times fewer FLOPs and") == 1
    (made_by,) = (line for line in page.read_text().splitlines() if line.startswith("Made by"))
    assert made_by == f"Made by `{record['command']}`."
    page.unlink()
    main(shlex.split(made_by.removeprefix("Made by `").removesuffix("`."))[3:])  # after python -m eval
    assert made_by in page.read_text() and "for clips from 96×96 on" in page.read_text()

    small["batch_size"] = 10**9
    said = refused(capsys, "cost", tmp_path / "none.json", tokenizers="vidtwin-1", **small, measure=True)
    assert "--measure: nothing fits: needs " in said and "take a smaller --size or --batch_size" in said


def test_a_row_that_does_not_fit_is_not_tried_and_stays_in_the_table(tmp_path: Path) -> None:
    """CMD's 50,624 tokens, whose attention is written to memory, in 16 heads: 458 GiB."""
    size = {"hidden_size": 32, "num_layers": 1, "num_heads": 16, "attention": "math"}
    run("cost", tokenizers="cmd", **size, out=tmp_path / "cost.json")
    (row,) = CostResult.read(tmp_path / "cost.json").rows
    measured = measure_row(row, pytest.fail, pytest.fail, CostFlags(out=tmp_path / "cost.json", device="cpu"))
    assert measured["reason"].startswith("needs 458.3 GiB and ")
    assert measured["reason"] in tables([dataclasses.replace(row, measured=measured)])


@pytest.mark.slow
def test_a_pipelines_own_dit_is_counted(
    vae: AutoencoderVidTwin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever its class and its MLPs are like."""
    own = {"conditioning": "cross_attention", "class_dim": 24, "mlp_ratio": 2.0, "block_type": "lightning"}
    own |= {"num_layers": 2, "internal_layer": 1}
    pipeline = save_pipeline(vae, tmp_path / "pipeline", patch_size=1, **own)
    flags = {"measure": True, "repeats": 1, "batch_size": 64}  # clips whose memory is more than noise
    record = run("cost", pipeline=pipeline, **flags, out=tmp_path / "cost.json")
    row = record["rows"][0]
    assert row["measured"]["peak_bytes"] > 2**20 and row["own_dit"]
    assert re.search(r"predicted; [\d.,]+ MiB as measured, \S+ s forward, \S+ s a", capsys.readouterr().out)
    transformer = LatentTransformer.from_pretrained(pipeline, subfolder="transformer")
    assert row["num_parameters"] == transformer.num_parameters()
    assert (row["conditioning"], row["mlp_ratio"]) == ("cross_attention", 2)
    sizes = {"num_layers": 2, "hidden_size": 16, "cross_attention": True, "mlp_ratio": 2}
    assert row["formula_flops"] == 64 * dit_flops(row["num_tokens"], **sizes)
    said = refused(capsys, "cost", tmp_path / "none.json", pipeline=pipeline, hidden_size=32)
    assert "--hidden_size" in said


def test_clips_of_4k_and_1_frames_are_compared_as_far_as_it_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    AutoencoderKLWan(**WAN_CONFIG).save_pretrained(tmp_path / "wan")
    flags = {"vae": tmp_path / "wan", "num_frames": 17, "width": 32, "patch_size": 1, **SIZES}
    record = run("cost", **flags, height=32, out=tmp_path / "cost.json")
    assert [row["num_tokens"] for row in record["rows"]] == [9 * 8 * 8, 5 * 4 * 4]
    assert "Open-MAGVIT2" in record["rows"][1]["remark"] and record["not_counted"] == []
    capsys.readouterr()

    record = run("cost", **flags, height=20, out=tmp_path / "cost.json")
    (row,), (left_out,) = record["rows"], record["not_counted"]
    assert row["num_tokens"] == 9 * 5 * 8 and "17 x 20 x 32" in left_out["reason"]
    assert "MAGVIT-v2 is not counted: MAGVIT-v2 divides" in (printed := capsys.readouterr().out)
    assert "| AutoencoderKLWan (this run) |" in printed


def test_a_dit_with_patches_by_grid_is_counted_as_it_is(
    vae: AutoencoderVidTwin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """MAGVIT-v2's latents have no such grids; at one number both are counted, of the run by another name."""
    by_grid = {"structure": [1, 2, 2], "dynamics_x": [2, 1], "dynamics_y": [1, 2]}
    pipeline = save_pipeline(vae, tmp_path / "pipeline", patch_size=by_grid)
    own = (by_grid, vae.layout.num_tokens(by_grid))
    record = run("cost", pipeline=pipeline, out=tmp_path / "cost.json")
    (row,), (left_out,) = record["rows"], record["not_counted"]
    assert (row["patch_size"], row["num_tokens"]) == own and "--patch_size, one number" in left_out["reason"]
    assert "The pipeline's DiT (1 layers of width 16" in (told := capsys.readouterr().out)
    assert f": {own[1]} tokens, " in told and "times" not in told
    transformer = LatentTransformer.from_pretrained(pipeline, subfolder="transformer")
    clip = torch.zeros(1, vae.layout.num_elements)
    counted = count_flops(lambda: transformer(clip, torch.zeros(1), torch.zeros(1, dtype=torch.long)))
    assert row["forward_flops"] == counted

    record = run("cost", pipeline=pipeline, patch_size=1, out=tmp_path / "cost.json")
    assert [(row["tokenizer"].partition(" ")[2], row["patch_size"]) for row in record["rows"]] == [
        ("(this run)", by_grid),
        ("(this run's latents)", 1),
        ("(factors scaled to this clip)", 1),
    ]
    assert record["rows"][0]["forward_flops"] == counted and record["not_counted"] == []
    assert "VidTwin (this run's latents) needs" in capsys.readouterr().out
    assert [row.num_tokens for row in own_rows(CostResult.read(tmp_path / "cost.json"))] == [own[1]]
