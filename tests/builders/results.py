"""Results as the commands would write them, a run's folder of them, and the rows of its report."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

from vidtwin_gen.data.writing import write_gif
from vidtwin_gen.files import write_json
from vidtwin_gen.records import (
    AccuracyResult,
    CostResult,
    CostRow,
    FVDProtocol,
    FVDResult,
    GeneratedRecord,
    ReconResult,
    distance_json,
)

PROTOCOL = FVDProtocol(
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
ROW = CostRow(
    size="S",
    tokenizer="VidTwin (this run)",
    source="the autoencoder measured",
    clip_shape=[16, 64, 64],
    frames_taken=None,
    num_elements=1000,
    compression_rate=0.005,
    printed_rate=None,
    verdict=None,
    remark=None,
    num_codes=None,
    bit_rate=None,
    num_tokens=100,
    patch_size=1,
    hidden_size=64,
    num_layers=2,
    num_heads=2,
    mlp_ratio=4.0,
    conditioning="adaln",
    batch_size=1,
    attention="fused",
    gradient_checkpointing=False,
    num_parameters=1234567,
    forward_flops=2 * 10**9,
    formula_flops=2 * 10**9,
    training_flops=6 * 10**9,
    training_memory_bytes={"peak": 2**28},
    figure_5=None,
)
OTHER_ROW = dataclasses.replace(ROW, tokenizer="MAGVIT-v2 <scaled>", num_tokens=300)


def cost_result(*rows: CostRow, **more: Any) -> CostResult:
    return CostResult(command="python -m eval cost", rows=list(rows), **more)


def fvd_result(fvd: float, protocol: FVDProtocol = PROTOCOL, **changes: Any) -> FVDResult:
    return FVDResult(**distance_json(fvd, protocol) | changes)


def recon_result(**changes: Any) -> ReconResult:
    part = {
        name: {"mean": 25.5, "ci95": 0.25, "num_clips": 8, "per_frame": [25.5]} for name in ("psnr", "ssim")
    }
    fields: dict[str, Any] = {
        "both": part,
        "structure": part,
        "dynamics": part,
        "split": "test",
        "fold": 1,
        "autoencoder_class": "AutoencoderVidTwin",
        "vae_sha256": "0" * 64,
        "resolution": "16x64x64",
        "frame_rate": "stride 1",
        "seed": 0,
        "latent": "the posterior's mean",
        "data_range": "1, on clips in [0, 1]",
        "psnr_at_most": 100.0,
        "interval": "95 %, over clips",
        "resize": "bilinear",
        "source_sizes": {"64x64": 8},
        "skipped_videos": [],
        "lpips": {"measured": False, "reason": "--no-lpips"},
    }
    return ReconResult(**fields | changes)


def accuracy_result(**changes: Any) -> AccuracyResult:
    fields: dict[str, Any] = {
        "class_names": ["Ball"],
        "num_train": 400,
        "seed": 0,
        "fold": 1,
        "resolution": "16x64x64",
        "frame_rate": "stride 1",
        "num_steps": 160,
        "horizontal_flip": False,
        "generated": {"accuracy": 0.875, "num_clips": 32, "confusion": [[28]]},
        "real": {"accuracy": 0.96875, "num_clips": 64, "confusion": [[62]]},
    }
    return AccuracyResult(**fields | changes)


def generated_record(**changes: Any) -> GeneratedRecord:
    fields: dict[str, Any] = {
        "pipeline": "pipeline",
        "scheduler": "FlowMatchEulerDiscreteScheduler",
        "guidance_scale": 2.0,
        "guidance_interval": [0.0, 1.0],
        "num_inference_steps": 30,
        "seed": 0,
        "fps": 8.0,
        "class_names": ["Ball"],
        "class_labels": [0],
        "num_videos_per_class": 1,
        "labels_from": None,
        "num_videos": 1,
    }
    fields |= changes
    fields["class_labels"] = changes.get("class_labels", list(range(len(fields["class_names"]))))
    return GeneratedRecord(**fields)


def write_run(run: Path, protocol: FVDProtocol = PROTOCOL, fvd: float = 321.5) -> Path:
    """Everything that a report shows of a demo."""
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
    cost_result(ROW, OTHER_ROW).write(run / "eval/cost.json")
    generated_record().write(run / "generated/generated.json")
    stages = {"data": 1.5, "stage 1, the autoencoder": 20.0}
    demo = {"preset": "tiny", "stages": stages, "peak_memory_mb": 900, "machine": "cpu"}
    write_json(run / "demo.json", demo)
    return run


def table_rows(markdown: str, quantity: str) -> list[list[str]]:
    """The cells of each row that begins with this quantity."""
    lines = [line for line in markdown.splitlines() if line.startswith(f"| {quantity} |")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
