"""The configuration of a training run: one dataclass per script, presets, flags."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from transformers import HfArgumentParser

from vidtwin_gen.data.names import other_names
from vidtwin_gen.files import read_json
from vidtwin_gen.flags import OneLineErrors
from vidtwin_gen.program.errors import user_errors

Preset = Mapping[str, Any]
METRICS, RUN_RECORD = "metrics.jsonl", "run.json"
END, RESUME = "max_train_steps", "resume_from_checkpoint"
EXPORTED = "exported_step"  # at which the model was exported last, None before
CLASS_NAMES = "class_names"  # of stage 2, in the order of their labels
Schedule = Literal[  # diffusers' schedules that need no settings beyond these flags
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup"
]

# What a number may be, both ends included, where that is not any finite one from 0 on.
RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("max_train_steps", "train_batch_size", "gradient_accumulation_steps"), (1, math.inf)),
    **dict.fromkeys(("checkpointing_steps", "checkpoints_total_limit", "logging_steps"), (1, math.inf)),
    **dict.fromkeys(("validation_steps", "num_validation_videos", "max_skipped_steps"), (1, math.inf)),
    **dict.fromkeys(("num_inference_steps", "repa_dim"), (1, math.inf)),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "ema_decay", "max_bad_fraction"), (0, 1)),
    "adam_epsilon": (1e-37, math.inf),  # of float32: weights without a gradient would move by 0 / 0
    **dict.fromkeys(("predicted_share", "qformer_dropout"), (0, 1)),
    **dict.fromkeys(("logit_mean", "guidance_scale", "internal_guidance_scale"), (-math.inf, math.inf)),
}


def flag(help: str, default: Any) -> Any:  # noqa: A002
    """A field that is a flag, with its help text."""
    return field(default=default, metadata={"help": help})


@dataclass
class TrainingConfig:
    """What both training scripts take. Flag names are those of diffusers' examples."""

    output_dir: str = flag("folder of the run; the same command on the same folder resumes it", "")
    seed: int = flag("seed of weights, data order and noise", 0)
    init_from: str = flag("folder of trained weights to start from: a model, a pipeline, a checkpoint", "")
    max_train_steps: int = flag("optimizer steps; another number extends or shortens the run", 1000)
    num_train_epochs: int = flag("in place of --max_train_steps: passes over the training clips", 0)
    train_batch_size: int = flag("clips per process and forward pass", 8)
    gradient_accumulation_steps: int = flag("forward passes per optimizer step", 1)
    gradient_checkpointing: bool = flag("recompute activations to save memory", False)
    learning_rate: float = flag("peak learning rate", 1e-4)
    lr_scheduler: Schedule = flag("a schedule of diffusers.optimization.get_scheduler", "cosine")
    lr_warmup_steps: int = flag("optimizer steps of linear warm-up", 100)
    optimizer: Literal["adamw", "muon"] = flag(
        "muon: Muon for the matrices of the blocks, AdamW for the rest", "adamw"
    )
    muon_learning_rate: float = flag("peak learning rate of Muon", 0.02)
    adam_beta1: float = flag("AdamW beta 1", 0.9)
    adam_beta2: float = flag("AdamW beta 2", 0.99)
    adam_weight_decay: float = flag("AdamW weight decay", 1e-4)
    adam_epsilon: float = flag("AdamW epsilon", 1e-8)
    use_8bit_adam: bool = flag("AdamW of bitsandbytes, with moments in 8 bits", False)
    max_grad_norm: float = flag("clip gradients to this norm; 0: no clipping", 1.0)
    max_skipped_steps: int = flag("stop the run after so many steps in a row with NaN or infinity", 20)
    mixed_precision: Literal["no", "bf16", "fp16"] = flag("what autocast computes in; no: float32", "no")
    deterministic: bool = flag(
        "repeatable numbers on a GPU, slower; on a CPU they are repeatable anyway", False
    )
    allow_tf32: bool = flag(
        "float32 matrix products on a GPU in TF32, faster and less exact; bf16 implies it", False
    )
    attention_backend: str = flag(
        "attention backend of diffusers: native, flash, xformers ...; left out: its default", ""
    )
    compile: bool = flag("torch.compile the repeated blocks; needs a C++ compiler", False)
    use_ema: bool = flag("validate and export the EMA of the weights; --no_use_ema: the last weights", True)
    ema_decay: float = flag("decay of the EMA, warmed up", 0.999)
    checkpointing_steps: int = flag("optimizer steps between checkpoints", 500)
    checkpoints_total_limit: int = flag("checkpoints to keep; older ones are removed", 2)
    resume_from_checkpoint: str = flag("latest, none, or the name of a checkpoint in output_dir", "latest")
    resume_anyway: bool = flag("resume with other flags or data than the run began with", False)
    validation_steps: int = flag("optimizer steps between validations", 500)
    dataloader_num_workers: int = flag("processes that read data; 0 reads in the training process", 2)
    logging_steps: int = flag("optimizer steps between lines of metrics.jsonl", 20)
    profile: int = flag("steps, after the first 3, that torch's profiler traces into trace.json", 0)
    report_to: str = flag("a tracker of accelerate: tensorboard, wandb ...; all, or none", "tensorboard")
    tracker_project_name: str = flag(
        "name of the project in the tracker, and title of the progress bar", "vidtwin_gen"
    )
    push_to_hub: bool = flag("push what the run exports to the hub, too", False)
    hub_model_id: str = flag("repository to push to; left out: named as output_dir, in your account", "")
    hub_token: str = field(
        default="",
        repr=False,
        metadata={
            "help": "token of the hub, shown in the list of processes; left out: `hf auth login` or HF_TOKEN"
        },
    )
    dry_run: bool = flag("print the configuration and the model's size, then stop", False)

    def __post_init__(self) -> None:
        if not self.output_dir:
            raise ValueError("--output_dir is required: the folder to write the run to")
        for name, value in vars(self).items():
            if isinstance(value, (int, float)):
                check_number(name, value)
        for name, hint in get_type_hints(type(self)).items():  # of a command line the parser has checked it
            if get_origin(hint) is Literal and getattr(self, name) not in get_args(hint):
                raise ValueError(
                    f"--{name} is one of {', '.join(get_args(hint))}, got {getattr(self, name)!r}"
                )
        if 1 in (self.adam_beta1, self.adam_beta2):
            raise ValueError(
                f"--adam_beta1 and --adam_beta2 must be below 1, got {self.adam_beta1} and {self.adam_beta2}"
            )
        if self.seed >= 2**32:
            raise ValueError(f"--seed must be below 2**32, got {self.seed}")
        if self.optimizer == "muon" and self.mixed_precision == "fp16":
            raise ValueError("--optimizer muon does not go with --mixed_precision fp16: take bf16")
        if self.hub_token and self.report_to not in ("none", "tensorboard"):
            raise ValueError(
                f"--hub_token does not go with --report_to {self.report_to}: such a tracker may record the "
                "command line, the token with it; `hf auth login` does without the flag"
            )

    def count_epochs(self, num_samples: int, num_processes: int) -> None:
        """`num_train_epochs` over so many clips, where there are any, become `max_train_steps`."""
        if self.num_train_epochs:
            at_once = batch_size(vars(self), num_processes)
            self.max_train_steps = math.ceil(self.num_train_epochs * num_samples / at_once)

    def public(self) -> dict[str, Any]:
        """The flags that may be written down: all but the token."""
        return {name: value for name, value in vars(self).items() if name != "hub_token"}


def batch_size(flags: Mapping[str, Any], num_processes: int) -> int:
    """Clips per optimizer step over all processes and accumulated passes."""
    return int(flags["train_batch_size"] * flags["gradient_accumulation_steps"] * num_processes)


def check_number(name: str, value: float) -> None:
    """Raises ValueError where the flag has no such value, see `RANGES`."""
    least, most = RANGES.get(name, (0, math.inf))
    if not -math.inf < value < math.inf:
        raise ValueError(f"--{name} is a finite number, got {value}")
    if not least <= value <= most:
        wanted = f"must be at least {least}" if most == math.inf else f"is from {least} to {most}"
        raise ValueError(f"--{name} {wanted}, got {value}")


# These change what is saved and shown, not what is learned, so a resumed run may have other values.
FREE_ON_RESUME = {
    "output_dir",
    "checkpointing_steps",
    "checkpoints_total_limit",
    "resume_from_checkpoint",
    "resume_anyway",
    "num_train_epochs",
    "validation_steps",
    "dataloader_num_workers",
    "decoder",
    "logging_steps",
    "profile",
    "report_to",
    "tracker_project_name",
    "push_to_hub",
    "hub_model_id",
    "hub_token",
    "dry_run",
    "gradient_checkpointing",
    "attention_backend",
    "allow_tf32",
    "deterministic",
    "compile",
    "max_skipped_steps",
    "lpips_weights",
    "max_bad_fraction",
    "num_validation_videos",
    "num_sample_classes",
    "num_inference_steps",
    "guidance_scale",
    "internal_guidance_scale",
}

# Where a run does not say what lies there by a digest, the same place is the same data.
PLACES = {"data", "vae", "latents", "init_from", "autoencoder"}

Config = TypeVar("Config", bound=TrainingConfig)


class _Parser(HfArgumentParser):
    error = OneLineErrors.error


def parse_config(
    config_class: type[Config], presets: Mapping[str, Preset], argv: Sequence[str] | None = None
) -> Config:
    """Command line -> configuration. A flag left out has the value of `--preset`, or the field's default.

    A user's mistake ends the program with one line, exit status 2.
    """
    parser = _Parser(config_class, usage="%(prog)s [flags]")
    parser.add_argument("--preset", choices=sorted(presets), help="values for the flags left out")
    argv = list(sys.argv[1:] if argv is None else argv)
    preset = parser.parse_known_args(argv)[0].preset
    parser.set_defaults(**(presets[preset] if preset else {}))
    values = vars(parser.parse_args(argv))
    del values["preset"]
    with user_errors(parser.prog):
        return config_class(**values)


def recorded_run(output_dir: Path) -> dict[str, Any]:
    """What `run.json` says of the run in a folder, nothing where there is none."""
    path = output_dir / RUN_RECORD
    return read_json(path, "name another --output_dir") if path.is_file() else {}


def model_arguments(config: TrainingConfig, model_class: type) -> dict[str, Any]:
    """The fields of `config` that are arguments of a model's constructor."""
    names = inspect.signature(model_class).parameters
    return {name: getattr(config, name) for name in names if hasattr(config, name)}


def checked_record(
    config: TrainingConfig,
    output_dir: Path,
    inputs: Mapping[str, str] | None = None,
    class_names: Sequence[str] = (),
) -> tuple[dict[str, Any], bool]:
    """What `run.json` is to say, and whether it says other flags or data than before. Where a run stands that
    has logged or saved a step, this has to be the same one, but for its end; a run that never came so far,
    say for a flag that was wrong, leaves nothing to protect.

    Args:
        inputs: digests of what the run learns from, by the flag that names it. With one, the place may be
            another.
        class_names: of what it learns, in order. Others than before are told.

    Raises:
        ValueError: without `resume_anyway`, a flag that decides what is learned has another value than when
            the run began, or names something whose content has changed; or one has with which its checkpoints
            can't be loaded.
    """
    values = config.public() | {f"{name} (sha256)": digest for name, digest in (inputs or {}).items()}
    values |= {CLASS_NAMES: list(class_names)} if class_names else {}
    has_checkpoint = any(output_dir.glob("checkpoint-*"))  # of a run that stopped before its first line, too
    recorded = recorded_run(output_dir)
    if not (recorded and (has_checkpoint or (output_dir / METRICS).exists())):
        return values, False
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    before = values | defaults | recorded  # a flag may be younger
    changed = {
        name: (before[name], value)
        for name, value in values.items()
        if name not in FREE_ON_RESUME | {END, CLASS_NAMES}
        and not _says_the_same(name, before[name], value)
        and not (name in PLACES and f"{name} (sha256)" in recorded and f"{name} (sha256)" in values)
        and not (name in PLACES and same_place(before[name], value))
    }
    differences = ", ".join(f"--{name} was {old!r}, is {new!r}" for name, (old, new) in changed.items())
    fixed = [f"--{name}" for name, (old, new) in changed.items() if not _fits(name, old, new)]
    if fixed and has_checkpoint:
        raise ValueError(
            f"{output_dir} holds another run ({differences}), and {', '.join(fixed)} can't change midway: "
            f"start another folder, with --init_from {output_dir}/checkpoint-N to go on from its weights"
        )
    if changed and not config.resume_anyway:
        raise ValueError(
            f"{output_dir} holds another run ({differences}): use its flags, go on with these by "
            "--resume_anyway, or name another --output_dir"
        )
    if changed:
        print(f"{output_dir} goes on as another run: {differences}")
        if others := other_names(class_names, before.get(CLASS_NAMES, ())):
            name, earlier = others[0]
            print(
                f"its classes were others, or in another order: the embedding of {name!r} goes on from that "
                f"of {earlier!r}, and {len(others)} of {len(class_names)} do so"
            )
        return values | {name: recorded[name] for name in (EXPORTED,) if name in recorded}, True
    moved = {name for name in PLACES & values.keys() if not same_place(before[name], values[name])}
    renewed = (FREE_ON_RESUME | {END} | moved) & values.keys()
    return values | recorded | {name: values[name] for name in renewed}, False


def _says_the_same(name: str, old: Any, new: Any) -> bool:
    if name == "patch_size":  # JSON, whose blanks say nothing
        return bool(json.loads(str(old)) == json.loads(str(new)))
    return str(old) == str(new)  # a number may have become a word


def _fits(name: str, old: Any, new: Any) -> bool:
    """Whether checkpoints hold, with the flag's old value, all that the new one loads, and no other optimizer
    or average."""
    match name:
        case "use_ema" | "optimizer" | "use_8bit_adam" | "learn_logvar" | "decoder_only":
            return False
        case "repa_weight":  # whose head is in the transformer's optimizer
            return bool(old) == bool(new)
        case "gan_weight":  # a discriminator may go
            return bool(old) or not new
        case "mixed_precision":  # and so may the scale of float16's gradients
            return bool(new != "fp16")
    return True


def same_place(one: str | Path, other: str | Path) -> bool:
    return Path(one).resolve() == Path(other).resolve()
