"""Checkpoints of a run: what they count, which to resume from; each has its name only when complete."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from accelerate import Accelerator

from vidtwin_gen.training.fsdp import is_sharded

CHECKPOINT = re.compile(r"checkpoint-(\d+)")


class Progress:
    """Optimizer steps done, and those among them that were skipped; saved with every checkpoint. The number
    of processes goes with them, since the schedule counts in it and the random numbers of a step follow from
    it. `skipped_in_a_row` is not saved: a resumed run has its own."""

    def __init__(self, num_processes: int) -> None:
        self.step = 0
        self.skipped_steps = 0
        self.skipped_in_a_row = 0
        self.num_processes = num_processes

    def count(self, *, skipped: bool) -> None:
        """One more step."""
        self.step += 1
        self.skipped_steps += skipped
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if skipped else 0

    def state_dict(self) -> dict[str, int]:
        return {
            "step": self.step,
            "skipped_steps": self.skipped_steps,
            "num_processes": self.num_processes,
        }

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        if state["num_processes"] != self.num_processes:
            raise ValueError(
                f"the checkpoint is of a run with {state['num_processes']} processes, this one has "
                f"{self.num_processes}: resume with as many, or start another --output_dir"
            )
        self.step, self.skipped_steps = state["step"], state["skipped_steps"]


def resume(accelerator: Accelerator, output_dir: Path, wanted: str) -> None:
    """Loads the checkpoint that `find_checkpoint` finds, if any, into all that accelerate has prepared or
    registered.

    Raises:
        ValueError: as `find_checkpoint`; or it is of a run with other processes, or the other way of the two
            with and without FSDP.
    """
    checkpoint = find_checkpoint(output_dir, wanted)
    if checkpoint is None:
        return
    check_sharding(checkpoint, is_sharded(accelerator))
    accelerator.load_state(str(checkpoint))
    accelerator.print(f"resuming from {checkpoint}")
    if accelerator.is_main_process:
        remove_later_checkpoints(checkpoint)


def find_checkpoint(output_dir: Path, wanted: str) -> Path | None:
    """The checkpoint to resume from: by name, the latest complete one, or None to start afresh.

    Raises:
        ValueError: `wanted` names a checkpoint that is not there.
    """
    found = _checkpoints(output_dir)
    if wanted == "none":
        if found:
            raise ValueError(
                f"{output_dir} holds {found[-1][1].name}; to start afresh name another --output_dir"
            )
        return None
    if wanted == "latest":
        return found[-1][1] if found else None
    for _, path in found:
        if path.name == Path(wanted).name:
            return path
    names = [path.name for _, path in found]
    raise ValueError(f"--resume_from_checkpoint {wanted}: not in {output_dir}, which has {names or 'none'}")


def _checkpoints(output_dir: Path) -> list[tuple[int, Path]]:
    """Step and folder of every complete checkpoint, in order."""
    return sorted(
        (int(match[1]), path)
        for path in output_dir.glob("checkpoint-*")
        if (match := CHECKPOINT.fullmatch(path.name))
    )


def check_sharding(checkpoint: Path, sharded: bool) -> None:
    """ValueError unless the checkpoint is of a run with FSDP, where this one is, or without."""
    was_sharded = any(checkpoint.glob("pytorch_model_fsdp*"))
    if was_sharded != sharded:
        how = {True: "with FSDP", False: "without FSDP"}
        raise ValueError(
            f"{checkpoint} is of a run {how[was_sharded]}, this one is {how[sharded]}: resume with the "
            "same configuration of accelerate, or start another --output_dir"
        )


def remove_later_checkpoints(checkpoint: Path) -> None:
    """What lies past the one that is resumed from would else be taken for the latest of the new branch."""
    found = _checkpoints(checkpoint.parent)
    names = [path.name for _, path in found]
    for _, later in found[names.index(checkpoint.name) + 1 :]:
        print(f"removing {later}: the run goes on from {checkpoint.name}")
        later.rename(later.with_name(f"partial-{later.name}"))
        shutil.rmtree(later.with_name(f"partial-{later.name}"))


def save_checkpoint(accelerator: Accelerator, output_dir: Path, step: int, limit: int) -> Path:
    """Saves the state of every process as `checkpoint-<step>`, then removes what exceeds the limit.

    The folder gets its name only when it is complete, so a killed run never leaves half a checkpoint.
    """
    partial = output_dir / f"partial-checkpoint-{step}"
    final = output_dir / f"checkpoint-{step}"
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        for _, old in _checkpoints(output_dir)[:-limit]:
            old.rename(old.with_name(f"partial-{old.name}"))
        for path in output_dir.glob("partial-checkpoint-*"):  # those just renamed, and a killed run's
            shutil.rmtree(path)
    return final
