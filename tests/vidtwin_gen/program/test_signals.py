"""Signals are handled inside, and as before outside."""

import signal
import subprocess
import sys
import threading

import pytest

from vidtwin_gen.program.signals import SIGNALS, RaisingSignals, handled_by

pytestmark = pytest.mark.usefixtures("hangups_are_heard")


def test_handlers_are_left_to_the_main_thread():
    """A training may run in another one, as in a notebook's, and then gets no signals."""
    seen = []

    def work():
        with handled_by(print):
            seen.append([signal.getsignal(number) for number in SIGNALS])

    before = [signal.getsignal(number) for number in SIGNALS]
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


@pytest.mark.parametrize("earlier", [signal.SIG_IGN, signal.SIG_DFL])
def test_nohup_keeps_a_hangup_from_a_program(earlier):
    before = signal.signal(signal.SIGHUP, earlier)
    try:
        for inside in (handled_by(print), RaisingSignals("encode")):
            with inside:
                assert (signal.getsignal(signal.SIGHUP) is signal.SIG_IGN) == (earlier is signal.SIG_IGN)
            assert signal.getsignal(signal.SIGHUP) is earlier
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_handled_signals_before_does_so_afterwards():
    before = [signal.getsignal(number) for number in SIGNALS]
    with handled_by(print):
        assert {signal.getsignal(number) for number in SIGNALS} == {print}
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_signal_that_nobody_catches_is_told_and_ends_the_process():
    """As one is that comes when the block has just ended."""
    program = (
        "import os, signal, time; from vidtwin_gen.program.signals import RaisingSignals\n"
        "RaisingSignals('encode').__enter__(); os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert ended.returncode == -signal.SIGTERM
    assert ended.stderr == "encode: interrupted by SIGTERM\n"
