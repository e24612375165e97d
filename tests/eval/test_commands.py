"""`python -m eval`: what a wrong flag or path is answered, and at what cost."""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import vidtwin_gen.records as records
from eval.__main__ import VERBS, main
from tests.builders.autoencoders import build_autoencoder
from tests.builders.commands import refused, run, words_of
from vidtwin_gen.data.writing import write_video

ROOT = Path(__file__).parents[2]
HELP_AND_REFUSALS = """
import sys
from eval.__main__ import VERBS, main
for line in [["--help"], *([verb, "--help"] for verb in VERBS), ["recon", "--vae", "none"], ["fvd", "--x"]]:
    try:
        main(line)
    except SystemExit as stopped:
        assert stopped.code == (0 if "--help" in line else 2), line
    else:
        raise AssertionError(line)
large = {"torch", "numpy", "diffusers", "transformers", "datasets"} & sys.modules.keys()
assert not large, large
"""


@pytest.fixture(scope="module")
def vae_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eval") / "vae"
    build_autoencoder().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of each of two classes."""
    root = tmp_path_factory.mktemp("videos")
    for name in ("Left", "Right"):
        write_video(root / name / f"{name}.mp4", torch.zeros(3, 6, 16, 16), fps=8)
    return root


def test_help_and_refusals_import_nothing_large() -> None:
    subprocess.run([sys.executable, "-c", HELP_AND_REFUSALS], cwd=ROOT, check=True, timeout=240)


@pytest.mark.parametrize(
    ("verb", "flags", "words"),
    [
        ("recon", {"data": "{data}", "vae": "{empty}"}, ("--vae", "config.json", "train_vae")),
        ("recon", {"data": "{data}", "vae": "owner/name"}, ("--vae owner/name", "config.json", "train_vae")),
        ("recon", {"data": "{none}", "vae": "{vae}"}, ("--data", "{none}", "python -m vidtwin_gen data")),
        ("recon", {"data": "{empty}", "vae": "{vae}"}, ("{empty}", "<root>/<class>/<video>")),
        ("recon", {"data": "{data}", "vae": "{vae}", "gif": "a.png"}, ("--gif", "a.png", ".gif")),
        ("recon", {"vae": "{vae}", "videos": "{empty}"}, ("{empty}", "holds no video", ".mp4")),
        ("recon", {"vae": "{vae}", "videos": "{none}"}, ("{none}", "neither a file nor a folder")),
        ("recon", {"vae": "{vae}"}, ("one of the arguments --data --videos is required",)),
        ("recon", {"data": "{data}", "vae": "{vae}", "videos": "{data}"}, ("--videos", "not allowed with")),
        ("recon", {"vae": "{vae}", "videos": "{data}", "split": "test"}, ("--split test", "leave it out")),
        ("recon", {"data": "{data}", "vae": "{vae}", "num_clips": 0}, ("--num_clips", "must be positive")),
        ("recon", {"data": "{data}", "vae": "{vae}", "per_clip": "a.txt"}, ("a.txt", ".csv or .jsonl")),
        ("recon", {"data": "{data}", "vae": "{vae}", "height": 64}, ("--height 64", "has 16")),
        ("diagnose", {"data": "{data}", "vae": "{empty}"}, ("--vae", "config.json", "train_vae")),
        ("diagnose", {"data": "{data}", "vae": "{vae}", "num_pairs": 0}, ("--num_pairs", "must be positive")),
        ("cost", {"vae": "{none}"}, ("--vae", "{none}", "config.json", "train_vae")),
        ("cost", {"pipeline": "{vae}"}, ("--pipeline", "{vae}", "model_index.json", "train_dit")),
        ("cost", {"patch_size": 0, "num_layers": 1}, ("--patch_size", "must be positive, got 0")),
        ("cost", {"tokenizers": "magvit"}, ("no tokenizer 'magvit'", "did you mean magvit-v2")),
        ("cost", {"tokenizers": "video-lavit"}, ("'video-lavit'", "no fixed number", "leave it out")),
        ("cost", {"measure": True, "dtype": "bfloat16"}, ("--measure", "float32", "--dtype bfloat16")),
        ("cost", {"dtype": "bfloat16"}, ("--dtype bfloat16", "counting knows float32 alone")),
        ("cost", {"batch_size": 0}, ("--batch_size", "must be positive")),
        ("cost", {"repeats": "x"}, ("--repeats", "a whole number, got 'x'")),
        ("cost", {"num_heads": -2}, ("--num_heads", "must be positive, got -2")),
        ("cost", {"vae": "{vae}", "markdown": "a.md"}, ("--markdown means nothing with --vae",)),
        ("cost", {"autoencoder": "small", "size": "S"}, ("--size means nothing with --autoencoder",)),
        ("cost", {"autoencoder": "small", "measure": True}, ("--measure means nothing with",)),
        ("cost", {"autoencoder": "small", "attention": "math"}, ("--attention means nothing with",)),
        ("cost", {"paper_size": True}, ("--paper_size means nothing without --pipeline",)),
        ("cost", {"tokenizers": "larp", "height": 64}, ("--height means nothing with --tokenizers",)),
        ("cost", {"skip_training": True}, ("--skip_training means nothing without",)),
        ("cost", {"device": "cuda"}, ("--device cuda", "no GPU")),
        ("cost", {"device": "meta"}, ("--device meta", "it computes nothing")),
        ("cost", {"device": "gpu"}, ("--device gpu", "device")),
        ("recon", {"vae": "{vae}", "data": "{data}", "device": "cuda"}, ("--device cuda", "no GPU")),
        ("recon", {"vae": "{vae}", "videos": "{data}", "fold": 2}, ("--fold 2", "leave it out")),
        ("recon", {"vae": "{vae}", "data": "{data}", "gif_clips": 0}, ("--gif_clips", "must be positive")),
        ("recon", {"vae": "{vae}", "data": "{data}", "fold": 0}, ("--fold", "invalid choice: ", "0")),
        ("sensitivity", {"data": "{data}", "figure": "a.pmg"}, ("--figure", "a.pmg", ".png or .svg")),
        ("sensitivity", {"data": "{data}", "num_clips": 1}, ("--num_clips 1", "takes 2 or more")),
        ("fvd", {"data": "{data}", "generated": "{none}"}, ("--generated", "{none}", "pipelines generate")),
        ("accuracy", {"data": "{data}", "generated": "{lone}"}, ("--generated", "generated.json")),
        (
            "accuracy",
            {"data": "{data}", "generated": "{data}", "real_gifs": "{lone}"},
            ("--real_gifs", "{lone} takes no files"),
        ),
        ("accuracy", {"data": "{none}", "generated": "{lone}"}, ("--data", "{none}", "no folder")),
    ],
)
def test_a_wrong_path_is_one_line_with_the_way_out(
    verb: str,
    flags: dict[str, Any],
    words: tuple[str, ...],
    vae_dir: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "lone.safetensors").touch()
    places = {"vae": vae_dir, "data": data, "empty": tmp_path / "empty"}
    places |= {"none": tmp_path / "none", "lone": tmp_path / "lone.safetensors"}
    filled = {name: v if v is True else str(v).format(**places) for name, v in flags.items()}
    last = refused(capsys, verb, tmp_path / "out.json", **filled)
    assert last.startswith(f"python -m eval {verb}: error: ")
    for word in words:
        # argparse writes "argument --vae: owner/name holds"
        assert word.format(**places).replace(" owner", ": owner") in last


@pytest.mark.parametrize(
    ("verb", "result"),
    [
        ("fvd", records.FVDResult),
        ("sensitivity", records.SensitivityResult),
        ("recon", records.ReconResult),
        ("diagnose", records.DiagnoseResult),
        ("accuracy", records.AccuracyResult),
        ("nearest", records.NearestResult),
        ("cost", records.CostResult),
        ("selftest", records.SelftestResult),
    ],
)
def test_out_is_a_json_file_and_replaces_only_results_of_its_own(
    verb: str, result: type[records.Result], tmp_path: Path
) -> None:
    (out,) = [field for field in dataclasses.fields(VERBS[verb].flags) if field.name == "out"]
    checked, path = out.metadata["argument"]["type"], tmp_path / "out.json"
    for text in (None, "", f'{{"kind": "{result.kind}", "of": "an earlier version"}}'):
        if text is not None:
            path.write_text(text)
        assert checked(str(path)) == path
    for other in ('{"kind": "generated"}', '{"_class_name": "AutoencoderVidTwin"}', "[]", "no JSON", "\0"):
        path.write_text(other)
        with pytest.raises(argparse.ArgumentTypeError, match=r"out\.json is there already and is nothing"):
            checked(str(path))
    with pytest.raises(argparse.ArgumentTypeError, match=r"does not end in \.json"):
        checked(str(tmp_path / "clips.safetensors"))


def test_a_repeated_command_replaces_its_files_and_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, table = tmp_path / "cost.json", tmp_path / "cost.md"
    flags = {"tokenizers": "larp", "markdown": table}
    first = run("cost", out, **flags)
    assert run("cost", out, **flags) == first
    for path, text in ((table, "# My notes"), (out, '{"sizes": 1}')):
        before = path.read_text()
        path.write_text(text)
        with pytest.raises(SystemExit) as stopped:
            main(words_of("cost", **flags, out=out))
        said = capsys.readouterr().err.splitlines()[-1]
        flag = "--markdown" if path is table else "--out"
        assert stopped.value.code == 2 and f"argument {flag}: {path} is there already" in said
        assert path.read_text() == text
        path.write_text(before)
