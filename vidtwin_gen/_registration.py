"""Makes this package's classes loadable through diffusers' own entry points.

diffusers looks a component's library up in a table, and the class of a pipeline or of a single model up as an
attribute of its own module. It has no public hook for a third party, so these are the places it reads
(`pipeline_loading_utils`); the version range in setup.cfg and
tests/pipelines/test_pipeline.py keep them honest.

Importing diffusers takes seconds, so nothing here does: what is not imported yet is changed when it is.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

LOADING = "diffusers.pipelines.pipeline_loading_utils"


def register_with_diffusers(package: str, components: Sequence[str], pipelines: Sequence[str]) -> None:
    """Publish classes of `package` by name. Imports neither them nor diffusers; calling again changes
    nothing.

    Args:
        package: the import name that saved pipelines record as the library of their components.
        components: names of its `ModelMixin` classes. pipelines: names of its `DiffusionPipeline` classes.
    """
    methods = {name: ["save_pretrained", "from_pretrained"] for name in components}

    def make_loadable(loading: ModuleType) -> None:
        loading.LOADABLE_CLASSES[package] = methods
        loading.ALL_IMPORTABLE_CLASSES.update(methods)

    def publish(diffusers: ModuleType) -> None:
        _add_attributes(diffusers, package, [*components, *pipelines])

    _after_import(LOADING, make_loadable)
    _after_import("diffusers", publish)


def _add_attributes(module: ModuleType, package: str, names: Sequence[str]) -> None:
    """Names of `package` that `module` has as well, where it has no such names itself.

    Setting the attributes outright would import every class of ours with the first module of ours, and fail
    where that first module is the home of one of them and so half imported.
    """
    own_class: Any = type(module)
    if getattr(own_class, "names_from", None) == package:
        return

    class WithNames(own_class):
        names_from = package

        def __getattr__(self, name: str) -> Any:
            try:
                return super().__getattr__(name)
            except AttributeError:
                if name not in names:
                    raise
            return getattr(importlib.import_module(package), name)

    module.__class__ = WithNames


def _after_import(name: str, change: Callable[[ModuleType], None]) -> None:
    """Calls `change` with a module: now, or when somebody has imported it."""
    if name in sys.modules:
        change(sys.modules[name])
    else:
        sys.meta_path.insert(0, _ImportHook(name, change))


class _ImportHook(importlib.abc.MetaPathFinder):
    """Finds one module as the other finders do, and changes it after it was executed."""

    def __init__(self, name: str, change: Callable[[ModuleType], None]) -> None:
        self.name, self.change, self.is_searching = name, change, False

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname != self.name or self.is_searching:
            return None
        self.is_searching = True
        try:
            spec = importlib.util.find_spec(fullname)  # asks all finders; this one does not answer
        finally:
            self.is_searching = False
        if spec is None or spec.loader is None:
            return spec
        loader: Any = spec.loader
        execute = loader.exec_module

        def execute_and_change(module: ModuleType) -> None:
            execute(module)
            sys.meta_path.remove(self)
            self.change(sys.modules[fullname])  # diffusers puts another object in its place

        loader.exec_module = execute_and_change  # of this one loader, which loads no other module
        return spec
