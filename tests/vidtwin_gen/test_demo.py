"""The demo: from nothing to a report, and nothing twice."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

import train_dit
import train_vae
from eval.cost import command as cost
from eval.flags import AccuracyFlags
from eval.fvd.i3d import I3D_WEIGHTS
from tests.builders.pipelines import build_pipeline
from tests.builders.results import accuracy_result, fvd_result
from tests.builders.runs import DIT_FLAGS, VAE_FLAGS
from vidtwin_gen import __main__ as program
from vidtwin_gen import demo
from vidtwin_gen.data import synthetic
from vidtwin_gen.files import owned_folder
from vidtwin_gen.program import children

SHORT = {"max_train_steps": 2, "checkpointing_steps": 2, "validation_steps": 2}


@pytest.mark.slow
def test_the_demo_ends_in_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(synthetic, "CLASSES", dict(list(synthetic.CLASSES.items())[:2]))
    monkeypatch.setattr(demo, "PRETRAINED", tmp_path / "pretrained")
    monkeypatch.setattr(demo, "FIRST_CLASS", "Archery")
    build_pipeline().save_pretrained(tmp_path / "pretrained")
    size = demo.DemoSize(
        stride=2, windows_per_video=1, videos_per_class=2, more_videos_per_class=2, fvd_clips=2
    )
    monkeypatch.setitem(demo.DEMO_SIZES, "demo", size)
    monkeypatch.setitem(train_vae.PRESETS, "demo", VAE_FLAGS | SHORT | {"num_validation_videos": 2})
    monkeypatch.setitem(train_dit.PRESETS, "demo", DIT_FLAGS | SHORT)
    monkeypatch.setenv(I3D_WEIGHTS.variable, str(tmp_path / "no-such-file"))
    # the paper's sizes take seconds to count, and the classifier to train
    monkeypatch.setattr(cost, "FIGURE_5_DIT", {"hidden_size": 16, "num_layers": 1, "num_heads": 2})
    monkeypatch.setattr(AccuracyFlags.__dataclass_fields__["num_steps"], "default", 2)

    class TrainHere:
        """In place of a process of its own, which would not see the presets above."""

        def __init__(self, command: list[str], **_: Any) -> None:
            assert command[:2] == [sys.executable, "-m"]
            importlib.import_module(command[2]).main(command[3:])

        def wait(self) -> int:
            return 0

    monkeypatch.setattr(children, "subprocess", SimpleNamespace(Popen=TrainHere))
    out = tmp_path / "demo"
    program.main(["data", "--out", str(out / "data"), "--clips_per_group", "1"])
    program.main(["demo", "--out", str(out)])
    for name in ("report.html", "report.md"):
        page = (out / name).read_text()
        assert "Class accuracy, generated" in page and "MAGVIT-v2" in page and "Not here" not in page
        assert "FVD, generated: not measured." in page
    record = json.loads((out / "demo.json").read_text())
    assert len(record["stages"]) == 10 and record["peak_memory_mb"] > 0

    told = capsys.readouterr().out
    assert "stage 1 of 11: a first clip, ~" in told and "stage 2 of 11: data: " in told
    assert f"pipe = VidTwinPipeline.from_pretrained({str(tmp_path / 'pretrained')!r})" in told
    assert (out / "first_clip/Archery/Archery_0000.gif").is_file()
    assert told.count(" minutes left, judged by another machine\n") == 1  # the first; then there is a pace
    assert told.count(" minutes left\n") == 9
    share = json.loads((out / "eval" / "accuracy.json").read_text())["generated"]
    low, high = share["interval"]
    assert f"{share['accuracy']:.1%} ({low:.1%} to {high:.1%}) of 4 generated clips" in told
    assert "another machine" in told and "97.3 %" in told
    assert (out / "generated_seed_1" / "clips.safetensors").read_bytes() != (
        out / "generated" / "clips.safetensors"
    ).read_bytes()

    program.main(["demo", "--out", str(out)])  # nothing is done twice, but for the FVD that is wanting
    assert capsys.readouterr().out.count("is there already") == 10
    (out / "eval" / "fvd.json").write_text('{"fvd": 1.0}')
    assert all(stage.is_done for stage in demo.demo_stages(out, "demo", own_data=None))


@pytest.mark.parametrize(
    ("classes", "videos", "per_class", "fvd_clips"), [(10, 9, 8, 64), (5, 9, 13, 64), (2, 3, 8, 8)]
)
def test_a_few_classes_of_ones_own_have_clips_enough_for_the_fvd(
    classes: int, videos: int, per_class: int, fvd_clips: int, tmp_path: Path
) -> None:
    """More of each class where there are few classes, and none of a video more than twice."""
    for label in range(classes):
        folder = tmp_path / "data" / f"Class{label}"
        folder.mkdir(parents=True)
        for number in range(videos):
            (folder / f"{label}_{number}.mp4").touch()
    lists = tmp_path / "data" / "ucfTrainTestlist"
    lists.mkdir()
    names = [f"Class{label}" for label in range(classes)]
    (lists / "classInd.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(names, 1)))
    for split, numbers in (("train", range(1, videos)), ("test", range(1))):
        lines = (f"{n}/{label}_{number}.mp4\n" for label, n in enumerate(names) for number in numbers)
        (lists / f"{split}list01.txt").write_text("".join(lines))
    found = demo.demo_stages(tmp_path, "cpu", str(tmp_path / "data"))
    stages = {stage.name: list(stage.arguments) for stage in found}
    for name in ("generation", "generation, another seed"):
        words = stages[name]
        assert words[words.index("--num_videos_per_class") + 1] == per_class
    words = stages["FVD"]
    assert words[words.index("--num_samples") + 1] == fvd_clips <= per_class * classes


def test_a_demo_of_another_version_is_not_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Whose presets may have changed: its two seeds would be sampled differently."""
    stages = demo.demo_stages(tmp_path, "demo", None)
    commands = {
        stage.name: [str(word).replace(str(tmp_path), "OUT") for word in stage.arguments] for stage in stages
    }
    commands["generation"][-1] = "another"
    record = {"preset": "demo", "data": None, "stages": {}, "peak_memory_mb": 0, "commands": commands}
    (tmp_path / "demo.json").write_text(json.dumps(record))
    with pytest.raises(SystemExit):
        program.main(["demo", "--out", str(tmp_path)])
    assert "a demo of another version, whose generation is another command" in capsys.readouterr().err


STAND_IN = """if True:  # of a training: says what it got, and ends as a training does
    import signal, sys, time
    from vidtwin_gen.training.stopping import StopSignal
    from vidtwin_gen.program.signals import handled_by, status_of
    stop = StopSignal()
    with handled_by(stop):
        print("trains", flush=True)
        while not stop.number:
            time.sleep(0.01)
        sys.exit(status)"""


@pytest.mark.parametrize(
    ("name", "status"),
    [
        *((name, "status_of(stop.number)") for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGKILL")),
        ("SIGTERM", "0"),  # it was past its last step
    ],
)
def test_a_training_ends_with_the_demo(name: str, status: str, tmp_path: Path) -> None:
    """It gets the signals, and the demo has its status; of one that nobody can handle it learns by itself."""
    (tmp_path / "train_stand_in.py").write_text(STAND_IN.replace("(status)", f"({status})"))
    run = (
        "from pathlib import Path; from vidtwin_gen.demo import Stage, run_stage; "
        "run_stage(Stage('training', Path('result'), 'train_stand_in', []))"
    )
    path = os.pathsep.join([str(tmp_path), str(Path(demo.__file__).parents[1])])
    with subprocess.Popen(
        [sys.executable, "-c", run],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        while process.stdout.readline() != "trains\n":
            assert process.poll() is None
        (child,) = psutil.Process(process.pid).children()
        number = getattr(signal, name)
        process.send_signal(number)
        process.wait(60)
        psutil.wait_procs([child], timeout=60)
        assert not child.is_running()
        if name == "SIGKILL":
            return
        assert process.returncode == 128 + number
        told = process.stderr.read()
        assert told == f"train_stand_in ended with status {128 + number}; the same command resumes the demo\n"


def test_one_demo_at_a_time_in_a_folder(tmp_path: Path) -> None:
    with owned_folder(tmp_path, ""), pytest.raises(ValueError, match="in use by process.*another --out"):
        demo.demo(demo.DemoFlags(out=str(tmp_path)))


def test_without_the_weights_of_a_checkout_there_is_no_first_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "PRETRAINED", tmp_path / "nowhere")
    assert demo.demo_stages(tmp_path, "demo", own_data=None)[0].name == "data"


def test_the_time_left_is_by_the_pace_of_this_machine(tmp_path: Path) -> None:
    stages = demo.demo_stages(tmp_path, "demo", own_data=None)
    assert {stage.name for stage in stages} == set(demo.SECONDS)
    in_all = sum(demo.SECONDS.values()) / 60
    assert demo.time_left(stages, {}, "demo") == f"~{in_all:.0f} minutes left, judged by another machine"
    slow = {"data": 10 * demo.SECONDS["data"]}
    left = in_all - (demo.SECONDS["a first clip"] + demo.SECONDS["data"]) / 60
    assert demo.time_left(stages[2:], slow, "demo") == f"~{10 * left:.0f} minutes left"
    trained = {"stage 1, the autoencoder": 9 * demo.SECONDS["stage 1, the autoencoder"]}
    assert demo.time_left(stages[-1:], trained, "long") == "~1 minutes left"


def test_the_numbers_are_told_with_their_spread(tmp_path: Path) -> None:
    accuracy_result(
        generated={"accuracy": 0.75, "interval": [0.6, 0.86], "num_clips": 64, "confusion": []}
    ).write(tmp_path / "accuracy.json")
    for result, told in (
        (
            fvd_result(840.2, std=12.6, kvd=12.34, kvd_std=0.5, num_seeds=2),
            "FVD 840 ± 13, KVD 12.3 ± 0.5 over 2 seeds",
        ),
        (fvd_result(840.2, kvd=-0.0123), "FVD 840, KVD -0.012, one seed"),
        (fvd_result(840.2), "FVD 840, one seed"),
    ):
        result.write(tmp_path / "fvd.json")
        assert demo.numbers(tmp_path).startswith(
            f"class accuracy 75.0% (60.0% to 86.0%) of 64 generated clips; {told}\n"
        )


def test_own_videos_of_one_class_are_refused_before_any_training(few_videos: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "PulsingRing").symlink_to(few_videos / "PulsingRing")
    with pytest.raises(ValueError, match=r"--data .*data has one class.*name two or more"):
        demo.demo_stages(tmp_path / "out", "cpu", own_data=str(tmp_path / "data"))
    assert demo.demo_stages(tmp_path / "out", "cpu", own_data=str(few_videos))
