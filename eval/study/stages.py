"""Commands of a study: each is run in this process, once."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eval.flags import CLIPS_FILE
from vidtwin_gen.demo import Stage
from vidtwin_gen.files import read_json, write_json


def do(stage: Stage) -> None:
    """A command, in this process, unless its result is there."""
    if stage.is_done:
        return
    module = stage.program if stage.program.startswith("train_") else f"{stage.program}.__main__"
    print(f"== {stage.name}", flush=True)
    start = time.process_time()
    importlib.import_module(module).main(list(map(str, stage.arguments)))
    print(f"   {time.process_time() - start:.1f} seconds of the processor", flush=True)


def once(path: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The values in a JSON file; where it is missing, they are measured and written."""
    if not path.exists():
        write_json(path, measure())
    return read_json(path, "remove it")


def generated(
    pipeline: Path,
    folder: Path,
    *,
    per_class: int,
    seed: object,
    guidance_scale: float,
    num_inference_steps: int,
    internal_guidance_scale: float = 1.0,
) -> Path:
    """The file of the clips that a pipeline makes, so many of each class, in `folder`."""
    clips = folder / "clips" / CLIPS_FILE
    words = ["generate", "--pipeline", pipeline, "--out", clips.parent, "--format", "gif", "--seed", seed]
    words += ["--num_videos_per_class", per_class, "--batch_size", 32]
    words += ["--guidance_scale", guidance_scale, "--num_inference_steps", num_inference_steps]
    words += ["--internal_guidance_scale", internal_guidance_scale]
    do(Stage(f"{folder}, clips", clips, "pipelines", words))
    return clips
