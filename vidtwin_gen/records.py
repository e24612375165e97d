"""Results: what a measurement writes as JSON and a report, a model card or a table reads again.

Every kind of result is a dataclass here that knows its `kind`, so that no reader guesses from keys.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from vidtwin_gen.files import read_json, write_json


@dataclass(frozen=True, kw_only=True)
class Result:
    """A result and its JSON, an object whose `kind` names its class and whose other keys are its fields."""

    kind: ClassVar[str]
    command: ClassVar[str]  # what writes it

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, **dataclasses.asdict(self)}

    def write(self, path: str | Path) -> None:
        write_json(path, self.to_json())

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """The result in a file.

        Raises:
            ValueError: no such file, no JSON object, one of another kind, or one whose fields are others.
        """
        way_out = f"write it anew with `{cls.command}`"
        value = read_json(path, way_out)
        kind = value.pop("kind", None)
        if kind != cls.kind:
            raise ValueError(f"{path} holds a result of kind {kind!r}, expected {cls.kind!r}; {way_out}")
        return cls.from_json(value, f"{path}", way_out)

    @classmethod
    def from_json(cls, value: dict[str, Any], where: str, way_out: str) -> Self:
        """Raises ValueError where a field is missing or unknown."""
        fields = {field.name: field for field in dataclasses.fields(cls)}
        needed = {name for name, field in fields.items() if field.default is dataclasses.MISSING}
        missing, unknown = sorted(needed - value.keys()), sorted(value.keys() - fields.keys())
        if missing or unknown:
            told = [f"no {name}" for name in missing] + [f"an unknown {name}" for name in unknown]
            raise ValueError(f"{where} has {', '.join(told)}; {way_out}")
        return cls(**value)


def read_result(path: str | Path) -> Result | None:
    """The result in a file, of the class that its `kind` names; None where it names none.

    Raises:
        ValueError: no such file, no JSON object, or fields that are not those of its kind.
    """
    kind = read_json(path, "name a JSON file of a result").get("kind")
    found = next((result for result in Result.__subclasses__() if result.kind == kind), None)
    return found.read(path) if found else None


@dataclass(frozen=True, kw_only=True)
class GeneratedRecord(Result):
    """How the clips of a folder were generated: its generated.json.

    Args:
        pipeline: name of the pipeline's folder. scheduler: its class.
        class_names, class_labels: of the classes that clips were made of, in the order of the clips.
        num_videos_per_class: None where `labels_from`, the name of a file, said how many.
        num_videos: of all classes.
    """

    kind: ClassVar[str] = "generated"
    command: ClassVar[str] = "python -m pipelines generate"

    pipeline: str
    scheduler: str
    guidance_scale: float
    guidance_interval: list[float]
    num_inference_steps: int
    seed: int
    fps: float
    class_names: list[str]
    class_labels: list[int]
    num_videos_per_class: int | None
    labels_from: str | None
    num_videos: int
