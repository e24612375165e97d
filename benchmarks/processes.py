"""What a second process saves: a command by one process and by several, in turn, and the same bytes of both.

    python -m benchmarks.processes -- pipelines generate --pipeline pretrained/moving-shapes

Appends `--out` to the command. Each process computes in one thread and has one core, also for what reads and
writes beside it; "1, free" is one process that has the cores of all for that.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

from benchmarks.gpu.commands import run_command
from vidtwin_gen.files import digests_below

THREADS = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}


def seconds_of(command: Sequence[str], num_processes: int, cores: set[int], log: Path) -> float:
    """Seconds of `python -m command` by this many processes, held to these cores. Raises CommandError where
    it fails."""
    program, *arguments = command
    if num_processes > 1:
        launcher = ["--nproc_per_node", str(num_processes), "-m"]
        program, arguments = "torch.distributed.run", [*launcher, program, *arguments]
    all_cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)  # what is started now has them, too
    try:
        return float(run_command(program, arguments, log, THREADS)["seconds"])
    finally:
        os.sched_setaffinity(0, all_cores)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.processes", description=__doc__)
    parser.add_argument("--num_processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("command", nargs="+", help="after --: what `python -m` is to run, without its --out")
    flags = parser.parse_args(arguments)
    cores = sorted(os.sched_getaffinity(0))[: flags.num_processes]
    if not 2 <= flags.num_processes <= len(cores):
        parser.error(
            f"--num_processes {flags.num_processes}, expected 2 to {len(cores)}, the cores there are"
        )
    several = f"{flags.num_processes}"
    ways = {"1": (1, {cores[0]}), several: (flags.num_processes, {*cores}), "1, free": (1, {*cores})}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    expected: dict[str, str] = {}
    for _ in range(flags.rounds):
        for name, (num_processes, own_cores) in ways.items():
            with TemporaryDirectory() as folder:
                out, log = Path(folder) / "out", Path(folder) / "log"
                command = [*flags.command, "--out", str(out)]
                seconds[name].append(seconds_of(command, num_processes, own_cores, log))
                found = digests_below(out)
            expected = expected or found
            if found != expected:
                others = sorted({file for file, _ in found.items() ^ expected.items()})
                raise RuntimeError(f"processes {name}: other bytes than the first time in {others}")
    ratios = {  # of seconds as they are rounded, to tenths
        f"{several} / {one}": round(mean(seconds[several]) / max(mean(seconds[one]), 0.1), 2)
        for one in ("1", "1, free")
    }
    print(json.dumps({"seconds": seconds, "ratios": ratios}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
