"""A GPU that is not there: what a step does to it is seen, and nothing is computed.

torch's CPU build knows no fake `cuda` tensors with gradients, so the device is torch's place for a backend of
one's own. It is set up for the whole process: use a child, as `tests.rehearsal.child` does.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import backend_registration
from torch.utils._foreach_utils import _foreach_supported_types
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

ROOT = Path(__file__).parents[2]
GPU = "gpu"
AUTOCAST = torch._C.DispatchKey.AutocastPrivateUse1
# Of the operations that CUDA's autocast casts, those that our models call.
IN_BF16 = ("linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "scaled_dot_product_attention",
           "conv1d", "conv2d", "conv3d", "conv_transpose2d.input")  # fmt: skip
IN_FLOAT32 = ("layer_norm", "group_norm", "softmax.int", "log_softmax.int", "exp", "log", "pow.Tensor_Scalar",
              "norm.Scalar", "norm.ScalarOpt_dim", "sum", "sum.dim_IntList", "prod", "cosine_similarity",
              "mse_loss", "l1_loss")  # fmt: skip
NOT_KERNELS = {"aten::detach", "aten::lift_fresh", "aten::_unsafe_view", "prim::device"}


class GPUGenerator(torch.Generator):
    """A generator that says that it is the GPU's."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device(GPU, 0)


# whether this torch knows devices that are made in Python
KNOWS_BACKENDS = hasattr(backend_registration, "_setup_privateuseone_for_python_backend")
_registered: list[torch.library.Library] = []  # what it registers goes with it


def set_up() -> None:
    """Gives this process the device `gpu`, autocast included, once."""
    if _registered:
        return

    class Backend(backend_registration._DummyBackendModule):
        def get_amp_supported_dtype(self) -> list[torch.dtype]:
            return [torch.bfloat16, torch.float16]

    backend_registration._setup_privateuseone_for_python_backend(GPU, Backend())
    _foreach_supported_types.append(FakeTensor)  # as of real tensors, many are taken at once
    torch._C._set_only_lift_cpu_tensors(True)
    aten, others = torch.library.Library("aten", "IMPL"), torch.library.Library("_", "IMPL")
    others.fallback(torch.library.fallthrough_kernel, AUTOCAST.name)
    for names, dtype in ((IN_BF16, None), (IN_FLOAT32, torch.float32)):
        for name in names:
            aten.impl(name, _casting(name, dtype), AUTOCAST.name)
    _registered.extend([aten, others])


def _casting(name: str, dtype: torch.dtype | None) -> Any:
    packet, _, overload = name.partition(".")
    operation = getattr(getattr(torch.ops.aten, packet), overload or "default")

    def cast(value: Any, to: torch.dtype) -> Any:
        is_float = isinstance(value, torch.Tensor) and value.dtype in (torch.float32, torch.bfloat16)
        return value.to(to) if is_float else value

    def kernel(*args: Any, **kwargs: Any) -> Any:
        to = dtype or torch.get_autocast_dtype(GPU)
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(AUTOCAST)):
            return operation(*tree_map(lambda x: cast(x, to), args), **kwargs)

    return kernel


@dataclass(frozen=True)
class Fault:
    """What a step should not do: its kind, the operation, and where: `place` is the innermost line of ours,
    `package` the one that it called and that did it, "" where our own line did."""

    kind: str
    operation: str
    place: str
    package: str

    def __str__(self) -> str:
        return f"{self.place}: {self.kind} ({self.operation}{', by ' if self.package else ''}{self.package})"


class RehearsalError(Exception):
    """A GPU would raise here, or what follows depends on a number that is not there."""


class Watch(TorchDispatchMode):
    """What runs inside `rehearsal`: its `faults`, and the operations on the device that are `kernels`.

    Faults: `synchronisation`, where the host waits for a number; `copy to the host`, where it waits for many;
    `copy from the host`; `host tensor`, one that is made on the CPU; `float64`. What a GPU refuses, such as
    tensors on two devices, and shapes that depend on numbers raise `RehearsalError`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[Fault] = []
        self.kernels: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, inputs = func.name(), _tensors((args, kwargs))
        if name == "aten::_local_scalar_dense":
            (tensor,) = inputs
            if tensor.device.type == GPU:
                self._note("synchronisation", name)
            return True if tensor.dtype == torch.bool else 1.0 if tensor.is_floating_point() else 1
        if name == "aten::nonzero":  # how schedulers look a time up, which is there once
            (tensor,) = inputs
            if tensor.device.type == GPU:
                self._note("synchronisation", name)
            return torch.zeros(1, tensor.ndim, dtype=torch.int64, device=tensor.device)
        try:
            output = func(*args, **kwargs or {})
        except Exception as error:
            raise RehearsalError(str(Fault(type(error).__name__, name, *_where()))) from error
        outputs = _tensors(output)
        before, after = ({value.device.type for value in values} for values in (inputs, outputs))
        if name in ("aten::copy_", "aten::_to_copy"):
            (source,) = {value.device.type for value in inputs[-1:]}
            if (source, *after) == (GPU, "cpu"):
                self._note("copy to the host", name)
            elif (source, *after) == ("cpu", GPU):
                self._note("copy from the host", name)
        elif after == {"cpu"} and (not inputs or name == "aten::lift_fresh"):
            self._note("host tensor", name)
        if any(value.dtype == torch.float64 for value in outputs):
            self._note("float64", name)
        if GPU in before | after and not func.is_view and name.split(".")[0] not in NOT_KERNELS:
            self.kernels[name] += 1
        return output

    def _note(self, kind: str, name: str) -> None:
        self.faults.append(Fault(kind, name, *_where()))


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [value for value in tree_leaves(tree) if isinstance(value, torch.Tensor)]


def _where() -> tuple[str, str]:
    """The innermost line of ours that is being run, and the package, if any, that it called; torch does what
    others tell it to, and so is none."""
    frame, package = sys._getframe(1), ""
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if "site-packages" in path.parts:
            name = path.parts[path.parts.index("site-packages") + 1]
            package = package or (name if name != "torch" else "")
        elif path.is_relative_to(ROOT) and path != Path(__file__):
            return f"{path.relative_to(ROOT)}:{frame.f_lineno}", package
        frame = frame.f_back  # type: ignore[assignment]
    return "", package


@contextmanager
def rehearsal() -> Iterator[torch.device]:
    """Inside, tensors are fake, and there is the device that this gives."""
    set_up()
    with FakeTensorMode():
        yield torch.device(GPU, 0)
