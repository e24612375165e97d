"""benchmarks/gpu as far as it can be rehearsed without a GPU."""

import argparse
import dataclasses
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.autograd.profiler_util import DeviceType, FunctionEvent, FunctionEventAvg

from autoencoder.training_config import VAEConfig
from benchmarks.gpu import smoke
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.attention import temporal_attention
from benchmarks.gpu.autoencoder import autoencoder_training
from benchmarks.gpu.commands import CommandError, run_command
from benchmarks.gpu.dit import beside_sampling, dit_training, make_dit
from benchmarks.gpu.rows import Rows
from benchmarks.gpu.sizes import TINY, Sizes
from benchmarks.gpu.speed import measure_speed
from benchmarks.gpu.timing import counting_what_is_compiled, kernel_table
from eval.cost.flags import CostFlags
from vidtwin_gen.flags import add_flags
from vidtwin_gen.training.config import parse_config
from vidtwin_gen.training.dit_config import DiTConfig

ROOT = Path(__file__).parents[2]
WITHOUT_VIDEOS = """
import importlib, runpy, sys
for name in ("av", "datasets", "decord", "imageio", "imageio_ffmpeg", "torchcodec"):
    sys.modules[name] = None  # as if it were not installed
importlib.import_module("benchmarks.gpu.speed")
sys.argv = ["benchmarks.gpu", "speed", "--help"]
runpy.run_module("benchmarks.gpu", run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
def test_speed_needs_no_library_that_reads_videos():
    subprocess.run([sys.executable, "-c", WITHOUT_VIDEOS], cwd=ROOT, check=True, timeout=240)


@pytest.mark.slow
def test_speed_is_measured_row_by_row(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # as main does, which would leave it to the tests that follow
    arguments = ["speed", "--device", "cpu", "--tiny", "--out", str(tmp_path)]
    main(arguments)
    rows = json.loads((tmp_path / "speed.json").read_text())["rows"]
    assert not [name for name, row in rows.items() if "error" in row]
    assert rows["DiT-B training, batch 1"]["predicted_peak_bytes"] > 0
    assert rows["DiT-B beside diffusers' DiT, sampling, batch 1"]["reference_ratio"] > 0
    assert rows["autoencoder training, whole loss"]["flops_of_all"] > rows["autoencoder encode"]["flops"]
    before = (tmp_path / "speed.json").stat().st_mtime_ns, rows
    main(arguments)  # nothing is left to measure
    assert json.loads((tmp_path / "speed.json").read_text())["rows"] == before[1]


def test_what_was_never_measured_comes_first(tmp_path):
    """Of a card's rows; profiles, and what is not compiled or computes twice, come last."""
    rows = Rows(tmp_path / "speed.json", torch.device("cpu"), seconds=-1)
    measure_speed(rows, dataclasses.replace(Sizes(), autoencoder=TINY.autoencoder), rows.device)
    whole = "autoencoder training, whole loss compiled"
    assert rows.left_out[:4] == ["matmul bf16", "copy", whole, f"{whole}, its networks too"]
    found = iter(rows.left_out[4:])
    for told in (
        "DiT-B beside diffusers' DiT, sampling, batch 16 compiled",
        "DiT-B beside diffusers' DiT, training, batch 32 compiled",
        "DiT-B beside diffusers' DiT, sampling, batch 16",
        "autoencoder encode",
        "autoencoder decode",
        "DiT-XL training, batch 16 compiled",
        "DiT-S training, batch 128 compiled",
        "LPIPS forward and backward autocast compiled",
        "attention along time, by kernel",
        "DiT-B training, batch 64 compiled",
        "autoencoder training, whole loss",
        "DiT-B training, batch 64",
        "autoencoder training, L1 and KL checkpointing",
        "autoencoder training, whole loss: kernels",
    ):
        assert told in found, told  # behind the one before
    assert len(set(rows.left_out)) == len(rows.left_out) == 46


def test_an_error_is_a_row_and_is_tried_again(tmp_path):
    path, device = tmp_path / "part.json", torch.device("cpu")
    rows = Rows(path, device, seconds=60)

    def fails():
        raise torch.OutOfMemoryError("no room")

    rows.run("first", fails)
    rows.run("second", lambda: {"value": 1})
    assert "no room" in json.loads(path.read_text())["rows"]["first"]["error"]
    again = Rows(path, device, seconds=60)
    again.run("first", lambda: {"value": 2})
    again.run("second", fails)  # stands, and is not measured again
    assert [again.rows[name]["value"] for name in ("first", "second")] == [2, 1]


def test_rows_of_a_rehearsal_or_of_another_device_do_not_count(tmp_path):
    path, device = tmp_path / "part.json", torch.device("cpu")
    Rows(path, device, 60, {"tiny": True}).run("first", lambda: {"value": 1})
    with pytest.raises(ValueError, match="--tiny was True, is False.: name another --out"):
        Rows(path, device, 60, {"tiny": False})
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"machine": record["machine"] | {"device": "H100"}}))
    with pytest.raises(ValueError, match="--device was 'H100', is 'cpu'"):
        Rows(path, device, 60, {"tiny": True})


def test_a_row_says_which_versions_and_which_commit_made_it(tmp_path):
    path, device = tmp_path / "part.json", torch.device("cpu")
    Rows(path, device, 60).run("first", lambda: {"value": 1})
    record = json.loads(path.read_text())
    assert record["rows"]["first"]["torch"] == record["machine"]["torch"]
    if (ROOT / ".git").exists():
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
        assert head.startswith(record["rows"]["first"]["commit"].removesuffix("-dirty"))
    record["rows"]["first"] |= {"torch": "2.9.0", "commit": "0123456"}
    path.write_text(json.dumps(record))
    again = Rows(path, device, 60)
    again.run("second", lambda: {"value": 2})
    rows = json.loads(path.read_text())["rows"]
    assert (rows["first"]["torch"], rows["first"]["commit"]) == ("2.9.0", "0123456")
    assert rows["second"]["torch"] == record["machine"]["torch"]


def test_the_commands_of_the_smoke_test_take_their_flags(tmp_path, monkeypatch):
    """Those, too, that a rehearsal leaves out."""
    given = []
    monkeypatch.setattr(
        smoke, "run_command", lambda program, words, log: given.append((program, words)) or {}
    )
    smoke.smoke(Rows(tmp_path / "smoke.json", torch.device("cpu"), 60), tmp_path, tmp_path, tiny=False)
    costs = [[str(word) for word in words[1:]] for program, words in given if words[0] == "cost"]
    assert len(costs) == 2
    for words in costs:
        parser = argparse.ArgumentParser()
        add_flags(parser, CostFlags)
        CostFlags(**vars(parser.parse_args(words)))  # refuses what does not go together
    for program, words in given:
        if program.startswith("train_"):
            module = importlib.import_module(program)
            config = {"train_vae": VAEConfig, "train_dit": DiTConfig}[program]
            parse_config(config, module.PRESETS, [str(word) for word in words])


def test_no_row_is_begun_after_the_end(tmp_path):
    rows = Rows(tmp_path / "part.json", torch.device("cpu"), seconds=-1)
    rows.run("late", lambda: {"value": 1})
    assert rows.left_out == ["late"] and not rows.rows


def test_a_failed_command_tells_its_last_lines(tmp_path):
    log = tmp_path / "log"
    with pytest.raises(CommandError, match="json.tool ended with status"):
        run_command("json.tool", [tmp_path / "absent.json"], log)
    with pytest.raises(CommandError) as failed:
        run_command("no_such_command", [], log)  # it shares the log of the command before
    assert "No module named no_such_command" in str(failed.value)
    assert "absent.json" in log.read_text() and "absent.json" not in str(failed.value)


def test_the_milliseconds_of_kernels_are_counted_once():
    """An optimizer's annotation lies over the kernels of its step, as an event of the device."""

    def average(name, annotation):
        kinds = {"device_type": DeviceType.CUDA, "use_device": "cuda", "is_user_annotation": annotation}
        return FunctionEventAvg().add(FunctionEvent(0, name, 0, 0, 2400, **kinds))

    found = kernel_table([average("adam", False), average("Optimizer.step#AdamW.step", True)])
    assert [kernel["name"] for kernel in found["kernels"]] == ["adam"] and found["all_ms"] == 2.4


def test_attention_along_time_is_measured_by_kernel():
    """At the base model's shape; what has no kernel here says so."""
    found = temporal_attention(dataclasses.replace(Sizes(), repeats=1), torch.device("cpu"))
    seconds = found["seconds"]
    assert found["num_sequences"] * found["num_heads"] == 14112 and found["length"] == 16
    assert min(seconds[name]["median"] for name in ("torch's choice", "flash", "math")) > 0
    assert "kernel" in seconds["cuDNN"]["error"] and "kernel" in seconds["efficient"]["error"]


def test_a_row_says_what_was_compiled():
    @counting_what_is_compiled
    def measure(*, compiled):
        def function(x):
            torch._dynamo.graph_break()
            return x + 1

        call = torch.compile(function, backend="eager") if compiled else function
        for dtype in (torch.float32, torch.float64):
            call(torch.ones(2, dtype=dtype))
        return {"value": 1}

    assert measure(compiled=False) == {"value": 1}
    for _ in range(2):  # nothing of the rows before counts
        counts = measure(compiled=True)["compiled"]
        assert counts.pop("graph_breaks") == 1 and counts.pop("recompiles") >= 1
        assert counts["frames"] == counts["frames_ok"] > 1


def test_a_compiled_row_has_its_rate_too():
    """FLOPs are counted before: what is compiled shows none."""
    device = torch.device("cpu")
    make = partial(make_dit, TINY.layout, TINY.dits["B"])
    with torch.compiler.set_stance("force_eager"):  # a CPU's compiler takes a minute
        whole = autoencoder_training(TINY, 1, device, 1e9, whole=True, compiled=True, networks_compiled=True)
        dit = dit_training(make, 1, device, 1e9, 1, compiled=True)
        beside = beside_sampling(TINY, "B", 1, device, 1e9, compiled=True)
    eager = autoencoder_training(TINY, 1, device, 1e9, whole=True)
    assert whole["flops_of_all"] == eager["flops_of_all"] and whole["of_matmul_rate"] > 0
    assert "compiled" not in eager
    for row in (whole, dit, beside):
        assert row["compiled"] == {"frames_ok": 0, "frames": 0, "graph_breaks": 0, "recompiles": 0}


STAND_IN = """if True:  # of a training: takes a while to end
    import time
    from vidtwin_gen.training.stopping import StopSignal
    from vidtwin_gen.program.signals import handled_by
    stop = StopSignal()
    with handled_by(stop):
        print("trains", flush=True)
        while not stop.number:
            time.sleep(0.01)
        time.sleep(0.5)
        print("saved", flush=True)
        raise SystemExit(128 + stop.number)"""
PART = """if True:
    import sys, torch
    from pathlib import Path
    from benchmarks.gpu.commands import run_command
    from benchmarks.gpu.rows import Rows
    folder = Path(sys.argv[1])
    rows = Rows(folder / "part.json", torch.device("cpu"), 600)
    rows.run("first", dict)
    rows.run("training", lambda: run_command("train_stand_in", [], folder / "log"))
    rows.run("next", dict)"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_part_that_is_stopped_waits_for_its_training(name, tmp_path):
    """To the whole group, as a terminal does: the training gets the signal once."""
    (tmp_path / "train_stand_in.py").write_text(STAND_IN)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    log, number = tmp_path / "log", getattr(signal, name)
    with subprocess.Popen(
        [sys.executable, "-c", PART, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": path},
        start_new_session=True,
    ) as part:
        while not (log.exists() and "trains" in log.read_text()):
            assert part.poll() is None
            time.sleep(0.01)
        os.killpg(part.pid, number)
        assert part.wait(60) == 128 + number
    assert log.read_text().splitlines() == ["trains", "saved"]
    assert list(json.loads((tmp_path / "part.json").read_text())["rows"]) == ["first"]


def test_what_it_needs_is_named(tmp_path, capsys):
    for arguments, told in (
        (["smoke", "--device", "cpu"], "needs a folder of videos"),
        (["speed", "--device", "cuda"], "torch finds no GPU"),
    ):
        if "cuda" in arguments and torch.cuda.is_available():
            continue
        with pytest.raises(SystemExit):
            main([*arguments, "--out", str(tmp_path)])
        assert told in capsys.readouterr().err
