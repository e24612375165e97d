"""What all results share: a `kind`, and a JSON that they write and read themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from vidtwin_gen.files import read_json, write_json


@dataclass(frozen=True, kw_only=True)
class Result:
    """A result and its JSON, an object whose `kind` names its class and whose other keys are its fields."""

    kind: ClassVar[str]
    written_by: ClassVar[str]  # the command
    optional: ClassVar[tuple[str, ...]] = ()  # fields that the JSON leaves out where they are None

    def to_json(self) -> dict[str, Any]:
        fields = dataclasses.asdict(self)
        left_out = {name for name in self.optional if fields[name] is None}
        return {"kind": self.kind, **{name: fields[name] for name in fields if name not in left_out}}

    def write(self, path: str | Path) -> None:
        write_json(path, self.to_json())

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """The result in a file.

        Raises:
            ValueError: no such file, no JSON object, one of another kind, or one whose fields are others.
        """
        way_out = f"write it anew with `{cls.written_by}`"
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
            faults = [f"no {name}" for name in missing] + [f"an unknown {name}" for name in unknown]
            raise ValueError(f"{where} has {', '.join(faults)}; {way_out}")
        return cls(**value)


def read_result(path: str | Path) -> Result | None:
    """The result in a file, of the class that its `kind` names; None where it names none.

    Raises:
        ValueError: no such file, no JSON object, or fields that are not those of its kind.
    """
    kind = read_json(path, "name a JSON file of a result").get("kind")
    found = next((result for result in _subclasses(Result) if getattr(result, "kind", None) == kind), None)
    return found.read(path) if found and kind else None


def _subclasses(result: type[Result]) -> Iterator[type[Result]]:
    for subclass in result.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)
