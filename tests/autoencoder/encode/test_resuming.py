"""Encoding goes on after a kill, also in several processes, and overwrites nothing."""

import json
import multiprocessing
import shutil
import signal
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.builders.folders import contents
from tests.builders.processes import command_in_processes, run_in_processes
from tests.builders.runs import encode, encode_command
from vidtwin_gen import __main__ as commands
from vidtwin_gen.data.latent_dataset import load_latents
from vidtwin_gen.files import owned_folder

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def killed(videos, vae_dir, tmp_path):
    """A folder of part of the latents: the command that makes it was killed after its second file."""
    argv = encode_command(vae_dir, videos, tmp_path / "killed")
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


def test_files_of_another_plan_are_refused(killed, videos, vae_dir, capsys):
    partial = killed.with_name("killed.partial")
    stray = partial / "data/train-00000-of-00001.parquet"
    stray.write_bytes(b"rows")
    with (partial / "added-0.jsonl").open("a") as log:
        log.write(
            json.dumps([f"data/{stray.name}", {"split": "train", "num_bytes": 4, "skipped": []}]) + "\n"
        )
    with pytest.raises(SystemExit):
        commands.main(encode_command(vae_dir, videos, killed))
    assert "train-00000-of-00001.parquet, of a version that divided clips" in capsys.readouterr().err
    assert stray.exists() and not killed.exists()


@pytest.mark.parametrize("says_draws", [True, False])
def test_a_file_of_other_draws_is_refused_under_the_name_of_one_of_ours(
    says_draws, killed, videos, vae_dir, capsys
):
    """As versions that divided clips otherwise had it, which did not say which draws."""
    log = killed.with_name("killed.partial") / "added-0.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    if says_draws:
        lines[0][1]["draws"][1] += 1
    else:
        for _, about in lines:
            about.pop("draws")
        lines[0][1]["num_rows"] += 1
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(SystemExit):
        commands.main(encode_command(vae_dir, videos, killed))
    assert f"holds {lines[0][0]}, of a version that divided clips otherwise" in capsys.readouterr().err


def test_what_an_earlier_version_finished_goes_on(killed, videos, vae_dir, capsys):
    log = killed.with_name("killed.partial") / "added-0.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for _, about in lines:
        about.pop("draws")
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    commands.main(encode_command(vae_dir, videos, killed))
    assert len(load_latents(killed)[0]["train"]) > 0


def test_after_a_kill_the_same_command_goes_on(killed, videos, vae_dir, tmp_path, capsys):
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
    fewer = Path(shutil.copytree(videos, tmp_path / "fewer"))
    next((fewer / "PulsingRing").glob("*_g03_*")).unlink()
    for flags, message in (
        ({"seed": 1}, "--seed was 0, is 1"),
        ({"dtype": "float16"}, "--dtype was 'float32', is 'float16'"),
        ({"windows_per_video": 2}, "--windows_per_video was 3, is 2"),
        ({"vae": other_vae}, "--vae was "),
        ({"data": fewer}, "--data was "),
    ):
        with pytest.raises(SystemExit):
            commands.main(encode_command(vae_dir, videos, killed, **flags))
        assert f"files of another command ({message}" in capsys.readouterr().err
    with owned_folder(partial, ""), pytest.raises(SystemExit):
        commands.main(encode_command(vae_dir, videos, killed))
    assert "killed.partial is in use by process" in capsys.readouterr().err

    commands.main(encode_command(vae_dir, videos, killed))
    for name, stat in before.items():
        now = (killed / name).stat()
        assert (now.st_ino, now.st_mtime_ns, now.st_size) == (stat.st_ino, stat.st_mtime_ns, stat.st_size)
    assert not partial.exists()
    (tmp_path / "whole").mkdir()
    commands.main(encode_command(vae_dir, videos, tmp_path / "whole/killed"))
    assert contents(killed) == contents(tmp_path / "whole/killed")
    done = contents(killed)
    commands.main(encode_command(vae_dir, videos, killed, batch_size=2))
    assert f"{killed} is done already" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        commands.main(encode_command(vae_dir, videos, killed, seed=1))
    assert "of another command (--seed was 0, is 1)" in capsys.readouterr().err
    assert contents(killed) == done
    assert 2 <= len(before) < len(contents(killed)) - 2


def test_processes_share_the_files(killed, videos, vae_dir, tmp_path):
    """Also of a folder that one process has begun.."""
    command_in_processes(2, commands.main, encode_command(vae_dir, videos, killed))
    (tmp_path / "whole").mkdir()
    commands.main(encode_command(vae_dir, videos, tmp_path / "whole/killed"))
    shared, alone = contents(killed), contents(tmp_path / "whole/killed")
    assert list(shared.values()) == list(alone.values())


def test_too_many_bad_videos_for_one_process_end_all(videos, vae_dir, tmp_path):
    for path in videos.glob("*/*_g0[1-5]_*"):
        path.write_bytes(b"")
    run_in_processes(2, is_refused, vae_dir, videos, tmp_path / "latents")


def is_refused(rank, vae_dir, data, out):
    with pytest.raises(ValueError if rank == 0 else SystemExit):
        encode(vae_dir, data, out, windows_per_file=1)


def test_a_finished_file_that_changed_is_made_again(videos, vae_dir, tmp_path, monkeypatch, capsys):
    options = {"windows_per_file": 5, "dtype": "float16"}
    encode(vae_dir, videos, tmp_path / "whole" / "out", **options)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("autoencoder.encode.dataset.write_card", interrupt)
    with pytest.raises(KeyboardInterrupt):
        encode(vae_dir, videos, tmp_path / "out", **options)
    monkeypatch.undo()
    changed = tmp_path / "out.partial/data/train-00001-of-00004.parquet"
    changed.write_bytes(changed.read_bytes()[:-1])
    encode(vae_dir, videos, tmp_path / "out", **options)
    assert f"{changed} is not as it was" in capsys.readouterr().out
    assert contents(tmp_path / "out") == contents(tmp_path / "whole" / "out")


def test_what_is_there_is_not_overwritten(videos, vae_dir, tmp_path):
    for name in ("out", "other.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="is there already"):
        encode(vae_dir, videos, tmp_path / "out")
    with pytest.raises(ValueError, match=r"other.partial holds thesis.tex and no partial.json"):
        encode(vae_dir, videos, tmp_path / "other")
    assert (tmp_path / "out/thesis.tex").exists() and (tmp_path / "other.partial/thesis.tex").exists()
