"""What a run exported, on the hub."""

from __future__ import annotations

from pathlib import Path

from accelerate import Accelerator
from diffusers import AutoModel, DiffusionPipeline
from huggingface_hub.utils import HFValidationError, validate_repo_id

from vidtwin_gen.training.config import TrainingConfig


def repo_id(config: TrainingConfig) -> str:
    """The repository that the run pushes to: `hub_model_id`, or the name of its folder. Raises ValueError for
    a name that the hub cannot have."""
    name = config.hub_model_id or Path(config.output_dir).resolve().name
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ValueError(f"--hub_model_id {name}: {error}") from None
    return name


def push_if_asked(folder: Path, config: TrainingConfig, accelerator: Accelerator) -> None:
    """With `push_to_hub` the first process pushes the model or the pipeline that is saved in `folder`. Raises
    ValueError where it cannot; the folder is as before."""
    if not (config.push_to_hub and accelerator.is_main_process):
        return
    name = repo_id(config)
    loader = DiffusionPipeline if (folder / "model_index.json").exists() else AutoModel
    saved = loader.from_pretrained(str(folder))
    try:
        commit = saved.push_to_hub(name, token=config.hub_token or None)
    except Exception as error:  # of the HTTP library, of the file transfer, of the hub: they share no class
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        if config.hub_token:
            reason = reason.replace(config.hub_token.strip(), "(the token)")
        raise ValueError(
            f"--push_to_hub: {name} could not be pushed ({reason}). Nothing is lost, {folder} is complete: "
            f"after `hf auth login`, and with a network, the same command pushes it, and so does "
            f"`hf upload {name} {folder}`"
        ) from None
    print(f"pushed {folder}: {commit}")
