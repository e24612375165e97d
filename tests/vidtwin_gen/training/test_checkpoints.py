"""An interrupted run ends as the uninterrupted one; another run does not go on from its checkpoints."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from diffusers import AutoModel

import train_dit
import train_vae
from tests.builders.folders import contents
from tests.builders.forked import Started
from tests.builders.scripts import SCRIPTS, WEIGHTS, checkpoints, metrics
from vidtwin_gen.files import owned_folder, write_json
from vidtwin_gen.training.checkpoints import find_checkpoint, write_manifest
from vidtwin_gen.weights import weights_sha256

ROOT = Path(__file__).parents[3]


def test_a_killed_run_ends_as_if_it_had_not_been_killed(script, run, tmp_path):
    output_dir = tmp_path / "killed"
    # more frequent checkpoints than the uninterrupted run: they are free to differ and change nothing
    argv = run.argv(output_dir, checkpointing_steps=1)
    process = Started(SCRIPTS[script].main, argv, ROOT, output=tmp_path / "log")
    while process.is_running() and not checkpoints(output_dir) and process.seconds < 120:
        time.sleep(0.002)
    process.send(signal.SIGKILL)
    ended = process.wait()
    assert ended.status == -signal.SIGKILL, ended.said

    done = int((checkpoints(output_dir) or ["checkpoint-0"])[-1].split("-")[-1])
    assert 0 < done < 12
    # whatever was being written: half a checkpoint, half a line, half an export
    half = output_dir / f"partial-checkpoint-{done + 1}"
    half.mkdir(exist_ok=True)
    (half / "model.safetensors").write_bytes(b"half")
    (output_dir / f"partial-{Path(WEIGHTS[script]).parts[0]}").mkdir()
    with (output_dir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "samples": 36, "loss": 1e9}\n{"step": 1')

    SCRIPTS[script].main(argv)
    assert metrics(output_dir) == metrics(run.output_dir)
    assert weights_sha256((output_dir / WEIGHTS[script]).parent) == weights_sha256(
        (run.output_dir / WEIGHTS[script]).parent
    )
    assert checkpoints(output_dir) == ["checkpoint-11", "checkpoint-12"]
    saved = [path for path in (output_dir / "checkpoint-12").rglob("*") if path.is_file()]
    assert len({path.stat().st_mode for path in saved}) == 1  # safetensors' files can be read as the others
    assert not list(output_dir.glob("partial-*"))


def test_a_checkpoint_belongs_to_a_number_of_processes(script, run, copied, capsys):
    shutil.rmtree(copied / "checkpoint-12")
    (copied / "checkpoint-10" / "manifest.json").unlink()  # as in a run of an earlier version
    progress = copied / "checkpoint-10" / "custom_checkpoint_1.pkl"
    state = torch.load(progress)
    assert state == {"step": 10, "samples": 40, "skipped_steps": 0, "num_processes": 1}
    torch.save(state | {"num_processes": 2}, progress)
    with pytest.raises(
        ValueError, match="this one has 1: resume with as many, or start another --output_dir$"
    ):
        SCRIPTS[script].main(run.argv(copied))


def test_going_back_to_a_checkpoint_removes_the_later_ones(script, run, copied, capsys):
    argv = run.argv(copied, resume_from_checkpoint="checkpoint-10", checkpointing_steps=1)
    (copied / "checkpoint-12").rename(copied / "checkpoint-90")
    SCRIPTS[script].main(argv)
    assert "checkpoint-90: the run goes on from checkpoint-10" in capsys.readouterr().out
    assert checkpoints(copied) == ["checkpoint-11", "checkpoint-12"]


def test_a_checkpoint_that_cannot_be_removed_stays_and_the_run_goes_on(tiny_dit_run, tmp_path, capsys):
    """Such as a link to another disk."""
    copied = Path(shutil.copytree(tiny_dit_run.output_dir, tmp_path / "copied"))
    elsewhere = (copied / "checkpoint-10").rename(tmp_path / "elsewhere")
    (copied / "checkpoint-10").symlink_to(elsewhere)
    for steps in (13, 14):
        train_dit.main(tiny_dit_run.argv(copied, max_train_steps=steps))
        assert f"{copied / 'partial-checkpoint-10'} can't be removed (" in capsys.readouterr().out
    assert checkpoints(copied) == ["partial-checkpoint-10", "checkpoint-13", "checkpoint-14"]
    assert any(elsewhere.iterdir())


def test_a_checkpoint_is_named_alone_or_in_its_folder(tiny_dit_run, tmp_path, monkeypatch):
    """One of another run is no reason to go back in this one."""
    copied = Path(shutil.copytree(tiny_dit_run.output_dir, tmp_path / "copied"))
    monkeypatch.chdir(tmp_path)
    for wanted in ("checkpoint-10", "copied/checkpoint-10", str(copied / "checkpoint-10")):
        assert find_checkpoint(copied, wanted) == copied / "checkpoint-10"
    before, other = contents(copied), tiny_dit_run.output_dir / "checkpoint-10"
    with pytest.raises(ValueError, match=f"{other} is not of {copied}: .* give it as --init_from"):
        train_dit.main(tiny_dit_run.argv(copied, resume_from_checkpoint=other))
    assert contents(copied) == before


def test_a_run_that_went_back_goes_on_when_the_command_is_repeated(tiny_dit_run, tmp_path, capsys):
    """With what it has done since, though the checkpoint that it names be gone."""
    copied = Path(shutil.copytree(tiny_dit_run.output_dir, tmp_path / "copied"))
    back = {"resume_from_checkpoint": "checkpoint-10", "checkpointing_steps": 1}
    train_dit.main(tiny_dit_run.argv(copied, **back, max_train_steps=13))
    assert checkpoints(copied) == ["checkpoint-12", "checkpoint-13"]
    capsys.readouterr()
    train_dit.main(tiny_dit_run.argv(copied, **back, max_train_steps=14))
    told = capsys.readouterr().out
    assert "went back to checkpoint-10 already and goes on" in told
    assert f"resuming from {copied / 'checkpoint-13'}" in told and "removing" not in told
    assert checkpoints(copied) == ["checkpoint-13", "checkpoint-14"]


def test_resuming_by_name_and_the_limit(script, run, copied):
    (copied / WEIGHTS[script]).unlink()
    argv = run.argv(
        copied, resume_from_checkpoint="checkpoint-10", checkpoints_total_limit=1, checkpointing_steps=5
    )
    shutil.rmtree(copied / Path(WEIGHTS[script]).parts[0])
    SCRIPTS[script].main(argv)
    assert checkpoints(copied) == ["checkpoint-12"]
    assert metrics(copied) == metrics(run.output_dir)
    assert weights_sha256((copied / WEIGHTS[script]).parent) == weights_sha256(
        (run.output_dir / WEIGHTS[script]).parent
    )


def test_a_smaller_limit_counts_at_once_and_the_record_may_be_gone(tiny_vae_run, tmp_path):
    copied = Path(shutil.copytree(tiny_vae_run.output_dir, tmp_path / "copied"))
    (copied / "run.json").unlink()
    train_vae.main(tiny_vae_run.argv(copied, checkpoints_total_limit=1))
    assert checkpoints(copied) == ["checkpoint-12"]
    assert (copied / "run.json").is_file()


def test_a_finished_run_is_left_as_it_is(script, run, copied):
    # what `encode` writes into the autoencoder's config, say
    export = copied / Path(WEIGHTS[script]).parts[0]
    (export / "note.txt").write_text("kept")
    record = json.loads((copied / "run.json").read_text())
    write_json(copied / "run.json", record | {"output_dir": str(copied)})  # it is no move, then
    before = contents(copied)
    SCRIPTS[script].main(run.argv(copied))
    assert contents(copied) == before

    shutil.rmtree(export)  # killed before it was written
    SCRIPTS[script].main(run.argv(copied))
    assert contents(copied) == {name: data for name, data in before.items() if Path(name).name != "note.txt"}


def damage(path, how):
    data = path.read_bytes()
    match how:
        case "removed":
            path.unlink()
        case "emptied":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(data[: len(data) // 2])
        case "flipped":
            path.write_bytes(bytes([data[0] ^ 1]) + data[1:])


@pytest.mark.parametrize("how", ["removed", "emptied", "cut", "flipped"])
def test_whatever_is_damaged_is_passed_over_and_kept(how, run, copied, capsys):
    for path in sorted((copied / "checkpoint-12").rglob("*")):
        if path.is_dir() or (path.name == "manifest.json" and how == "removed"):
            continue
        name, before = path.relative_to(copied / "checkpoint-12"), path.read_bytes()
        damage(path, how)
        with pytest.raises(ValueError, match="checkpoint-12 is damaged, .*the newest whole one"):
            find_checkpoint(copied, "checkpoint-12")
        assert find_checkpoint(copied, "latest") == copied / "checkpoint-10"
        told = capsys.readouterr().out
        assert told.startswith(f"passing over checkpoint-12: {name}") and "damaged-checkpoint-12" in told
        aside = copied / "damaged-checkpoint-12"
        (aside / name).write_bytes(before)
        aside.rename(copied / "checkpoint-12")
        assert find_checkpoint(copied, "latest") == copied / "checkpoint-12"


class Payload:
    """Runs as it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_no_file_of_a_strangers_checkpoint_runs_anything(run, script, copied, tmp_path):
    """Whatever the order of its files: accelerate unpickles those that it numbers."""
    checkpoint = copied / "checkpoint-10"
    shutil.rmtree(copied / "checkpoint-12")
    shutil.rmtree(copied / Path(WEIGHTS[script]).parts[0])
    files = checkpoint.glob("custom_checkpoint_*.pkl")
    (progress,) = [path for path in files if "num_processes" in torch.load(path, weights_only=True)]
    for letter in "abcdefghijklmnopqrstuvwxyz":
        shutil.copy(progress, checkpoint / f"custom_checkpoint_{letter}.pkl")
    torch.save(Payload(tmp_path / "ran"), checkpoint / "custom_checkpoint_0.pkl")
    (checkpoint / "manifest.json").unlink()
    write_manifest(checkpoint)
    with pytest.raises(ValueError, match="checkpoint-10 can't be loaded, .*holds more than tensors"):
        SCRIPTS[script].main(run.argv(copied))
    assert not (tmp_path / "ran").exists()


def test_an_empty_folder_is_passed_over_and_a_file_is_none(tmp_path, capsys):
    for step in (2, 4):
        (tmp_path / f"checkpoint-{step}").mkdir()
    (tmp_path / "checkpoint-2" / "model.safetensors").touch()
    (tmp_path / "checkpoint-6").touch()
    assert find_checkpoint(tmp_path, "latest") == tmp_path / "checkpoint-2"
    assert "checkpoint-4: it is empty" in capsys.readouterr().out


def test_a_run_goes_on_from_the_newest_whole_checkpoint(script, run, copied, capsys):
    shutil.rmtree(copied / Path(WEIGHTS[script]).parts[0])
    damaged = copied / "checkpoint-12" / "optimizer.bin"
    (copied / "damaged-checkpoint-12").mkdir()  # of an earlier time
    damage(damaged, "flipped")
    bad = damaged.read_bytes()
    SCRIPTS[script].main(run.argv(copied))
    assert f"resuming from {copied / 'checkpoint-10'}" in capsys.readouterr().out
    assert (copied / "damaged-checkpoint-12.1" / "optimizer.bin").read_bytes() == bad
    assert metrics(copied) == metrics(run.output_dir)
    assert weights_sha256((copied / WEIGHTS[script]).parent) == weights_sha256(
        (run.output_dir / WEIGHTS[script]).parent
    )

    for name in ("checkpoint-10", "checkpoint-12"):
        damage(copied / name / "scheduler.bin", "cut")
    with pytest.raises(ValueError, match="no whole checkpoint .*checkpoint-12: scheduler.bin is not as"):
        SCRIPTS[script].main(run.argv(copied))


def to_earlier_form(checkpoint, script):
    """Without digests and folders of models: accelerate's files held all weights, the EMA's its own."""
    (checkpoint / "manifest.json").unlink()
    name = Path(WEIGHTS[script]).parent.name
    for number in (1, 0):
        path = checkpoint / f"model{f'_{number}' if number else ''}.safetensors"
        if path.exists():
            path.rename(checkpoint / f"model_{number + 1}.safetensors")
    (checkpoint / name / Path(WEIGHTS[script]).name).rename(checkpoint / "model.safetensors")
    average = AutoModel.from_pretrained(str(checkpoint / f"{name}_ema"))
    counts = torch.load(checkpoint / "custom_checkpoint_0.pkl")
    weights = [parameter.detach() for parameter in average.parameters()]
    torch.save(counts | {"shadow_params": weights}, checkpoint / "custom_checkpoint_0.pkl")
    for folder in (name, f"{name}_ema"):
        shutil.rmtree(checkpoint / folder)


def test_a_checkpoint_of_before_is_resumed(script, run, copied):
    shutil.rmtree(copied / Path(WEIGHTS[script]).parts[0])
    shutil.rmtree(copied / "checkpoint-12")
    to_earlier_form(copied / "checkpoint-10", script)
    SCRIPTS[script].main(run.argv(copied))
    assert metrics(copied) == metrics(run.output_dir)
    assert weights_sha256((copied / WEIGHTS[script]).parent) == weights_sha256(
        (run.output_dir / WEIGHTS[script]).parent
    )


def test_the_second_run_in_a_folder_is_refused(script, run, copied):
    before = contents(copied)
    with (
        owned_folder(copied, "wait"),
        pytest.raises(
            ValueError, match=f"in use by process {os.getpid()} on .* since 20.*another --output_dir"
        ),
    ):
        SCRIPTS[script].main(run.argv(copied))
    assert contents(copied) == before


def test_another_run_does_not_resume(script, run, copied):
    before = contents(copied)
    with pytest.raises(ValueError, match="--learning_rate was 0.001, is 0.5.*another --output_dir"):
        SCRIPTS[script].main(run.argv(copied, learning_rate=0.5))
    with pytest.raises(ValueError, match="--hidden_size was 16, is 32"):
        SCRIPTS[script].main(run.argv(copied, hidden_size=32))
    with pytest.raises(ValueError, match=r"checkpoint-7: not in .*'checkpoint-10', 'checkpoint-12'"):
        SCRIPTS[script].main(run.argv(copied, resume_from_checkpoint="checkpoint-7"))
    with pytest.raises(ValueError, match="holds checkpoint-12; to start afresh"):
        SCRIPTS[script].main(run.argv(copied, resume_from_checkpoint="none"))
    assert contents(copied) == before


def test_a_network_of_another_size_is_told_where_the_flags_changed(tiny_dit_run, tmp_path):
    copied = Path(shutil.copytree(tiny_dit_run.output_dir, tmp_path / "copied"))
    argv = tiny_dit_run.argv(copied, hidden_size=32, max_train_steps=13, resume_anyway=True)
    with pytest.raises(ValueError, match="checkpoint-12 can't be loaded, .*; the changed flags may not go"):
        train_dit.main(argv)


def test_latents_may_move_and_encoded_anew_they_are_another_run(tiny_latents, tiny_dit_run, tmp_path):
    """The autoencoder is the same, and so are the paths in the end; the rows are not."""
    output_dir = Path(shutil.copytree(tiny_dit_run.output_dir, tmp_path / "run"))
    latents = Path(shutil.copytree(tiny_latents.latents_dir, tmp_path / "latents"))
    vae = Path(shutil.copytree(tiny_latents.vae_dir, tmp_path / "vae"))
    train_dit.main(tiny_dit_run.argv(output_dir, latents=latents, vae=vae))
    record = json.loads((output_dir / "run.json").read_text())
    assert (record["latents"], record["vae"]) == (str(latents), str(vae))  # where `export` will look
    metadata = json.loads((latents / "latents.json").read_text())
    (latents / "latents.json").write_text(json.dumps(metadata | {"seed": 7}))
    with pytest.raises(ValueError, match=r"holds another run \(--latents \(sha256\) was .* is "):
        train_dit.main(tiny_dit_run.argv(output_dir, latents=latents))


def test_videos_may_move_and_others_are_another_run(tiny_vae_run, synthetic_root, tmp_path):
    output_dir = Path(shutil.copytree(tiny_vae_run.output_dir, tmp_path / "run"))
    videos = Path(shutil.copytree(synthetic_root, tmp_path / "videos"))
    train_vae.main(tiny_vae_run.argv(output_dir, data=videos))
    next(videos.glob("*/*_g01_*")).write_bytes(b"another video")
    with pytest.raises(ValueError, match=r"--data \(sha256\) was .*--resume_anyway"):
        train_vae.main(tiny_vae_run.argv(output_dir, data=videos))
