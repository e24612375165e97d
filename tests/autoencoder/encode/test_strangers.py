"""That strangers can use the latents: by the card, by `datasets`, without this package or a network."""

import argparse
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
import torch

from autoencoder import __main__ as autoencoder_commands
from autoencoder.encode.card import command_line
from autoencoder.encode.dataset import encode_dataset
from autoencoder.encode.flags import EncodeFlags
from tests.builders.autoencoders import build_of
from tests.builders.runs import encode, encode_flags
from vidtwin_gen.data.latent_dataset import load_latents
from vidtwin_gen.data.synthetic import CLASSES
from vidtwin_gen.flags import add_flags


def test_nothing_leaves_the_machine(videos, vae_dir, tmp_path, monkeypatch):
    """Not even a count of what was loaded, which `datasets` would send and not miss."""
    asked = []

    def refuse(self, address):
        asked.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **_: refuse(None, address))
    encode(vae_dir, videos, tmp_path / "latents")
    load_latents(tmp_path / "latents")
    assert asked == []


def test_the_cache_of_datasets_may_be_read_only(videos, vae_dir, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "file" / "cache")
    assert encode(vae_dir, videos, tmp_path / "latents")["num_rows"]["train"]


# An environment without this package: no path or import hook of its installation, no current directory.
ELSEWHERE = """
import sys
sys.path += {paths!r}
OURS = {ours!r}
class Absent:
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] in OURS:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent)
exec(compile(open("example.py").read(), "example.py", "exec"))
assert not OURS & {{name.split(".")[0] for name in sys.modules}}
"""


def run_example(folder):
    """The example of the card in `latents/` there, where this package is not; what it printed."""
    card = (folder / "latents/README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```$", card, re.MULTILINE | re.DOTALL)
    assert len(example.splitlines()) <= 40
    (folder / "example.py").write_text(example)
    ours = {"vidtwin_gen", "autoencoder", "pipelines", "eval", "train_vae", "train_dit"}
    script = ELSEWHERE.format(paths=[path for path in sys.path if path.endswith("-packages")], ours=ours)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script],
        cwd=folder,
        env={"HF_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "sample.gif").stat().st_size
    return done.stdout


@pytest.mark.slow
def test_strangers_train_on_them_by_the_card(tiny_latents, tmp_path):
    shutil.copytree(tiny_latents.latents_dir, tmp_path / "latents", ignore=lambda *_: [".cache"])
    export = ["export", "--vae", str(tiny_latents.vae_dir), "--out", str(tmp_path / "autoencoder")]
    autoencoder_commands.main(export)
    said = run_example(tmp_path)
    losses = [float(line.split()[-1]) for line in said.splitlines() if line.startswith("epoch")]
    assert len(losses) == 20 and losses[-1] < 0.7 * losses[0]


@pytest.mark.slow
def test_strangers_decode_with_an_autoencoder_of_diffusers_as_it_is(videos, tmp_path):
    vae = build_of("AutoencoderKLWan")
    vae.save_pretrained(tmp_path / "autoencoder")
    size = {"num_frames": 5, "height": 16, "width": 16}
    encode_dataset(vae, encode_flags(tmp_path / "autoencoder", videos, tmp_path / "latents", **size))
    run_example(tmp_path)


def test_the_card_is_what_datasets_reads(tiny_latents, videos, vae_dir, tmp_path):
    folder = Path(shutil.copytree(tiny_latents.latents_dir, tmp_path / "a", ignore=lambda *_: [".cache"]))
    read = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    ours, metadata = load_latents(tiny_latents.latents_dir)
    assert {split: part.to_dict() for split, part in read.items()} == {
        split: part.to_dict() for split, part in ours.items()
    }
    assert read["train"].features["label"] == datasets.ClassLabel(names=list(CLASSES))
    card = (folder / "README.md").read_text(encoding="utf-8")
    offset = 0
    for grid in metadata["layout"]:
        shape, size = "×".join(map(str, grid["shape"])), grid["channels"]
        numbers = size * torch.Size(grid["shape"]).numel()
        assert (
            f"| {grid['name']} | {', '.join(grid['axes'])} | {shape} | {size} | {numbers} | {offset} |"
            in card
        )
        offset += numbers
    for mean, std in zip(metadata["latents_mean"], metadata["latents_std"], strict=True):
        assert f"| {mean:.5g} | {std:.5g} |" in card
    command = re.search(r"^python -m vidtwin_gen (encode .*)$", card, re.MULTILINE)[1].split()
    parser = argparse.ArgumentParser()
    add_flags(parser, EncodeFlags)
    args = vars(parser.parse_args(command[1:]))
    assert {name: args[name] for name in ("stride", "flip", "seed", "dtype")} == {
        name: metadata[name] for name in ("stride", "flip", "seed", "dtype")
    }
    assert "num_frames" not in command  # ours has one size, others are asked for it
    other = command_line(metadata | {"autoencoder_class": "AutoencoderKLWan"}, "me/wan/vae", "me/ucf", "out")
    args = vars(parser.parse_args(other.split()[4:]))
    assert (args["vae"], args["data"]) == ("me/wan/vae", "me/ucf")
    assert {name: args[name] for name in ("num_frames", "height", "width")} == {
        name: metadata[name] for name in ("num_frames", "height", "width")
    }
    # encoded again in its place: `datasets`, which has the first in its cache, sees that it is another
    shutil.rmtree(folder)
    encode(vae_dir, videos, folder, windows_per_video=2)
    again = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"), split="train")
    assert again["path"][:] == load_latents(folder)[0]["train"]["path"][:]
