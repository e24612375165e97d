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

    def publish(diffusers: Any) -> None:
        names = {*components, *pipelines} - {*dir(diffusers)}

        def our_class(name: str) -> Any:
            if name not in names:
                raise AttributeError(f"module {diffusers.__name__} has no attribute {name}")
            return getattr(importlib.import_module(package), name)

        # attributes set outright would import every class of ours with the first module of ours, and fail
        # where that first module is the home of one of them and so half imported
        diffusers.__getattr__ = our_class  # asked first, before the __getattr__ of diffusers' own class

    _after_import(LOADING, make_loadable)
    _after_import("diffusers", publish)


def _after_import(name: str, change: Callable[[ModuleType], None]) -> None:
    """Calls `change` with a module: now, or when somebody has imported it."""
    if name in sys.modules:
        change(sys.modules[name])
    else:
        sys.meta_path.insert(0, _ImportHook(name, change))


class _ImportHook(importlib.abc.MetaPathFinder):
    """Finds one module as the other finders do, and changes it after it was executed."""

    def __init__(self, name: str, change: Callable[[ModuleType], None]) -> None:
        self.name, self.change = name, change

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
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
