"""Published weights in a package's file: found, verified, read without running it."""

import hashlib
import os
import pickle
import sys

import numpy as np
import pytest

from vidtwin_gen.weights import MissingWeightsError, PackagedWeights

ARRAYS = {"a": {"b/c": np.arange(3.0), "d": np.ones((2, 2), dtype=np.float32)}}


@pytest.fixture
def weights(monkeypatch):
    """Of a package that is not installed."""
    monkeypatch.delenv("SOME_NET_WEIGHTS", raising=False)
    sha256 = hashlib.sha256(pickle.dumps(ARRAYS)).hexdigest()
    install = "pip install some-net"
    return PackagedWeights("SomeNet", "some_net", "weights/net.ckpt", sha256, install, "SOME_NET_WEIGHTS")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "net.ckpt"
    path.write_bytes(pickle.dumps(ARRAYS))
    return path


def test_arrays_are_read_and_their_names_joined(weights, file):
    arrays = weights.read(file)
    assert list(arrays) == ["a/b/c", "a/d"]
    np.testing.assert_array_equal(arrays["a/b/c"], [0, 1, 2])


def test_the_package_is_located_and_not_imported(weights, file, tmp_path, monkeypatch):
    package = tmp_path / "site" / "some_net"
    (package / "weights").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('wants JAX')")
    file.rename(package / "weights" / "net.ckpt")
    monkeypatch.syspath_prepend(package.parent)
    assert weights.find() == package / "weights" / "net.ckpt"
    assert "some_net" not in sys.modules


def test_the_path_given_rules_over_the_variable(weights, file, tmp_path, monkeypatch):
    monkeypatch.setenv(weights.variable, str(tmp_path / "net.ckpt"))
    assert weights.find() == file
    given = tmp_path / "given.ckpt"
    given.touch()
    assert weights.find(given) == given


def test_missing_weights_say_what_to_install(weights, tmp_path, monkeypatch):
    with pytest.raises(MissingWeightsError, match="SomeNet weights are wanted: run `pip install some-net`"):
        weights.find()
    with pytest.raises(MissingWeightsError, match="pip install some-net"):
        weights.find(tmp_path / "none.ckpt")
    monkeypatch.setenv(weights.variable, str(tmp_path / "none.ckpt"))
    with pytest.raises(MissingWeightsError, match="SOME_NET_WEIGHTS"):
        weights.find()


def test_another_file_is_refused_by_its_hash(weights, file):
    file.write_bytes(pickle.dumps({"a": np.zeros(3)}))
    with pytest.raises(ValueError, match=r"net\.ckpt has sha256 .*pip install some-net"):
        weights.read(file)


def test_a_pickle_that_names_code_is_refused(tmp_path):
    path = tmp_path / "evil.ckpt"
    path.write_bytes(pickle.dumps({"params": os.getcwd}))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(pickle.UnpicklingError, match="numpy arrays only"):
        PackagedWeights("SomeNet", "some_net", "net.ckpt", sha256, "pip", "SOME_NET_WEIGHTS").read(path)
