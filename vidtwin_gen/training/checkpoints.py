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
        names = ("step", "skipped_steps", "num_processes")
        return {name: getattr(self, name) for name in names}

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
    was_sharded, sharded = any(checkpoint.glob("pytorch_model_fsdp*")), is_sharded(accelerator)
    if was_sharded != sharded:
        how = {True: "with FSDP", False: "without FSDP"}
        raise ValueError(
            f"{checkpoint} is of a run {how[was_sharded]}, this one is {how[sharded]}: resume with the "
            "same configuration of accelerate, or start another --output_dir"
        )
    accelerator.load_state(str(checkpoint))
    accelerator.print(f"resuming from {checkpoint}")
    if accelerator.is_main_process:
        # what lies past this one would else be taken for the latest of the new branch
        found = _checkpoints(output_dir)
        for later in found[found.index(checkpoint) + 1 :]:
            print(f"removing {later}: the run goes on from {checkpoint.name}")
            shutil.rmtree(_without_name(later))


def find_checkpoint(output_dir: Path, wanted: str) -> Path | None:
    """The checkpoint to resume from: by name, the latest complete one, or None to start afresh. Raises
    ValueError for a name that is not there."""
    found = _checkpoints(output_dir)
    if wanted == "none":
        if found:
            raise ValueError(
                f"{output_dir} holds {found[-1].name}; to start afresh name another --output_dir"
            )
        return None
    if wanted == "latest":
        return found[-1] if found else None
    names = [path.name for path in found]
    if Path(wanted).name in names:
        return output_dir / Path(wanted).name
    raise ValueError(f"--resume_from_checkpoint {wanted}: not in {output_dir}, which has {names or 'none'}")


def _checkpoints(output_dir: Path) -> list[Path]:
    """The folder of every complete checkpoint, in order of their steps."""
    found = {path: CHECKPOINT.fullmatch(path.name) for path in output_dir.glob("checkpoint-*")}
    steps = {path: int(match[1]) for path, match in found.items() if match}
    return sorted(steps, key=lambda path: steps[path])


def _without_name(checkpoint: Path) -> Path:
    """Renamed first, so that one whose removal is interrupted is no checkpoint any more."""
    return checkpoint.rename(checkpoint.with_name(f"partial-{checkpoint.name}"))


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
        for old in _checkpoints(output_dir)[:-limit]:
            _without_name(old)
        for path in output_dir.glob("partial-checkpoint-*"):  # those just renamed, and a killed run's
            shutil.rmtree(path)
    return final
