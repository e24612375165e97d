"""Weights of published networks, in a file of a package: found, verified, read without running anything."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pickle
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np


class MissingWeightsError(RuntimeError):
    """The weights of a network are not on this machine; the message says how to get them."""


@dataclass(frozen=True)
class PackagedWeights:
    """A pickle of numpy arrays inside a package of the Python registry.

    Args:
        title: whose weights they are, for messages. sha256: of the file.
        package, file: the import name of the package, and the path in it.
        install: the command that puts it there. variable: environment variable that names another copy.
    """

    title: str
    package: str
    file: str
    sha256: str
    install: str
    variable: str

    def find(self, path: str | Path | None = None) -> Path:
        """Where the file is: `path`, else what the variable names, else in the package, which is located and
        never imported: it would want JAX.

        Raises:
            MissingWeightsError: in none of these places.
        """
        named = path or os.environ.get(self.variable)
        if named:
            if not Path(named).is_file():
                raise MissingWeightsError(
                    f"the {self.title} weights are not at {named}: correct the path (its flag, or "
                    f"{self.variable}) or leave it out and run `{self.install}`"
                )
            return Path(named)
        spec = importlib.util.find_spec(self.package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            weights = Path(folder) / self.file
            if weights.is_file():
                return weights
        raise MissingWeightsError(
            f"the {self.title} weights are wanted: run `{self.install}` (its own dependencies are not "
            f"needed), or name the file {Path(self.file).name} by the flag for it or by {self.variable}"
        )

    def read(self, path: str | Path | None = None) -> dict[str, np.ndarray]:
        """The verified arrays, nested names joined by "/".

        Raises:
            MissingWeightsError: as `find`. ValueError: the file is not the published one.
        """
        weights = self.find(path)
        stat = weights.stat()
        found = _sha256(str(weights.resolve()), stat.st_size, stat.st_mtime_ns)
        if found != self.sha256:
            raise ValueError(
                f"{weights} has sha256 {found}, not {self.sha256}: its numbers would compare with nothing. "
                f"Delete it and run `{self.install}`"
            )
        return _flatten(read_numpy_pickle(weights))


@lru_cache(maxsize=8)
def _sha256(path: str, size: int, mtime_ns: int) -> str:
    """A file is read once a process."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _NumpyUnpickler(pickle.Unpickler):
    """Builds numpy arrays and plain containers, and refuses everything else a pickle may name."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {("numpy", "ndarray"), ("numpy", "dtype"), ("numpy.core.multiarray", "_reconstruct")}
        if (module.replace("numpy._core", "numpy.core"), name) not in allowed:
            raise pickle.UnpicklingError(f"refused {module}.{name}: this file may hold numpy arrays only")
        if name == "_reconstruct":
            # the module was renamed in NumPy 2
            renamed = importlib.util.find_spec("numpy._core") is not None
            module = "numpy._core.multiarray" if renamed else "numpy.core.multiarray"
        return super().find_class(module, name)


def read_numpy_pickle(path: Path) -> dict[str, Any]:
    """A pickle of nested dicts of numpy arrays. Raises pickle.UnpicklingError for anything else."""
    with open(path, "rb") as file:
        return _NumpyUnpickler(file).load()


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b/c": x}} -> {"a/b/c": x}: such files nest some names and join others."""
    arrays: dict[str, Any] = {}
    for key, value in tree.items():
        arrays |= _flatten(value, f"{prefix}{key}/") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return arrays
