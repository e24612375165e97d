"""Makes this package's classes loadable through diffusers' own entry points.

diffusers looks a component's library up in a table, and the class of a pipeline or of a single model up as an
attribute of its own module. It has no public hook for a third party, so these are the places it reads
(`pipeline_loading_utils`); the version range in setup.cfg and
tests/pipelines/test_pipeline.py keep them honest.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import diffusers
from diffusers.pipelines.pipeline_loading_utils import ALL_IMPORTABLE_CLASSES, LOADABLE_CLASSES

_published: dict[str, str] = {}  # class name: the package that has it


def register_with_diffusers(package: str, components: Sequence[str], pipelines: Sequence[str]) -> None:
    """Publish classes of `package` by name. Imports none of them; calling again changes nothing.

    Args:
        package: the import name that saved pipelines record as the library of their components.
        components: names of its `ModelMixin` classes. pipelines: names of its `DiffusionPipeline` classes.
    """
    methods = {name: ["save_pretrained", "from_pretrained"] for name in components}
    LOADABLE_CLASSES[package] = methods
    ALL_IMPORTABLE_CLASSES.update(methods)
    _published.update(dict.fromkeys([*components, *pipelines], package))
    if not isinstance(diffusers, _DiffusersWithPublished):
        diffusers.__class__ = _DiffusersWithPublished


class _DiffusersWithPublished(type(diffusers)):  # type: ignore[misc]
    """The diffusers module, which also knows what is published here, where it has no such name itself.

    Setting the attributes outright would import every class of ours with the first module of ours, and fail
    where that first module is the home of one of them and so half imported.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name not in _published:
                raise
        return getattr(importlib.import_module(_published[name]), name)
