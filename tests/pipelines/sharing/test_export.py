"""Models and pipelines with their code: they load, and give the same, where this package is not."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, LayerSkipConfig
from diffusers.guiders import AutoGuidance
from diffusers.utils import dynamic_modules_utils
from safetensors.torch import load_file

import eval as eval_package
from autoencoder import __main__ as autoencoder_program
from autoencoder.export import autoencoder_code, export_autoencoder
from pipelines.__main__ import main
from pipelines.sharing.export import export_pipeline, pipeline_code, transformer_code
from tests.builders.hub import running_hub
from tests.builders.pipelines import build_pipeline, generate
from vidtwin_gen import bundle
from vidtwin_gen.files import digests_below
from vidtwin_gen.models.transformer import LatentTransformer

LOAD_ALL = """
import sys
import torch
from diffusers import AutoModel, DiffusionPipeline
from safetensors.torch import save_file

def frames_of(place):
    pipe = DiffusionPipeline.from_pretrained(place, trust_remote_code=True)
    pipe.set_progress_bar_config(disable=True)
    assert len({type(model).__module__ for model in (pipe, pipe.vae, pipe.transformer)}) == 3
    generator = torch.Generator().manual_seed(0)
    return pipe(["archery", 2], num_inference_steps=3, output_type="pt", generator=generator).frames

folder, vae_folder, out = sys.argv[1:]
frames = frames_of(folder)
vae = AutoModel.from_pretrained(vae_folder, trust_remote_code=True)
assert not hasattr(vae, "from_released")
with torch.no_grad():
    posterior = vae.encode(frames[:1].transpose(1, 2) * 2 - 1).latent_dist
    decoded = vae.decode(posterior.mode()).sample
seen = {"frames": frames, "mean": posterior.mean, "decoded": decoded, "kl": posterior.kl()}
try:
    DiffusionPipeline.from_pretrained("user/code")
except ValueError as error:
    assert "trust_remote_code=True" in str(error)
save_file(seen | {"frames from the hub": frames_of("user/code")}, out)
"""


@pytest.fixture(autouse=True)
def own_modules(tmp_path, monkeypatch):
    """diffusers copies code to one folder of the user's, by its name: those of a test are its own."""
    monkeypatch.setattr(dynamic_modules_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))


def run_without_package(code, *words, cwd, **variables):
    """Runs `code` where diffusers is and no package of ours: site-packages are there, but what an editable
    installation adds to the path (.pth) is not, nor is the working directory."""
    no_package = (
        f"import sys; sys.path.append({str(Path(torch.__file__).parents[1])!r})\n"
        "for name in ('av', 'cv2', 'datasets', 'decord', 'imageio', 'matplotlib', 'peft', 'torchmetrics'):\n"
        "    sys.modules[name] = None\n"  # the card names none of them for loading
        "for name in ('vidtwin_gen', 'autoencoder', 'pipelines', 'eval'):\n"
        "    try: __import__(name)\n"
        "    except ModuleNotFoundError: continue\n"
        "    raise SystemExit(f'{name} can be imported here')\n"
    )
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-W", "error::UserWarning", "-c", no_package + code, *map(str, words)],
        cwd=cwd,
        env={**os.environ, "HF_HOME": str(cwd / "hf"), "OMP_NUM_THREADS": "1", **variables},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, result.stderr
    return result


@pytest.fixture(scope="module")
def pipe():
    return build_pipeline()


@pytest.fixture(scope="module")
def folder(pipe, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "pipeline"
    pipe.save_pretrained(path)
    return path


def test_an_export_gives_the_same_video_without_the_package(pipe, folder, tmp_path, capsys):
    main(["export", "--pipeline", str(folder), "--out", str(tmp_path / "pipeline")])
    autoencoder_program.main(["export", "--vae", str(folder / "vae"), "--out", str(tmp_path / "vae")])
    assert capsys.readouterr().out.count("trust_remote_code=True) loads it") == 2
    (tmp_path / "elsewhere").mkdir()
    places = (tmp_path / "pipeline", tmp_path / "vae", tmp_path / "seen.safetensors")
    with running_hub() as hub:
        hub.put_folder("user/code", tmp_path / "pipeline")
        output = run_without_package(
            LOAD_ALL, *places, cwd=tmp_path / "elsewhere", HF_ENDPOINT=hub.url
        ).stderr
    lines = [line for line in output.splitlines() if line and "it/s]" not in line]  # progress bars
    assert [line for line in lines if "trust_remote_code" not in line and "'auto_map'" not in line] == []

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    frames = pipe(["archery", 2], num_inference_steps=3, output_type="pt", generator=generator).frames
    with torch.no_grad():
        posterior = pipe.vae.encode(frames[:1].transpose(1, 2) * 2 - 1).latent_dist
        decoded = pipe.vae.decode(posterior.mode()).sample
    expected = {"frames": frames, "mean": posterior.mean, "decoded": decoded, "kl": posterior.kl()}
    seen = load_file(tmp_path / "seen.safetensors")
    expected["frames from the hub"] = frames
    for name, value in expected.items():
        assert torch.equal(seen[name], value), name


def test_an_export_of_the_whole_recipe_gives_the_same_clip(tmp_path):
    """x_0, the lightning block, internal guidance, and a guider that skips one of its blocks."""
    pipe = build_pipeline(predicts_x0=True, internal_layer=1, block_type="lightning", num_layers=3)
    pipe.save_pretrained(tmp_path / "pipeline")
    export_pipeline(tmp_path / "pipeline", tmp_path / "code")
    exported = DiffusionPipeline.from_pretrained(tmp_path / "code", trust_remote_code=True)
    assert "vidtwin_gen" not in {type(exported).__module__, type(exported.transformer).__module__}
    exported.set_progress_bar_config(disable=True)
    guider = AutoGuidance(2.0, auto_guidance_config=LayerSkipConfig(indices=[1]))
    plain = generate(pipe)
    for options in ({}, {"internal_guidance_scale": 1.5}, {"guider": guider}):
        expected = generate(pipe, **options)
        torch.testing.assert_close(generate(exported, **options), expected, atol=1e-4, rtol=1e-4)
        assert torch.allclose(expected, plain, atol=1e-2) == (not options)
    with pytest.raises(ValueError, match="guidance twice"):
        generate(exported, guider=guider, internal_guidance_scale=1.5)


def test_an_exported_pipeline_gives_its_components_to_another(folder, tmp_path):
    main(["export", "--pipeline", str(folder), "--out", str(tmp_path / "pipeline")])
    pipe = DiffusionPipeline.from_pretrained(tmp_path / "pipeline", trust_remote_code=True)
    assert type(pipe.transformer) is not LatentTransformer
    other = type(pipe).from_pipe(pipe)
    assert other.transformer is pipe.transformer and other.vae is pipe.vae


def test_an_exported_pipeline_that_is_saved_again_is_of_the_package(pipe, folder, tmp_path):
    exported = export_pipeline(folder, tmp_path / "exported")
    DiffusionPipeline.from_pretrained(exported, trust_remote_code=True).save_pretrained(tmp_path / "again")
    again = DiffusionPipeline.from_pretrained(tmp_path / "again")
    assert type(again.transformer) is LatentTransformer
    assert torch.equal(generate(again), generate(pipe))


def test_what_an_export_holds(folder, tmp_path):
    out = export_pipeline(folder, tmp_path / "out")
    index = json.loads((out / "model_index.json").read_text())
    assert index["_class_name"] == ["pipeline_vidtwin", "VidTwinPipeline"]
    assert index["vae"] == ["autoencoder_vidtwin", "AutoencoderVidTwin"]
    assert index["transformer"] == ["latent_transformer", "LatentTransformer"]
    assert index["scheduler"] == ["diffusers", "FlowMatchEulerDiscreteScheduler"]
    assert "auto_map" not in json.loads((out / "vae/config.json").read_text())  # every load would warn
    vae = export_autoencoder(folder / "vae", tmp_path / "vae")
    config = json.loads((vae / "config.json").read_text())
    assert config.pop("auto_map") == {"AutoModel": "autoencoder_vidtwin.AutoencoderVidTwin"}
    assert config == json.loads((folder / "vae/config.json").read_text())
    for code in (out / "pipeline_vidtwin.py", *out.glob("*/*.py"), *vae.glob("*.py")):
        text = code.read_text()
        assert text.startswith("# ") and "Apache-2.0" in text[:1000] and "vidtwin-gen" in text[:1000]
        assert "__module__" not in text
    assert not list(tmp_path.glob("*partial*"))


@pytest.mark.parametrize("code", [autoencoder_code, transformer_code, pipeline_code])
def test_exported_code_is_whole(code, tmp_path):
    """Names that nothing defines or uses would be found by whoever loads it; ruff finds them here."""
    path = tmp_path / "code.py"
    path.write_text(code())
    checks = ["check", "--isolated", "--line-length=110", "--select=E,F,I", "--output-format=concise"]
    for words in (checks, ["format", "--isolated", "--line-length=110", "--check"]):
        result = subprocess.run(
            [sys.executable, "-m", "ruff", *words, "--no-cache", str(path)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert result.returncode == 0, result.stdout + result.stderr


def test_what_cannot_be_exported(folder, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="holds no model_index.json; name the folder of a saved VidTwinPip"):
        export_pipeline(folder / "vae", out)
    with pytest.raises(ValueError, match="does not exist"):
        export_pipeline(tmp_path / "nowhere", out)
    with pytest.raises(ValueError, match="holds no config.json"):
        export_autoencoder(folder, out)
    with pytest.raises(
        ValueError, match="is of LatentTransformer, not of an AutoencoderVidTwin; that is not"
    ):
        export_autoencoder(folder / "transformer", out)
    (tmp_path / "magvit").mkdir()
    (tmp_path / "magvit/config.json").write_text('{"_class_name": "AutoencoderKLMagvit"}')
    with pytest.raises(ValueError, match="diffusers has that class, so the folder loads as it is"):
        export_autoencoder(tmp_path / "magvit", out)
    export_pipeline(folder, tmp_path / "code")
    with pytest.raises(ValueError, match="exported with its code already"):
        export_pipeline(tmp_path / "code", out)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    for export, source in ((export_pipeline, folder), (export_autoencoder, folder / "vae")):
        with pytest.raises(ValueError, match="full is there already and would be overwritten"):
            export(source, tmp_path / "full")
    assert not out.exists() and [path.name for path in (tmp_path / "full").iterdir()] == ["notes.txt"]


def test_a_component_of_a_stranger_is_one_of_a_pipeline(folder, tmp_path):
    """ "../payload" as a key would be copied from and to beside the folders."""
    strange = tmp_path / "downloads" / "pipeline"
    shutil.copytree(folder, strange)
    (tmp_path / "downloads" / "payload").mkdir()
    index = json.loads((strange / "model_index.json").read_text())
    for key in ("../payload", str(tmp_path / "downloads" / "payload"), "."):
        (strange / "model_index.json").write_text(json.dumps(index | {key: ["diffusers", "X"]}))
        with pytest.raises(ValueError, match=f"names {key} as a component.*scheduler, transformer, vae"):
            export_pipeline(strange, tmp_path / "mine" / "out")
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    "place", ["scheduler/notes.txt", "scheduler/more", "README.md", "picture.png", "vae"]
)
def test_a_link_out_of_a_pipeline_is_not_published(place, folder, tmp_path):
    strange, home = tmp_path / "pipeline", tmp_path / "home"
    shutil.copytree(folder, strange)
    home.mkdir()
    (home / "id_rsa").write_text("PRIVATE KEY")
    if (strange / place).is_dir():
        shutil.rmtree(strange / place)
    (strange / place).unlink(missing_ok=True)
    is_file = Path(place).suffix
    (strange / place).symlink_to(home / "id_rsa" if is_file else home)
    with pytest.raises(ValueError, match=rf"{place}.* leads out of .*, to {home}/id_rsa.*put a copy"):
        export_pipeline(strange, tmp_path / "out")
    written = [path.read_bytes() for path in tmp_path.glob("*out/**/*") if path.is_file()]
    assert not (tmp_path / "out").exists() and b"PRIVATE KEY" not in b"".join(written)
    if place == "scheduler/notes.txt":
        (strange / "vae" / "more.json").symlink_to(home / "id_rsa")
        with pytest.raises(ValueError, match="more.json leads out"):
            export_autoencoder(strange / "vae", tmp_path / "out")


def test_links_inside_of_a_pipeline_and_of_the_hub_s_cache_are_followed(folder, tmp_path):
    """There every file is a link to a blob beside the snapshot."""
    repository = tmp_path / "hub" / "models--user--code"
    snapshot = repository / "snapshots" / "0123"
    (repository / "blobs").mkdir(parents=True)
    for file in [file for file in folder.rglob("*") if file.is_file()]:
        blob = repository / "blobs" / file.relative_to(folder).as_posix().replace("/", "-")
        shutil.copy2(file, blob)
        if file.suffix == ".safetensors":  # which all repositories of the cache share
            shared = tmp_path / "hub" / "blobs" / "ab" / blob.name
            shared.parent.mkdir(parents=True, exist_ok=True)
            blob.rename(shared)
            blob.symlink_to(os.path.relpath(shared, blob.parent))
        link = snapshot / file.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    (tmp_path / "link").symlink_to(snapshot)
    inside = tmp_path / "inside"
    shutil.copytree(folder, inside)
    (inside / "vae" / "again.json").symlink_to("../vae/config.json")
    expected = digests_below(export_pipeline(folder, tmp_path / "out"))
    for number, source in enumerate((snapshot, tmp_path / "link", inside)):
        digests = digests_below(export_pipeline(source, tmp_path / f"out{number}"))
        digests.pop("vae/again.json", None)
        assert digests == expected
    (repository / "blobs" / "vae-config.json").unlink()
    (tmp_path / "private.json").write_text("{}")
    (repository / "blobs" / "vae-config.json").symlink_to(tmp_path / "private.json")
    with pytest.raises(ValueError, match="config.json leads out"):
        export_pipeline(snapshot, tmp_path / "out3")


def test_modules_that_do_not_go_together_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(eval_package, "__path__", [*eval_package.__path__, str(tmp_path)])

    def write(sources):
        for name, text in sources.items():
            (tmp_path / f"{name.removeprefix('eval.')}.py").write_text(text, encoding="utf-8")
        importlib.invalidate_caches()

    sources = {
        "eval.a": "from eval import b\nfrom eval.c import f\n\n\ndef g():\n    return b.one(f)\n",
        "eval.b": '"""Of b."""\n\nimport math\n\n\ndef one(x):\n    """ö"""; return math.sin(x(math.e))\n',
        "eval.c": "from math import sin\n\n\ndef f(x):\n    return sin(x)\n",
    }
    write(sources)
    text = bundle.self_contained("eval.a", "About.")
    namespace = {}
    exec(compile(text, "bundled", "exec"), namespace)
    assert namespace["g"]() == pytest.approx(0.399, abs=1e-3) and "# From eval/b.py. Of b.\n" in text
    assert text.startswith("# About.\n#\n# SPDX-License-Identifier: Apache-2.0\n#\n# Made of eval.a and")

    for name, changed, message in (
        ("eval.c", "def f(x): return x\n\n\ndef one(): ...\n", "eval.c and eval.b both define one"),
        ("eval.c", "import numpy as math\n\n\ndef f(): ...\n", "imports another math"),
        ("eval.c", "math = 1\n\n\ndef f(): ...\n", "defines math, which another module imports"),
        ("eval.a", "from eval import b\n\n\ndef g(one): return b.one(one)\n", "has a variable one"),
        ("eval.a", "from eval import b\n\n\ndef g(): return b\n", "uses the module b other than"),
        ("eval.a", "def g():\n    from eval.c import f\n", "imports eval.c inside a definition"),
        ("eval.a", "from eval.c import f as h\n", "under the name h"),
    ):
        write(sources | {name: changed})
        with pytest.raises(ValueError, match=message):
            bundle.self_contained("eval.a", "About.")
    write(sources)
    with pytest.raises(ValueError, match="has no A.b to leave out"):
        bundle.self_contained("eval.a", "About.", without=["A.b"])
