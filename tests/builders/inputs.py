"""A small, whole input of every kind that a command reads, made by the commands where one makes it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

import train_dit
import train_vae
from autoencoder.released import to_released_state_dict
from eval.__main__ import main as eval_main
from eval.fvd import networks
from pipelines.__main__ import main as pipelines_main
from tests.builders.autoencoders import build_autoencoder
from tests.builders.clips import drifting_clips
from tests.builders.extractors import FilterResponses
from tests.builders.pipelines import NAMES, build_pipeline
from tests.builders.results import ROW, cost_result
from tests.builders.runs import DIT_FLAGS, VAE_FLAGS, command_line
from vidtwin_gen.__main__ import main as vidtwin_main
from vidtwin_gen.data.writing import write_video
from vidtwin_gen.files import write_json

STEPS: dict[str, Any] = {
    "max_train_steps": 3,
    "checkpointing_steps": 1,
    "checkpoints_total_limit": 9,
    "validation_steps": 9,
    "lr_warmup_steps": 1,
}
VAE = VAE_FLAGS | STEPS | {"data": "videos", "num_frames": 8, "stride": 1, "num_validation_videos": 2}
DIT = DIT_FLAGS | STEPS | {"vae": "vae", "latents": "latents"}
VIDEO = f"videos/{NAMES[0]}/v_{NAMES[0]}_g08_c01.mp4"
ENCODE: list[object] = ["encode", "--vae", "vae", "--data", "videos", "--stride", 1, "--num_workers", 0]
SAMPLE: list[object] = ["--pipeline", "pipeline", "--num_inference_steps", 2, "--format", "gif"]
CLIPS = ["--generated", "generated/clips.safetensors"]
FVD: list[object] = ["fvd", "--reference", "reference.safetensors", "--no_floors", *CLIPS, "--num_workers", 0]
ACCURACY: list[object] = ["accuracy", "--data", "videos", "--num_steps", 2, *CLIPS]
RECON: list[object] = ["recon", "--vae", "vae", "--data", "videos", "--no-lpips", "--num_workers", 0]
REFERENCE: list[object] = [
    "reference",
    "--data",
    "videos",
    "--split",
    "train",
    "--protocol",
    "quick-4",
    "--no_floors",
]
REFERENCE += ["--num_frames", 8, "--height", 16, "--width", 16, "--num_workers", 0]


def use_filters() -> None:
    """Random filters in place of a network of 13 million weights, in this process."""
    networks.load_extractor = lambda *_, **__: FilterResponses()  # type: ignore[assignment]


def make_inputs(*_: object) -> None:
    """In the working folder: videos, models, latents, clips, statistics, trainings that were killed in their
    last step, and the folder of a run."""
    write_videos(Path("videos"))
    vae = build_autoencoder(num_frames=8, structure_down_blocks=1)
    vae.save_pretrained("vae")
    build_pipeline().save_pretrained("pipeline")
    square = {"encoder.pos_embed": torch.zeros(1, 16, 16)}
    torch.save({"state_dict": to_released_state_dict(vae.state_dict()) | square}, "released.ckpt")
    vidtwin_main(list(map(str, [*ENCODE, "--out", "latents"])))
    labels: list[object] = ["--out", "generated", "--num_videos_per_class", 2, "--class_labels", 0, 1]
    pipelines_main(list(map(str, ["generate", *SAMPLE, *labels])))
    Path("counts.json").write_text(json.dumps({NAMES[0]: 2, NAMES[3]: 1}))
    train_dit.main(command_line(DIT, output_dir="dit"))
    train_vae.main(command_line(VAE, output_dir="training_vae"))
    for folder in (
        "dit/pipeline",
        "dit/checkpoint-3",
        "training_vae/autoencoder",
        "training_vae/checkpoint-3",
    ):
        shutil.rmtree(folder)
    results = Path("run/eval")
    eval_main(list(map(str, [*REFERENCE, "--out", "reference.safetensors"])))
    for words in (RECON, FVD, ACCURACY):
        eval_main(list(map(str, [*words, "--out", results / f"{words[0]}.json"])))
    cost_result(ROW).write(results / "cost.json")
    shutil.copytree("generated", "run/generated")
    Path("run/dit").mkdir()
    lines = [json.dumps({"step": step, "samples": 8 * step, "loss": 1 / step}) for step in (1, 2, 3)]
    Path("run/dit/metrics.jsonl").write_text("\n".join(lines) + "\n")
    record = {"preset": "demo", "data": None, "stages": {"data": 1.5}, "peak_memory_mb": 700, "machine": "x"}
    write_json("run/demo.json", record)


def write_videos(root: Path) -> None:
    """Eight videos of two classes, with the lists of a split in halves."""
    clips = iter(drifting_clips(8, 0, (16, 32, 48)).numpy())
    lists = root / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    numbered = {name: number for number, name in enumerate(NAMES[:2], 1)}
    for name in numbered:
        (root / name).mkdir()
        for group in (1, 2, 8, 9):
            write_video(root / name / f"v_{name}_g{group:02d}_c01.mp4", next(clips), 25)
    (lists / "classInd.txt").write_text("".join(f"{number} {name}\n" for name, number in numbered.items()))
    for part, groups in {"train": (8, 9), "test": (1, 2)}.items():
        lines = [f"{c}/v_{c}_g{g:02d}_c01.avi {n}\n" for c, n in numbered.items() for g in groups]
        (lists / f"{part}list01.txt").write_text("".join(lines))
