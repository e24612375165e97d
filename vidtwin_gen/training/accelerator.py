"""What stands before a training loop: the Accelerator and the model, set up as the flags say."""

from __future__ import annotations

import atexit
import inspect
import json
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, set_seed
from diffusers.models.modeling_utils import ModelMixin

from vidtwin_gen.data.names import other_names
from vidtwin_gen.devices import processes
from vidtwin_gen.files import read_json
from vidtwin_gen.training.checkpoints import CHECKPOINT, recorded_digest
from vidtwin_gen.training.config import CLASS_NAMES, RUN_RECORD, TrainingConfig
from vidtwin_gen.training.fsdp import autocast_forward, fsdp_plugin, is_sharded
from vidtwin_gen.training.hub import repo_id
from vidtwin_gen.training.trackers import check_tracker
from vidtwin_gen.weights import weights_sha256

logger = logging.getLogger(__name__)

WHITENING = ("latents_mean", "latents_std")  # in an autoencoder's config, of the latents that it had


def make_accelerator(config: TrainingConfig, *, shardable: bool = False) -> Accelerator:
    """An Accelerator as the flags say, with every generator seeded (the weights are drawn next).

    Raises:
        ValueError: accelerate was asked to shard with FSDP, and the script's training is not `shardable`, or
            not with these settings; or for another precision or number of accumulated passes than the
            flags; or the device has no such precision, or there is no such tracker, or no such name on the
            hub.
    """
    check_tracker(config.report_to)
    if config.push_to_hub:
        repo_id(config)  # refused now, not after the run
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if launched not in ("no", config.mixed_precision):
        raise ValueError(
            f"accelerate was launched with --mixed_precision {launched}, and the script's own flag, which "
            f"counts and is recorded, says {config.mixed_precision}: give both the same, or accelerate "
            "--mixed_precision no"
        )
    passes = config.gradient_accumulation_steps
    launched = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", str(passes))  # accelerate prefers it
    if launched != str(passes):
        raise ValueError(
            f"ACCELERATE_GRADIENT_ACCUMULATION_STEPS is {launched}, and the script's own flag, which counts "
            f"and is recorded, says {passes}: give both the same, or unset the variable"
        )
    plugin = fsdp_plugin(config.mixed_precision)
    if plugin is not None and not shardable:
        raise ValueError(
            "FSDP shards one network with one optimizer whose only use is its forward pass, and stage 1 and "
            "--repa_weight have more: launch it without FSDP, `accelerate launch --multi_gpu`"
        )
    accelerator = Accelerator(
        # without a GPU, processes that torchrun started would else train apart
        cpu="LOCAL_RANK" in os.environ and not torch.accelerator.is_available(),
        fsdp_plugin=plugin,
        dataloader_config=DataLoaderConfiguration(non_blocking=True),  # from pinned memory: no step waits
        mixed_precision=config.mixed_precision,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        log_with=None if config.report_to == "none" else config.report_to,
        project_dir=config.output_dir,
    )
    if torch.distributed.is_initialized():
        # Destroying the process group joins gloo's threads, which may need the GIL. DDP's destructor holds
        # the GIL and deadlocks (pytorch/pytorch#56297); the group object releases it, so atexit keeps that
        # reference last.
        atexit.register(id, torch.distributed.group.WORLD)
    if config.mixed_precision == "fp16" and not (accelerator.native_amp or config.dry_run):
        # accelerate would train in float32
        raise ValueError(
            f"--mixed_precision fp16 needs a GPU, and the device is {accelerator.device}: take bf16, or no"
        )
    if plugin is not None and not is_sharded(accelerator):
        accelerator.print("accelerate shards nothing on this device: training without FSDP")
    if config.allow_tf32 or config.mixed_precision == "bf16":  # whose products have 8 bits of mantissa
        allow_tf32(accelerator.device)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first product is made
        torch.backends.cudnn.benchmark = False
    set_seed(config.seed, deterministic=config.deterministic)
    return accelerator


def allow_tf32(device: torch.device) -> None:
    """Lets float32 matrix products on a GPU round their factors to 10 bits of mantissa."""
    if device.type == "cuda":  # the setting would reach a CPU's products, too
        torch.set_float32_matmul_precision("high")


def load_initial_weights(
    model: ModelMixin, config: TrainingConfig, name: str, class_names: Sequence[str] = ()
) -> str:
    """Gives the model the weights of `--init_from`: its own saved folder, one that holds it as `name` (a
    pipeline, a run), or a checkpoint, of which it is the average. Returns their digest. They may be gone once
    the run has a checkpoint, whose weights take their place. Where a pipeline or a checkpoint says that its
    classes are not `class_names`, a warning does.

    Raises:
        ValueError: there are none, or they are of another class or size.
    """
    source = config.init_from
    in_pipeline = {"autoencoder": "vae"}.get(name, name)
    parts = ("", f"{name}_ema", name, in_pipeline, f"pipeline/{in_pipeline}")
    folders = [Path(source) / part for part in parts]
    folder = next((path for path in folders if (path / "config.json").is_file()), None)
    if folder is None:
        if recorded := recorded_digest(config, "init_from"):
            return recorded
        raise ValueError(
            f"--init_from {source} holds no config.json, nor does {name}/ in it: name a saved model, a "
            "pipeline, or a checkpoint"
        )
    # as diffusers reads it: an argument may be younger than the file
    arguments = inspect.signature(type(model)).parameters.values()
    defaults = {each.name: each.default for each in arguments if each.default is not each.empty}
    saved = json.loads(json.dumps(defaults)) | read_json(folder / "config.json", "")
    own = json.loads(model.to_json_string())
    differences = [
        f"{key} is {saved.get(key)!r} there, {value!r} here"
        for key, value in own.items()
        if saved.get(key) != value and key not in ("_diffusers_version", "_name_or_path", *WHITENING)
    ]
    if differences:
        raise ValueError(f"--init_from {source} is another model ({', '.join(differences)}): use its flags")
    if class_names and processes().is_main_process:
        _warn_of_other_classes(source, _class_names_of(folder), class_names)
    model.load_state_dict(type(model).from_pretrained(folder).state_dict())
    return weights_sha256(folder)


def _class_names_of(folder: Path) -> list[str]:
    """By the pipeline or the checkpoint that the model's folder is in; of a checkpoint of earlier versions by
    the pipeline of its run. Empty where nothing names them."""
    above = folder.parent
    index = "model_index.json"
    files = [above / index, above / RUN_RECORD]
    if CHECKPOINT.fullmatch(above.name):
        files.append(above.parent / "pipeline" / index)
    found = [read_json(path, "").get(CLASS_NAMES) for path in files if path.is_file()]
    names: list[str] | dict[str, int] = next(filter(None, found), [])
    return sorted(names, key=names.__getitem__) if isinstance(names, dict) else names


def _warn_of_other_classes(source: str, there: Sequence[str], class_names: Sequence[str]) -> None:
    """That the embedding of a class starts from another class's."""
    if others := other_names(class_names, there):
        logger.warning(
            f"--init_from {source} has other classes, or has them in another order: the embedding of "
            f"{others[0][0]!r} starts from that of {others[0][1]!r}, and {len(others)} of {len(there)} start "
            "so. If they are to be the same, encode the classes that it has, in its order"
        )


def check_compiler() -> None:
    """Raises ValueError where torch.compile would find none in the middle of the first step: it writes C++
    for a CPU, and C to start a GPU's kernels."""
    known = [os.environ.get(name) for name in ("CC", "CXX")] + ["cc", "gcc", "g++", "clang", "cl"]
    if not any(name and shutil.which(name) for name in known):
        raise ValueError(
            "--compile needs a C++ compiler, and there is none: install g++, or give --compile false, which "
            "is slower and takes more memory"
        )


def prepare_model(model: ModelMixin, config: TrainingConfig, accelerator: Accelerator) -> None:
    """Gradient checkpointing, attention backend and compilation, as the flags say; to be called before the
    model's optimizer is made. Raises ValueError for an attention backend that there is not, or that is not
    installed, and for what the model's class does not have."""
    name = type(model).__name__
    if config.gradient_checkpointing:
        if not model._supports_gradient_checkpointing:
            raise ValueError(f"--gradient_checkpointing: {name} does not support it; leave the flag out")
        model.enable_gradient_checkpointing()
    if config.attention_backend:
        try:
            model.set_attention_backend(config.attention_backend)
        except (ValueError, RuntimeError, ImportError) as error:
            raise ValueError(f"--attention_backend {config.attention_backend}: {error}") from None
    if config.compile:
        if not model._repeated_blocks:
            raise ValueError(f"--compile is of repeated blocks, and {name} names none; give --compile false")
        check_compiler()
        model.compile_repeated_blocks()
    if is_sharded(accelerator):
        autocast_forward(model, accelerator)
