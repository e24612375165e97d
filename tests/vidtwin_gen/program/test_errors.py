"""A program ends with one line and a status."""

import gc
import multiprocessing
import os
import re
import signal
import time

import pytest
from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader

from vidtwin_gen.program.errors import user_errors

pytestmark = pytest.mark.usefixtures("hangups_are_heard")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(28, "No space left on device", "runs/a.json"), "runs/a.json: No space left on device; "),
        (OSError(28, "No space left on device"), "a disk, or /dev/shm, which data workers need: No space"),
        (
            RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left"),
            "/dev/shm is full (unable to allocate",
        ),
        (PermissionError(13, "Permission denied", "runs"), "runs: Permission denied; "),
        (OSError(23, "Too many open files in system", "runs"), "runs: Too many open files in system; "),
        (OSError(24, "Too many open files", "runs/a.json"), "too many open files; raise the limit (ulimit"),
        (RuntimeError("Too many open files. Communication with the workers is no"), "too many open files; "),
        (RuntimeError("can't start new thread"), "the system starts no more threads; raise"),
        (MemoryError(), "out of memory (of the CPU)"),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 2 GiB\nmore"),
            "out of memory (CUDA out of memory.",
        ),
    ],
)
def test_what_the_system_refuses_is_one_line(error, line, capsys, monkeypatch):
    def refuse():
        with pytest.raises(SystemExit) as stopped, user_errors("train.py"):
            raise error
        assert stopped.value.code == 1
        return capsys.readouterr().err

    said = refuse()
    assert said.startswith(f"train.py: error: {line}") and said.count("\n") == 1
    monkeypatch.setenv("VIDTWIN_GEN_TRACEBACK", "1")
    assert refuse().startswith("Traceback")


@pytest.mark.parametrize(
    ("error", "line", "status"),
    [
        (ValueError("64 videos in a row are bad"), "64 videos in a row are bad", 2),
        (BlockingIOError(11, "no process"), "[Errno 11] no process; when that is mended, the same", 1),
        (MemoryError(), "out of memory (of the CPU); take", 1),
        (MemoryError("Unable to allocate 3 GiB"), "out of memory (Unable to allocate 3 GiB); take", 1),
        (RuntimeError("unable to allocate shared memory(shm)"), "/dev/shm is full (unable to allocate", 1),
    ],
)
def test_an_error_of_a_data_worker_is_one_line(error, line, status, capsys):
    """Which torch raises again with the worker's traceback as its words."""

    def read(position):
        try:
            raise KeyError(position)
        except KeyError:
            raise error from None

    try:
        read(0)
    except Exception:
        wrapped = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(SystemExit) as stopped, user_errors("train.py"):
        wrapped.reraise()
    assert stopped.value.code == status
    said = capsys.readouterr().err
    assert said.startswith(f"train.py: error: {line}") and said.count("\n") == 1


def test_only_some_errors_are_the_users(capsys):
    for error in (ValueError, FloatingPointError):
        with pytest.raises(SystemExit) as stopped, user_errors("train.py"):
            raise error("--data nowhere: no such folder")
        assert stopped.value.code == 2
        assert capsys.readouterr().err == "train.py: error: --data nowhere: no such folder\n"
    with pytest.raises(TypeError), user_errors("train.py"):
        raise TypeError("ours")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, ValueError, None])
def test_a_signal_is_told_whatever_becomes_of_it(error, number, capsys):
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as stopped, user_errors("encode"):
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        except KeyboardInterrupt:
            if error:
                raise error("a worker died") from None
    assert stopped.value.code == 128 + number
    assert capsys.readouterr().err == f"encode: interrupted by {number.name}\n"
    assert signal.getsignal(number) is before


def test_a_second_hangup_leaves_the_cleaning_up_alone(capsys):
    """A closed terminal sends it by the shell, and by the system when that has ended."""
    cleaned = False
    with pytest.raises(SystemExit) as stopped, user_errors("app"):
        try:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(5)
        finally:
            os.kill(os.getpid(), signal.SIGHUP)
            cleaned = True
    assert stopped.value.code == 129 and cleaned
    assert capsys.readouterr().err == "app: interrupted by SIGHUP\n"


class HalfMade:
    """Interrupted while it is made, as a progress bar may be, it can't be finalised."""

    def __init__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
        self.position = 0

    def __del__(self):
        self.position += 1


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_what_a_signal_leaves_half_made_says_nothing(capsys):
    with pytest.raises(SystemExit), user_errors("encode"):
        HalfMade()
    gc.collect()
    assert capsys.readouterr().err == "encode: interrupted by SIGINT\n"


class Swallows:
    """Destroyed when the signal comes: nothing is raised out of a destructor."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)


def test_a_signal_that_a_destructor_swallows_comes_again(capsys):
    went_on = False
    with pytest.raises(SystemExit) as stopped, user_errors("encode"):
        Swallows()
        time.sleep(5)
        went_on = True
    assert stopped.value.code == 130 and not went_on
    assert capsys.readouterr().err == "encode: interrupted by SIGINT\n"


def test_a_worker_is_not_interrupted_but_ends_when_its_parent_wants_it(capsys):
    """Its parent says what there is to say."""
    with user_errors("encode"):
        context = multiprocessing.get_context("fork")
        worker = context.Process(target=time.sleep, args=(30,), daemon=True)
        worker.start()
        time.sleep(0.05)
        os.kill(worker.pid, signal.SIGINT)
        worker.join(0.2)
        assert worker.is_alive()
        worker.terminate()
        worker.join(30)
    assert worker.exitcode == 128 + signal.SIGTERM and not capsys.readouterr().err


class LostOnTheWay:
    """As a batch whose worker dies while it is handed over."""

    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        return raised, (self.error,)


def raised(error):
    raise error


@pytest.mark.parametrize(
    ("error", "said"),
    [(EOFError(), "EOFError"), (ConnectionRefusedError(111, "refused"), r"\[Errno 111\] refused")],
)
def test_a_lost_worker_is_told_from_a_file_that_ends(error, said, capsys):
    loader = DataLoader([LostOnTheWay(error)], collate_fn=list, num_workers=1)
    with pytest.raises(SystemExit, match="^1$"), user_errors("train"):
        next(iter(loader))
    assert re.match(
        rf"train: error: a data worker has died \({said}\), of what it says above", capsys.readouterr().err
    )
    with pytest.raises(EOFError), user_errors("train"):
        raise EOFError
