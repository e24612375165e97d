"""The autoencoder and the pipeline of a checkpoint."""

import json
import shutil
from pathlib import Path

import pytest
from diffusers import AutoModel, DiffusionPipeline

from tests.builders.folders import contents
from vidtwin_gen.__main__ import main
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
    assert pipe.config.training["flags"]["max_train_steps"] == 10
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "optimizer.bin").unlink(), "is damaged, optimizer.bin is missing"),
        (lambda folder: (folder / "transformer").rename(folder / "other"), "holds neither autoencoder/ nor"),
        (lambda folder: (folder.parent / "run.json").unlink(), "holds no run.json; the checkpoint has to be"),
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
