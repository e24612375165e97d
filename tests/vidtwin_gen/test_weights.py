"""Published weights: found in the order that is promised, verified, read without running them."""

import hashlib
import json
import os
import pickle
import shutil
import sys
import time
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest

from autoencoder.loading import load_video_autoencoder
from autoencoder.model.vidtwin import AutoencoderVidTwin
from tests.builders.hub import running_hub
from vidtwin_gen import __main__ as program
from vidtwin_gen.models.pretrained import find_pretrained
from vidtwin_gen.weights import (
    HubFile,
    MissingWeightsError,
    PublishedWeights,
    cache_folder,
    model_folder,
    read_numpy_pickle,
    weights_sha256,
)

ARRAYS = {"a": {"b/c": np.arange(3.0), "d": np.ones((2, 2), dtype=np.float32)}}
CONTENT = pickle.dumps(ARRAYS)
REPO = "user/some-net"


def reach(monkeypatch, url):
    """The hub is at this address; huggingface_hub reads it from the environment only when it is imported."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def digest(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(autouse=True)
def bare_machine(tmp_path, monkeypatch):
    """Nothing is installed, cached or set, and the hub cannot be reached."""
    for name in ("SOME_NET_WEIGHTS", "SOME_NET_WEIGHTS_SHA256", "VIDTWIN_GEN_CACHE"):
        monkeypatch.delenv(name, raising=False)
    constants = huggingface_hub.constants
    reach(monkeypatch, "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def published(hub=None):
    install = "pip install some-net"
    return PublishedWeights(
        "SomeNet", "some_net", "weights/net.ckpt", digest(CONTENT), install, "SOME_NET_WEIGHTS", hub
    )


def hub_file(content=CONTENT, revision="0" * 40):
    return HubFile(REPO, revision, "sub/net_script.pt", digest(content))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "net.ckpt"
    path.write_bytes(CONTENT)
    return path


def test_arrays_are_read_and_their_names_joined(file):
    arrays = published().read(file)
    assert list(arrays) == ["a/b/c", "a/d"]
    np.testing.assert_array_equal(arrays["a/b/c"], [0, 1, 2])


@pytest.mark.parametrize("protocol", range(3, pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_are_read_however_they_were_pickled(protocol, tmp_path):
    """Python's own protocol is 4 up to 3.13, and 5, which names another function of NumPy, from 3.14 on."""
    path = tmp_path / "net.ckpt"
    path.write_bytes(pickle.dumps(ARRAYS | {"turned": ARRAYS["a"]["d"].T[::-1]}, protocol))
    arrays = read_numpy_pickle(path)
    assert list(arrays) == ["a/b/c", "a/d", "turned"]
    np.testing.assert_array_equal(arrays["a/b/c"], [0, 1, 2])
    np.testing.assert_array_equal(arrays["turned"], np.ones((2, 2)))


def test_each_place_rules_over_those_behind_it(file, tmp_path, monkeypatch):
    with running_hub() as hub:
        reach(monkeypatch, hub.url)
        folder = tmp_path / "pushed" / "sub"
        folder.mkdir(parents=True)
        (folder / "net_script.pt").write_bytes(CONTENT)
        weights = published(hub_file(revision=hub.put_folder(REPO, folder.parent)))
        fetched = weights.find()
        assert fetched.read_bytes() == CONTENT and fetched.is_relative_to(tmp_path / "home" / "hub")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert weights.find() == fetched  # kept

    package = tmp_path / "site" / "some_net"
    (package / "weights").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('wants JAX')")
    installed = package / "weights" / "net.ckpt"
    installed.write_bytes(CONTENT)
    monkeypatch.syspath_prepend(package.parent)
    assert weights.find() == installed and "some_net" not in sys.modules

    assert cache_folder() == tmp_path / "home" / "vidtwin-gen"
    cache_folder().mkdir()
    for name in ("net_script.pt", "net.ckpt"):
        cached = cache_folder() / name
        cached.touch()
        assert weights.find() == cached
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setenv("VIDTWIN_GEN_CACHE", str(elsewhere))
    assert weights.find() == installed
    (elsewhere / "net.ckpt").touch()
    assert weights.find() == elsewhere / "net.ckpt"

    monkeypatch.setenv(weights.variable, str(file))
    assert weights.find() == file
    given = tmp_path / "given.ckpt"
    given.touch()
    assert weights.find(given) == given


def test_a_path_that_was_named_is_not_replaced_by_another_place(tmp_path, monkeypatch):
    (tmp_path / "net.ckpt").write_bytes(CONTENT)
    monkeypatch.setenv("VIDTWIN_GEN_CACHE", str(tmp_path))
    with pytest.raises(MissingWeightsError, match=r"not at .*none\.ckpt.*pip install some-net"):
        published().find(tmp_path / "none.ckpt")
    monkeypatch.setenv("SOME_NET_WEIGHTS", str(tmp_path / "none.ckpt"))
    with pytest.raises(MissingWeightsError, match="SOME_NET_WEIGHTS"):
        published().find()


@pytest.mark.parametrize("offline", [False, True])
def test_missing_weights_say_all_that_can_be_done(offline, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    started = time.monotonic()
    with pytest.raises(MissingWeightsError) as told:
        published(hub_file()).find()
    assert time.monotonic() - started < 10  # hf_hub_download alone tries for half a minute
    for way in (
        "run `pip install some-net`",
        "SOME_NET_WEIGHTS",
        "net.ckpt or net_script.pt into",
        "user/some-net@",
    ):
        assert way in str(told.value)
    assert str(tmp_path / "home" / "vidtwin-gen") in str(told.value)
    assert ("offline" in str(told.value).lower()) == offline
    with pytest.raises(MissingWeightsError, match="run `pip install some-net`") as told:
        published().find()
    assert "hub" not in str(told.value)


def test_what_the_hub_gives_is_verified(tmp_path, monkeypatch):
    with running_hub() as hub:
        reach(monkeypatch, hub.url)
        (tmp_path / "pushed" / "sub").mkdir(parents=True)
        (tmp_path / "pushed" / "sub" / "net_script.pt").write_bytes(b"damaged on the way")
        weights = published(hub_file(b"whole", hub.put_folder(REPO, tmp_path / "pushed")))
        with pytest.raises(ValueError, match=f"{digest(b'damaged on the way')}, which is no published file"):
            weights.verified()


def test_another_file_is_refused_unless_its_digest_was_named(file, monkeypatch):
    other = pickle.dumps({"a": np.zeros(3)})
    file.write_bytes(other)
    weights = published(hub_file(b"script"))
    with pytest.raises(ValueError) as told:
        weights.read(file)
    for words in (str(file), digest(other), digest(CONTENT), digest(b"script"), "pip install", "_sha256"):
        assert words in str(told.value)
    assert weights.verified(file, digest(other).upper()).sha256 == digest(other)
    assert list(weights.read(file, digest(other))) == ["a"]
    monkeypatch.setenv("SOME_NET_WEIGHTS_SHA256", digest(other))
    assert list(weights.read(file)) == ["a"]
    file.write_bytes(CONTENT)  # known, and not the one that was named
    with pytest.raises(ValueError, match=f"has sha256 {digest(CONTENT)}, not {digest(other)}"):
        weights.read(file)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (pickle.dumps({"params": os.getcwd}), "refused posix.getcwd: this file may hold numpy arrays only"),
        (b"", "no pickle of numpy arrays alone"),
        (b"<html>not found</html>", "no pickle of numpy arrays alone"),
    ],
)
def test_what_is_no_pickle_of_arrays_is_refused(content, words, tmp_path):
    path = tmp_path / "evil.ckpt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        published().read(path, digest(content))


def test_an_autoencoder_has_a_name_on_the_hub(tiny_latents, synthetic_root, tmp_path, monkeypatch, capsys):
    """Fetched once, alone of its pipeline, and then read out of the cache."""
    files = shutil.copytree(tiny_latents.vae_dir, tmp_path / "pushed" / "vae").parent
    for extra in ("vae/model.fp16.safetensors", "transformer/model.safetensors", "model.safetensors"):
        (files / extra).parent.mkdir(exist_ok=True)
        (files / extra).write_bytes(b"gigabytes")
    with running_hub() as hub:
        reach(monkeypatch, hub.url)
        hub.put_folder("user/pipeline", files)
        load_video_autoencoder("user/pipeline/vae")
        fetched = [path.name for path in (tmp_path / "home").rglob("snapshots/*/*/*")]
        assert sorted(fetched) == ["config.json", "diffusion_pytorch_model.safetensors"]
        with pytest.raises(ValueError, match="no config.json of user/pipeline .*OWNER/NAME/vae"):
            model_folder("user/pipeline")  # a pipeline's root
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert weights_sha256("user/pipeline/vae") == weights_sha256(tiny_latents.vae_dir)
    data = shutil.copytree(synthetic_root / "PulsingRing", tmp_path / "videos" / "PulsingRing").parent
    flags = ["--data", str(data), "--stride", "2", "--num_workers", "0", "--out", str(tmp_path / "latents")]
    program.main(["encode", "--vae", "user/pipeline/vae", *flags])
    about = json.loads((tmp_path / "latents" / "latents.json").read_text())
    assert about["autoencoder_sha256"] == tiny_latents.metadata["autoencoder_sha256"]
    capsys.readouterr()
    with pytest.raises(SystemExit):
        program.main(["encode", "--vae", "user/none", *flags])
    (told,) = capsys.readouterr().err.splitlines()
    for word in ("user/none is no folder", "hf download user/none", "HF_HOME", "HF_HUB_OFFLINE=1"):
        assert word in told


def test_a_path_is_no_name_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for path in ("runs/vae", "/nowhere/vae", "./runs/vae", "../runs/vae", "../modle", "~/vae", "vae"):
        assert model_folder(path) == Path(path)
        with pytest.raises(MissingWeightsError, match="no name of a model on the hub"):
            find_pretrained(path, example="owner/name")
        with pytest.raises(ValueError, match="is no file; expected"):
            AutoencoderVidTwin.from_released(path)
