"""Signals: the step at hand is finished and saved, and the same command goes on."""

import multiprocessing
import os
import re
import signal
import sys
import threading
import time

import psutil
import pytest

import train_dit
from tests.builders.forked import Started
from tests.builders.scripts import SCRIPTS, WEIGHTS, checkpoints, metrics
from vidtwin_gen.program.errors import user_errors
from vidtwin_gen.program.signals import handled_by
from vidtwin_gen.weights import weights_sha256

pytestmark = pytest.mark.usefixtures("hangups_are_heard")


@pytest.mark.parametrize(
    ("script", "name", "status"),
    [
        ("train_vae", "SIGTERM", 143),
        ("train_dit", "SIGUSR1", 138),
        ("train_dit", "SIGINT", 130),
        ("train_dit", "SIGHUP", 129),
    ],
)
def test_a_signal_ends_the_step_and_saves_it(script, name, status, run, tmp_path, capsys):
    output_dir = tmp_path / "run"
    argv = run.argv(output_dir, checkpointing_steps=100, dataloader_num_workers=1)

    def send():
        """When a step is logged, to the whole group, as a terminal or a cluster does."""
        log = output_dir / "metrics.jsonl"
        while not (log.exists() and log.read_text()):
            time.sleep(0.002)
        for pid in (*(child.pid for child in multiprocessing.active_children()), os.getpid()):
            os.kill(pid, getattr(signal, name))

    sender = threading.Thread(target=send, daemon=True)
    with handled_by(lambda number, frame: None), pytest.raises(SystemExit) as stopped:
        sender.start()
        SCRIPTS[script].main(argv)
    assert stopped.value.code == status
    (checkpoint,) = checkpoints(output_dir)
    told = capsys.readouterr().out.splitlines()[-1]
    assert told.startswith(f"{name} after step ") and told.endswith("the same command goes on")
    assert f"{output_dir / checkpoint} holds the state" in told
    assert int(checkpoint.split("-")[1]) == metrics(output_dir)[-1]["step"] < 12

    SCRIPTS[script].main(argv)
    assert metrics(output_dir) == metrics(run.output_dir)
    assert weights_sha256((output_dir / WEIGHTS[script]).parent) == weights_sha256(
        (run.output_dir / WEIGHTS[script]).parent
    )
    del stopped
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("script", ["train_dit"])
def test_a_signal_saves_the_step_though_it_ended_the_reader_of_the_output(run, tmp_path, monkeypatch):
    """Ctrl-C in `train_dit.py ... 2>&1 | tee log` is sent to both."""
    output_dir = tmp_path / "run"

    def send():
        log = output_dir / "metrics.jsonl"
        while not (log.exists() and log.read_text()):
            time.sleep(0.002)
        os.kill(os.getpid(), signal.SIGINT)

    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, stream)
        with pytest.raises(SystemExit) as stopped, user_errors("train_dit.py"):
            threading.Thread(target=send, daemon=True).start()
            train_dit.main(run.argv(output_dir, max_train_steps=10_000, checkpointing_steps=10_000))
    assert stopped.value.code == 130 and len(checkpoints(output_dir)) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere Python's own way starts the workers")
@pytest.mark.parametrize("script", ["train_vae"])
def test_a_signal_to_every_process_loses_no_step_where_python_has_a_fork_server(script, run, tmp_path):
    """As from Python 3.14 on; the server would die of the signal, and its workers amid a step."""
    output_dir = tmp_path / "run"
    options = {"checkpointing_steps": 100, "dataloader_num_workers": 1, "gradient_accumulation_steps": 16}
    started = Started(
        SCRIPTS[script].main,
        run.argv(output_dir, **options),
        tmp_path,
        prepare=lambda: multiprocessing.set_start_method("forkserver", force=True),
    )
    log = output_dir / "metrics.jsonl"
    while started.is_running() and not (log.exists() and log.read_text()):
        time.sleep(0.01)
    started.send(signal.SIGTERM)
    ended = started.wait()
    assert (ended.status, ended.traceback) == (143, False), ended.said
    assert len(checkpoints(output_dir)) == 1


@pytest.mark.parametrize("script", ["train_dit"])
def test_a_data_worker_that_the_system_kills_is_one_line(run, tmp_path):
    """As it kills one where memory ends. Torch raises wherever the news comes, be it amid the cleaning up."""
    argv = run.argv(tmp_path / "run", max_train_steps=10_000, dataloader_num_workers=1)
    started = Started(user_errors("train_dit.py")(train_dit.main), argv, tmp_path)
    log = tmp_path / "run" / "metrics.jsonl"
    while started.is_running() and not (log.exists() and log.read_text()):
        time.sleep(0.002)
    (worker,) = psutil.Process(started.pid).children()
    worker.kill()
    ended = started.wait()
    assert ended.status == 1 and not ended.traceback, ended.said
    assert re.search(
        r"train_dit.py: error: a data worker has died \((DataLoader worker \(pid|EOFError|\[Errno)",
        ended.error,
    )
    assert ended.error.endswith("take fewer of them or smaller batches, and the same command continues")
