"""A decoder that aborts or never comes back costs a file."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from torch.utils.data import DataLoader

from benchmarks.codecs import encode, pattern
from tests.builders import decoders
from tests.builders.videos import frame_numbers, numbered_frames
from vidtwin_gen.data.decoding import frames, guarded, video_index
from vidtwin_gen.data.decoding.guarded import DecoderLostError
from vidtwin_gen.data.decoding.process import DecoderDiedError, decoder_process, end_idle
from vidtwin_gen.data.ucf101 import build_index
from vidtwin_gen.data.video import read_clip, read_frames
from vidtwin_gen.data.video_dataset import VideoDataset, collate
from vidtwin_gen.data.whole_video import VideoWindows
from vidtwin_gen.data.writing import write_video
from vidtwin_gen.devices import worker_context
from vidtwin_gen.program.signals import SIGNALS


def ask(function, *args, timeout=60):
    with decoder_process() as process:
        return list(process.results(timeout, function, *args))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_file_that_aborts_or_hangs_the_decoder_costs_that_file(tmp_path, monkeypatch, num_workers):
    for name in ("v_A_g01_c01", f"v_A_g01_{decoders.ABORTS}", f"v_A_g01_{decoders.HANGS}", "v_A_g02_c01"):
        write_video(tmp_path / "A" / f"{name}.mp4", numbered_frames(6), fps=25)
    monkeypatch.setattr(video_index, "_read_index", decoders.index_or_fail)
    monkeypatch.setattr(guarded, "DECODE_TIMEOUT_S", 5.0)
    index = build_index(tmp_path)
    dataset = VideoDataset(index, 4, 16, shuffle=False)
    context = worker_context(num_workers)
    loader = DataLoader(
        dataset, sampler=range(6), num_workers=num_workers, collate_fn=list, multiprocessing_context=context
    )
    samples = [sample for batch in loader for sample in batch]
    names = [os.path.basename(path) for path in index["path"]]
    bad = {row for row, name in enumerate(names) if decoders.ABORTS in name or decoders.HANGS in name}
    assert len(samples) == 6 and not bad & set(collate(samples)["index"])
    reasons = dict(collate(samples)["skipped"])
    assert set(reasons) == bad
    for row, reason in reasons.items():
        aborts = decoders.ABORTS in names[row]
        seen = "ended the decoder's process (SIGABRT)" if aborts else "came no further for 5 s"
        assert names[row] in reason and seen in reason


@pytest.mark.parametrize("how", [decoders.ABORTS, decoders.HANGS])
def test_where_random_access_fails_so_the_file_is_read_in_order(tmp_path, monkeypatch, how):
    path = tmp_path / f"{how}.mp4"
    write_video(path, numbered_frames(12), fps=25, quality=10)
    monkeypatch.setattr(frames, "random_access", lambda decoder: decoders.decord_or_fail)
    monkeypatch.setattr(guarded, "DECODE_TIMEOUT_S", 5.0)
    assert video_index.video_index(path).seekable
    assert frame_numbers(read_clip(path, 3, size=32, start=5)) == [5, 6, 7]
    assert not video_index.video_index(path).seekable


def test_a_long_video_may_take_longer_than_the_limit_as_long_as_decoding_goes_on(tmp_path, monkeypatch):
    """To count the frames of a .ts, and to read its last ones, is to decode all of it."""
    path = encode("x264 in ts", pattern("64x48", 30), tmp_path)
    expected = read_frames(path, 2, start=28).frames
    monkeypatch.setattr(guarded, "DECODE_TIMEOUT_S", 1.5)
    monkeypatch.setattr(video_index, "_read_index", decoders.index_slowly)
    monkeypatch.setattr(frames, "_in_order", decoders.in_order_slowly)
    begin = time.monotonic()
    os.utime(path, (0, 0))  # so that it is looked at again
    assert video_index.video_index(path).num_frames == 30
    assert np.array_equal(read_frames(path, 2, start=28).frames, expected)
    assert time.monotonic() - begin > 3 * 30 * decoders.SLOW_S > 4 * 1.5  # two passes and the reading


def test_a_path_is_relative_to_the_folder_that_the_caller_works_in_now(tmp_path, monkeypatch):
    for name, count in (("first", 6), ("second", 9)):
        write_video(tmp_path / name / "clip.mp4", numbered_frames(count), fps=25)
    end_idle()
    seen = {}
    for name in ("first", "second"):  # the second by a process that the first call started
        monkeypatch.chdir(tmp_path / name)
        seen[name] = video_index.video_index("clip.mp4").num_frames
    assert seen == {"first": 6, "second": 9}
    removed = tmp_path / "removed"
    removed.mkdir()
    monkeypatch.chdir(removed)
    removed.rmdir()
    assert frame_numbers(read_clip(tmp_path / "first" / "clip.mp4", 2, size=32, start=1)) == [1, 2]


def test_whole_videos_are_refused_likewise(tmp_path, monkeypatch):
    path = tmp_path / f"{decoders.ABORTS}.mp4"
    write_video(path, numbered_frames(6), fps=25)
    windows = VideoWindows(path, 4, size=16)
    monkeypatch.setattr("vidtwin_gen.data.whole_video.frames_at", decoders.decord_or_fail)
    with pytest.raises(DecoderLostError, match="SIGABRT"):
        next(iter(windows))


def test_one_process_answers_call_after_call_whatever_signal_the_job_gets():
    end_idle()
    (first,) = ask(decoders.own_pid)
    for number in SIGNALS:
        os.kill(first, number)
    with pytest.raises(ZeroDivisionError, match="as the function says"):
        ask(decoders.wrong)
    assert ask(decoders.own_pid) == [first]
    os.kill(first, signal.SIGKILL)
    with pytest.raises(DecoderDiedError, match="SIGKILL"):
        ask(decoders.own_pid)
    (second,) = ask(decoders.own_pid)
    assert second != first


@pytest.mark.parametrize("number", SIGNALS)
def test_a_process_that_starts_hears_no_signal_of_the_job(number):
    end_idle()
    with decoder_process() as process:
        os.kill(process.process_id, number)
        assert list(process.results(60, decoders.own_pid)) == [process.process_id]
    assert number not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_process_that_is_ended_in_the_middle_leaves_no_other(tmp_path):
    end_idle()
    with decoder_process() as process:
        results = process.results(60, decoders.megabytes, tmp_path / "made", 50)
        next(results)
        with decoder_process() as other:
            assert next(other.results(60, decoders.own_pid)) != process.process_id
        time.sleep(0.3)  # it goes on as far as it may
        assert int((tmp_path / "made").read_text()) < 5  # of 50 that wait for us
        number = process.process_id
    assert not psutil.pid_exists(number)


def test_a_forked_process_has_decoders_of_its_own(tmp_path):
    end_idle()
    (ours,) = ask(decoders.own_pid)
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        os.write(writing, str(ask(decoders.own_pid)).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reading, 100).decode() not in ("", str([ours]))
    assert ask(decoders.own_pid) == [ours]


def test_a_job_that_was_stopped_for_longer_than_the_limit_goes_on():
    """By Ctrl-Z, or by a cluster that gives its place to another for a while."""
    program = """
from tests.builders.decoders import busy
from vidtwin_gen.data.decoding import process
process.SLICE_S = 0.1
with process.decoder_process() as decoder:
    for pid in decoder.results(2, busy):
        print(pid, flush=True)
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as job:
        job.stdout.readline()
        time.sleep(0.1)
        os.killpg(job.pid, signal.SIGSTOP)
        time.sleep(2)
        os.killpg(job.pid, signal.SIGCONT)
    assert job.returncode == 0


def test_a_killed_process_takes_its_decoder_along_in_the_middle_of_a_call():
    program = """
from tests.builders.decoders import sleepy
from vidtwin_gen.data.decoding.process import decoder_process
with decoder_process() as process:
    for pid in process.results(600, sleepy):
        print(pid, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        decoder = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    decoder.wait(30)
