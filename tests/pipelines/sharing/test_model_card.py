"""The model card: what is known of a pipeline, no more, and code that runs."""

import dataclasses
import json
import re
import shlex
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import ModelCard
from huggingface_hub.errors import LocalEntryNotFoundError

import train_dit
from pipelines.__main__ import main
from pipelines.pipeline_vidtwin import VidTwinPipeline
from pipelines.sharing.export import export_pipeline
from pipelines.sharing.model_card import INDEX, MARK, give_way
from pipelines.sharing.training_record import training_record, with_metrics
from tests.builders.pipelines import build_pipeline
from tests.builders.results import PROTOCOL as FVD_PROTOCOL
from tests.builders.results import fvd_result
from tests.builders.runs import DIT_FLAGS
from vidtwin_gen.records import AccuracyResult, FVDResult, GeneratedRecord, ReconResult
from vidtwin_gen.training.config import parse_config

PROTOCOL = {**FVD_PROTOCOL.to_json(), "stride": 2}
FVD = FVDResult(fvd=101.5, num_real=32, num_generated=32, rank_deficient=True, protocol=PROTOCOL, floor=47.25)
RECON = ReconResult(
    split="test",
    autoencoder_class="AutoencoderVidTwin",
    vae_sha256="0" * 64,
    resolution="16x32x32",
    frame_rate="stride 2",
    seed=0,
    latent="the posterior's mean",
    data_range="[-1, 1]",
    psnr_at_most=100.0,
    interval="95 %",
    resize="cover",
    source_sizes={"32x32": 64},
    skipped_videos=[],
    lpips={"reason": "left out"},
    rfvd={"fvd": 60.5, "kvd": 0.25, "protocol": {**PROTOCOL, "num_real": 64}, "rank_deficient": False},
    both={
        "psnr": {"mean": 24.07, "ci95": 0.63, "num_clips": 64},
        "ssim": {"mean": 0.7, "ci95": None, "num_clips": 64},
    },
    structure={"psnr": {"mean": 15.6, "ci95": 0.5, "num_clips": 64}},
)
ACCURACY = AccuracyResult(
    class_names=["Archery", "Billiards"],
    num_train=576,
    seed=0,
    fold=1,
    resolution="16x32x32",
    frame_rate="stride 2",
    num_steps=100,
    horizontal_flip=True,
    generated={"accuracy": 0.75, "num_clips": 64, "confusion": [[3, 1], [1, 3]]},
    real={"accuracy": 0.875, "num_clips": 224, "confusion": [[7, 1], [1, 7]]},
)
GENERATED = GeneratedRecord(
    pipeline="pipeline",
    scheduler="X",
    guidance_scale=3.0,
    guidance_interval=[0.0, 1.0],
    num_inference_steps=2,
    seed=5,
    fps=8.0,
    class_names=["Archery"],
    class_labels=[0],
    num_videos_per_class=4,
    labels_from=None,
    num_videos=4,
)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "pipeline"
    build_pipeline().save_pretrained(path)
    return path


def card(folder):
    return (folder / "README.md").read_text(encoding="utf-8")


def write(folder, **results):
    paths = []
    for name, result in results.items():
        paths.append(folder / f"{name}.json")
        result.write(paths[-1])
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
    for words in (
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
        assert words in text, words
    assert not re.search(r"\bNone\b|nan", text)
    assert VidTwinPipeline.from_pretrained(folder).config.training is None


def test_the_cards_code_runs(folder, tmp_path, monkeypatch, capsys):
    generated = write(tmp_path, generated=GENERATED)
    main(["card", "--pipeline", str(folder), "--metrics", *generated])
    assert "guidance_scale=3.0, num_inference_steps=2, generator" in card(folder)
    changes = {"guidance_interval": [0.2, 1.0], "internal_guidance_scale": 1.2}
    other = write(tmp_path, other=dataclasses.replace(GENERATED, **changes))
    index = (folder / "model_index.json").read_text()
    main(["card", "--pipeline", str(folder), "--metrics", *other])
    assert "guidance_interval=[0.2, 1.0], internal_guidance_scale=1.2, num_inf" in card(folder)
    (folder / "model_index.json").write_text(index)
    main(["card", "--pipeline", str(folder)])
    run_its_code(folder, monkeypatch)
    code = card(export_pipeline(folder, tmp_path / "code"))
    assert 'DiffusionPipeline.from_pretrained(".", trust_remote_code=True)' in code
    assert "vidtwin_gen import" not in code


def test_metrics_stand_with_their_protocol(folder, tmp_path, capsys):
    before = VidTwinPipeline.from_pretrained(folder)
    paths = write(tmp_path, fvd=FVD, recon=RECON, accuracy=ACCURACY)
    (tmp_path / "other.json").write_text("{}")
    paths.append(str(tmp_path / "other.json"))
    words = ["--dataset", "UCF-101", "--license", "cc-by-4.0"]
    main(["card", "--pipeline", str(folder), "--metrics", *paths, *words])
    output = capsys.readouterr().out
    assert "other.json left out" in output and f"wrote {folder / 'README.md'}" in output
    floors = {"real": {"fvd": 47.25, "kvd": -0.125}, "reconstructions": {"fvd": 60.25, "kvd": 0.5}}
    several = dataclasses.replace(FVD, fvd=99.5, std=2.5, kvd=1.5, kvd_std=0.25, num_seeds=4, floors=floors)
    main(["card", "--pipeline", str(folder), "--metrics", *write(tmp_path, fvd=several)])
    text = card(folder)
    for line in (
        "| FVD, generated | 99.5 ± 2.5 over 4 seeds; real against real 47.25; reconstructions 60.25; "
        "rank-deficient, so biased upwards | ",
        "| KVD, generated | 1.5 ± 0.25 over 4 seeds; real against real -0.125; reconstructions 0.5 | ",
        ", num frames 16, num generated 32, num real 32, ",
        ", seed 0, split train, stride 2, ",
        "| PSNR, reconstructed | 24.07 ± 0.63 (95 %) | autoencoder class AutoencoderVidTwin, ",
        "frame rate stride 2, interval 95 %, latent the posterior's mean, num clips 64, ",
        "| SSIM, reconstructed | 0.7 | ",
        "| FVD, reconstructed | 60.5 | ",
        "| KVD, reconstructed | 0.25 | ",
        ", num real 64, ",
        "| class accuracy, generated clips | 0.75 | fold 1, frame rate stride 2, horizontal flip True, ",
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


def test_words_that_no_file_can_hold_leave_the_pipeline_as_it_was(folder, capsys):
    before = (folder / "model_index.json").read_bytes()
    for name in ("license", "dataset"):
        with pytest.raises(SystemExit) as stopped:
            main(["card", "--pipeline", str(folder), f"--{name}", "\udcff"])
        assert stopped.value.code == 2 and f"--{name} '\\udcff' is not UTF-8" in capsys.readouterr().err
    assert (folder / "model_index.json").read_bytes() == before


def test_a_card_is_not_pushed_where_the_hub_does_not_say_what_is_there(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(LocalEntryNotFoundError):
        give_way(folder, "user/perhaps-with-a-card")


def test_a_card_written_by_hand_stays(folder, capsys):
    (folder / "README.md").write_text("# Mine\n")
    main(["card", "--pipeline", str(folder), "--dataset", "UCF-101"])
    assert "was written by hand and is left as it is" in capsys.readouterr().out
    VidTwinPipeline.from_pretrained(folder).save_pretrained(folder)
    assert card(folder) == "# Mine\n"
    (folder / "clips.png").write_bytes(b"a picture of the card")
    assert card(export_pipeline(folder, folder.with_name("code"))) == "# Mine\n"
    assert "README.md was written by hand and is left as it is: see" in capsys.readouterr().out
    assert folder.with_name("code").joinpath("clips.png").is_file()
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
        (["--pipeline", "{folder}", "--metrics", "{folder}/none.json"], "holds no none.json"),
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


def test_a_result_with_other_fields_names_the_command_that_writes_it_anew(folder, tmp_path, capsys):
    path = tmp_path / "fvd.json"
    path.write_text(json.dumps({"kind": "fvd", "fvd": 101.5, "frechet": 1}))
    before = card(folder)
    with pytest.raises(SystemExit):
        main(["card", "--pipeline", str(folder), "--metrics", str(path)])
    error = capsys.readouterr().err
    assert "an unknown frechet" in error and "python -m eval fvd" in error and card(folder) == before


def record_in(folder, record):
    index = json.loads((folder / INDEX).read_text())
    (folder / INDEX).write_text(json.dumps(index | {"training": record}))


def test_a_metric_of_a_later_version_has_fields_that_a_card_leaves_out(folder, tmp_path):
    metric = {"value": 1.5, "protocol": {"num_clips": 8}, "quantiles": [0.25, 0.75]}
    record_in(folder, {"metrics": {"FVD": metric}, "hours": 3})
    main(["card", "--pipeline", str(folder), "--license", "mit"])
    assert "| FVD | 1.5 | num clips 8 |" in card(folder)
    VidTwinPipeline.from_pretrained(folder).save_pretrained(tmp_path / "saved")
    assert "| FVD | 1.5 | num clips 8 |" in card(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / INDEX).read_text())["training"]
    assert saved["metrics"]["FVD"] == metric and saved["hours"] == 3


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("x", "training must be an object, got 'x'"),
        ({"flags": "x"}, "training.flags must be an object, got 'x'"),
        ({"data": 5}, "training.data must be an object, got 5"),
        ({"metrics": {"FVD": 5}}, "training.metrics.FVD must be an object, got 5"),
        ({"num_processes": "2"}, "training.num_processes must be a whole number, got '2'"),
    ],
)
def test_a_record_of_another_form_is_refused_with_the_way_out(folder, tmp_path, capsys, record, message):
    record_in(folder, record)
    before = card(folder)
    with pytest.raises(ValueError, match=f"^{message}: correct it in model_index.json, or put null"):
        VidTwinPipeline.from_pretrained(folder)
    capsys.readouterr()
    for words in (["card", "--license", "mit"], ["export", "--out", str(tmp_path / "out")]):
        with pytest.raises(SystemExit):
            main([*words, "--pipeline", str(folder)])
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert card(folder) == before and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("metric", "message"),
    [({"zz": 1}, "has no protocol, value"), ({"value": "x", "protocol": {}}, "got 'x'")],
)
def test_a_metric_of_another_form_is_named(folder, tmp_path, metric, message):
    record_in(folder, {"metrics": {"FVD": metric}})
    pipe = VidTwinPipeline.from_pretrained(folder)  # it can be sampled all the same
    with pytest.raises(ValueError, match=f"training.metrics.FVD.*{message}.* in model_index.json"):
        pipe.save_pretrained(tmp_path / "saved")


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
    flags = training_record(config, tiny_latents.metadata, 1)["flags"]
    assert flags == record["flags"] and config.output_dir == "RUN"


def test_a_card_names_the_weights_that_training_began_with_and_their_variant(folder, tmp_path):
    config = train_dit.DiTConfig(output_dir="r", vae="v", latents="l", init_from="/home/me/runs/first")
    record = training_record(config, {}, 1)
    assert record["flags"]["init_from"] == "first"
    pipe = VidTwinPipeline.from_pretrained(folder)
    pipe.register_to_config(training=record)
    pipe.save_pretrained(tmp_path / "half", variant="fp16")
    text = card(tmp_path / "half")
    assert "| started from the weights | first |" in text and "--init_from first" in text
    assert 'from_pretrained(".", variant="fp16")' in text and "variant" not in card(folder)


def test_a_batch_is_that_of_all_processes(folder, tmp_path):
    flags = {"train_batch_size": 4, "gradient_accumulation_steps": 2}
    config = train_dit.DiTConfig(output_dir="r", vae="v", latents="l", **flags)
    pipe = VidTwinPipeline.from_pretrained(folder)
    pipe.register_to_config(training=training_record(config, {}, 3))
    pipe.save_pretrained(tmp_path / "three")
    text = card(tmp_path / "three")
    assert "| batch, clips a step | 24 (4 × 2 × 3 processes) |" in text
    assert (
        "\ntorchrun --nproc_per_node 3 train_dit.py --vae AUTOENCODER" in text and "python train" not in text
    )


def test_two_distances_stand_by_their_protocols(tmp_path):
    for name, value in (("small", 321.5), ("large", 99.0)):
        protocol = dataclasses.replace(FVD_PROTOCOL, name=name)
        fvd_result(value, protocol).write(tmp_path / f"{name}.json")
    paths = [tmp_path / "small.json", tmp_path / "large.json"]
    record, unknown = with_metrics({}, paths)
    found = {name: metric["value"] for name, metric in record["metrics"].items() if name.startswith("FVD")}
    assert found == {"FVD, generated": 321.5, "FVD, generated (large)": 99.0} and not unknown
    with pytest.raises(ValueError, match="large.json: another of them has FVD, generated by the same"):
        with_metrics({}, [paths[1], paths[1]])


def test_a_record_keeps_what_it_had():
    record = {"flags": {"seed": 1}, "metrics": {"SSIM, reconstructed": {"value": 0.5, "protocol": {}}}}
    assert with_metrics(record, []) == (record, [])
