"""Two processes train as one does: with DDP, and with weights that FSDP shards. All on the CPU, over gloo."""

import contextlib
import errno
import gc
import math
import os
import shutil
import subprocess
import sys
import weakref
from functools import partial
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

import train_dit
import train_vae
from tests.builders.processes import run_in_processes
from tests.builders.runs import DIT_FLAGS, NUM_STEPS, command_line
from tests.builders.scripts import SCRIPTS, WEIGHTS, metrics
from vidtwin_gen.data.video_dataset import BadVideos
from vidtwin_gen.draws import BatchDraw, normal, seed_step, uniform
from vidtwin_gen.files import owned_folder
from vidtwin_gen.models.transformer import LatentTransformer
from vidtwin_gen.training.accelerator import make_accelerator
from vidtwin_gen.training.checkpoints import save_checkpoint
from vidtwin_gen.training.metrics_log import MetricsLog
from vidtwin_gen.training.optimizer import SkippingOptimizer
from vidtwin_gen.weights import weights_sha256

ROOT = Path(__file__).parents[3]
DDP = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
FSDP = ["accelerate.commands.launch", "--config_file", "docs/fsdp.yaml", "--num_processes", "2"]
FSDP += ["--main_process_port", "0", "tests/fsdp_on_cpu.py"]


def launch(launcher, script, argv):
    """Two processes of a script, as its user starts them, and what they said."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", *launcher, f"{script}.py", *argv]
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def fork(script, argv):
    """The same two processes without a launcher, which spares importing everything again in each; what the
    first one said."""
    said = Path(argv[argv.index("--output_dir") + 1]).with_suffix(".said")
    run_in_processes(2, in_process, script, argv, said)
    return said.read_text()


def in_process(rank, script, argv, said):
    with said.with_suffix(f".{rank}").open("w") as file, contextlib.redirect_stdout(file):
        SCRIPTS[script].main(argv)
    if rank == 0:
        said.with_suffix(".0").rename(said)


def exported(output_dir):
    return output_dir / "pipeline" / "transformer"


def assert_same_training(lines, alone, rel):
    """The same lines of the log, validation's among them."""
    assert [line.keys() for line in lines] == [line.keys() for line in alone]
    for line, other in zip(lines, alone, strict=True):
        assert line == pytest.approx(other, rel=rel)


def resume_from_step_10(start, script, argv, output_dir, result):
    """Removes what came after it, and goes on as the run was started: other processes may round otherwise."""
    shutil.rmtree(output_dir / result)
    shutil.rmtree(output_dir / f"checkpoint-{NUM_STEPS}")
    assert f"resuming from {output_dir / 'checkpoint-10'}" in start(script, argv)


@pytest.mark.parametrize(
    ("launcher", "batch_size", "passes"),
    [pytest.param(DDP, 2, 1, id="ddp"), pytest.param(FSDP, 1, 2, id="fsdp", marks=pytest.mark.slow)],
)
def test_two_processes_train_the_transformer_as_one(launcher, batch_size, passes, tiny_dit_run, tmp_path):
    run, output_dir = tiny_dit_run, tmp_path / "shared"
    argv = run.argv(
        output_dir,
        train_batch_size=batch_size,
        gradient_accumulation_steps=passes,
        validation_steps=5,  # once where no checkpoint follows, which would put sharded weights in order
    )
    launch(launcher, "train_dit", argv)
    told = metrics(output_dir)
    assert [line["step"] for line in told if "val_loss" in line] == [5, 10, NUM_STEPS]
    lines = [line for line in told if "val_loss" not in line or line["step"] == NUM_STEPS]
    assert_same_training(lines, metrics(run.output_dir), rel=1e-5)
    names = sorted(path.name for path in (output_dir / "samples").iterdir())
    assert names == [f"step_{step:07d}.{end}" for step in (5, 10, NUM_STEPS) for end in ("gif", "png")]
    weights, expected = (
        LatentTransformer.from_pretrained(exported(folder)).state_dict()
        for folder in (output_dir, run.output_dir)
    )
    torch.testing.assert_close(weights, expected, rtol=0, atol=1e-5)

    if launcher is FSDP:
        assert len(list((output_dir / "checkpoint-10" / "pytorch_model_fsdp_0").glob("*.distcp"))) == 2
        before = weights_sha256(exported(output_dir))
        resume_from_step_10(partial(launch, FSDP), "train_dit", argv, output_dir, "pipeline")
        assert metrics(output_dir) == told
        assert weights_sha256(exported(output_dir)) == before


def test_two_processes_align_the_transformer_as_one(featured_latents, tmp_path):
    """The head's gradients are shared, too."""
    places = {"vae": featured_latents.vae_dir, "latents": featured_latents.latents_dir}
    flags = DIT_FLAGS | places | {"max_train_steps": 2, "repa_weight": 0.5, "repa_dim": 32}
    train_dit.main(command_line(flags, output_dir=tmp_path / "alone"))
    batch_size = flags["train_batch_size"] // 2
    argv = command_line(flags | {"train_batch_size": batch_size}, output_dir=tmp_path / "shared")
    fork("train_dit", argv)
    lines, alone = metrics(tmp_path / "shared"), metrics(tmp_path / "alone")
    assert all("loss_repa" in line for line in alone[:2])
    assert_same_training(lines, alone, rel=1e-5)
    for file in ("model.safetensors", WEIGHTS["train_dit"]):  # the head's, the transformer's
        shared, expected = (load_file(next((tmp_path / run).rglob(file))) for run in ("shared", "alone"))
        torch.testing.assert_close(shared, expected, rtol=0, atol=1e-5)


def ends_its_group(rank, config):
    accelerator = make_accelerator(config)
    group = weakref.ref(torch.distributed.group.WORLD)
    accelerator.end_training()
    gc.collect()
    assert not torch.distributed.is_initialized()
    assert group() is not None


def test_the_group_outlives_what_ddp_holds_of_it(tmp_path):
    """Else a process hangs in the destructor of DDP's reducer, once in thirty runs of few steps."""
    config = train_dit.DiTConfig(**DIT_FLAGS, vae="unused", latents="unused", output_dir=str(tmp_path))
    run_in_processes(2, ends_its_group, config)


@pytest.mark.slow
def test_two_processes_share_a_batch_of_videos_and_resume(tiny_vae_run, tmp_path):
    run, output_dir = tiny_vae_run, tmp_path / "shared"
    argv = run.argv(output_dir, train_batch_size=run.flags["train_batch_size"] // 2)
    fork("train_vae", argv)
    lines, alone = metrics(output_dir), metrics(run.output_dir)
    assert [(line["step"], line["samples"]) for line in lines] == [
        (line["step"], line["samples"]) for line in alone
    ]
    assert lines[0]["l1"] == pytest.approx(alone[0]["l1"], rel=0.01)  # the same clips, but other noise

    weights = weights_sha256(output_dir / "autoencoder")
    resume_from_step_10(fork, "train_vae", argv, output_dir, "autoencoder")
    assert metrics(output_dir) == lines
    assert weights_sha256(output_dir / "autoencoder") == weights


def test_two_passes_of_half_a_batch_are_one_of_the_whole(tiny_dit_run, tmp_path):
    run = tiny_dit_run
    argv = run.argv(
        tmp_path / "run",
        train_batch_size=2,
        gradient_accumulation_steps=2,
        max_train_steps=2,
        lr_scheduler="constant_with_warmup",  # in the cosine of 12 steps it is as at the first two
        checkpointing_steps=2,
        validation_steps=2,
    )
    train_dit.main(argv)
    *lines, _ = metrics(tmp_path / "run")
    names = [name for name in lines[0] if name == "grad_norm" or "loss" in name]
    for line, other in zip(lines, metrics(run.output_dir), strict=False):
        assert {name: line[name] for name in names} == pytest.approx(
            {name: other[name] for name in names}, rel=1e-5
        )


def test_a_sample_is_drawn_the_same_in_any_part_of_its_batch():
    def drawn(*cuts):
        rows = []
        for start, stop in zip(cuts, cuts[1:], strict=False):
            shared = seed_step(0, 3, torch.device("cpu"))
            draw = BatchDraw(torch.Generator(), shared, 12, slice(start, stop))
            rows.append(torch.cat([draw(normal(5)), draw(uniform)[:, None]], dim=1))
        return torch.cat(rows)

    whole = drawn(0, 12)
    assert whole.shape == (12, 6)
    assert len(whole.unique()) == whole.numel()
    assert torch.equal(drawn(0, 1, 7, 12), whole)
    other = torch.randn(12, 5, generator=seed_step(0, 4, torch.device("cpu")))
    assert not torch.isclose(other, whole[:, :5]).any()


def meets_infinity_in_one(rank, config):
    optimizer = SkippingOptimizer([torch.nn.Linear(2, 1)], config, Accelerator(cpu=True), 1.0, 9)
    loss = optimizer.modules[0](torch.ones(1, 2)).sum()
    optimizer.step(loss + (math.inf if rank else 0.0))  # whose gradient is finite in both
    assert not optimizer.moved
    optimizer.step(optimizer.modules[0](torch.ones(1, 2)).sum())
    assert optimizer.moved


def test_what_one_process_meets_all_skip(tmp_path):
    config = train_dit.DiTConfig(**DIT_FLAGS, vae="unused", latents="unused", output_dir=str(tmp_path))
    run_in_processes(2, meets_infinity_in_one, config)


def meets_what_the_other_does_not(rank, config):
    accelerator, output_dir = make_accelerator(config), Path(config.output_dir)
    with pytest.raises(ValueError if rank == 0 else SystemExit):  # the first alone reads it
        MetricsLog(accelerator, config, step=1)

    def save_state(folder):
        if rank == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), folder)

    accelerator.save_state = save_state
    with pytest.raises(OSError if rank == 1 else SystemExit):
        save_checkpoint(accelerator, output_dir, step=1, limit=1, record={})
    assert not list(output_dir.glob("checkpoint-*"))


def test_what_one_process_is_refused_ends_all(tmp_path):
    config = train_dit.DiTConfig(**DIT_FLAGS, vae="unused", latents="unused", output_dir=str(tmp_path))
    (tmp_path / "metrics.jsonl").write_text('no object\n{"step": 1}\n')
    run_in_processes(2, meets_what_the_other_does_not, config)


class Process:
    """As much of an Accelerator as `validate` asks for: one process of several, with nothing to add."""

    device = torch.device("cpu")

    def __init__(self, process_index, num_processes):
        self.process_index, self.num_processes = process_index, num_processes

    def autocast(self):
        return contextlib.nullcontext()

    def reduce(self, tensor, reduction):
        assert reduction == "sum"
        return tensor


def test_uneven_shares_of_the_test_split_add_up(tiny_dit_run):
    config = train_dit.DiTConfig(**{**tiny_dit_run.flags, "output_dir": "unused"})
    _, rows, metadata = train_dit.load_inputs(config)
    transformer = LatentTransformer.from_pretrained(exported(tiny_dit_run.output_dir))
    whitening = train_dit.Whitening.of(metadata, torch.device("cpu"))
    passes = []
    transformer.register_forward_hook(lambda *_: passes[-1].append(1))

    def validate(batch_size, index, num_processes):
        passes.append([])
        config.train_batch_size = batch_size
        process = Process(index, num_processes)
        return train_dit.validate(transformer, rows["test"].select(range(5)), whitening, config, process)

    whole = validate(5, 0, 1)
    for batch_size, num_processes in ((1, 1), (2, 1), (1, 2), (2, 2), (1, 7)):
        parts = [validate(batch_size, index, num_processes) for index in range(num_processes)]
        assert {name: sum(part[name] for part in parts) for name in whole} == pytest.approx(whole, rel=1e-5)
        assert len({len(calls) for calls in passes[-num_processes:]}) == 1  # or FSDP would wait for ever


@pytest.mark.parametrize(
    ("script", "environment", "changes", "message"),
    [
        (train_vae, {"FSDP_VERSION": "2"}, {}, "launch it without FSDP, `accelerate launch --multi_gpu`"),
        (train_dit, {"FSDP_VERSION": "1"}, {}, "fsdp_version is 1 in .*: set it to 2, as in docs/fsdp.yaml"),
        (train_dit, {"FSDP_VERSION": "2"}, {"mixed_precision": "fp16"}, "fp16 does not go with FSDP"),
    ],
)
def test_what_cannot_be_sharded_says_so(
    script, environment, changes, message, tiny_vae_run, tiny_dit_run, tmp_path, monkeypatch
):
    run = {train_vae: tiny_vae_run, train_dit: tiny_dit_run}[script]
    for name, value in {"ACCELERATE_USE_FSDP": "true", **environment}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        script.main(run.argv(tmp_path / "run", **changes))
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_told_by_one_process_and_ends_all(tiny_dit_run, tmp_path):
    with owned_folder(tmp_path / "run", ""):
        run_in_processes(2, is_refused, tiny_dit_run.argv(tmp_path / "run"))


def is_refused(rank, argv):
    with pytest.raises(ValueError if rank == 0 else SystemExit):
        train_dit.main(argv)


def test_a_precision_of_the_launcher_alone_is_refused(tiny_dit_run, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with pytest.raises(ValueError, match="launched with --mixed_precision bf16, and .* flag, .* says no"):
        train_dit.main(tiny_dit_run.argv(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_another_number_of_passes_in_the_environment_is_refused(tiny_dit_run, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "2")
    with pytest.raises(ValueError, match="STEPS is 2, and .* flag, .* says 1: give"):
        train_dit.main(tiny_dit_run.argv(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_the_first_process_tells_of_the_bad_videos_of_all(tmp_path):
    run_in_processes(2, meet_a_bad_video, tmp_path)
    assert [path.read_text() for path in sorted(tmp_path.iterdir())] == [
        "1 of 2 videos are bad: of process 1"
    ] * 2


def meet_a_bad_video(rank, folder):
    bad = BadVideos(2, max_fraction=0.9)
    bad.update({"index": [rank], "skipped": [(1, "of process 1")] if rank else []})
    bad.gather()
    (folder / str(rank)).write_text(bad.summary())


def test_a_sharded_checkpoint_is_not_resumed_without_fsdp(tiny_dit_run, tmp_path):
    output_dir = shutil.copytree(tiny_dit_run.output_dir, tmp_path / "run")
    (output_dir / f"checkpoint-{NUM_STEPS}" / "pytorch_model_fsdp_0").mkdir()
    with pytest.raises(ValueError, match="is of a run with FSDP, this one is without FSDP"):
        train_dit.main(tiny_dit_run.argv(output_dir))
