"""What a program says may be lost; its work is not."""

import os
import pty
import subprocess
import sys

import pytest


def pipe_without_reader():
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def terminal_that_went_away():
    ours, theirs = pty.openpty()
    os.close(ours)
    return theirs


def full_disk():
    return os.open("/dev/full", os.O_WRONLY)


TALKS = """
import sys
from pathlib import Path
from tqdm import tqdm
from vidtwin_gen.program.errors import user_errors
with user_errors("encode"):
    for number in tqdm(range(3), mininterval=0):
        tqdm.write(10_000 * "x")
        print(number)
        sys.stdout.flush()
    print("done", file=Path("done").open("w"))
    if len(sys.argv) > 1:
        raise ValueError(sys.argv[1])
    print("left in the buffer", end="")
"""


@pytest.mark.parametrize("opened", [pipe_without_reader, terminal_that_went_away, full_disk, None])
@pytest.mark.parametrize("words", [[], ["a mistake"]])
def test_what_nobody_takes_is_lost_and_the_work_is_not(opened, words, tmp_path):
    """With a reader that was killed before it, or `>&-`, which closes the stream."""
    stream = opened and opened()
    ended = subprocess.run(
        [sys.executable, "-c", TALKS, *words],
        cwd=tmp_path,
        stdout=stream,
        stderr=stream,
        preexec_fn=None if opened else lambda: os.closerange(1, 3),
        env=os.environ | {"PYTHONPATH": os.getcwd()},
        check=False,
        timeout=60,
    )
    assert ended.returncode == (2 if words else 0)
    assert (tmp_path / "done").read_text() == "done\n"
    if stream is not None:
        os.close(stream)


def test_lost_lines_are_told_unless_their_reader_wanted_no_more(tmp_path):
    told = {}
    for opened in (pipe_without_reader, full_disk):
        ended = subprocess.run(
            [sys.executable, "-c", TALKS],
            cwd=tmp_path,
            stdout=opened(),
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.getcwd()},
            check=True,
            text=True,
        )
        told[opened] = ended.stderr.splitlines()[-1]
    line = "encode: what it said on standard output is lost in part: [Errno 28] No space left on device"
    assert told[full_disk] == line and "3/3" in told[pipe_without_reader]
