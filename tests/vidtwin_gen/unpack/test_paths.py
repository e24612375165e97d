"""Rows of a stranger's data set name no file of this machine; those of one's own do."""

import datasets
import pytest
from huggingface_hub import constants

from vidtwin_gen.unpack.folder import unpack
from vidtwin_gen.unpack.paths import source_of

HUB = "somebody/clips"


@pytest.fixture
def secret(tmp_path, monkeypatch):
    """A file of the user's, and the folder beside it as the current one."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "id_rsa").write_bytes(b"PRIVATE KEY")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "notes.txt").write_bytes(b"PRIVATE NOTES")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "home" / "id_rsa"


@pytest.mark.parametrize(
    "path",
    [
        "{secret}",
        "file://{secret}",
        "FILE://{secret}",
        "local://{secret}",
        "file:{secret}",
        "a://{secret}",
        "../home/id_rsa",
        "notes.txt",
        "zip://a.mp4::{secret}",
        "zip://a.mp4::file://{secret}",
        "https://host/a.mp4::file://{secret}",
        "simplecache::file://{secret}",
        "zip://{secret}",
        "{cache}/downloads/../../home/id_rsa",
        "{cache}/downloads/link",
        "{hub}/datasets--somebody--else/snapshots/0/a.mp4",
    ],
)
def test_a_data_set_of_the_hub_names_no_file_of_this_machine(path, secret, tmp_path, monkeypatch):
    (tmp_path / "cache" / "downloads").mkdir(parents=True)
    (tmp_path / "cache" / "downloads" / "link").symlink_to(secret)
    given = path.format(secret=secret, cache=tmp_path / "cache", hub=tmp_path / "hub")
    rows = datasets.DatasetDict(train=datasets.Dataset.from_dict({"video": [given], "label": ["a"]}))
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: rows)  # the hub's answer
    with pytest.raises(ValueError, match=f"{HUB}: row 0 of train names .*hf download {HUB} ") as refusal:
        unpack(HUB, str(tmp_path / "out"))
    assert given in str(refusal.value) and not (tmp_path / "out").exists()
    assert b"PRIVATE" not in b"".join(p.read_bytes() for p in tmp_path.glob("partial-out/*/*"))


def test_a_data_set_of_the_hub_names_urls_and_what_was_downloaded_of_it(secret, tmp_path):
    for url in (
        "https://host/a.mp4",
        "http://host/a.mp4?b=1",
        "hf://datasets/somebody/clips@0/a.mp4",
        "zip://a/b.mp4::hf://datasets/somebody/clips@0/a.zip",
    ):
        assert source_of(url, HUB, "row 0") == url
    repository = tmp_path / "hub" / "datasets--somebody--clips"
    blob, link = repository / "blobs" / "0123", repository / "snapshots" / "0" / "a.mp4"
    extracted = tmp_path / "cache" / "downloads" / "extracted" / "0" / "a.mp4"
    for file in (blob, link, extracted):
        file.parent.mkdir(parents=True)
    shared = tmp_path / "hub" / "blobs" / "ab" / "4567"  # one store for all repositories
    shared.parent.mkdir(parents=True)
    link.symlink_to("../../blobs/0123")
    link.with_name("b.mp4").symlink_to("../../blobs/89")
    (blob.parent / "89").symlink_to("../../blobs/ab/4567")
    assert source_of(str(link), HUB, "row 0") == blob
    assert source_of(str(link.with_name("b.mp4")), HUB, "row 0") == shared
    assert source_of(str(extracted), HUB, "row 0") == extracted


def test_a_local_data_set_names_files_anywhere_and_urls(secret, tmp_path):
    own, here = tmp_path / "data" / "clips" / "a.mp4", tmp_path / "here" / "b.mp4"
    own.parent.mkdir(parents=True)
    own.touch(), here.touch()
    for given in (str(secret), str(own)):
        assert str(source_of(given, str(tmp_path / "data"), "row 0")) == given
    for given in ("clips/a.mp4", "../data/clips/a.mp4"):
        assert source_of(given, str(tmp_path / "data"), "row 0").resolve() == own
    assert source_of("b.mp4", str(tmp_path / "data"), "row 0").resolve() == here
    for url in ("https://host/a.mp4", f"file://{own}", "s3://bucket/a.mp4", "zip://a.mp4::s3://bucket/a.zip"):
        assert source_of(url, str(tmp_path / "data"), "row 0") == url
