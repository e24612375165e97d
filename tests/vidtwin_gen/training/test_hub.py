"""What a run tells to its tracker and puts on the hub, and what it keeps to itself."""

import runpy
import shutil
import sys
from pathlib import Path

import accelerate.tracking
import huggingface_hub
import numpy as np
import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker
from accelerate.utils import LoggerType
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

import train_dit
from tests.builders.folders import contents
from tests.builders.hub import running_hub
from tests.builders.scripts import SCRIPTS
from vidtwin_gen.training.trackers import check_tracker

ROOT = Path(__file__).parents[3]
EXPORTS = {"train_vae": "autoencoder", "train_dit": "pipeline"}
TOKEN = "hf_notToBeWrittenDown"
SHORT = {"max_train_steps": 1, "checkpointing_steps": 1, "validation_steps": 1}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub, and no credentials but those that a test gives."""
    with running_hub() as hub:
        hub.take_the_place_of_the_real_one(monkeypatch, tmp_path / "cache")
        monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield hub


def read_events(folder):
    return EventAccumulator(str(folder)).Reload()


def test_tensorboard_has_the_numbers_the_flags_and_the_picture(script, run, tmp_path):
    argv = run.argv(tmp_path / "run", **SHORT, report_to="tensorboard", hub_token=TOKEN)
    SCRIPTS[script].main(argv)
    folder = tmp_path / "run" / script
    events = read_events(folder)
    validated = {"train_vae": "val_psnr", "train_dit": "val_loss"}[script]
    assert {"loss", "grad_norm", "lr", validated} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("loss")] == [1]

    (picture,) = events.Images("samples")
    saved = Image.open(tmp_path / "run" / "samples" / "step_0000001.png").convert("RGB")
    assert (picture.step, picture.width, picture.height) == (1, *saved.size)
    (tmp_path / "logged.png").write_bytes(picture.encoded_image_string)
    assert np.array_equal(Image.open(tmp_path / "logged.png"), saved)

    (hparams,) = (read_events(path.parent) for path in folder.glob("*/events*"))
    content = hparams.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    flags = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert flags["hidden_size"].number_value == 16 and flags["report_to"].string_value == "tensorboard"
    assert "learning_rate" in flags and "hub_token" not in flags


def test_tensorboard_has_each_step_once_after_a_kill(tiny_dit_run, tmp_path):
    run = tmp_path / "run"
    argv = tiny_dit_run.argv(run, **SHORT | {"max_train_steps": 4}, report_to="tensorboard")
    train_dit.main(argv)
    folders = {path for path in (run / "train_dit").iterdir() if path.is_dir()}  # of the flags, shown as runs
    for name in ("checkpoint-4", "pipeline"):  # as if it had been killed after step 4, before it was saved
        shutil.rmtree(run / name)
    train_dit.main(argv)
    assert {path for path in (run / "train_dit").iterdir() if path.is_dir()} == folders
    assert [event.step for event in read_events(run / "train_dit").Scalars("loss")] == [1, 2, 3, 4]


def test_no_picture_goes_where_none_is_taken(tiny_dit_run, tmp_path):
    """The command of every other test: no tracker, no folder of one."""
    assert not (tiny_dit_run.output_dir / "train_dit").exists()


def test_a_tracker_that_is_unknown_or_missing_is_one_error(run, script, tmp_path, monkeypatch):
    monkeypatch.setattr(accelerate.tracking, "_available_trackers", [LoggerType.TENSORBOARD])
    with pytest.raises(ValueError, match="--report_to wandb is not installed: pip install wandb"):
        SCRIPTS[script].main(run.argv(tmp_path / "run", report_to="wandb"))
    with pytest.raises(ValueError, match=r"--report_to is .*tensorboard, .*wandb; got 'tensorbord'"):
        SCRIPTS[script].main(run.argv(tmp_path / "run", report_to="tensorbord"))
    assert not list(tmp_path.iterdir())
    for name in ("tensorboard", "all", "none"):
        check_tracker(name)


class RefusingTracker(GeneralTracker):
    """As wandb without a login: an error of its own class."""

    name, requires_logging_directory, tracker = "refusing", False, None

    def __init__(self, project, **_):
        raise LookupError(f"No key for {project}.\nUse 'login' to log in.")


@pytest.mark.parametrize("script", ["train_dit"])
def test_what_a_tracker_refuses_is_one_error(run, script, tmp_path, monkeypatch):
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "wandb", RefusingTracker)
    monkeypatch.setattr(accelerate.tracking, "_available_trackers", [LoggerType.WANDB])
    with pytest.raises(ValueError, match="--report_to wandb .*: No key for train_dit.; mend that, or"):
        SCRIPTS[script].main(run.argv(tmp_path / "run", report_to="wandb"))


@pytest.mark.parametrize("script", ["train_dit"])
def test_on_resuming_a_tracker_has_the_flags_once(run, script, tmp_path, monkeypatch):
    """Where there are several, too."""
    monkeypatch.setattr(accelerate.tracking, "_available_trackers", [LoggerType.TENSORBOARD])
    output_dir = tmp_path / "run"
    for steps in (1, 2):
        argv = run.argv(output_dir, **SHORT | {"max_train_steps": steps}, report_to="all", resume_anyway=True)
        SCRIPTS[script].main(argv)
    assert len(list(output_dir.rglob("hparams.yml"))) == 1


def test_what_is_exported_is_pushed_and_the_token_stays(script, run, tmp_path, hub, capfd):
    output_dir = tmp_path / "my-run"
    argv = run.argv(output_dir, **SHORT, push_to_hub=True, hub_token=TOKEN, report_to="tensorboard")
    SCRIPTS[script].main(argv)
    export = output_dir / EXPORTS[script]
    exported = contents(export)
    pushed = hub.files("user/my-run")
    weights = {path for path in exported if path.endswith(".safetensors")}
    assert weights and all(pushed[path] == exported[path] for path in weights)
    assert pushed.keys() - {".gitattributes"} == exported.keys() | {"README.md"}
    card = pushed["README.md"].decode()
    assert "library_name: diffusers" in card
    assert script == "train_vae" or 'from_pretrained("user/my-run")' in card

    SCRIPTS[script].main([*argv, "--dry_run"])
    told = "".join(capfd.readouterr())
    assert "pushed " in told and '"push_to_hub": true' in told and TOKEN not in told
    written = [*contents(output_dir).items(), *pushed.items()]
    assert len(written) > 10 and [path for path, data in written if TOKEN.encode() in data] == []


def all_but_flags(run):
    """What a run holds, without `run.json`, which has the flags that it was called with last."""
    return {name: data for name, data in contents(run).items() if name != "run.json"}


@pytest.mark.parametrize(
    ("script", "trouble"),
    [
        ("train_vae", "no credentials"),
        ("train_dit", "no network"),
        ("train_vae", "a token that no header takes"),
    ],
)
def test_what_cannot_be_pushed_stands_and_is_pushed_later(
    script, trouble, run, tmp_path, hub, monkeypatch, capfd
):
    output_dir = tmp_path / "run"
    shutil.copytree(run.output_dir, output_dir)
    before = all_but_flags(output_dir)
    token = {"a token that no header takes": f"{TOKEN}\n"}.get(trouble)
    argv = run.argv(output_dir, push_to_hub=True, hub_model_id="me/model", hub_token=token)
    if trouble == "no network":
        monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", "http://127.0.0.1:9")
    monkeypatch.setattr(hub, "wants_token", True)
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *argv])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / f"{script}.py"), run_name="__main__")
    assert stopped.value.code == 2
    error = capfd.readouterr().err.splitlines()[-1]
    export = output_dir / EXPORTS[script]
    assert error.startswith(f"{script}.py: error: --push_to_hub: me/model could not be pushed (")
    assert f"{export} is complete" in error and error.endswith(f"`hf upload me/model {export}`")
    assert TOKEN not in error
    assert all_but_flags(output_dir) == before and not hub.repos

    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", hub.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    SCRIPTS[script].main(run.argv(output_dir, push_to_hub=True, hub_model_id="me/model"))
    assert len(hub.files("me/model")) >= len(contents(export))
    assert all_but_flags(output_dir) == before


def test_a_name_that_the_hub_does_not_take_is_told_before_the_run(script, run, tmp_path):
    with pytest.raises(ValueError, match="--hub_model_id a/b/c: "):
        SCRIPTS[script].main(run.argv(tmp_path / "run", push_to_hub=True, hub_model_id="a/b/c"))
    with pytest.raises(ValueError, match="--hub_model_id my run: "):
        SCRIPTS[script].main(run.argv(tmp_path / "my run", push_to_hub=True))
    assert not list(tmp_path.iterdir())
