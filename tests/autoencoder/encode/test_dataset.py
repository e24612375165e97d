"""Encoding: what stands in a folder of latents, the same after a kill, and that strangers can use it."""

import argparse
import hashlib
import json
import math
import multiprocessing
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
import torch
from pyarrow import parquet
from safetensors.torch import load_file, save_file

from autoencoder import __main__ as autoencoder_commands
from autoencoder.encode.card import command_line as command_line_of
from autoencoder.encode.dataset import _bad_videos, encode_dataset, plan_files
from autoencoder.encode.flags import EncodeFlags
from autoencoder.model.vidtwin import AutoencoderVidTwin
from pipelines.trained import load_inputs
from tests.builders.autoencoders import build_of
from tests.builders.processes import run_in_processes
from tests.builders.runs import command_line
from vidtwin_gen import __main__ as commands
from vidtwin_gen.data.latent_dataset import load_latents
from vidtwin_gen.data.synthetic import CLASSES
from vidtwin_gen.data.ucf101 import build_index
from vidtwin_gen.data.video import read_clip, read_frames
from vidtwin_gen.data.writing import write_video
from vidtwin_gen.files import owned_folder
from vidtwin_gen.flags import add_flags
from vidtwin_gen.training.dit_config import DiTConfig

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def vae_dir(tiny_vae_run, tmp_path):
    """A copy of the tiny autoencoder, to be changed."""
    return Path(shutil.copytree(tiny_vae_run.output_dir / "autoencoder", tmp_path / "autoencoder"))


@pytest.fixture
def few_videos(few_videos, tmp_path):
    """A copy, to be changed."""
    return Path(shutil.copytree(few_videos, tmp_path / "few"))


def encode(vae_dir, data, out, **options):
    vae = AutoencoderVidTwin.from_pretrained(vae_dir)
    return encode_dataset(vae, encode_flags(vae_dir, data, out, **options))


def encode_flags(vae_dir, data, out, **options):
    places = {"vae": str(vae_dir), "data": str(data), "out": str(out)}
    return EncodeFlags(**places, **{"stride": 2, "num_workers": 0, **options})


def contents(folder):
    """Digest of each file by its path, what loading has unpacked left out."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".cache" not in path.parts
    }


def test_rows_and_metadata(tiny_latents, synthetic_root):
    rows, metadata = load_latents(tiny_latents.latents_dir)
    assert metadata == tiny_latents.metadata
    assert metadata["num_rows"] == {"train": 144, "test": 56}
    assert {split: len(part) for split, part in rows.items()} == metadata["num_rows"]
    for split, part in rows.items():
        assert set(part["split"]) == {split} and set(part["flipped"]) == {False}
        assert part.features["label"].names == list(CLASSES) == metadata["class_names"]
        row = part[len(part) // 2]
        assert Path(row["path"]).parent.name == row["class_name"] == metadata["class_names"][row["label"]]
        assert (synthetic_root / row["path"]).is_file()
        assert row["group"] == re.match(r".+_g\d\d", Path(row["path"]).name)[0]
    assert metadata["fps"] == 12.5  # every second frame of 25 per second
    assert metadata["bad_videos"] == []
    assert set(contents(tiny_latents.latents_dir)) == {*metadata["files"], "latents.json", "README.md"}
    assert [p.name for p in tiny_latents.latents_dir.parent.glob("*.partial")] == []
    home = str(synthetic_root.parent)
    assert not [
        p
        for p in tiny_latents.latents_dir.glob("*.*")
        if p.is_file() and home in p.read_text(encoding="utf-8")
    ]


@torch.no_grad()
def test_rows_are_what_the_autoencoder_says(few_videos, vae_dir, tmp_path):
    """Of every window where it starts, as it is and mirrored; and it is an input, left as it is."""
    before = contents(vae_dir)
    encode(vae_dir, few_videos, tmp_path / "latents", windows_per_video=2, flip=True)
    assert contents(vae_dir) == before
    vae = AutoencoderVidTwin.from_pretrained(vae_dir)
    rows, _ = load_latents(tmp_path / "latents")
    starts = set()
    for part in rows.values():
        part = part.with_format("torch")
        clips = torch.stack(
            [
                read_clip(few_videos / row["path"], 4, size=16, stride=2, start=int(row["start"])).flip(
                    [-1] if row["flipped"] else []
                )
                for row in part
            ]
        )
        posterior = vae.encode(clips).latent_dist
        torch.testing.assert_close(part["mean"][:], posterior.mean, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(part["logvar"][:], posterior.logvar, atol=1e-5, rtol=1e-5)
        starts |= {(row["split"], int(row["start"])) for row in part}
    assert len(starts) > 5 and {start for split, start in starts if split == "test"} == {4}  # of 16 frames
    train = rows["train"]
    assert train["flipped"][:] == [False, True] * (len(train) // 2) and set(rows["test"]["flipped"]) == {
        False
    }
    for name in ("path", "start"):
        assert train[name][::2] == train[name][1::2]
    assert len(train) == 4 * len(set(train["path"])) == 4 * (20 - len(rows["test"]))


def test_seed_and_flip_and_batches_move_what_they_should(few_videos, vae_dir, tmp_path):
    plain = encode(vae_dir, few_videos, tmp_path / "plain", windows_per_video=2)
    encode(vae_dir, few_videos, tmp_path / "same", windows_per_video=2)
    encode(vae_dir, few_videos, tmp_path / "other", windows_per_video=2, seed=1)
    encode(vae_dir, few_videos, tmp_path / "mirrored", windows_per_video=2, flip=True)
    encode(vae_dir, few_videos, tmp_path / "batches", windows_per_video=2, batch_size=3, windows_per_file=7)
    half = encode(vae_dir, few_videos, tmp_path / "half", windows_per_video=2, dtype="float16")
    written, again = (
        {name: data for name, data in contents(tmp_path / out).items() if name.startswith("data/")}
        for out in ("plain", "same")
    )
    assert written == again
    assert len(written) == 4  # more than 32 windows of training videos, fewer than 16 of the other ones
    names = ("plain", "other", "mirrored", "batches", "half")
    rows = {name: load_latents(tmp_path / name)[0] for name in names}
    windows = {
        name: [(row["path"], row["start"]) for row in part["train"] if not row["flipped"]]
        for name, part in rows.items()
    }
    assert (
        windows["plain"] == windows["mirrored"] == windows["batches"] == windows["half"] != windows["other"]
    )
    assert rows["plain"]["test"]["mean"][:] == rows["other"]["test"]["mean"][:]
    arrays = {name: part["train"].with_format("numpy")["mean"][:] for name, part in rows.items()}
    torch.testing.assert_close(torch.tensor(arrays["batches"]), torch.tensor(arrays["plain"]))
    assert rows["half"]["train"].features["mean"] == datasets.List(datasets.Value("float16"), length=56)
    error = abs(torch.tensor(arrays["half"]).float() - torch.tensor(arrays["plain"]))
    assert 0 < error.max() <= 2**-11 * abs(torch.tensor(arrays["plain"])).max()
    assert half["latents_std"] == pytest.approx(plain["latents_std"], rel=1e-3)


def encode_command(vae_dir, videos, out, **changes):
    flags = {"vae": vae_dir, "data": videos, "out": out, "stride": 2, "num_workers": 0, "batch_size": 1}
    flags |= {"windows_per_video": 3, "windows_per_file": 3}
    return ["encode", *command_line(flags, **changes), "--flip"]


@pytest.fixture
def killed(few_videos, vae_dir, tmp_path):
    """A folder of part of the latents: the command that makes it was killed after its second file."""
    argv = encode_command(vae_dir, few_videos, tmp_path / "killed")
    log = tmp_path / "killed.partial/added-0.jsonl"
    process = multiprocessing.get_context("fork").Process(target=commands.main, args=(argv,))
    process.start()
    while not (log.is_file() and log.read_text().count("\n") >= 2):
        assert process.is_alive()
        time.sleep(0.002)
    process.kill()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    return tmp_path / "killed"


@pytest.mark.parametrize("num_windows", [1, 16, 17, 350, 5000, 13_320, 200_000])
@pytest.mark.parametrize("most", [3, 512])
def test_a_split_is_many_files_of_whole_batches(num_windows, most):
    files = plan_files("train", num_windows, most)
    *whole, last = files.values()
    assert [draw for of_file in files.values() for draw in of_file] == list(range(num_windows))
    assert {len(of_file) for of_file in whole} | {len(last)} <= {*range(most + 1)}
    if most == 512:
        assert all(len(of_file) % 16 == 0 for of_file in whole)
        assert len(files) >= min(8, math.ceil(num_windows / 16))  # shared by eight processes
        assert len(files) <= max(16, math.ceil(num_windows / 512))


def test_files_of_another_plan_are_refused(killed, few_videos, vae_dir, capsys):
    partial = killed.with_name("killed.partial")
    stray = partial / "data/train-00000-of-00001.parquet"
    stray.write_bytes(b"rows")
    with (partial / "added-0.jsonl").open("a") as log:
        log.write(
            json.dumps([f"data/{stray.name}", {"split": "train", "num_bytes": 4, "skipped": []}]) + "\n"
        )
    with pytest.raises(SystemExit):
        commands.main(encode_command(vae_dir, few_videos, killed))
    assert "train-00000-of-00001.parquet, of a version that divided clips" in capsys.readouterr().err
    assert stray.exists() and not killed.exists()


def test_after_a_kill_the_same_command_goes_on(killed, few_videos, vae_dir, tmp_path, capsys):
    partial = tmp_path / "killed.partial"
    (partial / "data/train-00000-of-00002.parquet").write_text("of another command, or never put on record")
    finished = dict(map(json.loads, (partial / "added-0.jsonl").read_text().splitlines()))
    before = {name: (partial / name).stat() for name in finished}

    with pytest.raises(ValueError, match=r"killed.partial is an unfinished encoding: repeat the command"):
        load_latents(killed)
    with pytest.raises(ValueError, match=r"killed.partial is an unfinished encoding: repeat the command"):
        load_latents(partial)
    weights = load_file(vae_dir / WEIGHTS)
    other_vae = Path(shutil.copytree(vae_dir, tmp_path / "other_vae"))
    save_file({name: value + 1e-3 for name, value in weights.items()}, other_vae / WEIGHTS)
    fewer = Path(shutil.copytree(few_videos, tmp_path / "fewer"))
    next((fewer / "PulsingRing").glob("*_g03_*")).unlink()
    for flags, message in (
        ({"seed": 1}, "--seed was 0, is 1"),
        ({"dtype": "float16"}, "--dtype was 'float32', is 'float16'"),
        ({"windows_per_video": 2}, "--windows_per_video was 3, is 2"),
        ({"vae": other_vae}, "--vae was "),
        ({"data": fewer}, "--data was "),
    ):
        with pytest.raises(SystemExit):
            commands.main(encode_command(vae_dir, few_videos, killed, **flags))
        assert f"files of another command ({message}" in capsys.readouterr().err
    with owned_folder(partial, ""), pytest.raises(SystemExit):
        commands.main(encode_command(vae_dir, few_videos, killed))
    assert "killed.partial is in use by process" in capsys.readouterr().err

    commands.main(encode_command(vae_dir, few_videos, killed))
    for name, stat in before.items():
        now = (killed / name).stat()
        assert (now.st_ino, now.st_mtime_ns, now.st_size) == (stat.st_ino, stat.st_mtime_ns, stat.st_size)
    assert not partial.exists()
    (tmp_path / "whole").mkdir()
    commands.main(encode_command(vae_dir, few_videos, tmp_path / "whole/killed"))
    assert contents(killed) == contents(tmp_path / "whole/killed")
    done = contents(killed)
    commands.main(encode_command(vae_dir, few_videos, killed, batch_size=2))
    assert f"{killed} is done already" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        commands.main(encode_command(vae_dir, few_videos, killed, seed=1))
    assert "of another command (--seed was 0, is 1)" in capsys.readouterr().err
    assert contents(killed) == done
    assert 2 <= len(before) < len(contents(killed)) - 2


def test_an_autoencoder_in_bfloat16(few_videos, vae_dir, tmp_path, capsys):
    """Its latents are stored as float32 all the same."""
    argv = encode_command(vae_dir, few_videos, tmp_path / "half", windows_per_video=1)
    commands.main([*argv, "--vae_dtype", "bfloat16"])
    rows, metadata = load_latents(tmp_path / "half")
    assert metadata["vae_dtype"] == metadata["command"]["vae_dtype"] == "bfloat16"
    assert "--vae_dtype bfloat16" in (tmp_path / "half" / "README.md").read_text()
    commands.main(encode_command(vae_dir, few_videos, tmp_path / "exact", windows_per_video=1))
    exact, of_exact = load_latents(tmp_path / "exact")
    assert "vae_dtype" not in of_exact and "vae_dtype" not in of_exact["command"]
    half, exact = (torch.tensor(split["train"]["mean"]) for split in (rows, exact))
    assert rows["train"].features["mean"].feature.dtype == "float32"
    assert 0 < (half - exact).norm() < 0.05 * exact.norm()
    with pytest.raises(SystemExit):
        commands.main(argv)
    assert "of another command (--vae_dtype was 'bfloat16', is None)" in capsys.readouterr().err


def test_processes_share_the_files(killed, few_videos, vae_dir, tmp_path):
    """Also of a folder that one process has begun.."""
    run_in_processes(2, in_process, encode_command(vae_dir, few_videos, killed))
    (tmp_path / "whole").mkdir()
    commands.main(encode_command(vae_dir, few_videos, tmp_path / "whole/killed"))
    shared, alone = contents(killed), contents(tmp_path / "whole/killed")
    assert list(shared.values()) == list(alone.values())


def in_process(rank, argv):
    commands.main(argv)


def test_too_many_bad_videos_for_one_process_end_all(few_videos, vae_dir, tmp_path):
    for video in few_videos.glob("*/*_g0[1-5]_*"):
        video.write_bytes(b"")
    run_in_processes(2, is_refused, vae_dir, few_videos, tmp_path / "latents")


def is_refused(rank, vae_dir, data, out):
    with pytest.raises(ValueError if rank == 0 else SystemExit):
        encode(vae_dir, data, out, windows_per_file=1)


def test_a_finished_file_that_changed_is_made_again(few_videos, vae_dir, tmp_path, monkeypatch, capsys):
    options = {"windows_per_file": 5, "dtype": "float16"}
    encode(vae_dir, few_videos, tmp_path / "whole" / "out", **options)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("autoencoder.encode.dataset.write_card", interrupt)
    with pytest.raises(KeyboardInterrupt):
        encode(vae_dir, few_videos, tmp_path / "out", **options)
    monkeypatch.undo()
    changed = tmp_path / "out.partial/data/train-00001-of-00004.parquet"
    changed.write_bytes(changed.read_bytes()[:-1])
    encode(vae_dir, few_videos, tmp_path / "out", **options)
    assert f"{changed} is not as it was" in capsys.readouterr().out
    assert contents(tmp_path / "out") == contents(tmp_path / "whole" / "out")


@pytest.mark.parametrize("kind", ["damaged", "dangling link"])
def test_a_bad_video_is_left_out_and_named(kind, few_videos, vae_dir, tmp_path):
    bad = few_videos / "PulsingRing" / "v_PulsingRing_g00_c01.avi"  # another, the very first
    if kind == "damaged":
        bad.write_bytes(b"RIFF, but not for long")
    else:
        bad.symlink_to("nowhere.avi")
    # a limit that is passed first, raised when the command is repeated
    with pytest.raises(ValueError, match="too many bad files"):
        encode(vae_dir, few_videos, tmp_path / "latents", windows_per_file=10)
    assert not (tmp_path / "latents").exists()
    metadata = encode(vae_dir, few_videos, tmp_path / "latents", windows_per_file=10, max_bad_fraction=0.2)
    assert sum(metadata["num_rows"].values()) == 20
    (message,) = metadata["bad_videos"]
    assert bad.name in message and str(tmp_path) not in message
    rows, _ = load_latents(tmp_path / "latents")
    paths = [path for part in rows.values() for path in part["path"]]
    assert len(set(paths)) == 20 and f"PulsingRing/{bad.name}" not in paths
    split = message.partition(":")[0]
    assert f": 1 of {len(set(rows[split]['path'])) + 1} videos are bad" in message


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_file_whose_videos_are_all_bad_is_none(split, few_videos, vae_dir, tmp_path, monkeypatch):
    """`datasets` reads no parquet file without rows."""
    last = Path(build_index(few_videos, split=split)["path"][-1])
    last.write_bytes(b"")
    options = {"windows_per_file": 1, "max_bad_fraction": 0.4}
    monkeypatch.setattr("autoencoder.encode.dataset.WINDOWS", 1)
    metadata = encode(vae_dir, few_videos, tmp_path / "latents", **options)
    assert all(file["num_rows"] == 1 for file in metadata["files"].values())
    assert {f"data/{path.name}" for path in (tmp_path / "latents/data").iterdir()} == {*metadata["files"]}
    rows, _ = load_latents(tmp_path / "latents")
    assert len(rows["train"]) + len(rows["test"]) == len(metadata["files"]) == 19
    # as versions before left it
    empty = next(iter(metadata["files"])).replace("00000-of", "99999-of")
    table = parquet.read_table(tmp_path / "latents" / next(iter(metadata["files"])))
    parquet.write_table(table.slice(0, 0), tmp_path / "latents" / empty)
    size = (tmp_path / "latents" / empty).stat().st_size
    metadata["files"][empty] = {"num_rows": 0, "num_bytes": size}
    (tmp_path / "latents" / "latents.json").write_text(json.dumps(metadata))
    assert len(load_latents(tmp_path / "latents")[0]["train"]) == len(rows["train"])


def test_videos_of_several_rates_are_told(few_videos, vae_dir, tmp_path, caplog):
    """The first of a data set is not what all are like."""
    first = min(few_videos.rglob("*.*"))
    write_video(first, read_frames(first, 16, stride=1).frames, fps=240)
    metadata = encode(vae_dir, few_videos, tmp_path / "latents")
    assert metadata["fps"] == 12.5
    (warning,) = [
        record.getMessage() for record in caplog.records if "frames a second" in record.getMessage()
    ]
    assert "have 25 (95%), 240 (5%) frames a second" in warning and "12.5 is recorded" in warning
    caplog.clear()
    assert encode(vae_dir, few_videos, tmp_path / "latents") == metadata  # is done
    encode(vae_dir, few_videos, tmp_path / "by_rate", stride=None, fps=8.0, max_bad_fraction=0.5)
    assert "frames a second" not in caplog.text


def test_a_video_counts_once_among_the_bad_however_many_windows_it_gives():
    files = plan_files("train", 40, 512)
    folder = SimpleNamespace(files={name: {"skipped": [(3, "3.avi: bad")]} for name in files})
    counter = _bad_videos(folder, files, 20, encode_flags("vae", "data", "out", windows_per_video=2))
    assert counter.summary() == "1 of 20 videos are bad: 3.avi: bad"


def test_nothing_leaves_the_machine(few_videos, vae_dir, tmp_path, monkeypatch):
    """Not even a count of what was loaded, which `datasets` would send and not miss."""
    asked = []

    def refuse(self, address):
        asked.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **_: refuse(None, address))
    encode(vae_dir, few_videos, tmp_path / "latents")
    load_latents(tmp_path / "latents")
    assert asked == []


def test_a_class_that_is_gone_is_told_and_not_trained_on(few_videos, vae_dir, tmp_path, capsys):
    for path in (few_videos / "PulsingRing").iterdir():
        path.write_bytes(b"")
    flags = {"vae": vae_dir, "data": few_videos, "out": tmp_path / "latents", "stride": 2}
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    commands.main(["encode", *words, "--num_workers", "0", "--max_bad_fraction", "1"])
    assert "no train rows of PulsingRing: all of their videos" in capsys.readouterr().out
    config = {"output_dir": "run", "vae": str(vae_dir), "latents": str(tmp_path / "latents")}
    with pytest.raises(ValueError, match="no training rows of PulsingRing.*--allow_empty_classes"):
        load_inputs(DiTConfig(**config))
    load_inputs(DiTConfig(**config, allow_empty_classes=True))


def test_too_many_bad_videos_stop_it(few_videos, vae_dir, tmp_path):
    before = (vae_dir / "config.json").read_text()
    for path in sorted(few_videos.glob("*/*_g0[1-5]_*")):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="too many bad files"):
        encode(vae_dir, few_videos, tmp_path / "latents")
    assert not (tmp_path / "latents").exists()
    assert (vae_dir / "config.json").read_text() == before


def test_what_is_there_is_not_overwritten(few_videos, vae_dir, tmp_path):
    for name in ("out", "other.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="is there already"):
        encode(vae_dir, few_videos, tmp_path / "out")
    with pytest.raises(ValueError, match=r"other.partial holds thesis.tex and no partial.json"):
        encode(vae_dir, few_videos, tmp_path / "other")
    assert (tmp_path / "out/thesis.tex").exists() and (tmp_path / "other.partial/thesis.tex").exists()


def test_a_split_without_videos_is_refused_before_the_other_is_encoded(few_videos, vae_dir, tmp_path):
    lists = few_videos / "ucfTrainTestlist"
    lists.mkdir()
    names = [f"{path.relative_to(few_videos)} 1" for path in few_videos.glob("*/*.avi")]
    (lists / "trainlist01.txt").write_text("\n".join(names))
    (lists / "testlist01.txt").write_text("")
    with pytest.raises(ValueError, match="none of its .* videos falls into split 'test'"):
        encode(vae_dir, few_videos, tmp_path / "latents")
    assert not (tmp_path / "latents.partial").exists()


@pytest.mark.parametrize(
    ("scale", "options", "message"),
    [
        (1e6, {"dtype": "float16"}, r"_c01.avi: its latents reach .*e\+.*, past float16's 65504"),
        (float("nan"), {}, "gives latents that are NaN or infinite"),
        (1, {"windows_per_video": 0}, "--windows_per_video must be at least 1, got 0"),
        (1, {"windows_per_file": 0}, "--windows_per_file must be at least 1, got 0"),
        (1, {"dtype": "bfloat16"}, "--dtype is float16 or float32, got 'bfloat16'"),
        (1, {"decoder": "opencv"}, "--decoder is auto, decord, pyav or torchcodec, got 'opencv'"),
    ],
)
def test_what_cannot_be_stored_is_refused(few_videos, vae_dir, tmp_path, scale, options, message):
    vae = AutoencoderVidTwin.from_pretrained(vae_dir)
    with torch.no_grad():
        for parameter in vae.dynamics_encoder.parameters():
            parameter.mul_(scale)
    with pytest.raises(ValueError, match=message):
        encode_dataset(vae, encode_flags(vae_dir, few_videos, tmp_path / "out", **options))


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


def test_the_cache_of_datasets_may_be_read_only(few_videos, vae_dir, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "file" / "cache")
    assert encode(vae_dir, few_videos, tmp_path / "latents")["num_rows"]["train"]


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


def test_strangers_train_on_them_by_the_card(tiny_latents, tmp_path):
    shutil.copytree(tiny_latents.latents_dir, tmp_path / "latents", ignore=lambda *_: [".cache"])
    export = ["export", "--vae", str(tiny_latents.vae_dir), "--out", str(tmp_path / "autoencoder")]
    autoencoder_commands.main(export)
    said = run_example(tmp_path)
    losses = [float(line.split()[-1]) for line in said.splitlines() if line.startswith("epoch")]
    assert len(losses) == 20 and losses[-1] < 0.7 * losses[0]


def test_strangers_decode_with_an_autoencoder_of_diffusers_as_it_is(few_videos, tmp_path):
    vae = build_of("AutoencoderKLWan")
    vae.save_pretrained(tmp_path / "autoencoder")
    size = {"num_frames": 5, "height": 16, "width": 16}
    encode_dataset(vae, encode_flags(tmp_path / "autoencoder", few_videos, tmp_path / "latents", **size))
    run_example(tmp_path)


def test_the_card_is_what_datasets_reads(tiny_latents, few_videos, vae_dir, tmp_path):
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
    other = command_line_of(
        metadata | {"autoencoder_class": "AutoencoderKLWan"}, "me/wan/vae", "me/ucf", "out"
    )
    args = vars(parser.parse_args(other.split()[4:]))
    assert (args["vae"], args["data"]) == ("me/wan/vae", "me/ucf")
    assert {name: args[name] for name in ("num_frames", "height", "width")} == {
        name: metadata[name] for name in ("num_frames", "height", "width")
    }
    # encoded again in its place: `datasets`, which has the first in its cache, sees that it is another
    shutil.rmtree(folder)
    encode(vae_dir, few_videos, folder, windows_per_video=2)
    again = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"), split="train")
    assert again["path"][:] == load_latents(folder)[0]["train"]["path"][:]
