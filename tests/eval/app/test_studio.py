"""The studio's work without its page."""

from __future__ import annotations

import os
import socket
import sys
import time
from threading import Lock

import numpy as np
import psutil
import pytest

from eval.app import costs, markup
from eval.app.jobs import WAITING, in_child, steps_of
from eval.app.settings import Settings
from eval.app.studio import Clip, Studio
from eval.app.videos import MOST_FRAMES
from pipelines.__main__ import main
from tests.builders.clips import drifting_clips
from tests.builders.pipelines import HEIGHT, NAMES, NUM_FRAMES, WIDTH, build_pipeline
from tests.builders.videos import write_apng
from vidtwin_gen.data.decoding.process import end_idle
from vidtwin_gen.data.writing import write_video

LENGTH = MOST_FRAMES + NUM_FRAMES // 2


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studio") / "pipeline"
    build_pipeline().save_pretrained(folder)
    return Studio(folder)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """A long one and a short one, of another rate."""
    folder = tmp_path_factory.mktemp("videos")
    for name, length, fps in (("long", LENGTH, 25), ("short", 15, 10)):
        (clip,) = drifting_clips(1, 0, (length, 24, 40))
        write_video(folder / f"{name}.mp4", clip, fps)
    return folder


def settings(scheduler="FlowMatchEulerDiscreteScheduler", **changes):
    fields = {"num_inference_steps": 3, "guidance_scale": 2.0, "start": 0.0, "stop": 1.0}
    fields |= {"internal_guidance_scale": 1.0, "scheduler": scheduler, "seed": 5, "num_videos": 2}
    return Settings(**fields | changes)


def done(job):
    """What a job said, each thing once, and its result."""
    said = []
    while True:
        try:
            said.append(next(job))
        except StopIteration as end:
            return list(dict.fromkeys(said)), end.value


def check_code(clip, other):
    """The Python of a clip makes it, and not the other one."""
    names = {}
    exec(clip.code, names)
    again = np.stack([np.asarray(frame) for frame in names["frames"]]).astype(int)
    assert abs(again - clip.frames).max() <= 1 < abs(again - other.frames).max()


@pytest.mark.parametrize("scheduler", ["FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler"])
def test_the_python_of_a_clip_makes_it_again(studio, scheduler):
    said, (clips, _) = done(studio.generate(1, settings(scheduler)))
    assert said == [(0, 1), (1, 3), (2, 3), (3, 3)]
    assert [clip.title for clip in clips] == [f"{NAMES[1]}, seed 5, clip {number}" for number in (0, 1)]
    check_code(clips[1], clips[0])


@pytest.mark.parametrize("name", ["FlowMatchHeunDiscreteScheduler", "DPMSolverMultistepScheduler"])
def test_all_schedulers_that_are_offered_sample(studio, name):
    _, (clips, _) = done(studio.generate(0, settings(name, num_videos=1)))
    assert clips[0].frames.shape == (NUM_FRAMES, HEIGHT, WIDTH, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_inference_steps": None}, "number of steps is a whole number from 1 to 250, got nothing"),
        ({"num_inference_steps": 10_000}, "got 10000"),
        ({"seed": -1}, "seed"),
        ({"seed": 1.5}, "got 1.5"),
        ({"num_videos": 0}, "number of clips"),
        ({"guidance_scale": float("nan")}, "guidance is a number"),
        ({"start": 0.5, "stop": 0.5}, "to a later one"),
    ],
)
def test_a_field_that_cannot_be_met(changes, message):
    with pytest.raises(ValueError, match=message):
        settings(**changes)


def test_what_else_is_refused(studio, videos):
    file = str(videos / "short.mp4")
    for job, message in (
        (studio.generate(None, settings()), "choose a class"),
        (studio.generate(0, settings("PNDMScheduler")), "choose a scheduler"),
        (studio.generate(0, settings(internal_guidance_scale=2.0)), "head"),
        (studio.take_apart(None, 1), "drop a video"),
        (studio.take_apart(file, 0), "got 0"),
        (studio.take_apart(file, 3), "^short.mp4: holds 15 frames"),
        (studio.take_apart(str(videos / "gone.mp4"), 1), "^gone.mp4 is not here"),
        (studio.reenact(file, None, 1), "two videos"),
    ):
        with pytest.raises(ValueError, match=message) as refusal:
            done(job)
        assert str(videos) not in str(refusal.value)
    done(studio.generate(0, settings(num_videos=1)))  # and it goes on


def test_a_video_is_taken_apart_and_cut(studio, videos):
    said, (clips, text) = done(studio.take_apart(str(videos / "long.mp4"), 1))
    assert said[-1] == (MOST_FRAMES // NUM_FRAMES,) * 2
    titles = ["long.mp4", "reconstruction", "Structure alone", "Dynamics alone"]
    assert [clip.title for clip in clips] == titles
    assert {clip.frames.shape for clip in clips} == {(MOST_FRAMES, HEIGHT, WIDTH, 3)}
    assert "PSNR" in text and "LPIPS" in text and f"has {LENGTH} frames" in text
    _, (clips, text) = done(studio.take_apart(str(videos / "short.mp4"), 1))
    assert clips[0].frames.shape[0] == 15 and "are used" not in text


def test_parts_are_swapped_kept_and_mixed(studio, videos, monkeypatch):
    monkeypatch.chdir(videos)  # the Python of a clip names a visitor's file without its folder
    long, short = (str(videos / f"{name}.mp4") for name in ("long", "short"))
    _, (clips, text) = done(studio.reenact(long, short, 1))
    assert len(clips) == 4 and {clip.fps for clip in clips} == {25}
    assert len({clip.frames.shape for clip in clips}) == 1 and "B is short.mp4, of" in text
    assert not clips[0].code
    check_code(clips[2], clips[3])
    _, (clips, _) = done(studio.reenact(long, long, 1))
    a, _, first, second = (clip.frames for clip in clips)
    _, (apart, _) = done(studio.take_apart(long, 1))
    assert np.array_equal(first, second)
    assert abs(first.astype(int) - apart[1].frames).max() <= 1  # of another batch
    assert not apart[0].code
    check_code(apart[1], apart[2])
    check_code(apart[2], apart[3])

    _, (clips, _) = done(studio.edit(long, 1, "structure", 2, settings()))
    assert [len(clip.frames) for clip in clips] == [NUM_FRAMES] * 3
    assert np.array_equal(clips[0].frames, a[:NUM_FRAMES])
    assert not np.array_equal(clips[1].frames, clips[2].frames) and not clips[0].code
    check_code(clips[2], clips[1])

    _, (clips, _) = done(studio.mix(3, 3, settings(num_videos=1)))
    assert len({clip.frames.tobytes() for clip in clips}) == 4  # of one class, too
    for clip, other in zip(clips, clips[1:] + clips[:1], strict=True):
        check_code(clip, other)


def test_work_that_nobody_waits_for_ends(studio):
    job = studio.generate(0, settings(num_inference_steps=250, num_videos=8))
    assert next(job) == (0, 1)
    other = studio.generate(0, settings(num_videos=1))
    assert WAITING in other
    job.close()
    said, (clips, _) = done(other)
    assert said[-1] == (3, 3) and len(clips) == 1


def test_a_video_that_nobody_waits_for_is_read_no_further(studio, tmp_path):
    end_idle()
    others = set(psutil.Process().children())

    def decoders():
        return set(psutil.Process().children()) - others

    write_apng(tmp_path / "long.mp4", 2000, 2000, 3000)  # tens of seconds
    job = studio.take_apart(str(tmp_path / "long.mp4"), 1)
    while not decoders():
        assert next(job) == (0, 1)
    assert [next(job) for _ in range(5)] == [(0, 1)] * 5
    assert decoders()
    job.close()
    end = time.monotonic() + 10
    while decoders() and time.monotonic() < end:
        time.sleep(0.05)
    assert not decoders()


def test_the_error_of_a_work_is_its_own():
    def work(step):
        raise ValueError("no such thing")

    turn = Lock()
    with pytest.raises(ValueError, match="no such thing"):
        done(steps_of(work, turn))
    assert not turn.locked()


def test_a_crash_in_a_child_is_an_error_here():
    assert in_child(os.path.basename, "a/b") == "b"
    with pytest.raises(ValueError, match="the process that counted it ended"):
        in_child(os.abort)


def test_clips_are_in_the_page_and_names_are_text():
    frames = drifting_clips(1, 0, (60, 15, 17))[0].numpy()  # odd, and faster than a GIF plays
    html = markup.gallery([Clip("<script>alert(1)</script>.mp4", frames, 60.0, "a < b")])
    assert "<script" not in html and "a &lt; b" in html
    assert html.count("data:video/mp4;base64,") == 2 and html.count("data:image/gif;base64,") == 1
    assert "http" not in html and "<script" not in markup.said("<script>")


def test_costs_are_those_of_the_command():
    (clip, names), *_ = costs.clip_sizes().items()
    assert clip == "16×224×224" and names[:2] == ["vidtwin-1", "magvit-v2"]
    rows = [costs.cost_row(name, "figure5", 4) for name in names[:2]]
    assert [row.num_tokens for row in rows] == [32, 49]
    html = markup.costs(rows)
    assert "than MAGVIT-v2" in html and html.count("<i ") == 8 and markup.costs([])


def test_the_command_refuses_in_one_line(capsys, monkeypatch, tmp_path):
    def refused(*words: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            main(["app", *words])
        error = capsys.readouterr().err
        assert stopped.value.code == 2 and error.count("\n") == 1
        return error

    monkeypatch.setitem(sys.modules, "gradio", None)
    assert "pip install 'gradio" in refused()
    monkeypatch.delitem(sys.modules, "gradio")
    assert "model_index.json" in refused("--pipeline", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "name another" in refused("--port", str(taken.getsockname()[1]))


def test_gradio_keeps_one_gallery_of_a_visitor(studio, tmp_path, monkeypatch):
    """A studio runs for weeks."""
    pytest.importorskip("gradio", reason="gradio is not installed: pip install -e '.[test]'")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    import httpx

    from eval.app.page import LOOK, make_page

    page = make_page(studio)
    _, url, _ = page.launch(
        server_name="127.0.0.1", prevent_thread_lock=True, ssr_mode=False, quiet=True, **LOOK
    )
    try:
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            config = client.get("config").json()
            labels = {part["id"]: part["props"].get("label") for part in config["components"]}
            generate = next(fn for fn in config["dependencies"] if "Class" in map(labels.get, fn["inputs"]))
            call = {"fn_index": generate["id"], "session_hash": "visitor", "data": [None, NAMES[0]]}
            call["data"] += [1, 2, 0, 1, 1, next(iter(studio.schedulers)), 0, 1]
            kept, last = [], ""
            for _ in range(3):
                client.post("gradio_api/queue/join", json=call).raise_for_status()
                with client.stream(
                    "GET", "gradio_api/queue/data", params={"session_hash": "visitor"}
                ) as said:
                    last = max((line for line in said.iter_lines()), key=len)
                kept.append(len(page.app.state_holder.session_data["visitor"].config_values))
    finally:
        page.close(verbose=False)
    assert "<video" in last and len(set(kept)) == 1
