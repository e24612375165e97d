"""On a GPU no step has a mixed device, a number in float64, or a wait for the host that need not be."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch

from tests.rehearsal.steps import SAMPLING, TRAINING, faults
from tests.rehearsal.watch import KNOWS_BACKENDS, RehearsalError, Watch, rehearsal

# whether the weights are moved is decided on the host, once per optimizer
SKIPPING = "vidtwin_gen/training/optimizer.py"
PLANTED = {
    "synchronisation": lambda x: float(x.sum()),
    "copy to the host": lambda x: x.cpu(),
    "copy from the host": lambda x: x + torch.zeros(3).to(x.device),
    "host tensor": lambda x: torch.tensor([1.0, 2.0]),
    "float64": lambda x: x.double(),
    "FakeTensorDeviceMismatchError": lambda x: x + torch.zeros(3),
    "DynamicOutputShapeException": lambda x: x[x > 0],
}


@pytest.fixture(scope="module")
def child():
    """The device is there for the rest of a process's life, and autograd has to meet it first: no fork of a
    process that has trained."""
    if not KNOWS_BACKENDS:
        pytest.skip(f"torch {torch.__version__} knows no device that is made in Python")
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        yield pool


def planted(kind: str) -> list[str]:
    with rehearsal() as device:
        x = torch.zeros(3, device=device)
        with Watch() as watch:
            PLANTED[kind](x)
    return [str(fault) for fault in watch.faults]


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_fault_is_found_with_its_place(child, kind):
    try:
        found = child.submit(planted, kind).result()
    except RehearsalError as error:
        found = [str(error)]
    assert [text for text in found if f": {kind} (" in text and text.startswith("tests/rehearsal/test_")]


@pytest.mark.parametrize("name", TRAINING)
def test_a_training_step_waits_for_nothing_but_whether_to_move_the_weights(child, name):
    found = child.submit(faults, name).result()
    waits = [fault for fault in found if fault.place.startswith(SKIPPING) and fault.kind == "synchronisation"]
    assert [str(fault) for fault in found if fault not in waits] == []
    assert len(waits) == (2 if name == "stage 1" else 1)


# schedulers of one and of two calls of the network a step; the others are slow, all together
EDITING = ("editing, flow euler", "editing, flow heun")
SLOW = [name for name in SAMPLING if name.startswith("editing") and name not in EDITING]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in SAMPLING]
)
def test_sampling_waits_for_nothing_of_ours(child, name):
    """Schedulers of diffusers keep noise levels on the host; what they do is theirs."""
    found = [str(fault) for fault in child.submit(faults, name).result() if not fault.package]
    assert found == []


def test_metrics_stay_on_the_device(child):
    """torchmetrics makes constants of its own."""
    found = [fault for fault in child.submit(faults, "metrics").result() if fault.package != "torchmetrics"]
    assert [str(fault) for fault in found] == []
