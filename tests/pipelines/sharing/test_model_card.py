"""The model card: what is known of a pipeline, no more, and code that runs."""

import json
import re
import shlex
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

import train_dit
from pipelines.__main__ import main
from pipelines.pipeline_vidtwin import VidTwinPipeline
from pipelines.sharing.export import export_pipeline
from pipelines.sharing.model_card import MARK
from pipelines.sharing.training_record import training_record, with_metrics
from tests.conftest import DIT_FLAGS
from tests.pipelines.test_pipeline import build_pipeline
from vidtwin_gen.training.config import parse_config

FVD = {
    "fvd": 101.5,
    "num_real": 32,
    "num_generated": 32,
    "rank_deficient": True,
    "protocol": {"num_real": 32, "num_frames": 16, "split": "train", "stride": 2, "fps": None, "seed": 0},
    "floor": 47.25,
    "skipped_videos": [],
}
RECON = {
    "both": {"psnr": {"mean": 24.07, "ci95": 0.63, "num_clips": 64}, "ssim": {"mean": 0.7, "num_clips": 64}},
    "structure": {"psnr": {"mean": 15.6, "ci95": 0.5, "num_clips": 64}},
    "split": "test",
    "resolution": "16x32x32",
    "frame_rate": "stride 2",
    "skipped_videos": [],
}
ACCURACY = {
    "class_names": ["Archery", "Billiards"],
    "num_train": 576,
    "resolution": "16x32x32",
    "generated": {"accuracy": 0.75, "num_clips": 64, "confusion": [[3, 1], [1, 3]]},
    "real": {"accuracy": 0.875, "num_clips": 224, "confusion": [[7, 1], [1, 7]]},
}
GENERATED = {"scheduler": "X", "guidance_scale": 3.0, "num_inference_steps": 2, "seed": 5, "class_names": []}


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "pipeline"
    build_pipeline().save_pretrained(path)
    return path


def card(folder):
    return (folder / "README.md").read_text(encoding="utf-8")


def write(folder, **results):
    paths = []
    for name, value in results.items():
        paths.append(folder / f"{name}.json")
        paths[-1].write_text(json.dumps(value))
    return [str(path) for path in paths]


def run_its_code(folder, monkeypatch):
    """The card's Python, as it stands there, in the folder."""
    monkeypatch.chdir(folder)
    for block in re.findall(r"^```python\n(.*?)^```$", card(folder), re.MULTILINE | re.DOTALL):
        exec(compile(block, "README.md", "exec"), {})
    assert (folder / "video.mp4").stat().st_size


def test_what_is_not_known_is_said_to_be_so(folder):
    data = ModelCard(card(folder)).data.to_dict()
    assert (data["library_name"], data["license"]) == ("diffusers", "apache-2.0")
    assert "video-generation" in data["tags"]
    text = card(folder)
    for told in (
        "AutoencoderVidTwin, ",
        "8×16×16, 8 frames a second",
        "| classes | 4 |",
        "Data set: not recorded. Clips of 4 classes. What of it was used: not recorded.",
        "| steps | not recorded |",
        "Command: not recorded.",
        "Metrics: not recorded.",
        "research",
        "Apache-2.0",
    ):
        assert told in text, told
    assert not re.search(r"\bNone\b|nan", text)
    assert VidTwinPipeline.from_pretrained(folder).config.training is None


def test_the_cards_code_runs(folder, tmp_path, monkeypatch, capsys):
    generated = write(tmp_path, generated=GENERATED)
    main(["card", "--pipeline", str(folder), "--metrics", *generated])
    assert "guidance_scale=3.0, num_inference_steps=2, generator" in card(folder)
    run_its_code(folder, monkeypatch)
    code = card(export_pipeline(folder, tmp_path / "code"))
    assert 'DiffusionPipeline.from_pretrained(".", trust_remote_code=True)' in code
    assert "vidtwin_gen import" not in code


def test_metrics_stand_with_their_protocol(folder, tmp_path, capsys):
    before = VidTwinPipeline.from_pretrained(folder)
    paths = write(tmp_path, fvd=FVD, recon=RECON, accuracy=ACCURACY, cost={"rows": []})
    words = ["--dataset", "UCF-101", "--license", "cc-by-4.0"]
    main(["card", "--pipeline", str(folder), "--metrics", *paths, *words])
    told = capsys.readouterr().out
    assert "cost.json left out" in told and f"wrote {folder / 'README.md'}" in told
    several = {"fvd": 99.5, "std": 2.5, "num_seeds": 4, "floors": {"reconstructions": {"fvd": 60.25}}}
    main(["card", "--pipeline", str(folder), "--metrics", *write(tmp_path, fvd=FVD | several)])
    text = card(folder)
    for line in (
        "| FVD, generated | 99.5 ± 2.5 over 4 seeds; real against real 47.25; reconstructions 60.25; "
        "rank-deficient, so biased upwards | num frames 16, num real 32, seed 0, split train, stride 2 |",
        "| PSNR, reconstructed | 24.07 ± 0.63 (95 %) | frame rate stride 2, num clips 64, resolution "
        "16x32x32, split test |",
        "| SSIM, reconstructed | 0.7 | ",
        "| class accuracy, generated clips | 0.75 | num clips 64, num train 576, resolution 16x32x32 |",
        "Generated clips were sampled with: not recorded.",
        "Data set: UCF-101.",
        "Weights: cc-by-4.0.",
    ):
        assert line in text, line
    assert "101.5" not in text and ModelCard(text).data.license == "cc-by-4.0"

    after = VidTwinPipeline.from_pretrained(folder)
    assert after.config.class_names == before.config.class_names
    after.save_pretrained(tmp_path / "again")
    assert card(tmp_path / "again") == text


def test_a_card_written_by_hand_stays(folder, capsys):
    (folder / "README.md").write_text("# Mine\n")
    main(["card", "--pipeline", str(folder), "--dataset", "UCF-101"])
    assert "was written by hand and is left as it is" in capsys.readouterr().out
    VidTwinPipeline.from_pretrained(folder).save_pretrained(folder)
    assert card(folder) == "# Mine\n"
    assert card(export_pipeline(folder, folder.with_name("code"))) == "# Mine\n"
    (folder / "README.md").write_text(f"{MARK}\n")
    main(["card", "--pipeline", str(folder)])
    assert "Data set: UCF-101." in card(folder)


@pytest.mark.parametrize(
    "words, message",
    [
        (
            ["--pipeline", "{folder}/vae"],
            "holds no model_index.json; name the folder of a saved VidTwinPipeline",
        ),
        (["--pipeline", "{folder}", "--metrics", "{folder}/none.json"], "none.json can't be read as JSON"),
        (["--pipeline", "{folder}", "--metrics", "{folder}/README.md"], "README.md can't be read as JSON"),
        (
            ["--pipeline", "{folder}", "--metrics", "{folder}/vae/config.json"],
            "no result of eval fvd, recon or",
        ),
    ],
)
def test_bad_input_is_refused(folder, words, message, capsys):
    before = card(folder)
    with pytest.raises(SystemExit):
        main(["card", *(word.format(folder=folder) for word in words)])
    assert message in capsys.readouterr().err and card(folder) == before


def test_a_training_run_records_itself(tiny_dit_run, tiny_latents):
    folder = tiny_dit_run.output_dir / "pipeline"
    pipe = VidTwinPipeline.from_pretrained(folder)
    record = pipe.config.training
    assert record["data"]["autoencoder_sha256"] == tiny_latents.metadata["autoencoder_sha256"]
    assert record["data"]["num_rows"] == tiny_latents.metadata["num_rows"]
    assert record["flags"]["max_train_steps"] == DIT_FLAGS["max_train_steps"]
    size = len(json.dumps(record))
    assert size < 4000 and str(Path.home()) not in json.dumps(record), size
    assert pipe.config.class_names[0] not in json.dumps(record)

    text = card(folder)
    assert f"| steps | {DIT_FLAGS['max_train_steps']} |" in text
    assert "| batch, clips a step | 4 (4 × 1 × 1 processes) |" in text
    command = re.search(r"^```bash\n(python train_dit.py .*?)^```$", text, re.MULTILINE | re.DOTALL)[1]
    config = parse_config(train_dit.DiTConfig, {}, shlex.split(command.replace("\\\n", ""))[2:])
    told = training_record(config, tiny_latents.metadata)["flags"]
    assert told == record["flags"] and config.output_dir == "RUN"


def test_a_record_keeps_what_it_had():
    record = {"flags": {"seed": 1}, "metrics": {"SSIM, reconstructed": {"value": 0.5, "protocol": {}}}}
    assert with_metrics(record, []) == (record, [])
