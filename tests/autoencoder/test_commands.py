"""`python -m autoencoder reconstruct` and `reenact`: what they write, measure and refuse."""

import json
import shutil
from operator import attrgetter

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file

from autoencoder.__main__ import main
from autoencoder.losses.perceptual import LPIPS_WEIGHTS, load_lpips
from autoencoder.parts import decode_parts, join_parts
from tests.builders.autoencoders import build_autoencoder
from vidtwin_gen.data.decoding.video_index import video_index
from vidtwin_gen.data.video import read_clip
from vidtwin_gen.data.writing import tile, write_video
from vidtwin_gen.models.transformer import LatentTransformer
from vidtwin_gen.quality import psnr, ssim
from vidtwin_gen.weights import MissingWeightsError

WEIGHTS = "diffusion_pytorch_model.safetensors"
WINDOW = 4  # frames of the small model


@pytest.fixture(scope="module")
def model():
    return build_autoencoder()


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    """The model's folder, and videos named after what they are; tests never write here."""
    folder = tmp_path_factory.mktemp("files")
    model.save_pretrained(folder / "vae")
    for seed, (name, num_frames, fps, size) in enumerate(
        [
            ("ten.mp4", 10, 12, (24, 40)),
            ("seven.mp4", 7, 12, (32, 16)),
            ("fast.mp4", 10, 60, (16, 16)),
            ("twice.avi", 20, 24, (20, 20)),
            ("three.mp4", 3, 12, (16, 16)),
        ]
    ):
        coarse = torch.rand(3, num_frames, 4, 4, generator=torch.Generator().manual_seed(seed)) * 2 - 1
        clip = F.interpolate(coarse, size, mode="bilinear", align_corners=False)
        write_video(folder / name, clip, fps, quality=10)
    return folder


@pytest.fixture(autouse=True)
def no_lpips(monkeypatch, tmp_path):
    """Its weights, where a machine has them, take longer to load than all else here."""
    monkeypatch.setenv(LPIPS_WEIGHTS.variable, str(tmp_path / "no-lpips"))


def run(verb, *words):
    main([verb, *map(str, words)])


def clip_windows(path, model, **sampling):
    """(1, C, F, H, W) each, the last one padded, as computed by hand from `read_clip`."""
    total = video_index(path).num_frames
    size = (model.config.height, model.config.width)
    whole = read_clip(path, total, size=size, start=0)[:, :: sampling.get("stride", 1)]
    for window in whole[None].split(WINDOW, dim=2):
        padding = [window[:, :, -1:]] * (WINDOW - window.shape[2])
        yield torch.cat([window, *padding], dim=2), window.shape[2]


@torch.no_grad()
def reconstructed(path, model, **sampling):
    """name: (C, F, H, W) of the whole video, the padding trimmed."""
    parts = []
    for clip, num_real in clip_windows(path, model, **sampling):
        decoded = decode_parts(model, model.encode(clip).latent_dist.mode(), model.layout)
        parts.append({"original": clip, **decoded})
        parts[-1] = {name: value[0, :, :num_real] for name, value in parts[-1].items()}
    return {name: torch.cat([part[name] for part in parts], dim=1) for name in parts[0]}


def assert_panel(path, clips):
    """The written panel shows these clips (C, F, H, W) side by side: it is the video that the same writer
    makes of them, so that what H.264 loses is lost on both sides."""
    info = video_index(path)
    expected = path.with_name(f"expected_{path.name}")
    write_video(expected, tile([clip.clamp(-1, 1) for clip in clips], columns=len(clips)), info.fps)
    size = (info.height, info.width)
    seen, wanted = (read_clip(file, info.num_frames, size=size, start=0) for file in (path, expected))
    alike = attrgetter("num_frames", "fps", "height", "width")
    assert alike(video_index(expected)) == alike(info)
    expected.unlink()
    error = (seen - wanted).abs().mean((0, 2, 3))
    assert error.max() < 0.01, error  # a level or two, where a window rounds to another


def test_reconstruct_writes_every_frame_and_trims_the_padding(files, model, tmp_path, capsys):
    run("reconstruct", files / "ten.mp4", "--vae", files / "vae", "--out", tmp_path / "new" / "out")
    written = sorted(path.name for path in (tmp_path / "new" / "out").iterdir())
    assert written == ["ten_reconstruction.gif", "ten_reconstruction.mp4"]
    info = video_index(tmp_path / "new" / "out" / written[1])
    assert (info.num_frames, info.height, info.width) == (10, 16, 4 * 16 + 3 * 2)
    assert info.fps == pytest.approx(12)
    expected = reconstructed(files / "ten.mp4", model)
    assert_panel(tmp_path / "new" / "out" / written[1], [*expected.values()])
    with Image.open(tmp_path / "new" / "out" / written[0]) as gif:
        assert gif.n_frames == 10 and gif.size == (70, 16)
    output = capsys.readouterr().out
    assert "LPIPS left out" in output and LPIPS_WEIGHTS.install in output
    rate = model.layout.num_elements / (4 * 16 * 16 * 3)
    assert "PSNR" in output and f"compression rate {rate:.3%}" in output


def test_the_record_is_what_a_direct_computation_gives(files, model, tmp_path):
    out, path = tmp_path / "out", tmp_path / "numbers" / "ten.json"
    run("reconstruct", files / "ten.mp4", "--vae", files / "vae", "--out", out, "--json", path)
    record = json.loads(path.read_text())
    decoded = reconstructed(files / "ten.mp4", model)
    both, original = decoded["both"][None], decoded["original"][None]
    assert record["psnr"] == pytest.approx(psnr(both, original).item(), rel=1e-5)
    assert record["ssim"] == pytest.approx(ssim(both, original).item(), rel=1e-4)
    assert record["lpips"] is None and "lpips" not in record["protocol"]
    assert record["video"] == {
        "path": str(files / "ten.mp4"),
        "num_frames": 10,
        "fps": pytest.approx(12),
        "size": [24, 40],
    }
    assert (record["num_frames"], record["windows"], record["window_frames"]) == (10, 3, WINDOW)
    assert record["fps"] == pytest.approx(12) and record["size"] == [16, 16]
    assert record["vae"] == str(files / "vae") and record["num_elements"] == model.layout.num_elements
    assert record["compression_rate"] == model.layout.compression_rate(4, 16, 16)
    assert "mean" in record["protocol"]["latent"] and "crop" in record["protocol"]["resize"]
    assert [file.name for file in path.parent.iterdir()] == ["ten.json"]
    half = tmp_path / "half.json"
    words = ["--vae", files / "vae", "--dtype", "bfloat16", "--out", tmp_path / "half", "--json", half]
    run("reconstruct", files / "ten.mp4", *words)
    assert json.loads(half.read_text())["protocol"] == record["protocol"] | {"dtype": "bfloat16"}
    assert json.loads(half.read_text())["psnr"] == pytest.approx(record["psnr"], abs=0.1)


@torch.no_grad()
def test_lpips_is_measured_where_its_weights_are(files, model, tmp_path, monkeypatch, capsys):
    monkeypatch.undo()
    try:
        weights, lpips = LPIPS_WEIGHTS.find(), load_lpips()
    except MissingWeightsError as error:
        pytest.skip(str(error))
    path = tmp_path / "seven.json"
    words = ["--vae", files / "vae", "--out", tmp_path, "--json", path, "--lpips_weights", weights]
    run("reconstruct", files / "seven.mp4", *words)
    decoded = reconstructed(files / "seven.mp4", model)
    both, original = (decoded[name].transpose(0, 1).clamp(-1, 1) for name in ("both", "original"))
    record = json.loads(path.read_text())
    assert record["lpips"] == pytest.approx(lpips(both, original).mean().item(), rel=1e-4)
    assert "lpips" in record["protocol"] and "LPIPS 0." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "flags", "num_frames", "fps", "gif_frames", "gif_ms"),
    [
        ("ten.mp4", ["--stride", 2], 5, 6, 5, 830),
        ("twice.avi", ["--fps", 6], 5, 6, 5, 830),
        ("twice.avi", [], 20, 24, 20, 830),
        ("fast.mp4", [], 10, 60, 5, 170),  # every second frame, since a GIF plays at most 50 a second
    ],
)
def test_files_play_at_the_rate_that_was_sampled(
    files, tmp_path, name, flags, num_frames, fps, gif_frames, gif_ms
):
    run("reconstruct", files / name, "--vae", files / "vae", "--out", tmp_path, *flags)
    stem = tmp_path / f"{name.split('.')[0]}_reconstruction"
    info = video_index(f"{stem}.mp4")
    assert info.num_frames == num_frames and info.fps == pytest.approx(fps)
    with Image.open(f"{stem}.gif") as gif:
        assert gif.n_frames == gif_frames
        duration = 0
        for k in range(gif.n_frames):
            gif.seek(k)
            duration += gif.info["duration"]
    assert duration == gif_ms


def test_the_gif_is_of_the_first_frames_only(files, tmp_path, monkeypatch):
    monkeypatch.setattr("autoencoder.side_by_side.GIF_FRAMES", 3)
    for name, num_shown in (("ten", 3), ("fast", 3)):  # of the second every other frame, over two windows
        run("reconstruct", files / f"{name}.mp4", "--vae", files / "vae", "--out", tmp_path)
        assert video_index(tmp_path / f"{name}_reconstruction.mp4").num_frames == 10
        with Image.open(tmp_path / f"{name}_reconstruction.gif") as gif:
            assert gif.n_frames == num_shown


def test_a_sampled_video_shows_the_sampled_frames(files, model, tmp_path):
    run("reconstruct", files / "ten.mp4", "--vae", files / "vae", "--out", tmp_path, "--stride", 2)
    expected = reconstructed(files / "ten.mp4", model, stride=2)
    assert_panel(tmp_path / "ten_reconstruction.mp4", [*expected.values()])


def test_an_odd_size_gains_a_white_line(files, tmp_path):
    build_autoencoder(height=15, width=15, patch_size=5).save_pretrained(tmp_path / "odd")
    run("reconstruct", files / "seven.mp4", "--vae", tmp_path / "odd", "--out", tmp_path / "out")
    info = video_index(tmp_path / "out" / "seven_reconstruction.mp4")
    assert (info.height, info.width) == (16, 4 * 15 + 3 * 2)
    panel = read_clip(tmp_path / "out" / "seven_reconstruction.mp4", 7, size=(16, 66), start=0)
    assert panel[..., -1, :].mean() > 0.8 > panel[..., -2, :].mean()


def test_another_video_of_that_name_replaces_no_result(files, tmp_path, capsys):
    words = ["--vae", files / "vae", "--out", tmp_path / "out"]
    run("reconstruct", files / "seven.mp4", *words)
    before = (tmp_path / "out" / "seven_reconstruction.mp4").read_bytes()
    (tmp_path / "out" / "seven_reconstruction.gif").unlink()  # as of a command that was killed
    run("reconstruct", files / "seven.mp4", *words)
    assert (tmp_path / "out" / "seven_reconstruction.gif").exists()
    other = shutil.copy(files / "ten.mp4", tmp_path / "seven.mp4")
    (tmp_path / "out" / "seven_seven_reenactment.gif").touch()
    for verb, videos, name in (
        ("reconstruct", [other], "seven_reconstruction.mp4"),
        ("reenact", [files / "seven.mp4", other], "seven_seven_reenactment.gif"),
    ):
        with pytest.raises(SystemExit) as stop:
            run(verb, *videos, *words)
        error = capsys.readouterr().err
        assert stop.value.code == 2 and f"{name} is there already, of another video" in error
    assert (tmp_path / "out" / "seven_reconstruction.mp4").read_bytes() == before


def test_a_released_checkpoint_will_do(model, tmp_path, files):
    from autoencoder.released import to_released_state_dict

    released = build_autoencoder(hidden_size=64, num_heads=1, qformer_heads=8)
    positions = torch.zeros(1, 4 * 4, 64)
    tensors = {"encoder.pos_embed": positions, **to_released_state_dict(released.state_dict())}
    torch.save({"state_dict": tensors}, tmp_path / "released.ckpt")
    run("reconstruct", files / "seven.mp4", "--vae", tmp_path / "released.ckpt", "--out", tmp_path)
    expected = reconstructed(files / "seven.mp4", released)
    assert_panel(tmp_path / "seven_reconstruction.mp4", [*expected.values()])


@torch.no_grad()
def test_reenact_exchanges_dynamics_over_the_shorter_length(files, model, tmp_path):
    words = ["--vae", files / "vae", "--out", tmp_path, "--json", tmp_path / "r.json"]
    run("reenact", files / "ten.mp4", files / "seven.mp4", *words)
    expected = []
    for (first, _), (second, num_real) in zip(
        clip_windows(files / "ten.mp4", model), clip_windows(files / "seven.mp4", model), strict=False
    ):
        grids = [model.layout.split(model.encode(clip).latent_dist.mode()) for clip in (first, second)]
        swapped = [
            model.layout.join(
                {"structure": s["structure"], **{k: d[k] for k in ("dynamics_x", "dynamics_y")}}
            )
            for s, d in (grids, grids[::-1])
        ]
        clips = [first, second, *(model.decode(z).sample for z in swapped)]
        expected.append([clip[0, :, :num_real] for clip in clips])
    a, b, a_by_b, b_by_a = (torch.cat(parts, dim=1) for parts in zip(*expected, strict=True))
    assert_panel(tmp_path / "ten_seven_reenactment.mp4", [a, b, a_by_b, b_by_a])

    record = json.loads((tmp_path / "r.json").read_text())
    assert (record["num_frames"], record["windows"]) == (7, 2)
    assert (record["a"]["num_frames"], record["b"]["size"]) == (10, [32, 16])
    with Image.open(tmp_path / "ten_seven_reenactment.gif") as gif:
        assert gif.n_frames == 7

    run("reenact", files / "seven.mp4", files / "ten.mp4", "--vae", files / "vae", "--out", tmp_path)
    assert_panel(tmp_path / "seven_ten_reenactment.mp4", [b, a, b_by_a, a_by_b])


def test_a_video_with_its_own_dynamics_is_its_reconstruction(files, model, tmp_path):
    run("reenact", files / "ten.mp4", files / "ten.mp4", "--vae", files / "vae", "--out", tmp_path)
    decoded = reconstructed(files / "ten.mp4", model)
    shown = ("original", "original", "both", "both")
    assert_panel(tmp_path / "ten_ten_reenactment.mp4", [decoded[name] for name in shown])


def test_an_autoencoder_without_dynamics_has_two_columns_and_exchanges_nothing(files, tmp_path, capsys):
    build_autoencoder(dynamics_type="none").save_pretrained(tmp_path / "vae")
    words = ["--vae", tmp_path / "vae", "--out", tmp_path / "out"]
    run("reconstruct", files / "ten.mp4", *words)
    assert "ten_reconstruction.gif: original, reconstruction; " in capsys.readouterr().out
    assert video_index(tmp_path / "out" / "ten_reconstruction.mp4").width == 2 * 16 + 2
    with pytest.raises(SystemExit) as stop:
        run("reenact", files / "ten.mp4", files / "seven.mp4", *words)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and str(tmp_path / "vae") in error and "no Dynamics" in error


def test_join_parts_takes_each_part_from_its_side(model):
    first, second = torch.randn(2, 2, model.layout.num_elements)
    joined = model.layout.split(join_parts(model.layout, first, second))
    assert torch.equal(joined["structure"], model.layout.split(first)["structure"])
    for name in ("dynamics_x", "dynamics_y"):
        assert torch.equal(joined[name], model.layout.split(second)[name])
    assert torch.equal(join_parts(model.layout, first, first), first)


def test_videos_of_two_rates_want_one(files, tmp_path, capsys):
    words = [files / "ten.mp4", files / "twice.avi", "--vae", files / "vae", "--out", tmp_path / "out"]
    with pytest.raises(SystemExit) as stop:
        run("reenact", *words)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and "12" in error and "24" in error and "--fps" in error
    assert len(error.splitlines()) == 1 and not (tmp_path / "out").exists()
    run("reenact", *words, "--fps", 6)
    info = video_index(tmp_path / "out" / "ten_twice_reenactment.mp4")
    assert info.num_frames == 5 and info.fps == pytest.approx(6)


def edited_config(**changes):
    def edit(vae):
        config = json.loads((vae / "config.json").read_text())
        (vae / "config.json").write_text(json.dumps(config | changes))

    return edit


def edited_weights(edit):
    def write(vae):
        tensors = load_file(vae / WEIGHTS)
        edit(tensors)
        save_file(tensors, vae / WEIGHTS, metadata={"format": "pt"})

    return write


def truncated(path):
    path.write_bytes(path.read_bytes()[:-100])


def another_model(vae):
    shutil.rmtree(vae)
    layout = build_autoencoder().layout.to_config()
    LatentTransformer(layout, num_classes=2, hidden_size=16, num_layers=1, num_heads=2).save_pretrained(vae)


@pytest.mark.parametrize(
    ("damage", "named", "message"),
    [
        (another_model, "config.json", "is of LatentTransformer, not of an AutoencoderVidTwin"),
        (lambda vae: (vae / "config.json").write_text("{"), "config.json", "can't be read as JSON"),
        (lambda vae: (vae / "config.json").unlink(), "", "holds no config.json"),
        (shutil.rmtree, "", "does not exist"),
        (edited_config(height=18), "config.json", "multiples of patch_size=4, got 18x16"),
        (edited_config(height="high"), "config.json", "as it was saved"),
        (edited_config(height=32, width=32), "", "of another shape"),
        (edited_config(num_frames=8), "", "of another shape"),
        (edited_config(num_layers=3), "", "tensors are missing"),
        (
            edited_weights(lambda tensors: tensors.pop("patch_output.linear.bias")),
            "",
            "patch_output.linear.bias",
        ),
        (
            edited_weights(lambda tensors: tensors.update(extra=torch.zeros(2))),
            "",
            "1 tensors are unknown: extra",
        ),
        (lambda vae: truncated(vae / WEIGHTS), WEIGHTS, "Unable to load weights"),
        (lambda vae: (vae / WEIGHTS).write_bytes(b""), WEIGHTS, "Unable to load weights"),
        (lambda vae: (vae / WEIGHTS).unlink(), WEIGHTS, "is missing; copy the whole folder"),
    ],
)
def test_a_bad_checkpoint_is_one_line_and_nothing_is_written(files, tmp_path, capfd, damage, named, message):
    vae = shutil.copytree(files / "vae", tmp_path / "damaged")
    damage(vae)
    capfd.readouterr()
    with pytest.raises(SystemExit) as stop:
        run(
            "reconstruct",
            files / "ten.mp4",
            "--vae",
            vae,
            "--out",
            tmp_path / "out",
            "--json",
            tmp_path / "x.json",
        )
    error = capfd.readouterr().err
    assert stop.value.code == 2
    assert str(vae / named) in error and message in error
    assert len(error.splitlines()) == 1, error
    assert {path.name for path in tmp_path.iterdir()} <= {"damaged"}


def test_a_checkpoint_in_parts_is_read_and_a_lost_part_is_named(files, model, tmp_path, capfd):
    vae = tmp_path / "parts"
    model.save_pretrained(vae, max_shard_size="30KB")
    parts = sorted(vae.glob("*.safetensors"))
    assert len(parts) > 1
    run("reconstruct", files / "seven.mp4", "--vae", vae, "--out", tmp_path)
    assert_panel(tmp_path / "seven_reconstruction.mp4", [*reconstructed(files / "seven.mp4", model).values()])
    parts[1].unlink()
    capfd.readouterr()
    with pytest.raises(SystemExit) as stop:
        run("reconstruct", files / "seven.mp4", "--vae", vae, "--out", tmp_path / "out")
    error = capfd.readouterr().err
    assert stop.value.code == 2 and f"{parts[1]} is missing" in error and len(error.splitlines()) == 1


@pytest.mark.parametrize("verb", ["reconstruct", "reenact"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("three.mp4", "holds 3 frames, 3 at stride=1, and one window is 4"),
        ("text.mp4", "not a video"),
        ("cut.mp4", "cannot be decoded, truncated or not a video"),
        ("folder.mp4", "it is a folder; name a video file in it"),
        ("absent.mp4", "no such file"),
    ],
)
def test_a_bad_video_is_one_line_and_nothing_is_written(files, tmp_path, capfd, verb, name, message):
    bad = tmp_path / "videos" / name
    (tmp_path / "videos" / "folder.mp4").mkdir(parents=True)
    shutil.copy(files / "three.mp4", tmp_path / "videos")
    (tmp_path / "videos" / "text.mp4").write_text("not a video\n" * 100)
    noise = torch.randint(0, 256, (40, 32, 32, 3), dtype=torch.uint8)
    write_video(tmp_path / "videos" / "cut.mp4", noise, fps=12)
    content = (tmp_path / "videos" / "cut.mp4").read_bytes()
    (tmp_path / "videos" / "cut.mp4").write_bytes(content[: len(content) // 2])  # its first windows are whole
    words = [files / "ten.mp4", bad] if verb == "reenact" else [bad]
    with pytest.raises(SystemExit) as stop:
        run(verb, *words, "--vae", files / "vae", "--out", tmp_path / "out", "--json", tmp_path / "x.json")
    error = capfd.readouterr().err
    assert stop.value.code == 2 and str(bad) in error and message in error
    assert len(error.splitlines()) == 1, error
    assert {path.name for path in tmp_path.iterdir()} == {"videos"}


def test_damage_inside_a_video_leaves_no_file(files, tmp_path, capfd):
    noise = torch.randint(0, 256, (40, 32, 32, 3), dtype=torch.uint8)
    write_video(tmp_path / "hole.mp4", noise, fps=12)
    content = bytearray((tmp_path / "hole.mp4").read_bytes())
    hole = 2 * len(content) // 3
    content[hole : hole + 5000] = bytes(5000)
    (tmp_path / "hole.mp4").write_bytes(content)
    with pytest.raises(SystemExit) as stop:
        run("reconstruct", tmp_path / "hole.mp4", "--vae", files / "vae", "--out", tmp_path / "out")
    error = capfd.readouterr().err.splitlines()[-1]  # after the bar
    assert stop.value.code == 2 and "hole.mp4: damaged at frame" in error
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lpips_weights", "no/such.ckpt"], "LPIPS weights are not at no/such.ckpt"),
        (["--json", "."], "--json: . is a folder"),
        (["--json", "a_file/x.json"], "a_file takes no files"),
        (["--out", "a_file"], "a_file takes no files"),
        (["--out", "a_file/out"], "a_file takes no files"),
        (["--fps", "0"], "--fps: must be above 0 and finite, got 0"),
        (["--stride", "-1"], "--stride: must be positive, got -1"),
    ],
)
def test_bad_flags_are_one_line_and_nothing_is_written(files, tmp_path, monkeypatch, capfd, flags, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_file").write_text("")
    with pytest.raises(SystemExit) as stop:
        run("reconstruct", files / "ten.mp4", "--vae", files / "vae", "--out", "out", *flags)
    error = capfd.readouterr().err
    assert stop.value.code == 2 and message in error and len(error.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a_file"]
