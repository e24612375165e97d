"""Where a run begins, at random or trained weights, and where it ends, as planned, later or earlier."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from tests.builders.folders import contents
from tests.builders.scripts import SCRIPTS, WEIGHTS, checkpoints, metrics
from vidtwin_gen.weights import weights_sha256

SHORT = {"max_train_steps": 1, "checkpointing_steps": 1, "validation_steps": 1}


def exported(output_dir: Path, script: str) -> str:
    return weights_sha256((output_dir / WEIGHTS[script]).parent)


def test_an_extended_run_ends_as_the_longer_one(script, run, tmp_path, capsys):
    flags = {"lr_scheduler": "constant_with_warmup", "validation_steps": 2, "gradient_accumulation_steps": 1}
    if script == "train_vae":
        flags["gan_start"] = 1
    SCRIPTS[script].main(run.argv(tmp_path / "whole", max_train_steps=4, **flags))
    for steps in (2, 4):
        SCRIPTS[script].main(run.argv(tmp_path / "parts", max_train_steps=steps, **flags))
    assert "--max_train_steps was 2, is 4: from step 2 on" in capsys.readouterr().out
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    assert exported(tmp_path / "parts", script) == exported(tmp_path / "whole", script)


def test_a_shortened_run_ends_earlier_and_a_schedule_follows(script, run, copied):
    before = exported(copied, script)
    with pytest.raises(ValueError, match="checkpoint-12 is past --max_train_steps 10: ask for 12 or more"):
        SCRIPTS[script].main(run.argv(copied, max_train_steps=10))
    assert exported(copied, script) == before
    SCRIPTS[script].main(run.argv(copied, max_train_steps=10, resume_from_checkpoint="checkpoint-10"))
    assert checkpoints(copied) == ["checkpoint-10"]
    assert exported(copied, script) != before
    SCRIPTS[script].main(run.argv(copied, max_train_steps=11))
    (last,) = (line for line in metrics(copied) if line["step"] == 11 and "lr" in line)
    # after 2 steps of warm-up the cosine over the 9 that are left, of which 8 are done
    assert last["lr"] == pytest.approx(1e-3 * (1 + math.cos(math.pi * 8 / 9)) / 2)


def test_what_was_exported_at_an_earlier_end_is_replaced(script, run, copied, monkeypatch, capsys):
    """Also where the extended run stops when its last checkpoint is saved and before it has exported."""
    flags = {"max_train_steps": 13, "lr_scheduler": "constant", "resume_anyway": True}
    if script == "train_vae":
        flags["gan_start"] = 1

    def full_disk(*_, **__):
        raise OSError("no room")

    before = exported(copied, script)
    with monkeypatch.context() as patched, pytest.raises(OSError, match="no room"):
        patched.setattr("vidtwin_gen.training.run.replacing_folder", full_disk)  # of the export alone
        SCRIPTS[script].main(run.argv(copied, **flags))
    assert checkpoints(copied)[-1] == "checkpoint-13" and exported(copied, script) == before
    SCRIPTS[script].main(run.argv(copied, **flags))
    assert exported(copied, script) != before
    capsys.readouterr()
    SCRIPTS[script].main(run.argv(copied, **flags))
    assert "is there already and stays: to have it anew, remove it" in capsys.readouterr().out


def test_flags_that_change_midway_count_if_they_are_meant(tiny_dit_run, tmp_path):
    output_dir, constant = tmp_path / "run", {"lr_scheduler": "constant", "validation_steps": 2}
    for steps, rate in ((2, 1e-3), (4, 1e-4)):
        flags = {"max_train_steps": steps, "learning_rate": rate, "ema_decay": 1 - rate}
        argv = tiny_dit_run.argv(output_dir, **constant, **flags)
        SCRIPTS["train_dit"].main([*argv, "--resume_anyway"])
        counts = torch.load(output_dir / f"checkpoint-{steps}" / "custom_checkpoint_0.pkl")
        assert counts["decay"] == 1 - rate
    assert [line["lr"] for line in metrics(output_dir) if "lr" in line] == [1e-3, 1e-3, 1e-4, 1e-4]


def test_flags_that_would_train_nothing_are_not_recorded(tiny_dit_run, tmp_path):
    """`export` takes them from `run.json`. After going back they are trained with, however often it is."""
    copied = Path(shutil.copytree(tiny_dit_run.output_dir, tmp_path / "copied"))
    before = contents(copied)
    changed = tiny_dit_run.argv(copied, resume_anyway=True, shift=3.0)
    for back in ([], ["--resume_from_checkpoint", "checkpoint-12"]):
        with pytest.raises(ValueError, match="no step is left.*raise --max_train_steps.*--init_from"):
            SCRIPTS["train_dit"].main([*changed, *back])
    assert contents(copied) == before
    for rate in (1e-4, 1e-5):
        flags = {"learning_rate": rate, "lr_scheduler": "constant", "resume_anyway": True}
        argv = tiny_dit_run.argv(copied, **flags, resume_from_checkpoint="checkpoint-10")
        SCRIPTS["train_dit"].main([*argv, "--checkpoints_total_limit", "9"])
        assert json.loads((copied / "run.json").read_text())["learning_rate"] == rate
        assert [line["lr"] for line in metrics(copied)[-3:] if "lr" in line] == [rate, rate]


def test_a_step_of_more_passes_midway_is_a_whole_step(script, run, copied):
    """Stage 2 draws noise for the whole step, however many passes it takes: the losses stay."""
    passes = {
        "train_vae": {"gradient_accumulation_steps": 3},
        "train_dit": {"gradient_accumulation_steps": 4, "train_batch_size": 1},
    }
    argv = run.argv(copied, resume_from_checkpoint="checkpoint-10", **passes[script])
    SCRIPTS[script].main([*argv, "--resume_anyway"])
    resumed, whole = ([line for line in metrics(at) if "loss" in line] for at in (copied, run.output_dir))
    assert [line["step"] for line in resumed] == list(range(1, 13))
    batch_size = {"train_vae": 6, "train_dit": 4}[script]
    assert [line["samples"] for line in resumed[9:]] == [40, 40 + batch_size, 40 + 2 * batch_size]
    if script == "train_dit":
        assert [line["loss"] for line in resumed] == pytest.approx([line["loss"] for line in whole], rel=1e-4)


def test_a_checkpoint_of_before_has_the_samples_of_its_runs_batch(tiny_dit_run, tmp_path):
    copied = Path(shutil.copytree(tiny_dit_run.output_dir, tmp_path / "copied"))
    checkpoint = copied / "checkpoint-10"
    (checkpoint / "manifest.json").unlink()
    for path in checkpoint.glob("custom_checkpoint_*.pkl"):
        torch.save({name: value for name, value in torch.load(path).items() if name != "samples"}, path)
    argv = tiny_dit_run.argv(copied, resume_from_checkpoint="checkpoint-10", train_batch_size=8)
    SCRIPTS["train_dit"].main([*argv, "--resume_anyway"])
    assert [line["samples"] for line in metrics(copied) if "loss" in line][9:] == [40, 48, 56]


def test_a_run_starts_from_trained_weights(script, run, tiny_dit_run, tmp_path):
    """A run's folder, what it exported, the saved model in that; of stage 2 also the autoencoder."""
    model = (run.output_dir / WEIGHTS[script]).parent
    trained = weights_sha256(model)
    pipeline = tiny_dit_run.output_dir / "pipeline"
    for source in dict.fromkeys((run.output_dir, model.parent, model, pipeline.parent, pipeline)):
        output_dir = tmp_path / source.name
        # the first step of a warm-up has learning rate 0
        argv = run.argv(output_dir, **SHORT, init_from=source, use_ema=False)
        SCRIPTS[script].main(argv)
        assert exported(output_dir, script) == trained
    with pytest.raises(ValueError, match="hidden_size is 16 there, 32 here.*use its flags"):
        SCRIPTS[script].main(run.argv(tmp_path / "wide", **SHORT, init_from=model, hidden_size=32))
    with pytest.raises(ValueError, match="--init_from .*nowhere holds no config.json"):
        SCRIPTS[script].main(run.argv(tmp_path / "none", **SHORT, init_from=tmp_path / "nowhere"))


def test_weights_from_before_an_argument_of_the_model_are_taken(tiny_dit_run, tmp_path):
    """Which has its default there, as diffusers reads them."""
    model = Path(shutil.copytree(tiny_dit_run.output_dir / "pipeline" / "transformer", tmp_path / "saved"))
    config = json.loads((model / "config.json").read_text())
    for name in ("block_type", "predicts_x0"):
        config.pop(name)
    (model / "config.json").write_text(json.dumps(config))
    argv = tiny_dit_run.argv(tmp_path / "run", **SHORT, init_from=model)
    SCRIPTS["train_dit"].main(argv)
    with pytest.raises(ValueError, match="block_type is 'dit' there, 'lightning' here"):
        SCRIPTS["train_dit"].main([*argv, "--block_type", "lightning", "--output_dir", str(tmp_path / "b")])


def test_other_classes_of_the_weights_are_told(tiny_dit_run, tiny_latents, tmp_path, caplog):
    """Whose embeddings start from those of their numbers."""
    first, second, *names = tiny_latents.metadata["class_names"]
    pipeline = Path(shutil.copytree(tiny_dit_run.output_dir / "pipeline", tmp_path / "pipeline"))
    index = json.loads((pipeline / "model_index.json").read_text())
    told = f"embedding of {first!r} starts from that of {second!r}, and 2 of {len(names) + 2} start so"
    saved = [{first.upper(): 0, second: 1}, {second: 0, first: 1}]
    for number, (head, warnings) in enumerate(zip(saved, ([], [told]), strict=True)):
        rest = {name: label for label, name in enumerate(names, 2)}
        (pipeline / "model_index.json").write_text(json.dumps(index | {"class_names": head | rest}))
        caplog.clear()
        SCRIPTS["train_dit"].main(tiny_dit_run.argv(tmp_path / str(number), **SHORT, init_from=pipeline))
        found = [record.getMessage() for record in caplog.records if "--init_from" in record.getMessage()]
        assert len(found) == len(warnings) and all(map(str.__contains__, found, warnings))


def test_other_classes_of_a_checkpoint_are_told(tiny_dit_run, tiny_latents, tmp_path, caplog):
    """By its own record, or of earlier versions by what its run has exported."""
    run = Path(shutil.copytree(tiny_dit_run.output_dir, tmp_path / "run"))
    first, second, *names = tiny_latents.metadata["class_names"]
    places = {run / "checkpoint-12" / "run.json": 1, run / "pipeline" / "model_index.json": 0}
    for path, turned in places.items():
        saved = json.loads(path.read_text())
        others = (
            [second, first, *names]
            if turned
            else {first: 0, second: 2, names[0]: 1} | {name: label for label, name in enumerate(names[1:], 3)}
        )
        assert saved["class_names"]
        path.write_text(json.dumps(saved | {"class_names": others}))

    def told(source):
        caplog.clear()
        output_dir = tmp_path / str(len(list(tmp_path.iterdir())))
        SCRIPTS["train_dit"].main(tiny_dit_run.argv(output_dir, **SHORT, init_from=source))
        return [record.getMessage() for record in caplog.records if "--init_from" in record.getMessage()]

    assert not told(run / "checkpoint-10")
    for source in (run / "checkpoint-12", run / "checkpoint-12" / "transformer"):
        (message,) = told(source)
        assert f"embedding of {first!r} starts from that of {second!r}, and 2 of" in message
    (run / "checkpoint-12" / "run.json").unlink()
    (message,) = told(run / "checkpoint-12")
    assert f"embedding of {second!r} starts from that of {names[0]!r}, and 2 of" in message


def test_weights_that_a_run_began_with_may_be_gone_when_it_resumes(script, run, tmp_path):
    source = Path(shutil.copytree((run.output_dir / WEIGHTS[script]).parent, tmp_path / "source"))
    argv = run.argv(tmp_path / "run", **SHORT, init_from=source)
    SCRIPTS[script].main(argv)
    shutil.rmtree(source)
    SCRIPTS[script].main(argv)
    shutil.rmtree(tmp_path / "run" / "checkpoint-1")
    with pytest.raises(ValueError, match="--init_from .*source holds no config.json"):
        SCRIPTS[script].main(argv)
