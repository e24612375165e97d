"""What all results share: a `kind`, and a JSON that they write and read themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar, get_type_hints

from vidtwin_gen.files import read_json, write_json
from vidtwin_gen.records.json_types import check_type, needed_fields

Record = TypeVar("Record")


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
        """Raises ValueError as `make`."""
        return make(cls, value, where, way_out)


def make(record: type[Record], value: Any, where: str, way_out: str) -> Record:
    """A dataclass out of JSON. Raises ValueError where it is no object, or a field is missing, unknown or of
    another type."""
    hints = get_type_hints(record, include_extras=True)
    try:
        check_type("it", value, dict[str, Any])
        known = {field.name for field in dataclasses.fields(record)}  # type: ignore[arg-type]
        missing, unknown = sorted(needed_fields(record) - value.keys()), sorted(value.keys() - known)
        if missing or unknown:
            faults = [f"no {name}" for name in missing] + [f"an unknown {name}" for name in unknown]
            raise ValueError(f"it has {', '.join(faults)}")
        for name in value:
            check_type(name, value[name], hints[name])
        return record(**value)
    except ValueError as error:
        raise ValueError(f"{where}: {error}; {way_out}") from None


def read_result(path: str | Path) -> Result | None:
    """The result in a file, of the class that its `kind` names; None where it names none.

    Raises:
        ValueError: no such file, no JSON object, a kind that is no word, or fields that are not those of its
            kind.
    """
    kind = read_json(path, "name a JSON file of a result").get("kind")
    check_type(f"the kind in {path}", kind, str | None)
    found = next((result for result in _subclasses(Result) if getattr(result, "kind", None) == kind), None)
    return found.read(path) if found and kind else None


def _subclasses(result: type[Result]) -> Iterator[type[Result]]:
    for subclass in result.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)
