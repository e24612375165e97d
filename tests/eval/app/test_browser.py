"""The studio's page, as a Space serves it, in a headless Chromium."""

from __future__ import annotations

import os
import re
import runpy
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders.clips import drifting_clips
from vidtwin_gen.data.writing import write_video

pytest.importorskip("gradio", reason="gradio is not installed: pip install -e '.[test]'")

ROOT = Path(__file__).parents[3]
WAIT_MS = 120_000
# How much two moments of a video differ, summed over its pixels.
DIFFERENCE = """async video => {
    video.pause();
    const canvas = Object.assign(document.createElement("canvas"), {width: 32, height: 32});
    const context = canvas.getContext("2d");
    const has_frame = async () => {
        do await new Promise(resolve => setTimeout(resolve, 50));
        while (video.seeking || video.readyState < 2);
    };
    const pixels = async time => {
        video.currentTime = time;
        await has_frame();
        context.drawImage(video, 0, 0, 32, 32);
        return context.getImageData(0, 0, 32, 32).data;
    };
    await has_frame();
    const [first, last] = [await pixels(0.01), await pixels(0.9 * video.duration)];
    return first.reduce((sum, value, i) => sum + Math.abs(value - last[i]), 0);
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    """Of the studio with the shipped weights, which leaves nothing behind when it is ended."""
    temporary, space = tmp_path_factory.mktemp("temporary"), tmp_path_factory.mktemp("space")
    make_space = runpy.run_path(str(ROOT / "examples" / "space" / "make_space.py"))["main"]
    make_space([str(space)])
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "app.py"],
        cwd=space,
        env=os.environ | {"TMPDIR": str(temporary), "no_proxy": "127.0.0.1", "GRADIO_SERVER_PORT": str(port)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    try:
        assert f":{port}/" in line
        assert list(temporary.glob("vidtwin-gen-app-*"))
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        assert process.wait(60) == 143
    assert not list(temporary.glob("vidtwin-gen-app-*"))


@pytest.fixture
def visitor(browser, address):
    """Makes pages, each of another visitor, that ask no other machine for anything and meet no error."""
    contexts, requested, errors = [], [], []

    def new_page(**options):
        contexts.append(browser.new_context(**options))
        contexts[-1].set_default_timeout(WAIT_MS)
        page = contexts[-1].new_page()
        page.on("request", lambda request: requested.append(request.url))
        page.on("pageerror", lambda error: errors.append(error))
        page.goto(address)
        return page

    yield new_page
    for context in contexts:
        context.close()
    assert not errors
    assert all(url.startswith((f"{address}/", "data:", "blob:")) for url in requested)


@pytest.fixture
def page(visitor):
    return visitor()


def press(page, name):
    page.get_by_role("button", name=name, exact=True).locator("visible=true").click()


def fill(page, name, value):
    field = page.get_by_label(f"number input for {name}")
    field.fill(str(value))
    field.blur()


def state(page, text):
    """What the page says, once it is this."""
    found = page.locator(".state:visible").filter(has_text=re.compile(text))
    found.wait_for()
    return found.inner_text()


def upload(page, file):
    page.locator("input[type=file]").first.set_input_files(file)
    page.get_by_role("button", name="Remove this file").or_(page.get_by_label("Clear")).first.wait_for()


def test_a_generated_clip_plays_and_can_be_had(page):
    fill(page, "Number of clips", 2)
    press(page, "Generate")
    assert "2 clips" in state(page, "clips")
    videos = page.locator("video:visible")
    assert videos.count() == 2 and videos.first.get_attribute("controls") is not None
    assert moves(videos.first)
    assert videos.first.evaluate(DIFFERENCE) > 1000  # which pauses it
    assert page.get_by_role("link", name="gif").first.get_attribute("download").endswith(".gif")
    page.get_by_text("Python").locator("visible=true").first.click()
    assert "clip_generator(0, 0, 0)" in page.locator("pre:visible").inner_text()


def moves(video):
    """Whether a clip plays by itself."""
    video.page.wait_for_function("video => video.readyState == 4", arg=video.element_handle())
    video.page.wait_for_timeout(500)
    return video.evaluate("video => !video.paused && video.currentTime > 0")


def test_a_clip_does_not_move_where_motion_is_unwanted(visitor):
    page = visitor(reduced_motion="reduce")
    fill(page, "Number of clips", 1)
    press(page, "Generate")
    assert "1 clip" in state(page, "clip")
    video = page.locator("video:visible")
    assert not moves(video)
    video.evaluate("video => video.play()")
    assert not video.evaluate("video => video.paused")


def test_a_run_is_stopped(page):
    fill(page, "Steps", 250)
    fill(page, "Number of clips", 8)
    press(page, "Generate")
    state(page, r"step [1-9]\d* of 250")
    press(page, "Stop")
    state(page, "stopped")
    fill(page, "Steps", 3)
    press(page, "Generate")
    state(page, "8 clips")


def test_two_visitors_do_not_meet(page, visitor):
    other = visitor()
    fill(page, "Number of clips", 8)
    fill(page, "Steps", 50)
    press(page, "Generate")
    state(page, r"step [1-9]\d* of 50")
    press(other, "Stop")
    fill(other, "Number of clips", 1)
    press(other, "Generate")
    for shown, told, count in ((page, "8 clips, ", 8), (other, "1 clip, ", 1)):
        assert told in state(shown, "clips?, ")
        assert shown.locator("video:visible").count() == count


def test_a_video_is_measured_and_a_broken_one_refused(page, tmp_path):
    (clip,) = drifting_clips(1, 0, (16, 40, 56))
    write_video(tmp_path / "<b>clip.mp4", clip, 25)
    (tmp_path / "broken.mp4").write_bytes((tmp_path / "<b>clip.mp4").read_bytes()[:500])
    page.get_by_role("tab", name="Structure and Dynamics").click()
    upload(page, tmp_path / "broken.mp4")
    press(page, "Take A apart")
    assert "broken.mp4: cannot be decoded" in state(page, "broken")
    page.reload()
    take_apart(page, tmp_path / "<b>clip.mp4")


def test_a_real_clip_is_measured(page):
    clip = ROOT.parent / "shared" / "data" / "ucf101-10" / "Biking" / "v_Biking_g01_c01.mp4"
    if not clip.exists():
        pytest.skip("no UCF-101 files in ../shared/data/ucf101-10")
    take_apart(page, clip)
    assert "has 151 frames at this rate: the first 96 are used" in state(page, "PSNR")


def take_apart(page, clip):
    page.get_by_role("tab", name="Structure and Dynamics").click()
    upload(page, clip)
    press(page, "Take A apart")
    psnr = re.findall(r"PSNR ([\d.]+) dB, SSIM ([\d.]+), LPIPS ([\d.]+)", state(page, "PSNR"))
    assert psnr and page.locator("video:visible").count() == 4
