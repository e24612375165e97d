"""A study of two autoencoders, as small as may be."""

import dataclasses
import json
import shlex
import shutil
from functools import partial

import pytest

from autoencoder.losses.perceptual import LPIPS_WEIGHTS
from eval.__main__ import main
from eval.study import run
from eval.study.curves import cell, flops_to_reach, times_the_flops, value_at
from eval.study.judge import Judge
from eval.study.page import tera
from eval.study.plan import RowCost, ends, points_of, read_study
from tests.builders.autoencoders import build_of
from tests.builders.extractors import FilterResponses, install
from tests.builders.runs import command_line
from tests.builders.studies import STAGE_2
from vidtwin_gen.files import owned_folder

COUNTS = {"ours": 2, "wan": 8}  # FLOPs


@pytest.fixture(autouse=True)
def small_networks(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv(LPIPS_WEIGHTS.variable, "absent")
    monkeypatch.setattr(run, "Judge", partial(Judge, num_clips=8, num_steps=2))
    network = FilterResponses()
    install(monkeypatch, network)
    return network


@pytest.mark.slow
def test_both_readings_are_one_training_of_a_row_and_nothing_is_computed_twice(
    write, tmp_path, small_networks, capsys
):
    words = ["study", str(write()), "--out", str(tmp_path / "out")]
    main(words)
    out = tmp_path / "out"
    record = json.loads((out / "study.json").read_text())
    ours, wan = record["rows"]["ours"], record["rows"]["wan"]
    assert ours["ends"] == {"steps": 4, "flops": 4} and list(ours["seeds"]) == ["0"]
    assert wan["cost"]["num_tokens"] > ours["cost"]["num_tokens"]
    times = wan["cost"]["dit_training_flops"] / ours["cost"]["dit_training_flops"]
    assert wan["ends"] == {"steps": 4, "flops": max(1, round(4 / times))}
    assert set(ours["seeds"]["0"]) == {"4"} and set(wan["seeds"]["0"]) == {str(wan["ends"]["flops"]), "4"}
    assert set(ours["seeds"]["0"]["4"]["sampled"]) == {"1", "2"}
    assert ours["quality"]["psnr"] > 0 and wan["quality"]["rfvd"] != wan["quality"]["tfvd"]
    assert ours["reconstructions"]["fvd"] > 0 and record["real"]["fvd"] > 0
    assert ours["stage_1_flops"] == 2 * 2 * ours["cost"]["autoencoder_training_flops"]
    assert wan["stage_1_flops"] == 0 and not (out / "wan" / "vae").exists()
    assert wan["cost"]["autoencoder_class"] == "AutoencoderKLWan"
    page = (out / "study.md").read_text(encoding="utf-8")
    for title in (
        "Equal steps",
        "Equal training FLOPs",
        "To come as far as ours",
        "When the whole training of ours",
    ):
        assert f"## {title}" in page
    assert page.count("| wan |") == 2 + 2 + 1 + 1 + 2 and (out / "study.html").stat().st_size > 50_000
    counts = {
        json.loads((out / name / "recon.json").read_text())["both"]["psnr"]["num_clips"] for name in COUNTS
    }
    assert counts == {ours["num_reconstructed"]} and f"Of {ours['num_reconstructed']} held-out clips" in page

    # from what a kill in the middle of the last training leaves
    before = (out / "study.json").read_bytes(), (out / "study.md").read_bytes()
    shutil.rmtree(out / "wan" / "seed_0" / "steps_4")
    shutil.rmtree(out / "wan" / "seed_0" / "dit" / "pipeline")
    seen = small_networks.num_seen
    main(words)
    assert ((out / "study.json").read_bytes(), (out / "study.md").read_bytes()) == before
    assert small_networks.num_seen == seen
    before_page = (out / "study.json").stat().st_mtime_ns
    with owned_folder(out / "ours", "wait"):
        main([*words, "--rows", "wan"])  # another process has the other row
        with pytest.raises(SystemExit):
            main(words)
    assert (out / "study.json").stat().st_mtime_ns == before_page
    assert f"{out / 'ours'} is in use by process" in capsys.readouterr().err
    main([*words, "--dry_run"])
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("wan: AutoencoderKLWan") and "for 4 steps, and for 2 of equal FLOPs" in line
    with pytest.raises(SystemExit):
        main(["study", str(write(num_clips=6)), "--out", str(out)])
    assert "is of another study (num_clips differ)" in capsys.readouterr().err

    # a row and a seed more, of which a process with the shorter JSON does not know
    rows = record["study"]["rows"] | {
        "wan 2": {"autoencoder": str(tmp_path / "wan"), "patch_size": {"video": [1, 2, 2]}}
    }
    longer = ["study", str(write(rows=rows, seeds=[0, 1])), "--out", str(out)]
    main([*longer, "--rows", "wan 2"])
    shorter = ["study", str(write()), "--out", str(out)]
    main([*shorter, "--rows", "wan"])
    with pytest.raises(SystemExit):
        main(shorter)
    assert "plan.json has the row wan 2, which is not in the study's JSON" in capsys.readouterr().err
    write(rows=rows, seeds=[0, 1])
    main(longer)
    more = json.loads((out / "study.json").read_text())["rows"]
    assert list(more) == ["ours", "wan", "wan 2"] and {*more["wan 2"]["seeds"]} == {
        *more["ours"]["seeds"]
    } == {"0", "1"}
    for name, row in record["rows"].items():
        assert more[name] | {"seeds": {"0": more[name]["seeds"]["0"]}} == row
    assert more["wan"]["seeds"]["1"] != more["wan"]["seeds"]["0"]
    page = (out / "study.md").read_text(encoding="utf-8")
    assert "over seeds 0, 1." in page and page.count("| wan 2 |") == 2 + 2 + 1 + 1 + 2

    # other weights, where nothing is left to be computed
    before_page = (out / "study.json").stat().st_mtime_ns
    build_of("AutoencoderKLWan", seed=1).save_pretrained(tmp_path / "wan")
    with pytest.raises(SystemExit):
        main(longer)
    assert f"row wan: {tmp_path / 'wan'} is not what it was when" in capsys.readouterr().err
    assert (out / "study.json").stat().st_mtime_ns == before_page


def test_few_tflops_keep_two_digits():
    assert [tera(flops, 0) for flops in (12_345_678, 7_234_567_890_123)] == ["0.000012", "7.2"]
    assert [tera(flops, 0) for flops in (51_000_000_000_000, 1_234_000_000_000_000)] == ["51", "1,234"]
    assert [tera(flops, 1) for flops in (57_600_000_000_000, 7_200_000_000)] == ["57.6", "0.0072"]


def test_dearer_latents_have_fewer_steps_of_equal_flops(write):
    study = read_study(
        write(train_dit=shlex.join(command_line(STAGE_2, patch_size=None, max_train_steps=40)))
    )
    sizes = {field.name: 1 for field in dataclasses.fields(RowCost)} | {"autoencoder_class": "any"}
    costs = {name: RowCost(**sizes | {"dit_training_flops": count}) for name, count in COUNTS.items()}
    assert ends(study, costs) == {
        "ours": {"steps": 40, "flops": 40},
        "wan": {"steps": 40, "flops": 10},
    }
    halves = dataclasses.replace(study, points=(0.5, 1.0))
    assert points_of(halves, {"steps": 40, "flops": 10}) == [5, 10, 20, 40]
    assert points_of(halves, {"steps": 40, "flops": 21}) == [10, 21, 40]  # 20 is as good as 21


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"rows": {}}, "rows is an object with an autoencoder by each name"),
        ({"rows": {"a": {"autoencoder": "nowhere"}}, "base": "a"}, "nowhere is neither a JSON file nor"),
        ({"rows": {"a": {"vae": "b"}}}, "row a: .*unknown vae; its keys are autoencoder, patch_size"),
        ({"base": "magvit"}, "base 'magvit' is no row; there are ours, wan"),
        ({"points": [0.5]}, "points are above 0 and at most 1, the end"),
        ({"clips": 3}, "it has an unknown clips; its keys are rows, base"),
        ({"height": None}, "it has no height; its keys are rows, base"),
        ({"num_frames": "five"}, "num_frames must be a whole number, got 'five'"),
        ({"seeds": 0}, "seeds must be a list, each a whole number, got 0"),
        ({"seeds": ["a"]}, r"seeds\[0\] must be a whole number, got 'a'"),
        ({"seeds": []}, "seeds are one or more from 0 on"),
        ({"seeds": [0, -1]}, "seeds are one or more from 0 on"),
        ({"num_fvd_clips": "64"}, "num_fvd_clips must be a whole number"),
        ({"data": 5}, "data must be a word, got 5"),
        ({"num_inference_steps": 0}, "num_inference_steps is 1 or more, got 0"),
        ({"more_inference_steps": [10, 0]}, "more_inference_steps is 1 or more, got 0"),
        ({"guidance_scale": -1}, "guidance_scale is 0 or more, got -1"),
        ({"rows": {"real": {"autoencoder": "a"}}, "base": "real"}, "row 'real' is to be a folder"),
        ({"rows": {"real.json": {"autoencoder": "a"}}, "base": "real.json"}, "row 'real.json' is to be"),
        ({"rows": {"a/b": {"autoencoder": "a"}}, "base": "a/b"}, "row 'a/b' is to be a folder"),
        ({"rows": {"..": {"autoencoder": "a"}}, "base": ".."}, "row '..' is to be a folder"),
        ({"num_fvd_clips": 5}, "num_fvd_clips is from 2 to num_clips, 4, got 5"),
    ],
)
def test_what_is_no_study_is_refused(write, changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        read_study(write(**changes))


def test_a_class_that_can_not_take_part_is_refused_before_anything_is_trained(write, tmp_path, capsys):
    image = tmp_path / "image.json"
    image.write_text(json.dumps({"_class_name": "AutoencoderKL"}))
    rows = {"ours": {"autoencoder": str(tmp_path / "ours.json")}, "image": {"autoencoder": str(image)}}
    path = write(rows=rows)
    with pytest.raises(SystemExit):
        main(["study", str(path), "--out", str(tmp_path / "out")])
    assert "AutoencoderKL, which does not work on videos" in capsys.readouterr().err
    for name in rows:  # the cost of what is not in the plan may still change
        assert not (tmp_path / "out" / name).exists()
    with pytest.raises(SystemExit):
        main(["study", str(write()), "--out", str(tmp_path / "out"), "--rows", "ours", "waan"])
    assert "--rows waan is no row of" in capsys.readouterr().err


def test_the_flops_to_come_as_far_lie_between_points():
    cost = {"clips_per_step": 2, "dit_training_flops": 5, "dit_forward_flops": 1}

    def seed(*values):
        steps = (10, 100, 1000)
        return {
            str(n): {"sampled": {"25": {"accuracy": value, "kvd": -value}}}
            for n, value in zip(steps, values, strict=True)
        }

    row = {"cost": cost, "ends": {"steps": 1000, "flops": 1000}, "stage_1_flops": 10_000}
    row |= {"seeds": {"0": seed(0.2, 0.4, 0.8)}}
    for goal, steps in ((0.4, 100), (0.6, 100 * 10**0.5), (0.1, 10)):
        needed = flops_to_reach(row, row["seeds"]["0"], 25, "accuracy", goal)
        assert needed == pytest.approx(10 * steps)
    assert flops_to_reach(row, row["seeds"]["0"], 25, "kvd", -0.6) == pytest.approx(1000 * 10**0.5)
    assert flops_to_reach(row, row["seeds"]["0"], 25, "accuracy", 0.9) is None
    faster = row | {"seeds": {"0": seed(0.4, 0.8, 0.9)}, "stage_1_flops": 4_000}
    record = {"study": {"base": "a", "num_inference_steps": 25}, "rows": {"a": row, "b": faster}}
    assert times_the_flops(record, "b", "accuracy") == [pytest.approx(0.1)]
    assert times_the_flops(record, "b", "accuracy", with_stage_1=True) == [pytest.approx(5 / 20)]
    assert times_the_flops(record, "a", "kvd") == [pytest.approx(1.0)]
    for flops, value in ((50, None), (100, 0.2), (1000, 0.4), (1000 * 10**0.5, 0.6), (99_999, 0.8)):
        standing = value_at(row, row["seeds"]["0"], 25, "accuracy", flops)
        assert standing == (None if value is None else pytest.approx(value))
    assert cell([1.0, 3.0], 1) == "2.0 ± 1.4" and cell([1.0, None], 1) == "–" and cell([2.0], 0) == "2"
