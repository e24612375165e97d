"""Two processes train as one does: with DDP, and with weights that FSDP shards. All on the CPU, over gloo."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import NUM_STEPS
from safetensors.torch import load_file

import train_dit
from vidtwin_gen.draws import BatchDraws, SampleDraws, normal, seed_step, seeded_generator, uniform
from vidtwin_gen.latent_dataset import weights_sha256
from vidtwin_gen.transformer import LatentTransformer

ROOT = Path(__file__).parents[1]
DDP = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
FSDP = ["accelerate.commands.launch", "--config_file", "docs/fsdp.yaml", "--num_processes", "2"]
FSDP += ["--main_process_port", "0", "tests/fsdp_on_cpu.py"]


def launch(launcher, script, argv):
    """Two processes of a script, and what they said."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    if launcher is DDP:
        env["ACCELERATE_USE_CPU"] = "true"
    command = [sys.executable, "-m", *launcher, script, *argv]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def metrics(output_dir):
    return [json.loads(line) for line in (output_dir / "metrics.jsonl").read_text().splitlines()]


def exported(output_dir):
    return output_dir / "pipeline" / "transformer"


def assert_same_training(lines, alone, rel):
    """The same lines of the log, validation's among them."""
    assert [line.keys() for line in lines] == [line.keys() for line in alone]
    for line, other in zip(lines, alone, strict=True):
        assert line == pytest.approx(other, rel=rel)


@pytest.mark.parametrize(("launcher", "batch_size", "passes"), [(DDP, 2, 1), (FSDP, 1, 2)], ids=["ddp", "fsdp"])
def test_two_processes_train_as_one_and_resume(launcher, batch_size, passes, tiny_dit_run, tmp_path):
    run, output_dir = tiny_dit_run, tmp_path / "shared"
    argv = run.argv(
        output_dir,
        train_batch_size=batch_size,
        gradient_accumulation_steps=passes,
        validation_steps=5,
    )
    done = launch(launcher, "train_dit.py", argv)
    assert done.returncode == 0, done.stderr
    lines, alone = metrics(output_dir), metrics(run.output_dir)
    validations = [line for line in lines if "val_loss" in line]
    assert [line["step"] for line in validations] == [5, 10, NUM_STEPS]
    for line in validations[:2]:  # which the one process did not make
        lines.remove(line)
    assert_same_training(lines, alone, rel=1e-5)
    names = sorted(path.name for path in (output_dir / "samples").iterdir())
    assert names == [f"step_{step:07d}.{end}" for step in (5, 10, NUM_STEPS) for end in ("gif", "png")]
    weights, expected = (
        LatentTransformer.from_pretrained(exported(folder)).state_dict()
        for folder in (output_dir, run.output_dir)
    )
    torch.testing.assert_close(weights, expected, rtol=0, atol=1e-5)

    before, told = weights_sha256(exported(output_dir)), metrics(output_dir)
    shutil.rmtree(output_dir / "pipeline")
    shutil.rmtree(output_dir / f"checkpoint-{NUM_STEPS}")
    done = launch(launcher, "train_dit.py", argv)
    assert done.returncode == 0, done.stderr
    assert "resuming from" in done.stdout
    assert metrics(output_dir) == told
    assert weights_sha256(exported(output_dir)) == before
