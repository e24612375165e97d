"""Checkpoints of a run: what they count, which to resume from; each has its name only when complete, and the
digests of its files with it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from itertools import count
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from vidtwin_gen.devices import all_or_none, by_the_first
from vidtwin_gen.files import digests_below, loading, permit, read_json, write_json, writing
from vidtwin_gen.training.config import PLACES, RUN_RECORD, TrainingConfig, recorded_run, same_place
from vidtwin_gen.training.fsdp import is_sharded

CHECKPOINT = re.compile(r"checkpoint-(\d+)")
MANIFEST = "manifest.json"
EARLIER = "name an earlier one with --resume_from_checkpoint"
OTHER_FLAGS = "the changed flags may not go with it: use those of its run, or start another --output_dir"


class Progress:
    """Optimizer steps done, the samples that they took and those among them that were skipped; saved with
    every checkpoint. The number of processes goes with them, since the schedule counts in it and the random
    numbers of a step follow from it. `skipped_in_a_row` is not saved: a resumed run has its own.

    Args:
        batch_size: samples per step where a checkpoint of earlier versions does not count them.
    """

    def __init__(self, num_processes: int, batch_size: int) -> None:
        self.step = 0
        self.samples = 0
        self.skipped_steps = 0
        self.skipped_in_a_row = 0
        self.num_processes, self.batch_size = num_processes, batch_size

    def count(self, samples: int, *, skipped: bool) -> None:
        """One more step, of so many samples."""
        self.step += 1
        self.samples += samples
        self.skipped_steps += skipped
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if skipped else 0

    def state_dict(self) -> dict[str, int]:
        names = ("step", "samples", "skipped_steps", "num_processes")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.step, self.skipped_steps = state["step"], state["skipped_steps"]
        self.samples = state.get("samples", self.step * self.batch_size)


def saved_progress(checkpoint: Path) -> dict[str, int]:
    """What `Progress` saved there. Raises an error of pickle where any file holds more than tensors and plain
    values."""
    # all of them: accelerate reads them next, and runs what it finds; to the CPU: earlier versions have
    # tensors of a GPU there, too
    saved = [
        torch.load(path, "cpu", weights_only=True)
        for path in sorted(checkpoint.glob("custom_checkpoint_*.pkl"))
    ]
    return next(state for state in saved if "num_processes" in state)


def record_of(checkpoint: Path) -> dict[str, Any]:
    """`run.json` as it was when the checkpoint was saved, but for data that has moved since; in earlier
    versions that of its run, which may have gone on with other flags."""
    of_run, own = checkpoint.parent / RUN_RECORD, checkpoint / RUN_RECORD
    if not own.is_file():
        return read_json(of_run, "the checkpoint has to be in the folder of its run")
    record = read_json(own, "name another checkpoint")
    latest = read_json(of_run, "name another checkpoint") if of_run.is_file() else {}
    digests = ((name, f"{name} (sha256)") for name in PLACES)
    return record | {
        name: latest[name]
        for name, digest in digests
        if digest in record and latest.get(digest) == record[digest]
    }


def resume(
    accelerator: Accelerator,
    output_dir: Path,
    wanted: str,
    *,
    max_train_steps: int,
    limit: int,
    is_changed: bool,
) -> None:
    """Loads the checkpoint that `find_checkpoint` finds, if any, into all that accelerate has prepared or
    registered. The first process looks for it and checks it, and all take what it found.

    Args:
        max_train_steps: at which the run ends. limit: checkpoints that are kept.
        is_changed: the run goes on with other flags or data.

    Raises:
        ValueError: as `find_checkpoint`; the checkpoint is past the run's end, or at it, where changed flags
            would train nothing; or it is of a run with other processes, other networks, or the other way of
            the two with and without FSDP.
    """

    def found() -> Path | None:
        checkpoint = find_checkpoint(output_dir, wanted)
        if checkpoint is None:
            return None
        if _step_of(checkpoint) > max_train_steps:
            raise ValueError(
                f"{checkpoint} is past --max_train_steps {max_train_steps}: ask for {_step_of(checkpoint)} "
                "or more, or for an earlier one with --resume_from_checkpoint"
            )
        if is_changed and _step_of(checkpoint) == max_train_steps:
            raise ValueError(
                f"{checkpoint} is the end, and no step is left to train with the changed flags: raise "
                f"--max_train_steps, or start another --output_dir with --init_from {checkpoint}"
            )
        was_sharded, sharded = any(checkpoint.glob("pytorch_model_fsdp*")), is_sharded(accelerator)
        if was_sharded != sharded:
            how = {True: "with FSDP", False: "without FSDP"}
            raise ValueError(
                f"{checkpoint} is of a run {how[was_sharded]}, this one is {how[sharded]}: resume with the "
                "same configuration of accelerate, or start another --output_dir"
            )
        with loading(checkpoint, EARLIER):
            before = saved_progress(checkpoint)["num_processes"]
        if before != accelerator.num_processes:
            raise ValueError(
                f"{checkpoint} is of a run with {before} processes, this one has "
                f"{accelerator.num_processes}: resume with as many, or start another --output_dir"
            )
        return checkpoint

    checkpoint = by_the_first(found)
    if checkpoint is None:
        return
    with loading(checkpoint, OTHER_FLAGS if is_changed else EARLIER):
        accelerator.load_state(str(checkpoint))
    accelerator.step = 0  # of passes, in which this run may count another number to a step
    accelerator.print(f"resuming from {checkpoint}")
    if accelerator.is_main_process:
        # what lies past this one would else be taken for the latest of the new branch
        for later in [path for path in _checkpoints(output_dir) if _step_of(path) > _step_of(checkpoint)]:
            print(f"removing {later}: the run goes on from {checkpoint.name}")
            _without_name(later)
        _keep_newest(output_dir, limit)


def find_checkpoint(output_dir: Path, wanted: str) -> Path | None:
    """The checkpoint to resume from: by name, the latest whole one, or None to start afresh. Damaged ones
    that are later are told, and kept under another name.

    Raises:
        ValueError: `wanted` names a checkpoint that is not there, of another folder, or damaged; or all are.
    """
    found = _checkpoints(output_dir)
    if wanted == "none":
        if found:
            raise ValueError(
                f"{output_dir} holds {found[-1].name}; to start afresh name another --output_dir"
            )
        return None
    if wanted != "latest":
        names, folder = [path.name for path in found], Path(wanted).parent
        if folder != Path() and not same_place(folder, output_dir):
            raise ValueError(
                f"--resume_from_checkpoint {wanted} is not of {output_dir}: to start from its weights in "
                "another folder give it as --init_from"
            )
        if Path(wanted).name not in names:
            raise ValueError(
                f"--resume_from_checkpoint {wanted}: not in {output_dir}, which has {names or 'none'}"
            )
        checkpoint = output_dir / Path(wanted).name
        if damage := damage_of(checkpoint):
            raise ValueError(
                f"{checkpoint} is damaged, {damage}: without --resume_from_checkpoint the run goes on from "
                "the newest whole one"
            )
        return checkpoint
    return _newest_whole(found) if found else None


def _newest_whole(found: list[Path]) -> Path:
    damaged: dict[Path, str] = {}
    for checkpoint in reversed(found):
        if damage := damage_of(checkpoint):
            damaged[checkpoint] = f"{checkpoint.name}: {damage}"
            continue
        for path, why in damaged.items():
            names = (f"damaged-{path.name}" + (f".{number}" if number else "") for number in count())
            aside = next(name for name in names if not path.with_name(name).exists())
            print(f"passing over {why}; it is kept as {path.rename(path.with_name(aside)).name}")
        return checkpoint
    raise ValueError(
        f"{found[0].parent} holds no whole checkpoint ({'; '.join(damaged.values())}): bring back a copy of "
        "one, or start another --output_dir"
    )


def recorded_digest(config: TrainingConfig, name: str) -> str:
    """Of what the flag `name` named when the run in its folder began; "" where none has a checkpoint, or it
    named something else."""
    folder = Path(config.output_dir)
    record = recorded_run(folder) if _checkpoints(folder) else {}
    is_same = same_place(record.get(name, ""), getattr(config, name))
    return record.get(f"{name} (sha256)", "") if is_same else ""


def _checkpoints(output_dir: Path) -> list[Path]:
    """The folder of every complete checkpoint, in order of their steps."""
    return sorted(filter(_step_of, filter(Path.is_dir, output_dir.glob("checkpoint-*"))), key=_step_of)


def _step_of(checkpoint: Path) -> int:
    """0 where the name is no checkpoint's, which has at least one step."""
    match = CHECKPOINT.fullmatch(checkpoint.name)
    return int(match[1]) if match else 0


def _without_name(checkpoint: Path) -> Path:
    """Renamed first, so that one whose removal is interrupted is no checkpoint any more."""
    return checkpoint.rename(checkpoint.with_name(f"partial-{checkpoint.name}"))


def save_checkpoint(
    accelerator: Accelerator, output_dir: Path, step: int, limit: int, record: Mapping[str, Any]
) -> Path:
    """Saves the state of every process as `checkpoint-<step>`, with the run's `record`, then removes what
    exceeds the limit.

    The folder gets its name only when it is complete, so a killed run never leaves half a checkpoint.
    """
    partial = output_dir / f"partial-checkpoint-{step}"
    final = output_dir / f"checkpoint-{step}"
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    accelerator.wait_for_everyone()
    # shards are saved together
    with nullcontext() if is_sharded(accelerator) else all_or_none(), writing(partial):
        accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()

    def finish() -> None:
        write_json(partial / RUN_RECORD, record)
        write_manifest(partial)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        _keep_newest(output_dir, limit)

    by_the_first(finish)
    return final


def _keep_newest(output_dir: Path, limit: int) -> None:
    for old in _checkpoints(output_dir)[:-limit]:
        with _may_stay(old):
            _without_name(old)
    for path in output_dir.glob("partial-checkpoint-*"):  # those just renamed, and a killed run's
        with _may_stay(path):
            shutil.rmtree(path)


@contextmanager
def _may_stay(path: Path) -> Iterator[None]:
    """Says so where `path` can't be removed: the next checkpoint tries again, and the run goes on."""
    try:
        yield
    except OSError as error:
        print(f"{path} can't be removed ({error.strerror or error}): it stays")


def write_manifest(folder: Path) -> None:
    """`manifest.json`: the sha256 of every file below `folder`, by its path from there. Whoever may read it
    may read these."""
    digests = digests_below(folder)
    write_json(folder / MANIFEST, {"sha256": digests})
    for name in digests:
        permit(folder / name, (folder / MANIFEST).stat().st_mode)


def damage_of(folder: Path) -> str:
    """What is not as the manifest says, "" where all is, or where there is none, as in earlier versions."""
    if not any(folder.iterdir()):
        return "it is empty"
    if not (folder / MANIFEST).is_file():
        return ""
    try:
        digests = read_json(folder / MANIFEST, "")["sha256"]
    except (ValueError, KeyError):
        return f"{MANIFEST} can't be read"
    seen = digests_below(folder)
    if missing := [name for name in digests if name not in seen]:
        return f"{missing[0]} is missing"
    changed = [name for name, digest in digests.items() if digest != seen[name]]
    return f"{changed[0]} is not as it was written" if changed else ""
