"""What stands in a folder of latents, and what is left out or refused."""

import json
import math
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
import torch
from pyarrow import parquet

from autoencoder.encode.dataset import encode_dataset
from autoencoder.encode.split_files import _bad_videos, plan_files
from autoencoder.model.vidtwin import AutoencoderVidTwin
from pipelines.trained import load_inputs
from tests.builders.folders import contents
from tests.builders.runs import encode, encode_command, encode_flags
from vidtwin_gen import __main__ as commands
from vidtwin_gen.data.latent_dataset import load_latents
from vidtwin_gen.data.synthetic import CLASSES
from vidtwin_gen.data.ucf101 import build_index
from vidtwin_gen.data.video import read_clip, read_frames
from vidtwin_gen.data.writing import write_video
from vidtwin_gen.training.dit_config import DiTConfig


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
    written = {name for name in contents(tiny_latents.latents_dir) if not name.startswith(".cache/")}
    assert written == {*metadata["files"], "latents.json", "README.md"}
    assert [p.name for p in tiny_latents.latents_dir.parent.glob("*.partial")] == []
    home = str(synthetic_root.parent)
    assert not [
        p
        for p in tiny_latents.latents_dir.glob("*.*")
        if p.is_file() and home in p.read_text(encoding="utf-8")
    ]


@torch.no_grad()
def test_rows_are_what_the_autoencoder_says(videos, vae_dir, tmp_path):
    """Of every window where it starts, as it is and mirrored; and it is an input, left as it is."""
    before = contents(vae_dir)
    out = tmp_path / "of run[1]"  # to the library `datasets` a pattern
    encode(vae_dir, videos, out, windows_per_video=2, flip=True)
    assert contents(vae_dir) == before
    vae = AutoencoderVidTwin.from_pretrained(vae_dir)
    rows, _ = load_latents(out)
    starts = set()
    for part in rows.values():
        part = part.with_format("torch")
        clips = torch.stack(
            [
                read_clip(videos / row["path"], 4, size=16, stride=2, start=int(row["start"])).flip(
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


def test_seed_and_flip_and_batches_move_what_they_should(videos, vae_dir, tmp_path):
    plain = encode(vae_dir, videos, tmp_path / "plain", windows_per_video=2)
    encode(vae_dir, videos, tmp_path / "same", windows_per_video=2)
    encode(vae_dir, videos, tmp_path / "other", windows_per_video=2, seed=1)
    encode(vae_dir, videos, tmp_path / "mirrored", windows_per_video=2, flip=True)
    encode(vae_dir, videos, tmp_path / "batches", windows_per_video=2, batch_size=3, windows_per_file=7)
    half = encode(vae_dir, videos, tmp_path / "half", windows_per_video=2, dtype="float16")
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


def test_an_autoencoder_in_bfloat16(videos, vae_dir, tmp_path, capsys):
    """Its latents are stored as float32 all the same."""
    argv = encode_command(vae_dir, videos, tmp_path / "half", windows_per_video=1)
    commands.main([*argv, "--vae_dtype", "bfloat16"])
    rows, metadata = load_latents(tmp_path / "half")
    assert metadata["vae_dtype"] == metadata["command"]["vae_dtype"] == "bfloat16"
    assert "--vae_dtype bfloat16" in (tmp_path / "half" / "README.md").read_text()
    commands.main(encode_command(vae_dir, videos, tmp_path / "exact", windows_per_video=1))
    exact, of_exact = load_latents(tmp_path / "exact")
    assert "vae_dtype" not in of_exact and "vae_dtype" not in of_exact["command"]
    half, exact = (torch.tensor(split["train"]["mean"]) for split in (rows, exact))
    assert rows["train"].features["mean"].feature.dtype == "float32"
    assert 0 < (half - exact).norm() < 0.05 * exact.norm()
    with pytest.raises(SystemExit):
        commands.main(argv)
    assert "of another command (--vae_dtype was 'bfloat16', is None)" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["damaged", "dangling link"])
def test_a_bad_video_is_left_out_and_named(kind, videos, vae_dir, tmp_path):
    bad = videos / "PulsingRing" / "v_PulsingRing_g00_c01.avi"  # another, the very first
    if kind == "damaged":
        bad.write_bytes(b"RIFF, but not for long")
    else:
        bad.symlink_to("nowhere.avi")
    # a limit that is passed first, raised when the command is repeated
    with pytest.raises(ValueError, match="too many bad files"):
        encode(vae_dir, videos, tmp_path / "latents", windows_per_file=10)
    assert not (tmp_path / "latents").exists()
    metadata = encode(vae_dir, videos, tmp_path / "latents", windows_per_file=10, max_bad_fraction=0.2)
    assert sum(metadata["num_rows"].values()) == 20
    (message,) = metadata["bad_videos"]
    assert bad.name in message and str(tmp_path) not in message
    rows, _ = load_latents(tmp_path / "latents")
    paths = [path for part in rows.values() for path in part["path"]]
    assert len(set(paths)) == 20 and f"PulsingRing/{bad.name}" not in paths
    split = message.partition(":")[0]
    assert f": 1 of {len(set(rows[split]['path'])) + 1} videos are bad" in message


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_file_whose_videos_are_all_bad_is_none(split, videos, vae_dir, tmp_path, monkeypatch):
    """`datasets` reads no parquet file without rows."""
    last = Path(build_index(videos, split=split)["path"][-1])
    last.write_bytes(b"")
    options = {"windows_per_file": 1, "max_bad_fraction": 0.4}
    monkeypatch.setattr("autoencoder.encode.split_files.WINDOWS", 1)
    metadata = encode(vae_dir, videos, tmp_path / "latents", **options)
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


def test_videos_of_several_rates_are_told(videos, vae_dir, tmp_path, caplog):
    """The first of a data set is not what all are like."""
    first = min(videos.rglob("*.*"))
    write_video(first, read_frames(first, 16, stride=1).frames, fps=240)
    metadata = encode(vae_dir, videos, tmp_path / "latents")
    assert metadata["fps"] == 12.5
    (warning,) = [
        record.getMessage() for record in caplog.records if "frames a second" in record.getMessage()
    ]
    assert "have 25 (95%), 240 (5%) frames a second" in warning and "12.5 is recorded" in warning
    caplog.clear()
    assert encode(vae_dir, videos, tmp_path / "latents") == metadata  # is done
    encode(vae_dir, videos, tmp_path / "by_rate", stride=None, fps=8.0, max_bad_fraction=0.5)
    assert "frames a second" not in caplog.text


def test_a_video_counts_once_among_the_bad_however_many_windows_it_gives():
    files = plan_files("train", 40, 512)
    folder = SimpleNamespace(files={name: {"skipped": [(3, "3.avi: bad")]} for name in files})
    counter = _bad_videos(folder, files, 20, encode_flags("vae", "data", "out", windows_per_video=2))
    assert counter.summary() == "1 of 20 videos are bad: 3.avi: bad"


def test_a_class_that_is_gone_is_told_and_not_trained_on(videos, vae_dir, tmp_path, capsys):
    for path in (videos / "PulsingRing").iterdir():
        path.write_bytes(b"")
    flags = {"vae": vae_dir, "data": videos, "out": tmp_path / "latents", "stride": 2}
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    commands.main(["encode", *words, "--num_workers", "0", "--max_bad_fraction", "1"])
    assert "no train rows of PulsingRing: all of their videos" in capsys.readouterr().out
    config = {"output_dir": "run", "vae": str(vae_dir), "latents": str(tmp_path / "latents")}
    with pytest.raises(ValueError, match="no training rows of PulsingRing.*--allow_empty_classes"):
        load_inputs(DiTConfig(**config))
    load_inputs(DiTConfig(**config, allow_empty_classes=True))


def test_neighbours_that_are_bad_are_left_out_however_many_they_are(videos, vae_dir, tmp_path):
    """More than a training would try in a row, and among the first hundred more than their share of all."""
    (videos / "Empty").mkdir()
    for number in range(140):
        (videos / "Empty" / f"{number}.avi").touch()
    numbers = {split: len(build_index(videos, split=split)) for split in ("train", "test")}
    with pytest.raises(ValueError, match=r"too many bad files \(limit 5%"):
        encode(vae_dir, videos, tmp_path / "latents")
    metadata = encode(vae_dir, videos, tmp_path / "latents", max_bad_fraction=0.95)
    assert sum(metadata["num_rows"].values()) == sum(numbers.values()) - 140 == 20
    assert "--max_bad_fraction 0.95" in (tmp_path / "latents" / "README.md").read_text()


def test_a_finished_folder_that_misses_a_file_is_not_called_whole(tiny_latents, synthetic_root, tmp_path):
    folder = Path(shutil.copytree(tiny_latents.latents_dir, tmp_path / "latents"))
    next(folder.glob("data/test-*")).unlink()
    with pytest.raises(ValueError, match=r"test-00\d+-of-.* is missing; .*remove it and encode again"):
        encode(tiny_latents.vae_dir, synthetic_root, folder)


def test_too_many_bad_videos_stop_it(videos, vae_dir, tmp_path):
    before = (vae_dir / "config.json").read_text()
    for path in sorted(videos.glob("*/*_g0[1-5]_*")):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="too many bad files"):
        encode(vae_dir, videos, tmp_path / "latents")
    assert not (tmp_path / "latents").exists()
    assert (vae_dir / "config.json").read_text() == before


def test_a_split_without_videos_is_refused_before_the_other_is_encoded(videos, vae_dir, tmp_path):
    lists = videos / "ucfTrainTestlist"
    lists.mkdir()
    names = [f"{path.relative_to(videos)} 1" for path in videos.glob("*/*.avi")]
    (lists / "trainlist01.txt").write_text("\n".join(names))
    (lists / "testlist01.txt").write_text("")
    with pytest.raises(ValueError, match="none of its .* videos falls into split 'test'"):
        encode(vae_dir, videos, tmp_path / "latents")
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
def test_what_cannot_be_stored_is_refused(videos, vae_dir, tmp_path, scale, options, message):
    vae = AutoencoderVidTwin.from_pretrained(vae_dir)
    with torch.no_grad():
        for parameter in vae.dynamics_encoder.parameters():
            parameter.mul_(scale)
    with pytest.raises(ValueError, match=message):
        encode_dataset(vae, encode_flags(vae_dir, videos, tmp_path / "out", **options))
