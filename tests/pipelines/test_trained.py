"""The autoencoder and the pipeline of a checkpoint."""

import json
import shutil
from pathlib import Path

import pytest
from diffusers import AutoModel, DiffusionPipeline

import train_dit
from tests.builders.folders import contents
from vidtwin_gen.__main__ import main
from vidtwin_gen.data.latent_dataset import latents_sha256
from vidtwin_gen.weights import weights_sha256


def export(checkpoint, out, *flags):
    main(["export", "--checkpoint", str(checkpoint), "--out", str(out), *map(str, flags)])


def below(folder):
    """Its files; a model that was loaded says from where."""
    files = contents(folder)
    configs = {name: json.loads(data) for name, data in files.items() if name.endswith("config.json")}
    return files | {name: config | {"_name_or_path": ""} for name, config in configs.items()}


def test_at_its_end_a_checkpoint_is_what_its_run_exported(tiny_vae_run, tiny_dit_run, tmp_path):
    for run, name in ((tiny_vae_run, "autoencoder"), (tiny_dit_run, "pipeline")):
        export(run.output_dir / "checkpoint-12", tmp_path / name)
        assert below(tmp_path / name) == below(run.output_dir / name)


def test_before_its_end_it_is_of_its_own(tiny_vae_run, tiny_dit_run, tiny_latents, tmp_path):
    checkpoint = tiny_vae_run.output_dir / "checkpoint-10"
    export(checkpoint, tmp_path / "vae")
    export(checkpoint, tmp_path / "last", "--no_ema")
    digests = [weights_sha256(tmp_path / name) for name in ("vae", "last")]
    assert digests == [weights_sha256(checkpoint / name) for name in ("autoencoder_ema", "autoencoder")]
    assert type(AutoModel.from_pretrained(str(tmp_path / "vae"))).__name__ == "AutoencoderVidTwin"

    export(tiny_dit_run.output_dir / "checkpoint-10", tmp_path / "pipeline")
    pipe = DiffusionPipeline.from_pretrained(tmp_path / "pipeline")
    assert pipe.config.training["flags"]["max_train_steps"] == 12 and pipe.config.training["num_steps"] == 10
    card = (tmp_path / "pipeline" / "README.md").read_text()
    assert "| steps | 10 of 12 |" in card and "--max_train_steps 12" in card
    assert "The weights are those of step 10 of the 12 that this command trains." in card
    assert pipe.config.fps == tiny_latents.metadata["fps"]
    assert pipe(0, num_inference_steps=1, output_type="pt").frames.isfinite().all()


def test_the_last_weights_are_recorded_as_no_average(tiny_dit_run, tmp_path):
    checkpoint = tiny_dit_run.output_dir / "checkpoint-12"
    for name, flags, folder in (("ema", (), "transformer_ema"), ("last", ("--no_ema",), "transformer")):
        export(checkpoint, tmp_path / name, *flags)
        assert weights_sha256(tmp_path / name / "transformer") == weights_sha256(checkpoint / folder)
        index = json.loads((tmp_path / name / "model_index.json").read_text())
        assert index["training"]["flags"]["use_ema"] == (name == "ema")
        card = (tmp_path / name / "README.md").read_text()
        assert ("| EMA decay | 0.9 |" in card) == (name == "ema")
        assert ("| EMA decay | none |" in card and "--use_ema False" in card) == (name == "last")


def test_a_run_may_have_moved(tiny_dit_run, tiny_latents, tmp_path):
    run = Path(shutil.copytree(tiny_dit_run.output_dir, tmp_path / "run"))
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"vae": "gone", "latents": "gone"}))
    places = ("--vae", tiny_latents.vae_dir, "--latents", tiny_latents.latents_dir)
    export(run / "checkpoint-12", tmp_path / "out", *places)
    assert (tmp_path / "out" / "model_index.json").is_file()


@pytest.fixture(scope="module")
def changed_run(tiny_dit_run, tiny_latents, tmp_path_factory):
    """A run that went on from step 10 with another shift, and latents of another mean; these latents."""
    folder = tmp_path_factory.mktemp("changed")
    run = Path(shutil.copytree(tiny_dit_run.output_dir, folder / "run"))
    latents = Path(shutil.copytree(tiny_latents.latents_dir, folder / "latents"))
    mean = [0.5 for _ in tiny_latents.metadata["latents_mean"]]
    (latents / "latents.json").write_text(json.dumps(tiny_latents.metadata | {"latents_mean": mean}))
    changes = {"latents": latents, "shift": 3.0, "resume_from_checkpoint": "checkpoint-10"}
    train_dit.main([*tiny_dit_run.argv(run, **changes), "--resume_anyway"])
    return run, latents


def test_a_checkpoint_from_before_a_change_of_flags_has_its_own(changed_run, tiny_latents, tmp_path):
    """Which stand beside it; of the run they are overwritten."""
    run, latents = changed_run
    for step, shift, place in ((10, 1.0, tiny_latents.latents_dir), (12, 3.0, latents)):
        export(run / f"checkpoint-{step}", tmp_path / str(step))
        pipe = DiffusionPipeline.from_pretrained(tmp_path / str(step))
        assert pipe.scheduler.config.shift == shift
        assert pipe.config.training["flags"]["shift"] == str(shift)
        assert (
            pipe.vae.config.latents_mean == json.loads((place / "latents.json").read_text())["latents_mean"]
        )


def test_other_latents_than_those_of_the_checkpoint_are_refused(changed_run, tiny_latents, tmp_path, capsys):
    run, latents = changed_run
    here, there = latents_sha256(latents), latents_sha256(tiny_latents.latents_dir)
    with pytest.raises(SystemExit):
        export(run / "checkpoint-10", tmp_path / "out", "--latents", latents)
    message = capsys.readouterr().err.splitlines()[-1]
    assert f"--latents {latents} ({here[:12]}) are not those" in message
    assert f"{tiny_latents.latents_dir} ({there[:12]})" in message and not (tmp_path / "out").exists()


def test_what_moved_after_a_checkpoint_is_looked_for_where_it_went(tiny_dit_run, tiny_latents, tmp_path):
    run = Path(shutil.copytree(tiny_dit_run.output_dir, tmp_path / "run"))
    record = json.loads((run / "run.json").read_text())
    places = {"vae": str(tiny_latents.vae_dir), "latents": str(tiny_latents.latents_dir)}
    (run / "checkpoint-10" / "run.json").write_text(json.dumps(record | {"vae": "gone", "latents": "gone"}))
    (run / "run.json").write_text(json.dumps(record | places))
    (run / "checkpoint-10" / "manifest.json").unlink()
    export(run / "checkpoint-10", tmp_path / "out")
    assert (tmp_path / "out" / "model_index.json").is_file()


def test_a_checkpoint_of_before_has_the_flags_of_its_run(tiny_dit_run, tmp_path):
    """Which may have gone on with other latents."""
    run = Path(shutil.copytree(tiny_dit_run.output_dir, tmp_path / "run"))
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"latents (sha256)": "0" * 64}))
    for name in ("run.json", "manifest.json"):
        (run / "checkpoint-12" / name).unlink()
    export(run / "checkpoint-12", tmp_path / "out")
    assert below(tmp_path / "out") == below(run / "pipeline")


def without_flags(checkpoint):
    """As of earlier versions, and taken out of its run."""
    for path in (checkpoint / "manifest.json", checkpoint / "run.json", checkpoint.parent / "run.json"):
        path.unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "optimizer.bin").unlink(), "is damaged, optimizer.bin is missing"),
        (lambda folder: (folder / "transformer").rename(folder / "other"), "holds neither autoencoder/ nor"),
        (without_flags, "holds no run.json; the checkpoint has to be"),
        (lambda folder: (folder.parent.parent / "out" / "file").write_text(""), "name a new folder"),
    ],
)
def test_what_is_no_whole_checkpoint_is_one_line(change, message, tiny_dit_run, tmp_path, capsys):
    checkpoint = Path(shutil.copytree(tiny_dit_run.output_dir, tmp_path / "run")) / "checkpoint-10"
    (tmp_path / "out").mkdir()
    change(checkpoint)
    with pytest.raises(SystemExit) as stopped:
        export(checkpoint, tmp_path / "out")
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
