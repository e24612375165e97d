"""A child does not outlive its parent."""

import os
import signal
import subprocess
import sys
import time

import pytest


def test_a_child_ends_with_its_parent():
    """A data worker, and a process as the demo starts it."""
    parent = """if True:
        import subprocess, sys, time
        from vidtwin_gen.program.children import end_with_parent
        command = [sys.executable, "-c", "print(flush=True); import time; time.sleep(60)"]
        child = subprocess.Popen(command, preexec_fn=end_with_parent, stdout=subprocess.PIPE)
        child.stdout.readline()
        print(child.pid, flush=True)
        time.sleep(60)"""
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as process:
        child = int(process.stdout.readline())
        process.kill()
        process.wait(30)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    pytest.fail(f"{child} lives on")


@pytest.mark.parametrize("module", ["eval.cost.measured_step", "eval.app.jobs"])
def test_a_server_of_forked_processes_is_silent_about_ctrl_c(module):
    """Also while it imports torch, which takes seconds."""
    code = f"import os, signal, {module} as module; __import__(module.PRELOAD[0])"
    code += "; os.kill(os.getpid(), signal.SIGINT)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, "")
