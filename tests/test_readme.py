"""What the README tells the reader to type is run here, in its order, on little data and with tiny models."""

import argparse
import importlib
import json
import re
import shlex
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from accelerate.commands.launch import launch_command_parser
from diffusers import AutoencoderKLWan
from diffusers.utils import dynamic_modules_utils

import train_dit
import train_vae
from autoencoder.losses.perceptual import LPIPS_WEIGHTS
from autoencoder.model.vidtwin import AutoencoderVidTwin
from autoencoder.released import to_released_state_dict
from eval.cost.command import DIT_SIZES
from eval.fvd.i3d import I3D_WEIGHTS
from eval.fvd.protocols import PROTOCOLS, ClipProtocol
from tests.conftest import DIT_FLAGS, VAE_FLAGS, WAN_CONFIG, command_line
from tests.hub_stand_in import running_hub
from tests.small_extractor import FilterResponses, install
from vidtwin_gen import __main__ as program
from vidtwin_gen import demo
from vidtwin_gen.data import synthetic
from vidtwin_gen.flags import add_flags
from vidtwin_gen.models.transformer import SIZES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)

SCRIPTS = {"train_vae.py": train_vae, "train_dit.py": train_dit}
SHORT = {"max_train_steps": 2, "checkpointing_steps": 2, "validation_steps": 2, "num_validation_videos": 2}
TINY_VAE = VAE_FLAGS | SHORT
TINY_DIT = DIT_FLAGS | {name: value for name, value in SHORT.items() if name in DIT_FLAGS}
# Added to a command, where the last word counts. The README's own flags are parsed all the same.
SMALLER = {
    "train_vae.py": command_line(TINY_VAE, fps=0, lpips_weight=0, mixed_precision="no"),
    "train_dit.py": command_line(TINY_DIT, patch_size=None, mixed_precision="no"),
    "vidtwin_gen encode": ["--num_workers", "0"],
    "vidtwin_gen encode --num_frames": command_line(
        {"num_workers": 0, "num_frames": 5, "height": 16, "width": 16}
    ),
    "autoencoder convert": [],
    "autoencoder reconstruct": [],
    "autoencoder reenact": [],
    "autoencoder export": [],
    "pipelines card": [],
    "pipelines export": [],
    "pipelines generate": ["--num_inference_steps", "2"],
    "pipelines edit": ["--num_inference_steps", "2"],
    "pipelines mix": ["--num_inference_steps", "2"],
    "eval recon": ["--num_clips", "4"],
    "eval diagnose": ["--num_clips", "3", "--num_pairs", "1"],
    "eval accuracy": ["--num_steps", "2"],
    "eval fvd": ["--num_workers", "0", "--device", "cpu"],
    "eval reference": ["--num_workers", "0"],
    "eval sensitivity": command_line({"num_frames": 4, "height": 16, "width": 16, "num_clips": 4}),
    "eval cost": [],
    "eval cost --autoencoder": ["--autoencoder", "tiny", "--device", "cpu", "--repeats", "1"],
    "eval cost --size": ["--size", "S", "--attention", "fused", "--device", "cpu", "--repeats", "1"],
    "eval cost --size --measure": ["--tokenizers", "vidtwin-1", "--size", "S", "--attention", "fused"]
    + ["--patch_size", "1"],
    "eval cost --size --markdown": ["--tokenizers", "vidtwin-1", "--size", "S", "--patch_size", "1"],
    "eval report": [],
    "eval selftest": ["--only", "frechet"],
}
FLAGS_OF_A_KEY = ("--autoencoder", "--size", "--num_frames", "--measure", "--markdown")
REAL_NAMES = {"BouncingBall": "Archery", "SlidingDoor": "Biking"}
RELEASED = {name: VAE_FLAGS[name] for name in train_vae.MODEL if name in VAE_FLAGS}
RELEASED |= {"hidden_size": 64, "num_heads": 1, "qformer_heads": 8}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """What is pushed goes here, and code that is loaded is kept in the sandbox."""
    with running_hub() as hub:
        monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", hub.url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_none")
        monkeypatch.setattr(dynamic_modules_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
        yield hub


@pytest.fixture
def sandbox(synthetic_root, tmp_path, monkeypatch):
    """An empty working directory but for UCF-101: two classes of the embedded data under real names, a small
    checkpoint as if released, the config of a small autoencoder, and a small one of diffusers. A smaller
    network stands for the I3D, which takes no clips as short as these, and a smaller protocol for magvit-10k.
    """
    data = tmp_path / "UCF-101"
    for drawn, real in REAL_NAMES.items():
        (data / real).mkdir(parents=True)
        for path in (synthetic_root / drawn).iterdir():
            (data / real / path.name.replace(drawn, real)).symlink_to(path)
    (data / "ucfTrainTestlist").mkdir()
    for path in (synthetic_root / "ucfTrainTestlist").iterdir():
        text = path.read_text()
        for drawn, real in REAL_NAMES.items():
            text = text.replace(drawn, real)
        lines = [line for line in text.splitlines() if any(real in line for real in REAL_NAMES.values())]
        (data / "ucfTrainTestlist" / path.name).write_text("\n".join(lines))
    released = AutoencoderVidTwin(**RELEASED).state_dict()
    positions = torch.zeros(1, 16, RELEASED["hidden_size"])
    released = {"encoder.pos_embed": positions, **to_released_state_dict(released)}
    torch.save({"state_dict": released}, tmp_path / "vidtwin_structure_7_7_8_dynamics_7_8.ckpt")
    AutoencoderVidTwin(**RELEASED).save_config(tmp_path / "tiny")
    AutoencoderKLWan(**WAN_CONFIG).save_pretrained(tmp_path / "wan" / "vae")
    for sizes in (SIZES, DIT_SIZES):
        monkeypatch.setitem(sizes, "S", {"hidden_size": 16, "num_layers": 1, "num_heads": 2})
    monkeypatch.chdir(tmp_path)
    install(monkeypatch, FilterResponses())
    small = ClipProtocol("magvit-10k", 8, 4, 16, 16, "train", 1, "videos", num_seeds=4)
    monkeypatch.setitem(PROTOCOLS, "magvit-10k", small)
    return tmp_path


def run_python(words):
    """`python script.py ...` or `python -m package verb ...`, in this process."""
    if words[0] in SCRIPTS:
        SCRIPTS[words[0]].main([*words[1:], *SMALLER[words[0]]])
        return
    assert words[0] == "-m"
    package, verb = words[1:3]
    module = importlib.import_module(f"{package}.__main__")
    key = " ".join([package, verb, *(flag for flag in FLAGS_OF_A_KEY if flag in words)])
    module.main([*words[2:], *SMALLER[key]])


def run_accelerate(words):
    """`accelerate launch script.py ...`: its flags as accelerate reads them, the script in this process. Only
    the start of processes is left out, which is accelerate's and takes longer than all the rest."""
    assert words[0] == "launch"
    launch = launch_command_parser().parse_args(words[1:])
    assert launch.config_file is None or (ROOT / launch.config_file).is_file()
    run_python([*(["-m"] if launch.module else []), launch.training_script, *launch.training_script_args])


def check_make(words):
    """CI runs `make test`, a test below what `make demo` does; here: its targets, variables, flags exist."""
    variables = dict(word.split("=", 1) for word in words if "=" in word)
    targets = [word for word in words if "=" not in word]
    assert targets and set(targets) <= set(re.findall(r"^(\w+):", MAKEFILE, re.MULTILINE))
    assert set(variables) <= set(re.findall(r"^(\w+) \?=", MAKEFILE, re.MULTILINE))
    if "demo" in targets:
        parser = argparse.ArgumentParser()
        add_flags(parser, demo.DemoFlags)
        parser.parse_args(shlex.split(variables.get("FLAGS", "")))


def check_pip(words):
    """What `make` installs, or an extra that there is."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = [["install", "-e", f".[{extra}]"] for extra in setup["options.extras_require"]]
    i3d, lpips = (shlex.split(weights.install)[1:] for weights in (I3D_WEIGHTS, LPIPS_WEIGHTS))
    assert words in [*extras, i3d, lpips]
    assert shlex.join([*i3d[1:], lpips[-1]]) in MAKEFILE


def check_source(words):
    assert words == [f"{re.search(r'^VENV := (.+)$', MAKEFILE, re.MULTILINE)[1]}/bin/activate"]


PROGRAMS = {
    "python": run_python,
    "accelerate": run_accelerate,
    "make": check_make,
    "pip": check_pip,
    "source": check_source,
}


def test_every_command_runs(sandbox, hub):
    names: dict = {}  # a reader goes on in the same session
    for language, block in BLOCKS:
        if language == "python":
            exec(compile(block, "README.md", "exec"), names)
            continue
        assert language in ("bash", "text"), f"no test runs what is marked {language!r}"
        for line in block.replace("\\\n", "").splitlines() if language == "bash" else ():
            name, *words = shlex.split(line)
            assert name in PROGRAMS, f"no test runs: {line}"
            print(f"$ {line}")
            PROGRAMS[name](words)

    index = json.loads((sandbox / "runs/wan/dit/pipeline/model_index.json").read_text())
    assert index["vae"] == ["diffusers", "AutoencoderKLWan"] and (sandbox / "runs/wan/generated").exists()
    for name in ("ucf/report.html", "ucf/eval/recon.gif", "ucf/dit/samples", "base/vae/autoencoder"):
        assert (sandbox / "runs" / name).exists(), name
    videos = sandbox / "runs/ucf/videos"
    assert (videos / "v_Archery_g01_c01_v_Biking_g01_c01_reenactment.gif").stat().st_size
    assert json.loads((videos / "archery.json").read_text())["psnr"] > 0
    asked = json.loads((sandbox / "runs/two_classes/generated.json").read_text())
    assert asked["class_names"] == ["Archery", "Biking"] and (sandbox / "archery.mp4").stat().st_size
    card = hub.files("your-name/vidtwin-ucf101")["README.md"].decode()
    assert "class accuracy, generated clips" in card and "Data set: UCF-101." in card
    for row in json.loads((sandbox / "runs/cost.json").read_text())["rows"]:
        assert f"| {row['num_tokens']:,} |" in README


def test_the_demo_ends_in_a_report(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(synthetic, "CLASSES", dict(list(synthetic.CLASSES.items())[:2]))
    size = demo.DemoSize(stride=2, windows_per_video=1, videos_per_class=2, fvd_clips=2)
    monkeypatch.setitem(demo.DEMO_SIZES, "demo", size)
    monkeypatch.setitem(train_vae.PRESETS, "demo", TINY_VAE)
    monkeypatch.setitem(train_dit.PRESETS, "demo", TINY_DIT)
    monkeypatch.setenv(I3D_WEIGHTS.variable, str(tmp_path / "no-such-file"))

    def train_here(command, **_):
        """In place of a process of its own, which would not see the presets above."""
        assert command[:2] == [sys.executable, "-m"]
        importlib.import_module(command[2]).main(command[3:])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(demo, "subprocess", SimpleNamespace(run=train_here))
    out = tmp_path / "demo"
    program.main(["data", "--out", str(out / "data"), "--clips_per_group", "1"])
    program.main(["demo", "--out", str(out)])
    for name in ("report.html", "report.md"):
        page = (out / name).read_text()
        assert "Class accuracy, generated" in page and "MAGVIT-v2" in page and "Not here" not in page
        assert "FVD, generated: not measured." in page
    record = json.loads((out / "demo.json").read_text())
    assert len(record["stages"]) == 8 and record["peak_memory_mb"] > 0

    capsys.readouterr()
    program.main(["demo", "--out", str(out)])  # nothing is done twice, but for the FVD that is wanting
    assert capsys.readouterr().out.count("is there already") == 8
    (out / "eval" / "fvd.json").write_text('{"fvd": 1.0}')
    assert all(stage.is_done for stage in demo.demo_stages(out, "demo", own_data=None))


def test_the_picture_shows_the_models_shapes():
    with torch.device("meta"):
        vae = AutoencoderVidTwin()
    config, layout = vae.config, vae.layout
    picture = (ROOT / "docs/flow.svg").read_text(encoding="utf-8")
    side = config.height // config.patch_size
    clip = (config.in_channels, config.num_frames, config.height, config.width)
    tokens = (config.hidden_size, config.num_frames, side, side)
    for shape in (clip, tokens, *((*grid.shape, grid.channels) for grid in layout.grids)):
        assert "×".join(map(str, shape)) in picture
    rate = layout.compression_rate(config.num_frames, config.height, config.width)
    assert f"{layout.num_elements} numbers, {rate * 100:.3f} %" in picture
    assert f"{layout.num_tokens()} tokens at patch 1" in picture
    assert f"{vae.num_parameters() / 1e6:.0f} M parameters" in README


def test_links_lead_somewhere_and_numbers_are_filled_in():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("https://")]
    headings = re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    anchors = {"#" + re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert links and [link for link in links if not (ROOT / link).is_file() and link not in anchors] == []
    assert re.findall(r"\{\{\w+\}\}", README) == []
