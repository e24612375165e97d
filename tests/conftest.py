"""A small data set and one short run of each stage, made once for all workers. Tests never write there. And a
browser."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

import train_dit
import train_vae
from tests.builders.runs import DIT_FLAGS, VAE_FLAGS, Latents, Run, command_line, encode
from tests.builders.video_encoders import save_video_encoder
from vidtwin_gen.data.synthetic import write_dataset
from vidtwin_gen.files import write_json

torch.set_num_threads(1)  # of the few cores, so that times and numbers do not depend on their count

MadeOnce = Callable[[str, Callable[[Path], object]], Path]


LONGEST = ("test_distributed.py", "test_checkpoints.py", "test_stopping.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no process is left with one of them at the end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture
def hangups_are_heard() -> Iterator[None]:
    """Under `nohup`, too, which has them ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """`made_once(name, make)`: the folder that `make(folder)` fills. The first of pytest-xdist's workers that
    needs it makes it, the others wait."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # a worker has a folder of its own

    def folder_of(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = shared / name, shared / f"{name}.done"
        with FileLock(shared / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return folder_of


@pytest.fixture(scope="session")
def synthetic_root(made_once: MadeOnce) -> Path:
    """The embedded data set with one clip per group: 200 videos of 16 frames."""

    def make(folder: Path) -> None:
        write_dataset(folder / "videos", clips_per_group=1, num_frames=16)

    return made_once("synthetic", make) / "videos"


@pytest.fixture(scope="session")
def tiny_vae_run(synthetic_root: Path, made_once: MadeOnce) -> Run:
    """Of train_vae."""
    flags = VAE_FLAGS | {"data": synthetic_root}
    folder = made_once("tiny_vae", lambda folder: train_vae.main(command_line(flags, output_dir=folder)))
    return Run(flags, folder)


@pytest.fixture(scope="session")
def tiny_latents(tiny_vae_run: Run, synthetic_root: Path, made_once: MadeOnce) -> Latents:
    """Of the run's autoencoder over the whole data set."""

    def make(folder: Path) -> None:
        shutil.copytree(tiny_vae_run.output_dir / "autoencoder", folder / "autoencoder")
        metadata = encode(folder / "autoencoder", synthetic_root, folder / "latents")
        write_json(folder / "returned.json", metadata)

    folder = made_once("tiny_latents", make)
    metadata = json.loads((folder / "returned.json").read_text(encoding="utf-8"))
    return Latents(folder / "autoencoder", folder / "latents", metadata)


@pytest.fixture(scope="session")
def few_videos(synthetic_root: Path, made_once: MadeOnce) -> Path:
    """Two classes of ten videos without lists: the split is by hash."""

    def make(folder: Path) -> None:
        for name in ("PulsingRing", "SpinningBar"):
            (folder / name).mkdir(parents=True)
            for path in sorted((synthetic_root / name).iterdir())[:10]:
                shutil.copy(path, folder / name)

    return made_once("few_videos", make)


@pytest.fixture(scope="session")
def featured_latents(tiny_vae_run: Run, few_videos: Path, made_once: MadeOnce) -> Latents:
    """Of few videos, each window as it is and mirrored, with the features of a video encoder that lies beside
    them, `encoder`."""

    def make(folder: Path) -> None:
        shutil.copytree(tiny_vae_run.output_dir / "autoencoder", folder / "autoencoder")
        save_video_encoder(folder / "encoder")
        options = {"features": str(folder / "encoder"), "flip": True}
        metadata = encode(folder / "autoencoder", few_videos, folder / "latents", **options)
        write_json(folder / "returned.json", metadata)

    folder = made_once("featured_latents", make)
    metadata = json.loads((folder / "returned.json").read_text(encoding="utf-8"))
    return Latents(folder / "autoencoder", folder / "latents", metadata)


@pytest.fixture(scope="session")
def tiny_dit_run(tiny_latents: Latents, made_once: MadeOnce) -> Run:
    """Of train_dit, over those latents."""
    flags = DIT_FLAGS | {"vae": tiny_latents.vae_dir, "latents": tiny_latents.latents_dir}
    folder = made_once("tiny_dit", lambda folder: train_dit.main(command_line(flags, output_dir=folder)))
    return Run(flags, folder)


OFF = ("background-networking", "component-update", "sync", "gpu")
CHROMIUM_ARGUMENTS = ["--headless", "--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in OFF)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The system's Chromium."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install -e '.[test]'"
    )
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    with playwright.sync_playwright() as running:
        yield running.chromium.launch(executable_path=path, args=CHROMIUM_ARGUMENTS)
