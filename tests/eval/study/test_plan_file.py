"""What a study may become, and what it may not."""

import json
import shutil

import pytest

from eval.__main__ import main
from eval.study.plan import read_study
from eval.study.plan_file import PLAN, as_json, check_sources, check_trainings, extended, sources_of
from tests.builders.autoencoders import build_of
from vidtwin_gen.files import write_json


@pytest.fixture
def saved(tmp_path):
    """Rows by name, all of the saved Wan."""
    return lambda *names: {name: {"autoencoder": str(tmp_path / "wan")} for name in names}


def test_rows_are_added_and_a_command_of_some_rows_may_know_fewer(write, tmp_path, saved):
    path = tmp_path / "plan.json"
    two, three = ({"rows": saved(*names), "base": "a"} for names in (("a", "b"), ("a", "b", "c")))
    before = extended(path, {}, read_study(write(**two)), some_rows=False)
    assert before == as_json(read_study(write(**two)))
    more = extended(path, before, read_study(write(**three)), some_rows=True)
    assert list(more["rows"]) == ["a", "b", "c"] and more | {"rows": before["rows"]} == before
    assert extended(path, more, read_study(write(**two)), some_rows=True) == more
    other = extended(path, more, read_study(write(rows=saved("d", "a"), base="a")), some_rows=True)
    assert list(other["rows"]) == ["a", "b", "c", "d"]
    with pytest.raises(ValueError, match=r"has the row c, which is not in the study's JSON: put it back"):
        extended(path, more, read_study(write(**two)), some_rows=False)


def test_seeds_are_added_at_the_end(write, tmp_path):
    path = tmp_path / "plan.json"
    before = as_json(read_study(write(seeds=[3, 1])))
    longer = extended(path, before, read_study(write(seeds=[3, 1, 2])), some_rows=False)
    assert longer == before | {"seeds": [3, 1, 2]}
    assert extended(path, longer, read_study(write(seeds=[3, 1])), some_rows=True) == longer
    for seeds, some_rows in (([3, 1], False), ([3, 2, 1], True), ([1, 3, 2], False), ([1], True)):
        with pytest.raises(ValueError, match=r"of another study \(seeds differ\): name another --out"):
            extended(path, longer, read_study(write(seeds=seeds)), some_rows=some_rows)


@pytest.mark.parametrize("some_rows", [True, False])
def test_what_has_begun_does_not_change(write, tmp_path, saved, some_rows):
    before = as_json(read_study(write(rows=saved("a", "b"), base="a")))
    rows = saved("a", "b", "c")
    rows["b"]["patch_size"] = 2
    study = read_study(write(rows=rows, base="c", num_clips=6))
    with pytest.raises(ValueError, match=r"another study \(base, num_clips, row b differ\): name another"):
        extended(tmp_path / "plan.json", before, study, some_rows=some_rows)


def test_weights_a_class_and_videos_that_have_changed_are_refused(write, tmp_path, few_videos):
    data, path = tmp_path / "videos", tmp_path / "plan.json"
    shutil.copytree(few_videos, data)
    study = read_study(write(data=str(data)))
    before = as_json(study)
    digests = check_sources(path, before, study, sources_of(study))  # of a version without digests: as it is
    assert list(digests) == ["ours", "wan", "data"]
    before["sha256"] = digests
    assert check_sources(path, before, study, sources_of(study)) == digests

    ours, video = tmp_path / "ours.json", next(data.rglob("v_*"))
    text, content = ours.read_text(), video.read_bytes()
    ours.write_text(json.dumps(json.loads(text) | {"num_queries": 4}))
    with pytest.raises(ValueError, match=r"row ours: .*ours\.json is not what it was when .*another --out"):
        check_sources(path, before, study, sources_of(study))
    ours.write_text(text)
    video.write_bytes(content + b"\0")
    with pytest.raises(ValueError, match=r"data: .*videos is not what it was when .*plan\.json was written"):
        check_sources(path, before, study, sources_of(study))
    video.write_bytes(content)
    build_of("AutoencoderKLWan", seed=1).save_pretrained(tmp_path / "wan")
    with pytest.raises(ValueError, match=r"row wan: .*wan is not what it was"):
        check_sources(path, before, study, sources_of(study))

    del digests["wan"]  # as if the row were new
    assert check_sources(path, before, study, sources_of(study))["wan"] == sources_of(study)["wan"]


def test_a_preset_that_is_another_one_now_is_refused(write, tmp_path):
    """As after an upgrade: rows that are still to be trained would be trained otherwise."""
    path, study = tmp_path / "plan.json", read_study(write())
    before = as_json(study)
    before["trainings"] = check_trainings(path, before, study)
    assert set(before["trainings"]["ours"]) == {"train_vae", "train_dit"}
    assert set(before["trainings"]["wan"]) == {"train_dit"}
    assert check_trainings(path, before, study) == before["trainings"]
    younger = before["trainings"]["wan"]["train_dit"]
    rate = younger.pop("learning_rate")  # a flag that plan.json is older than
    assert check_trainings(path, before, study)["wan"]["train_dit"]["learning_rate"] == rate
    younger["learning_rate"] = 2 * rate
    with pytest.raises(ValueError, match=r"row wan: train_dit is not .*--learning_rate was .*another --out"):
        check_trainings(path, before, study)


@pytest.mark.slow
def test_the_command_compares_and_a_dry_run_writes_nothing(write, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["study", str(write()), "--out", str(out), "--dry_run"]
    main(words)
    assert not (out / PLAN).exists()
    study = read_study(tmp_path / "study.json")
    write_json(out / PLAN, as_json(study))
    main(words)
    assert json.loads((out / PLAN).read_text()) == as_json(study)
    write_json(out / PLAN, as_json(study) | {"sha256": sources_of(study)})
    (tmp_path / "ours.json").write_text((tmp_path / "ours.json").read_text() + "\n")
    with pytest.raises(SystemExit):
        main(words)
    assert f"row ours: {tmp_path / 'ours.json'} is not what it was" in capsys.readouterr().err


def test_flags_of_stage_1_are_refused_before_anything_is_trained(write, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["study", str(write(train_vae="--optimiser muon")), "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2 and "--optimiser" in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("*.json"))
