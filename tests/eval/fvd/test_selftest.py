"""`python -m eval selftest`: the metrics' numbers are the originals', and it would notice otherwise."""

import hashlib
import json
import math
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from autoencoder.losses.perceptual import LPIPS_WEIGHTS
from eval.__main__ import main
from eval.fvd.i3d import I3D_WEIGHTS
from eval.fvd.selftest import Check, drawn_clip, i3d_checks
from vidtwin_gen.weights import MissingWeightsError

GOLDEN = Path(__file__).parents[4] / "shared" / "golden" / "metrics.safetensors"


def has(weights):
    try:
        return weights.find().is_file()
    except MissingWeightsError:
        return False


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """Of all checks that can be made here."""
    out = tmp_path_factory.mktemp("selftest") / "selftest.json"
    main(["selftest", "--out", str(out), *(["--golden", str(GOLDEN)] if GOLDEN.is_file() else [])])
    return json.loads(out.read_text())


def made(record, part):
    return {check["name"]: check["passed"] for check in record["checks"] if check["name"].startswith(part)}


def test_the_distance_is_the_closed_form(record):
    assert list(made(record, "Fréchet").values()) == [True] * 3


def test_i3d_is_the_original(record):
    if not has(I3D_WEIGHTS):
        pytest.skip("no I3D weights here")
    assert len(made(record, "I3D")) == 4 + GOLDEN.is_file() and all(made(record, "I3D").values())
    assert I3D_WEIGHTS.sha256 in record["weights_sha256"].values()


def test_lpips_is_the_original(record):
    if not has(LPIPS_WEIGHTS):
        pytest.skip("no LPIPS weights here")
    assert len(made(record, "LPIPS")) == 2 + GOLDEN.is_file() and all(made(record, "LPIPS").values())
    assert record["weights_sha256"]["lpips-vgg"] == LPIPS_WEIGHTS.sha256


def test_altered_weights_fail_with_status_1(tmp_path, capsys):
    if not has(LPIPS_WEIGHTS):
        pytest.skip("no LPIPS weights here")
    arrays = LPIPS_WEIGHTS.read()
    arrays["VGG16_0/Conv_6/kernel"] *= -1
    path, out = tmp_path / "altered.ckpt", tmp_path / "selftest.json"
    path.write_bytes(pickle.dumps(arrays))
    flags = ["selftest", "--only", "lpips", "--out", str(out), "--lpips_weights", str(path)]
    for told in ([], ["--lpips_weights_sha256", hashlib.sha256(path.read_bytes()).hexdigest()]):
        with pytest.raises(SystemExit) as ended:
            main([*flags, *told])
        assert ended.value.code == 1
        assert not json.loads(out.read_text())["passed"]
    refused, measured = capsys.readouterr().out.split("0 passed, 1 failed, 0 left out\n")
    assert "FAIL  lpips: weights" in refused and "no published file" in refused
    assert "FAIL  LPIPS, drawn frames: off by" in measured and "pass  LPIPS, equal frames" in measured


def test_absent_weights_are_told_and_are_no_failure(tmp_path, capsys):
    out = tmp_path / "selftest.json"
    main(["selftest", "--only", "i3d", "--weights", str(tmp_path / "none.ckpt"), "--out", str(out)])
    told = capsys.readouterr().out
    assert "skip  i3d: weights: the I3D weights are not at" in told
    assert "0 failed, 1 left out: what was left out is not known to be right" in told
    assert json.loads(out.read_text())["passed"] is None
    main(["selftest", "--only", "frechet", "--out", str(out)])
    assert json.loads(out.read_text())["passed"] is True


class Constant:
    """Gives one vector, whatever the clip."""

    name, dim, resize, weights_sha256 = "constant", 400, "none", "none"
    min_frames, max_frames = 1, None

    def __init__(self, value):
        self.value = value

    def __call__(self, clips):
        return torch.full((len(clips), self.dim), self.value)


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_another_network_fails_every_check_of_i3d(value):
    checks = list(i3d_checks(Constant(value)))
    assert [check.verdict for check in checks] == ["FAIL"] * 4
    assert Check("", None, "").verdict == "skip"


def test_the_drawn_clip_is_the_one_that_was_pinned():
    digest = hashlib.sha256(drawn_clip().numpy().tobytes()).hexdigest()
    assert digest == "fa109933c15335e197322c9b12c59cb4c4dfd07a1105c462140929ac91f2d64a"


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "is no file; leave it out"), ({"clip_uint8": torch.zeros(1)}, "lacks i3d_logits, lpips_vgg")],
)
def test_another_golden_file_is_refused(content, words, tmp_path, capsys):
    path = tmp_path / "golden.safetensors"
    if content:
        save_file(content, path)
    with pytest.raises(SystemExit) as ended:
        main(["selftest", "--golden", str(path)])
    assert ended.value.code == 2 and words in " ".join(capsys.readouterr().err.split())
