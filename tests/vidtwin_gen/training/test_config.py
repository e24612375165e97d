"""Flags, presets, and what a resumed run may change."""

import inspect
import json
import math
from dataclasses import dataclass, fields
from typing import get_args

import pytest
from diffusers.optimization import SchedulerType

import train_dit
import train_vae
from autoencoder.model.vidtwin import AutoencoderVidTwin
from vidtwin_gen.files import write_json
from vidtwin_gen.training.config import (
    FREE_ON_RESUME,
    METRICS,
    Schedule,
    TrainingConfig,
    checked_record,
    flag,
    model_arguments,
    parse_config,
)

STAGES = {train_vae.VAEConfig: {"data": "d"}, train_dit.DiTConfig: {"vae": "v", "latents": "l"}}
PRESETS = {"quick": {"max_train_steps": 5, "flip": False}}


@dataclass
class Config(TrainingConfig):
    flip: bool = flag("mirror", True)
    width: int = flag("pixels", 8)


def parse(*argv):
    return parse_config(Config, PRESETS, ["--output_dir", "run", *argv])


def test_a_flag_beats_the_preset_and_the_preset_the_default():
    assert (parse().max_train_steps, parse().flip) == (1000, True)
    quick = parse("--preset", "quick")
    assert (quick.max_train_steps, quick.flip, quick.width) == (5, False, 8)
    own = parse("--max_train_steps", "7", "--preset", "quick", "--flip")
    assert (own.max_train_steps, own.flip) == (7, True)
    assert parse("--no_flip").flip is False
    assert parse("--no-flip").flip is parse("--flip", "false").flip is False
    assert parse().max_train_steps == 1000  # a preset of one call is not the next one's


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "--output_dir is required"),
        (["--output_dir", "run", "--max_train_steps", "0"], "--max_train_steps must be at least 1, got 0"),
        (["--output_dir", "run", "--seed", "-1"], "--seed must be at least 0, got -1"),
        (["--output_dir", "run", "--seed", "4294967296"], "--seed must be below 2**32, got 4294967296"),
        (
            ["--output_dir", "run", "--dataloader_num_workers", "-1"],
            "--dataloader_num_workers must be at least 0",
        ),
        (["--output_dir", "run", "--adam_epsilon", "0"], "--adam_epsilon must be at least 1e-37, got 0.0"),
        (["--output_dir", "run", "--adam_beta2", "1"], "must be below 1, got 0.9 and 1.0"),
        (["--output_dir", "run", "--mixed_precision", "int8"], "precision: invalid choice: 'int8'"),
        (["--output_dir", "run", "--hub_token", "t", "--report_to", "wandb"], "`hf auth login` does without"),
    ],
)
def test_a_wrong_value_is_one_line(argv, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_config(Config, PRESETS, argv)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize("name", ["lr_scheduler", "optimizer", "mixed_precision"])
def test_a_wrong_choice_in_python_is_told(name):
    with pytest.raises(ValueError, match=f"--{name} is one of .*, got 'another'"):
        Config(output_dir="run", **{name: "another"})


def test_the_flags_offer_what_there_is():
    known = {schedule.value for schedule in SchedulerType}
    assert set(get_args(Schedule)) == known - {"piecewise_constant"}  # which needs rules, no flag


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--preset", "slow"], "argument --preset: invalid choice: 'slow'"),
        (["--colour", "red"], "unrecognized arguments: --colour red"),
        (["--width", "wide"], "argument --width: invalid int value: 'wide'"),
    ],
)
def test_a_wrong_flag_is_one_line(argv, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse(*argv)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("script", "config_class", "inputs"),
    [
        (train_vae, train_vae.VAEConfig, ["--data", "d"]),
        (train_dit, train_dit.DiTConfig, ["--vae", "v", "--latents", "l"]),
    ],
    ids=["train_vae", "train_dit"],
)
def test_every_preset_of_the_scripts_is_a_configuration(script, config_class, inputs):
    known = {field.name: field for field in fields(config_class)}
    assert all(field.metadata["help"] for field in known.values())
    for name, preset in script.PRESETS.items():
        config = parse_config(
            config_class, script.PRESETS, ["--output_dir", "run", *inputs, "--preset", name]
        )
        for flag_name, value in preset.items():
            assert getattr(config, flag_name) == value
            default = known[flag_name].default
            assert type(value) is type(default), f"{name}: {flag_name}={value!r}, a {type(default).__name__}"


def test_what_may_change_on_resuming_is_a_flag():
    flags = {field.name for config in (train_vae.VAEConfig, train_dit.DiTConfig) for field in fields(config)}
    assert flags >= FREE_ON_RESUME


@pytest.mark.parametrize(
    ("asked", "rate"),
    [({}, {"fps": 8.0}), ({"stride": 2}, {"stride": 2}), ({"stride": 0, "fps": 12.0}, {"fps": 12.0})],
)
def test_frames_are_taken_by_stride_or_by_rate(asked, rate):
    geometry = train_vae.clip_geometry(train_vae.VAEConfig(output_dir="run", data="videos", **asked))
    assert {name: geometry.get(name) for name in rate} == rate
    assert len({"stride", "fps"} & geometry.keys()) == 1


@pytest.mark.parametrize("stage", STAGES, ids=["train_vae", "train_dit"])
def test_no_number_is_without_sense(stage):
    """None is infinite or NaN, and few may be below 0."""
    numbers = {each.name: each.default for each in fields(stage) if type(each.default) in (int, float)}
    assert len(numbers) > 30
    for name, default in numbers.items():
        wrong = [math.nan, math.inf] if isinstance(default, float) else []
        if name not in ("logit_mean", "guidance_scale", "internal_guidance_scale"):
            wrong.append(-1)
        for value in wrong:
            with pytest.raises(ValueError, match=f"^--{name} .*, got {value}$"):
                stage(output_dir="run", **STAGES[stage] | {name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stride", -1),
        ("fps", -8.0),
        ("fps", math.inf),
        ("gan_weight", -0.05),
        ("mse_weight", -1.0),
        ("kl_weight", math.nan),
        ("ema_decay", 1.5),
        ("ema_decay", -1.0),
        ("lr_warmup_steps", -3),
        ("gan_start", -2),
        ("max_bad_fraction", -1.0),
        ("max_bad_fraction", 1.5),
        ("num_validation_videos", 0),
    ],
)
def test_a_number_without_sense_is_told(name, value):
    with pytest.raises(ValueError, match=f"^--{name} .*, got {value}$"):
        train_vae.VAEConfig(output_dir="run", data="videos", **{name: value})


def test_stride_and_rate_exclude_each_other():
    with pytest.raises(ValueError, match="--stride 2 and --fps 12 exclude each other"):
        train_vae.VAEConfig(output_dir="run", data="videos", stride=2, fps=12.0)


def test_the_flags_of_stage_1_are_the_models_arguments():
    """With the same defaults: the command without flags trains the paper's model."""
    config = train_vae.VAEConfig(output_dir="run", data="videos")
    arguments = model_arguments(config, AutoencoderVidTwin)
    signature = inspect.signature(AutoencoderVidTwin.__init__)
    defaults = {name: parameter.default for name, parameter in signature.parameters.items()}
    assert arguments == {name: defaults[name] for name in arguments}
    left_out = {"self", "in_channels", "latents_mean", "latents_std"}
    assert arguments.keys() | left_out == defaults.keys()


def start(config, folder, class_names=(), **inputs):
    """As a run does: checks, then writes `run.json`. Whether it says other flags than before."""
    record, is_changed = checked_record(config, folder, inputs, class_names)
    write_json(folder / "run.json", record)
    return is_changed


def test_a_run_keeps_the_flags_that_decide_what_is_learned(tmp_path, capsys):
    folder = tmp_path / "deep" / "run"
    first = parse("--width", "16")
    start(first, folder)
    assert json.loads((folder / "run.json").read_text()) == first.public()
    (folder / METRICS).write_text('{"step": 1}\n')
    start(parse("--width", "16", "--logging_steps", "3"), folder)
    with pytest.raises(ValueError, match=r"--width was 16, is 8\): use its flags.*another --output_dir"):
        start(parse(), folder)
    assert json.loads((folder / "run.json").read_text()) == first.public() | {"logging_steps": 3}
    assert not start(parse("--width", "16", "--max_train_steps", "7"), folder)
    assert json.loads((folder / "run.json").read_text()) == first.public() | {"max_train_steps": 7}
    assert start(parse("--resume_anyway"), folder)
    assert "--width was 16, is 8" in capsys.readouterr().out
    start(parse(), folder)


def test_the_record_has_the_flags_that_are_free_as_the_run_goes_on(tmp_path):
    """And the folder that it has moved to."""
    flags = STAGES[train_dit.DiTConfig] | {"output_dir": "before", "guidance_scale": 2.0}
    start(train_dit.DiTConfig(**flags), tmp_path)
    (tmp_path / METRICS).write_text('{"step": 1}\n')
    changes = {"output_dir": "after", "guidance_scale": 1.5, "num_inference_steps": 9, "ema_decay": 0.999}
    write_json(tmp_path / "run.json", json.loads((tmp_path / "run.json").read_text()) | {"exported_step": 1})
    assert not start(train_dit.DiTConfig(**flags | changes), tmp_path)
    record = json.loads((tmp_path / "run.json").read_text())
    assert {name: record[name] for name in changes} == changes and record["exported_step"] == 1


def test_blanks_in_a_patch_size_make_no_other_run(tmp_path):
    flags = STAGES[train_dit.DiTConfig] | {"output_dir": "run"}
    start(train_dit.DiTConfig(**flags, patch_size='{"structure": [1, 2, 2], "dynamics_x": 1}'), tmp_path)
    (tmp_path / METRICS).write_text('{"step": 1}\n')
    same = '{"dynamics_x":1,"structure":[1,2,2]}'
    assert not start(train_dit.DiTConfig(**flags, patch_size=same), tmp_path)
    with pytest.raises(ValueError, match="--patch_size was "):
        start(train_dit.DiTConfig(**flags, patch_size='{"dynamics_x":1,"structure":[1,2,1]}'), tmp_path)


def test_a_checkpoint_protects_a_run_that_has_logged_nothing(tmp_path):
    start(parse("--width", "16"), tmp_path)
    (tmp_path / "checkpoint-1").mkdir()
    with pytest.raises(ValueError, match="--width was 16, is 8"):
        start(parse(), tmp_path)


@pytest.mark.parametrize(
    ("stage", "name", "fitting", "others"),
    [
        (train_vae.VAEConfig, "use_ema", [], [(True, False), (False, True)]),
        (train_vae.VAEConfig, "use_8bit_adam", [], [(True, False), (False, True)]),
        (train_vae.VAEConfig, "learn_logvar", [], [(True, False), (False, True)]),
        (train_vae.VAEConfig, "optimizer", [], [("adamw", "muon"), ("muon", "adamw")]),
        (train_vae.VAEConfig, "gan_weight", [(0.1, 0.0), (0.1, 0.2)], [(0.0, 0.1)]),
        (train_dit.DiTConfig, "mixed_precision", [("no", "bf16"), ("fp16", "no")], [("no", "fp16")]),
        (train_dit.DiTConfig, "repa_weight", [(0.1, 0.2)], [(0.0, 0.1), (0.1, 0.0)]),
    ],
)
def test_what_checkpoints_do_not_hold_does_not_change_midway(stage, name, fitting, others, tmp_path):
    def start_with(value):
        flags = STAGES[stage] | {"output_dir": "run", "resume_anyway": True, name: value}
        return start(stage(**flags), tmp_path)

    start_with(others[0][0])
    (tmp_path / METRICS).write_text('{"step": 1}\n')
    assert start_with(others[0][1])  # without a checkpoint there is nothing to load
    (tmp_path / "checkpoint-1").mkdir()
    for old, new in fitting + others:
        write_json(tmp_path / "run.json", json.loads((tmp_path / "run.json").read_text()) | {name: old})
        if (old, new) in fitting:
            assert start_with(new)
            continue
        with pytest.raises(ValueError, match=f"--{name} can't change midway: .*--init_from .*/checkpoint-N"):
            start_with(new)


def test_a_flag_may_be_younger_than_the_run(tmp_path):
    start(parse(), tmp_path)
    (tmp_path / METRICS).write_text('{"step": 1}\n')
    path = tmp_path / "run.json"
    older = json.loads(path.read_text())
    del older["use_8bit_adam"]
    path.write_text(json.dumps(older))
    with pytest.raises(ValueError, match="--use_8bit_adam was False, is True"):
        start(parse("--use_8bit_adam"), tmp_path)
    start(parse(), tmp_path)


def test_data_may_move_and_may_not_change(tmp_path, monkeypatch):
    """By its digest, or in a run without one by where it really lies."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    (tmp_path / "link").symlink_to("here")
    run = tmp_path / "run"
    start(parse("--init_from", "here"), run)
    (run / METRICS).write_text('{"step": 1}\n')
    for place in (tmp_path / "here", "link/"):
        start(parse("--init_from", str(place)), run)
    with pytest.raises(ValueError, match="--init_from was 'here', is 'there'"):
        start(parse("--init_from", "there"), run)
    start(parse("--init_from", "here"), run, init_from="a")  # as younger runs have it
    start(parse("--init_from", "there"), run, init_from="a")
    with pytest.raises(ValueError, match=r"--init_from \(sha256\) was 'a', is 'b'"):
        start(parse("--init_from", "here"), run, init_from="b")
    with pytest.raises(ValueError, match="--init_from was 'there', is ''"):  # its weights would be random
        start(parse(), run)


def test_other_classes_midway_are_told(tmp_path, capsys):
    """With the latents that they are of; in another case they are the same."""
    start(parse(), tmp_path, latents="a")  # of before
    (tmp_path / METRICS).write_text('{"step": 1}\n')
    assert not start(parse(), tmp_path, ["Archery", "Biking", "Diving"], latents="a")
    assert json.loads((tmp_path / "run.json").read_text())["class_names"] == ["Archery", "Biking", "Diving"]
    for digest, names in (("b", ["ARCHERY", "biking", "Diving"]), ("c", ["Archery", "Diving", "Biking"])):
        assert start(parse("--resume_anyway"), tmp_path, names, latents=digest)
        told = capsys.readouterr().out
        assert "goes on as another run: --latents (sha256) was" in told
        assert ("of 'Diving' goes on from that of 'biking', and 2 of 3 do so" in told) == (digest == "c")
    assert json.loads((tmp_path / "run.json").read_text())["class_names"] == ["Archery", "Diving", "Biking"]


def test_epochs_are_steps():
    config = parse("--num_train_epochs", "3", "--train_batch_size", "4", "--gradient_accumulation_steps", "2")
    config.count_epochs(num_samples=33, num_processes=2)
    assert config.max_train_steps == 7  # 99 clips of 16 a step
    config = parse()
    config.count_epochs(num_samples=33, num_processes=2)
    assert config.max_train_steps == 1000


def test_the_token_is_not_written_down(tmp_path):
    config = parse("--hub_token", "hf_secret", "--report_to", "none")
    start(config, tmp_path)
    assert config.hub_token == "hf_secret" and "hf_secret" not in repr(config)
    assert "hf_secret" not in (tmp_path / "run.json").read_text()


def test_a_run_that_learned_nothing_may_be_corrected(tmp_path):
    start(parse("--width", "16"), tmp_path)
    start(parse("--width", "24"), tmp_path)
    assert json.loads((tmp_path / "run.json").read_text())["width"] == 24
