"""The batch script of examples/slurm, under an `srun` that starts the tasks here."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SRUN = """#!/bin/bash
echo $$ > "$PIDS"
trap 'kill -TERM $(jobs -p)' TERM
for task in $(seq 0 $((SLURM_NTASKS - 1))); do
    SLURM_PROCID=$task SLURM_LOCALID=$task "$@" &
done
worst=0
for job in $(jobs -p); do
    while wait $job; status=$?; kill -0 $job 2>/dev/null; do :; done
    [ $status -le $worst ] || worst=$status
done
exit $worst
"""
SCONTROL = """#!/bin/bash
[ "$1" = show ] && echo localhost || echo "$@" >> "$REQUEUED"
"""


@pytest.fixture
def submit(tmp_path):
    """Starts the script with a command, on a node with so many tasks."""
    for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)

    def submit(num_tasks, *words):
        environment = os.environ | {
            "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "CUDA_VISIBLE_DEVICES": "",
            "SLURM_JOB_ID": str(os.getpid()),
            "SLURM_JOB_NODELIST": "localhost",
            "SLURM_NTASKS": str(num_tasks),
            "REQUEUED": str(tmp_path / "requeued"),
            "PIDS": str(tmp_path / "pids"),
        }
        command = ["bash", "examples/slurm/run.sbatch", *map(str, words)]
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    return submit


def test_the_tasks_find_one_another(submit, tmp_path):
    program = """
import torch
torch.distributed.init_process_group("gloo")
total = torch.ones(1) + torch.distributed.get_rank()
torch.distributed.all_reduce(total)
assert total == 3
torch.distributed.destroy_process_group()  # else gloo's threads may abort the end of the process
"""
    job = submit(2, "-c", program)
    said, _ = job.communicate(timeout=120)
    assert job.returncode == 0, said
    assert not (tmp_path / "requeued").exists()


@pytest.mark.parametrize(("status", "requeued"), [(143, True), (138, True), (1, False)])
def test_what_was_stopped_queues_again_and_what_failed_does_not(submit, tmp_path, status, requeued):
    job = submit(2, "-c", f"raise SystemExit({status})")
    job.communicate(timeout=60)
    assert job.returncode == status
    assert (tmp_path / "requeued").exists() == requeued
    if requeued:
        assert (tmp_path / "requeued").read_text() == f"requeue {os.getpid()}\n"


def test_the_shell_waits_for_the_processes_that_a_signal_reaches(submit, tmp_path):
    program = """
import pathlib, signal, sys, time
def save(*_):
    time.sleep(0.5)
    pathlib.Path(sys.argv[1]).touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
pathlib.Path(sys.argv[2]).touch()
time.sleep(60)
"""
    job = submit(1, "-c", program, tmp_path / "saved", tmp_path / "begun")
    while not (tmp_path / "begun").exists():
        time.sleep(0.05)
    job.terminate()  # the batch shell
    time.sleep(0.2)
    os.kill(int((tmp_path / "pids").read_text()), 15)  # the step
    job.communicate(timeout=60)
    assert job.returncode == 143 and (tmp_path / "saved").exists()
