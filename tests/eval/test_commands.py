"""`python -m eval`: wrong paths, cost at several sizes, the pictures of reconstructions."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler
from PIL import Image

from autoencoder.model.vidtwin import AutoencoderVidTwin
from eval.__main__ import main
from eval.cost.dit import dit_flops
from pipelines.pipeline_vidtwin import VidTwinPipeline
from tests.builders.autoencoders import WAN_CONFIG
from vidtwin_gen.data.writing import write_video
from vidtwin_gen.models.transformer import LatentTransformer

VAE: dict[str, Any] = {
    "num_frames": 4,
    "height": 16,
    "width": 24,
    "patch_size": 4,
    "hidden_size": 16,
    "num_layers": 1,
    "num_heads": 2,
    "num_queries": 3,
    "query_hidden_size": 8,
    "qformer_layers": 1,
    "qformer_heads": 2,
    "qformer_intermediate_size": 16,
    "structure_channels": 2,
    "structure_base_channels": 8,
    "dynamics_channels": 2,
}
SIZES: dict[str, Any] = {"hidden_size": 16, "num_layers": 1, "num_heads": 2}


@pytest.fixture(scope="module")
def vae() -> AutoencoderVidTwin:
    torch.manual_seed(0)
    return AutoencoderVidTwin(**VAE)


@pytest.fixture(scope="module")
def vae_dir(vae: AutoencoderVidTwin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eval") / "vae"
    vae.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos of each of two classes."""
    root = tmp_path_factory.mktemp("videos")
    generator = torch.Generator().manual_seed(0)
    for name in ("Left", "Right"):
        for number in range(3):
            clip = torch.rand(3, 6, 16, 24, generator=generator) * 2 - 1
            (root / name).mkdir(exist_ok=True)
            write_video(root / name / f"{name}_{number}.mp4", clip, fps=8)
    return root


def save_pipeline(
    vae: AutoencoderVidTwin, folder: Path, patch_size: int | dict[str, Any], **others: Any
) -> Path:
    transformer = LatentTransformer(vae.layout.to_config(), 5, patch_size=patch_size, **SIZES, **others)
    VidTwinPipeline(vae, transformer, FlowMatchEulerDiscreteScheduler()).save_pretrained(folder)
    return folder


def run(verb: str, **flags: Any) -> None:
    words = [verb]
    for name, value in flags.items():
        words.append(f"--{name}")
        words += [] if value is True else [str(v) for v in (value if isinstance(value, list) else [value])]
    main(words)


def cost_rows(path: Path, key: str = "rows") -> list[tuple[str, int, int]]:
    rows = json.loads(path.read_text())[key]
    return [(row["tokenizer"].split()[0], row["patch_size"], row["num_tokens"]) for row in rows]


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
        ("cost", {"vae": "{vae}", "ratios": True}, ("--ratios:", "python -m benchmarks.speed")),
        ("cost", {"autoencoder": "small", "size": "S"}, ("--size means nothing with --autoencoder",)),
        ("cost", {"autoencoder": "small", "measure": True}, ("--measure means nothing with",)),
        ("cost", {"autoencoder": "small", "attention": "math"}, ("--attention means nothing with",)),
        ("cost", {"paper_size": True}, ("--paper_size means nothing without --pipeline",)),
        ("cost", {"tokenizers": "larp", "height": 64}, ("--height means nothing with --tokenizers",)),
        ("cost", {"skip_training": True}, ("--skip_training means nothing without",)),
        ("cost", {"device": "cuda"}, ("--device cuda", "no GPU")),
        ("cost", {"device": "gpu"}, ("--device gpu", "device")),
        ("recon", {"vae": "{vae}", "data": "{data}", "device": "cuda"}, ("--device cuda", "no GPU")),
        ("recon", {"vae": "{vae}", "videos": "{data}", "fold": 2}, ("--fold 2", "leave it out")),
        ("recon", {"vae": "{vae}", "data": "{data}", "gif_clips": 0}, ("--gif_clips", "must be positive")),
        ("fvd", {"data": "{data}", "generated": "{none}"}, ("--generated", "{none}", "pipelines generate")),
        ("accuracy", {"data": "{data}", "generated": "{lone}"}, ("--generated", "generated.json")),
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
    with pytest.raises(SystemExit) as stop:
        run(verb, **filled, out=tmp_path / "out.json")
    assert stop.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"python -m eval {verb}: error: ")
    for word in words:
        # argparse writes "argument --vae: owner/name holds"
        assert word.format(**places).replace(" owner", ": owner") in last
    assert not (tmp_path / "out.json").exists()


def test_cost_counts_several_patch_sizes_and_the_papers_size(
    vae: AutoencoderVidTwin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline, out = save_pipeline(vae, tmp_path / "pipeline", patch_size=2), tmp_path / "eval/cost.json"
    run("cost", pipeline=pipeline, patch_size=[1, 2], out=out)
    by_two = [("VidTwin", 2, vae.layout.num_tokens(2)), ("MAGVIT-v2", 2, 1 * 1 * 2)]
    assert cost_rows(out) == [("VidTwin", 1, vae.layout.num_tokens(1)), ("MAGVIT-v2", 1, 1 * 2 * 3), *by_two]
    assert "paper_size_rows" not in json.loads(out.read_text())
    assert capsys.readouterr().out.count(" than MAGVIT-v2") == 2

    run("cost", pipeline=pipeline, paper_size=True, out=out)
    assert cost_rows(out) == by_two  # the pipeline's own patch size
    # arXiv 2412.17726, appendix C: 4 x 28 x 28 positions against 16 x 7 x 7 and two times 16 x 7
    assert cost_rows(out, "paper_size_rows") == [("VidTwin", 2, 192), ("MAGVIT-v2", 2, 392)]
    record = json.loads(out.read_text())
    assert {row["num_layers"] for row in record["rows"]} == {1}
    for row in record["paper_size_rows"]:
        assert (row["num_layers"], row["hidden_size"], row["num_heads"]) == (6, 512, 8)
        assert row["clip_shape"] == [16, 224, 224]

    main(["report", str(tmp_path)])
    page = (tmp_path / "report.html").read_text()
    assert "latents of 4×16×24 clips, depth 1, width 16" in page
    assert "latents of 16×224×224 clips, depth 6, width 512" in page and "paper size" in page
    cost = page.partition("<h2>Cost</h2>")[2].partition("</section>")[0]
    assert cost.count("<tr>") == (1 + 2) + (1 + 2)


def test_published_latents_are_counted_and_measured_in_one_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, page = tmp_path / "cost.json", tmp_path / "cost.md"
    small = {"size": "figure5", "hidden_size": 16, "num_layers": 1, "num_heads": 2, "patch_size": 2}
    run("cost", tokenizers=["vidtwin-1", "magvit-v2"], **small, attention="math", out=out, markdown=page)
    rows = json.loads(out.read_text())["rows"]
    assert [(row["attention"], row["num_tokens"]) for row in rows] == [("math", 192), ("math", 392)]
    first = rows[0]
    assert first["figure_5"]["num_parameters"] == 12_610_560 and first["size"] == "figure5"
    assert first["figure_5"]["num_tokens"] == {"padded": 184, "floored": 128}
    printed = capsys.readouterr().out
    assert (
        "| VidTwin (setting 1) | 16×224×224 | 2 | 4,928 | 0.205% | 192 |" in printed
        and "184 or 128 | 2.32 or 1.61" in printed
    )
    assert printed.count("times fewer FLOPs and") == 1
    (command,) = (line for line in page.read_text().splitlines() if line.startswith("Made by"))
    assert command == f"Made by `{json.loads(out.read_text())['command']}`."
    page.unlink()
    main(shlex.split(command.removeprefix("Made by `").removesuffix("`."))[3:])  # after python -m eval
    assert command in page.read_text()

    monkeypatch.setattr("eval.cost.command.free_memory", lambda device: 0)
    with pytest.raises(SystemExit):
        run("cost", tokenizers="vidtwin-1", **small, measure=True, out=tmp_path / "none.json")
    assert "--measure: nothing fits: needs 0.0 GiB and 0.0 GiB of cpu are free" in capsys.readouterr().err
    assert not (tmp_path / "none.json").exists()


def test_one_failed_measurement_leaves_the_other_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(make: Any, make_small: Any, **options: Any) -> dict[str, Any]:
        if make.args[0].num_elements > 10_000:
            raise ValueError("cpu ran out of memory while measuring")
        return {"peak_bytes": 2**20, "seconds": {n: {"median": 1.0} for n in ("forward", "training_step")}}

    monkeypatch.setattr("eval.cost.command.measure_step", measure)
    small = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "patch_size": 2}
    run("cost", **small, measure=True, out=tmp_path / "cost.json")
    ours, theirs = (row["measured"] for row in json.loads((tmp_path / "cost.json").read_text())["rows"])
    assert ours["predicted_over_measured"] > 0 and "ran out of memory" in theirs["reason"]
    assert "ran out of memory" in capsys.readouterr().out


def test_a_pipelines_own_dit_is_counted(vae: AutoencoderVidTwin, tmp_path: Path) -> None:
    """Whatever its class and its MLPs are like."""
    own = {"conditioning": "cross_attention", "class_dim": 24, "mlp_ratio": 2.0}
    pipeline = save_pipeline(vae, tmp_path / "pipeline", patch_size=1, **own)
    run("cost", pipeline=pipeline, out=tmp_path / "cost.json")
    row = json.loads((tmp_path / "cost.json").read_text())["rows"][0]
    transformer = LatentTransformer.from_pretrained(pipeline, subfolder="transformer")
    assert row["num_parameters"] == transformer.num_parameters()
    assert (row["conditioning"], row["mlp_ratio"]) == ("cross_attention", 2)
    sizes = {"num_layers": 1, "hidden_size": 16, "cross_attention": True, "mlp_ratio": 2}
    assert row["formula_flops"] == dit_flops(row["num_tokens"], **sizes)
    with pytest.raises(SystemExit):
        run("cost", pipeline=pipeline, hidden_size=32, out=tmp_path / "none.json")


def test_clips_of_4k_and_1_frames_are_compared_as_far_as_it_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    AutoencoderKLWan(**WAN_CONFIG).save_pretrained(tmp_path / "wan")
    flags = {"vae": tmp_path / "wan", "num_frames": 17, "width": 32, "patch_size": 1, **SIZES}
    run("cost", **flags, height=32, out=tmp_path / "cost.json")
    record = json.loads((tmp_path / "cost.json").read_text())
    assert [row["num_tokens"] for row in record["rows"]] == [9 * 8 * 8, 5 * 4 * 4]
    assert "Open-MAGVIT2" in record["rows"][1]["remark"] and record["not_counted"] == []
    capsys.readouterr()

    run("cost", **flags, height=20, out=tmp_path / "cost.json")
    record = json.loads((tmp_path / "cost.json").read_text())
    (row,), (left_out,) = record["rows"], record["not_counted"]
    assert row["num_tokens"] == 9 * 5 * 8 and "17 x 20 x 32" in left_out["reason"]
    assert "MAGVIT-v2 is not counted: MAGVIT-v2 divides" in (told := capsys.readouterr().out)
    assert "| KLWan (this run) |" in told


def test_patch_sizes_by_grid_need_the_flag(
    vae: AutoencoderVidTwin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = save_pipeline(vae, tmp_path / "pipeline", patch_size={"structure": [1, 2, 2]})
    with pytest.raises(SystemExit):
        run("cost", pipeline=pipeline, out=tmp_path / "cost.json")
    assert "give --patch_size" in capsys.readouterr().err
    run("cost", pipeline=pipeline, patch_size=1, out=tmp_path / "cost.json")
    assert [patch_size for _, patch_size, _ in cost_rows(tmp_path / "cost.json")] == [1, 1]


def test_reconstructions_are_shown_by_kind_and_frame_by_frame(
    vae_dir: Path, data: Path, tmp_path: Path
) -> None:
    gif = tmp_path / "eval" / "recon.gif"
    run(
        "recon",
        vae=vae_dir,
        data=data,
        split="all",
        batch_size=2,
        gif=gif,
        gif_clips=3,
        **{"no-lpips": True},
        out=tmp_path / "r.json",
    )
    assert json.loads((tmp_path / "r.json").read_text())["both"]["psnr"]["num_clips"] == 6
    with Image.open(gif) as grid, Image.open(gif.with_suffix(".png")) as strip:
        # kinds down and clips across, 2 pixels between them; then 4 kinds of each of 3 clips, 4 frames across
        assert grid.size == (3 * 26 - 2, 4 * 18 - 2) and grid.n_frames == 4
        assert strip.size == (4 * 26 - 2, 12 * 18 - 2)
        # the original of the first clip stands at the top left of both; that of the second one is
        # beside it in the GIF, and below the four kinds of the first in the PNG
        frame = grid.convert("RGB")
        for column in range(3):
            shown = frame.crop((column * 26, 0, column * 26 + 24, 16))
            original = strip.crop((0, column * 4 * 18, 24, column * 4 * 18 + 16))
            difference = np.asarray(shown, dtype=float) - np.asarray(original, dtype=float)
            assert np.abs(difference).mean() < 12  # a GIF has 256 colours
    main(["report", str(tmp_path)])
    # rows of 17 or 18 pixels: six times as large is the first whole factor that shows 96
    assert 'width="456"' in (tmp_path / "report.html").read_text()
