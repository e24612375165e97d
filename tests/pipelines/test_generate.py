"""`python -m pipelines generate`: what it writes, resumes and refuses."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipelines.__main__ import main
from pipelines.flags import CardFlags, GenerateFlags
from pipelines.generate import create_clip_file, write_frames
from pipelines.pipeline_vidtwin import VidTwinPipeline
from pipelines.sampling import (
    class_ids,
    clip_generator,
    frame_rate,
    load_pipeline,
    sample,
    sampling_command,
)
from pipelines.sharing.export import export_pipeline
from pipelines.sharing.training_record import card
from tests.builders.folders import contents
from tests.builders.forked import files_below
from tests.builders.pipelines import build_pipeline, generate
from tests.builders.processes import command_in_processes
from vidtwin_gen.data.decoding.video_index import video_index
from vidtwin_gen.partial_folder import partial_folder
from vidtwin_gen.records import GeneratedRecord


def command(folder, out, *options):
    steps = ["--num_inference_steps", "2", "--device", "cpu"]
    return ["generate", "--pipeline", str(folder), "--out", str(out), *steps, *options]


def test_generate_writes_videos_tensors_and_a_record(folder, tmp_path):
    out = tmp_path / "videos"
    main(
        command(
            folder, out, "--class_labels", "billiards", "1", "--num_videos_per_class", "2", "--format", "both"
        )
    )
    stems = {f"{name}/{name}_000{number}" for name in ("Billiards", "BabyCrawling") for number in (0, 1)}
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert files == {f"{stem}.{ext}" for stem in stems for ext in ("mp4", "gif")} | {
        "clips.safetensors",
        "generated.json",
    }
    info = video_index(out / "Billiards" / "Billiards_0000.mp4")
    assert (info.num_frames, info.height, info.width, info.fps) == (8, 16, 16, pytest.approx(8))
    clips = load_file(out / "clips.safetensors")
    assert clips["frames"].shape == (4, 8, 16, 16, 3) and clips["frames"].dtype == torch.uint8
    assert clips["labels"].tolist() == [3, 3, 1, 1] and clips["labels"].dtype == torch.int64
    record = json.loads((out / "generated.json").read_text())
    assert record["class_names"] == ["Billiards", "BabyCrawling"] and record["num_videos"] == 4
    assert record["pipeline"] == "pipeline" and record["seed"] == 0 and record["fps"] == 8


def test_the_same_command_is_done_and_another_refused(folder, tmp_path, capsys):
    pipeline, out = Path(shutil.copytree(folder, tmp_path / "pipeline")), tmp_path / "out"
    argv = command(pipeline, out, "--class_labels", "1", "--num_videos_per_class", "1")
    main(argv)
    before = contents(out)
    assert "internal_guidance_scale" not in json.loads((out / "generated.json").read_text())["command"]
    card(CardFlags(pipeline=str(pipeline), dataset="UCF-101"))  # of which no clip depends
    main([*argv, "--batch_size", "3"])
    assert f"{out} is done already" in capsys.readouterr().out
    config = pipeline / "scheduler" / "scheduler_config.json"
    for change, message in (
        (["--seed", "1"], "(--seed was 0, is 1)"),
        (["--guidance_scale", "2"], "(--guidance_scale was 4.0, is 2.0)"),
        ([], "(--pipeline was "),
    ):
        if not change:
            config.write_text(config.read_text().replace('"shift": 1.0', '"shift": 2.0'))
        with pytest.raises(SystemExit) as stop:
            main([*argv, *change])
        assert stop.value.code == 2 and f"of another command {message}" in capsys.readouterr().err
    assert contents(out) == before


def test_the_index_of_a_pipeline_is_part_of_the_command(folder, tmp_path):
    """Whitening and class names stand there; of what a card says no clip depends."""
    pipeline = Path(shutil.copytree(folder, tmp_path / "pipeline"))
    path, flags = pipeline / "model_index.json", GenerateFlags(pipeline=str(pipeline), out="out")
    before, index = sampling_command(flags), json.loads(path.read_text())
    path.write_text(json.dumps(index | {"training": {"flags": {"seed": 3}}}))
    assert sampling_command(flags) == before
    path.write_text(json.dumps(index | {"latents_mean": [0.25]}))
    assert sampling_command(flags)["pipeline"] != before["pipeline"]


def test_the_rate_of_the_files_is_the_flags_or_else_the_pipelines(pipe):
    rates = [frame_rate(pipe, GenerateFlags(pipeline="", out="", fps=fps)) for fps in (12.0, None)]
    assert rates == [12.0, 8.0]


def test_a_number_is_an_id_where_it_is_no_name(pipe):
    names = ["3", "Archery", "0", "Billiards"]
    named = VidTwinPipeline(pipe.vae, pipe.transformer, pipe.scheduler, class_names=names)
    assert class_ids(named, ["3", "0", "1", "billiards"]) == [0, 2, 1, 3]


def test_what_a_file_of_counts_says_is_part_of_the_command_and_not_where_it_lies(folder, tmp_path):
    commands = []
    for name, text in (
        ("a.json", '{"Archery": 1}'),
        ("b.json", '{"Archery": 1}'),
        ("c.json", '{"Archery": 2}'),
    ):
        (tmp_path / name).write_text(text)
        flags = GenerateFlags(pipeline=str(folder), out="out", labels_from=tmp_path / name)
        commands.append(sampling_command(flags))
    assert commands[0] == commands[1] != commands[2]


def test_every_clip_has_noise_of_its_own():
    clips = [(seed, label, number) for seed in (0, 1) for label in (0, 1) for number in (0, 1)]
    noise = torch.stack([torch.randn(4, generator=clip_generator(*clip)) for clip in clips])
    assert len(noise.unique(dim=0)) == len(clips)


def test_internal_guidance_by_the_command(tmp_path, capsys):
    pipe = build_pipeline(internal_layer=1)
    pipe.save_pretrained(tmp_path / "pipeline")
    argv = command(tmp_path / "pipeline", tmp_path / "out", "--class_labels", "1", "--guidance_scale", "1")
    main([*argv, "--num_videos_per_class", "1", "--internal_guidance_scale", "1.5"])
    record = json.loads((tmp_path / "out" / "generated.json").read_text())
    assert record["internal_guidance_scale"] == record["command"]["internal_guidance_scale"] == 1.5
    options = {"guidance_scale": 1.0, "internal_guidance_scale": 1.5, "num_inference_steps": 2}
    expected = generate(pipe, 1, generator=[clip_generator(0, 1, 0)], **options)
    frames = load_file(tmp_path / "out" / "clips.safetensors")["frames"].float() / 255
    assert (frames - expected.permute(0, 1, 3, 4, 2)).abs().max() <= 0.5 / 255 + 1e-5
    with pytest.raises(SystemExit):
        main([*argv, "--num_videos_per_class", "1"])
    assert "(--internal_guidance_scale was 1.5, is None)" in capsys.readouterr().err


def test_a_folder_is_of_one_dtype(folder, tmp_path, capsys):
    options = ["--class_labels", "1", "--num_videos_per_class", "1", "--format", "gif"]
    outs = [tmp_path / dtype for dtype in ("float32", "bfloat16", "float16")]
    for out in outs:
        main(command(folder, out, *options, "--dtype", out.name))
    records = [json.loads((out / "generated.json").read_text()) for out in outs]
    assert "dtype" not in records[0] and "dtype" not in records[0]["command"]
    assert records[2]["dtype"] == records[2]["command"]["dtype"] == "float16"
    assert GeneratedRecord.read(tmp_path / "bfloat16" / "generated.json").dtype == "bfloat16"
    exact, *others = (load_file(out / "clips.safetensors")["frames"].int() for out in outs)
    for frames in others:
        assert 0 < (frames - exact).abs().float().mean() < 8
    with pytest.raises(SystemExit):
        main(command(folder, tmp_path / "bfloat16", *options))
    assert "of another command (--dtype was 'bfloat16', is None)" in capsys.readouterr().err


def test_a_second_start_deletes_nothing(folder, tmp_path, capsys):
    with partial_folder(tmp_path / "out", {}) as partial:
        with partial.adding("Archery.gif", {}) as path:
            path.touch()
        with pytest.raises(SystemExit):
            main(command(folder, tmp_path / "out"))
        said = capsys.readouterr().err
        assert f"out.partial is in use by process {os.getpid()} on " in said and "since 2" in said
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["Archery.gif"]


def test_room_is_made_before_anything_is_sampled(tmp_path):
    """Else hours are spent on clips for which there is none."""
    path, frames = tmp_path / "clips.safetensors", torch.randint(256, (2, 8, 16, 16, 3)).to(torch.uint8)
    create_clip_file(path, [3, 1], frames.shape[1:])
    assert path.stat().st_blocks * 512 >= frames.numel()
    for number in (1, 0):
        write_frames(path, number, frames[number : number + 1].numpy())
    read = load_file(path)
    assert read["labels"].tolist() == [3, 1] and read["frames"].equal(frames)
    with pytest.raises(OSError, match=r"it takes 9,\d{3},\d{3},\d{3},\d{3},\d{3} bytes and .* are free"):
        create_clip_file(path, [3, 1], (4_611_686_018, 1000, 1000))


def test_as_many_videos_of_each_class_as_a_file_says(folder, tmp_path, capsys):
    counts = tmp_path / "counts.json"
    counts.write_text('{"Billiards": 1, "archery": 2}')
    main(command(folder, tmp_path / "out", "--labels_from", str(counts)))
    record = json.loads((tmp_path / "out" / "generated.json").read_text())
    assert load_file(tmp_path / "out" / "clips.safetensors")["labels"].tolist() == [3, 0, 0]
    assert record["class_names"] == ["Billiards", "Archery"] and record["labels_from"] == "counts.json"
    for text, word in (
        ('{"Archry": 1}', "'Archery'"),
        ('{"Archery": 0}', "from 1 to"),
        ('{"Archery": 2, "Archery": 1}', "names a class twice"),
        ('{"Archery": 2, "ARCHERY": 1}', "names a class twice"),
        ("[]", "from 1 to"),
        ("{", "can't be read"),
    ):
        counts.write_text(text)
        with pytest.raises(SystemExit):
            main(command(folder, tmp_path / "other", "--labels_from", str(counts)))
        said = capsys.readouterr().err
        assert word in said and str(counts) in said
        assert not (tmp_path / "other").exists()


def test_which_of_two_flags_says_how_many_videos_is_told(folder, tmp_path, capsys):
    (tmp_path / "counts.json").write_text('{"Billiards": 1}')
    options = ["--labels_from", str(tmp_path / "counts.json"), "--num_videos_per_class", "2"]
    main(command(folder, tmp_path / "out", *options))
    said = capsys.readouterr().out
    assert "says how many videos, not --num_videos_per_class" in said and "1 videos of 1 classes" in said


@pytest.mark.parametrize(("dropout", "scale", "is_told"), [(0, 2, True), (0, 1, False), (0.1, 2, False)])
def test_guidance_away_from_what_was_not_trained_is_told(folder, dropout, scale, is_told, tmp_path, capsys):
    pipe = VidTwinPipeline.from_pretrained(folder)
    pipe.register_to_config(training={"flags": {"class_dropout": dropout}})
    pipe.save_pretrained(tmp_path / "pipeline")
    flags = GenerateFlags(pipeline=str(tmp_path / "pipeline"), out="out", guidance_scale=scale)
    load_pipeline(flags)
    assert ("was trained with --class_dropout 0" in capsys.readouterr().out) == is_told


def test_an_interrupted_generation_goes_on(folder, tmp_path, monkeypatch, capsys):
    options = ["--num_videos_per_class", "2", "--batch_size", "2"]
    argv = command(folder, tmp_path / "out", *options)
    sampled = []

    def sample_until(end):
        def watched(pipe, flags, clips, **how):
            if len(sampled) == end:
                raise KeyboardInterrupt
            sampled.append(clips)
            return sample(pipe, flags, clips, **how)

        monkeypatch.setattr("pipelines.generate.sample", watched)

    sample_until(2)
    with pytest.raises(SystemExit):
        main(argv)
    partial = tmp_path / "out.partial"
    (partial / "Archery" / "Archery_0099.gif").write_bytes(b"half")
    with (partial / "added-0.jsonl").open("a") as log:
        log.write('["Archery/Archery_0099.gif", {"num_by')
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main([*argv, "--seed", "5"])
    assert "of another command (--seed was 0, is 5)" in capsys.readouterr().err
    sample_until(4)
    main(argv)
    assert len(sampled) == 4 and not partial.exists()
    sample_until(8)
    main(command(folder, tmp_path / "whole", *options))
    assert files_below(tmp_path / "out") == files_below(tmp_path / "whole")


def test_a_last_clip_that_cannot_be_written_ends_the_command(folder, tmp_path, monkeypatch, capsys):
    """It is written while nothing is sampled any more."""
    argv = command(folder, tmp_path / "out", "--class_labels", "Archery", "--num_videos_per_class", "1")

    def sample_and_stand_in_the_way(*args, **how):
        videos = sample(*args, **how)
        (tmp_path / "out.partial" / "Archery" / "Archery_0000.gif").mkdir(parents=True)
        return videos

    monkeypatch.setattr("pipelines.generate.sample", sample_and_stand_in_the_way)
    with pytest.raises(SystemExit) as stopped:
        main([*argv, "--format", "gif"])
    assert stopped.value.code == 1
    assert "Archery_0000.gif" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_what_fails_before_a_clip_is_finished_is_not_in_the_way_of_another_command(folder, tmp_path, capsys):
    argv = command(folder, tmp_path / "out", "--class_labels", "1", "--num_videos_per_class", "1")
    with pytest.raises(SystemExit):
        main([*argv, "--guidance_scale", "1e30"])
    assert "generates NaN or infinity: a lower --guidance_scale" in capsys.readouterr().err
    main([*argv, "--guidance_scale", "2"])
    assert load_file(tmp_path / "out" / "clips.safetensors")["frames"].any()


def test_clips_are_made_again_where_the_file_of_all_is_gone(folder, tmp_path, monkeypatch):
    argv = command(folder, tmp_path / "out", "--class_labels", "1", "2", "--num_videos_per_class", "1")
    argv += ["--batch_size", "1"]
    main([*argv[:4], str(tmp_path / "whole"), *argv[5:]])
    sampled = []

    def once(*args, **how):
        sampled.append(args)
        if len(sampled) == 2:
            raise KeyboardInterrupt
        return sample(*args, **how)

    monkeypatch.setattr("pipelines.generate.sample", once)
    with pytest.raises(SystemExit):
        main(argv)
    (tmp_path / "out.partial" / "clips.safetensors").unlink()
    main(argv)
    assert files_below(tmp_path / "out") == files_below(tmp_path / "whole")


def test_two_processes_generate_what_one_does(folder, tmp_path):
    options = ["--num_videos_per_class", "2", "--batch_size", "3", "--format", "gif"]
    main(command(folder, tmp_path / "one", *options))
    command_in_processes(2, main, command(folder, tmp_path / "two", *options))
    assert files_below(tmp_path / "two") == files_below(tmp_path / "one")


def test_the_tensors_are_the_videos_rounded(pipe, folder, tmp_path):
    main(command(folder, tmp_path, "--class_labels", "2", "--num_videos_per_class", "1", "--seed", "7"))
    expected = generate(pipe, 2, num_inference_steps=2, generator=[clip_generator(7, 2, 0)])
    frames = load_file(tmp_path / "clips.safetensors")["frames"].float() / 255
    assert (frames - expected.permute(0, 1, 3, 4, 2)).abs().max() <= 0.5 / 255 + 1e-5


def test_neither_batch_size_nor_other_classes_change_a_clip(folder, tmp_path):
    main(command(folder, tmp_path / "all", "--num_videos_per_class", "3", "--batch_size", "5"))
    main(command(folder, tmp_path / "one", "--class_labels", "Basketball", "--num_videos_per_class", "2"))
    clips, alone = (load_file(tmp_path / name / "clips.safetensors") for name in ("all", "one"))
    assert clips["labels"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert (clips["frames"][6:8].int() - alone["frames"].int()).abs().max() <= 1
    assert (clips["frames"][6].int() - clips["frames"][7].int()).abs().max() > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--class_labels", "Archry"], "'Archery'"),
        (["--class_labels", "9"], "from 0 to 3"),
        (["--batch_size", "0"], "must be positive"),
        (["--fps", "0"], "--fps: must be above 0 and finite, got 0"),
        (["--fps", "1e-9"], "--fps of a video file is from 0.01 to 1000000, got 1e-09"),
        (["--fps", "1e9"], "--fps of a video file is from 0.01 to 1000000, got 1e+09"),
        (["--seed", "-1"], "--seed: must be 0 or more, got -1"),
        (["--guidance_scale", "nan"], "guidance_scale is a finite number"),
        (["--internal_guidance_scale", "2"], "train one with train_dit.py --internal_guidance"),
        (["--class_labels", "Archery", "archery"], "names a class twice"),
    ],
)
def test_generate_explains_what_is_wrong(folder, tmp_path, capsys, options, message):
    """And leaves nothing that would be in the way of the right command."""
    with pytest.raises(SystemExit):
        main(command(folder, tmp_path / "out", *options))
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_folder_of_other_weights_or_with_code_is_told_what_to_do(pipe, folder, tmp_path, capsys):
    pipe.save_pretrained(tmp_path / "fp16", variant="fp16")
    export_pipeline(folder, tmp_path / "exported")
    for name, message in (
        ("fp16", "there is diffusion_pytorch_model.fp16.safetensors: save it anew, without variant"),
        ("exported", "is an export, with code of its own, .*: name the pipeline that it was exported from"),
    ):
        with pytest.raises(SystemExit):
            main(command(tmp_path / name, tmp_path / "out"))
        assert re.search(message, capsys.readouterr().err)


def test_generate_needs_a_pipeline_and_a_new_folder(folder, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(command(tmp_path / "nowhere", tmp_path / "out"))
    assert "does not exist; name with --pipeline" in capsys.readouterr().err
    (tmp_path / "old.mp4").touch()
    with pytest.raises(SystemExit):
        main(command(folder, tmp_path))
    assert "is there already" in capsys.readouterr().err


def test_class_names_from_strangers(tmp_path):
    """Every clip has a file, all of them below --out, and the card's code compiles."""
    names = ["v1.0", "v2.0", "../../x", 'say "<script>"\n|']
    pipe = build_pipeline()
    pipe = VidTwinPipeline(pipe.vae, pipe.transformer, pipe.scheduler, class_names=names)
    pipe.save_pretrained(tmp_path / "pipeline")
    out = tmp_path / "below" / "out"
    main(command(tmp_path / "pipeline", out, "--num_inference_steps", "1"))
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.mp4"))
    record = json.loads((out / "generated.json").read_text())
    assert len(files) == record["num_videos"] == 16 and all(name.startswith("below/out/") for name in files)
    assert "below/out/v1.0/v1.0_0000.mp4" in files and record["class_names"] == names
    card = (tmp_path / "pipeline" / "README.md").read_text()
    compile(card.partition("```python")[2].partition("```")[0], "README.md", "exec")
    assert "<script>" not in card.partition("Classes:")[2] and "&lt;script&gt;" in card
