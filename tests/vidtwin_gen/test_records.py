"""Results: what was written comes back as the type that it is, and nothing else does."""

import json
from dataclasses import dataclass
from typing import ClassVar

import pytest

from tests.builders.results import generated_record
from vidtwin_gen.files import write_json
from vidtwin_gen.records import Result, read_result


@dataclass(frozen=True, kw_only=True)
class Weight(Result):
    kind: ClassVar[str] = "weight of a test"
    written_by: ClassVar[str] = "python -m scales"
    optional: ClassVar[tuple[str, ...]] = ("note",)

    grams: float
    parts: dict[str, float]
    note: str | None = None
    scale: str | None = None


WEIGHT = Weight(grams=0.1 + 0.2, parts={"shell": 0.1, "core": 0.2})


def test_a_result_comes_back_as_it_went(tmp_path):
    path = tmp_path / "results" / "weight.json"
    WEIGHT.write(path)
    assert Weight.read(path) == WEIGHT and read_result(path) == WEIGHT
    assert type(read_result(path)) is Weight
    value = json.loads(path.read_text())
    assert value == {
        "kind": "weight of a test",
        "grams": 0.1 + 0.2,
        "parts": {"shell": 0.1, "core": 0.2},
        "scale": None,  # only what is `optional` is left out
    }
    with_note = Weight(grams=1.0, parts={}, note="wet")
    with_note.write(path)
    assert Weight.read(path) == with_note


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "length"}, r"kind 'length', expected 'weight of a test'; .*`python -m scales`"),
        ({"kind": None}, r"kind None, expected 'weight of a test'"),
        ({"grams": ...}, r"weight\.json: it has no grams; write it anew with `python -m scales`"),
        ({"ounces": 1.0}, r"weight\.json: it has an unknown ounces; "),
    ],
)
def test_another_result_is_refused(change, message, tmp_path):
    path = tmp_path / "weight.json"
    value = {**WEIGHT.to_json(), **change}
    write_json(path, {name: part for name, part in value.items() if part is not ...})
    with pytest.raises(ValueError, match=message):
        Weight.read(path)


def test_a_json_of_no_kind_is_no_result(tmp_path):
    path = tmp_path / "weight.json"
    for value in ({"grams": 1.0}, {"kind": "length", "grams": 1.0}):
        write_json(path, value)
        assert read_result(path) is None
    with pytest.raises(ValueError, match="holds no weights.json; "):
        Weight.read(tmp_path / "weights.json")


def test_every_kind_has_a_name_of_its_own():
    classes, found = [Result], []
    while classes:
        result = classes.pop()
        classes += result.__subclasses__()
        if hasattr(result, "kind"):
            assert result.written_by.startswith("python ")
            found.append(result.kind)
    assert len(found) > 1 and len(set(found)) == len(found)


def test_classes_have_a_name_each():
    with pytest.raises(ValueError, match=r"class_names must be as many as class_labels, got \['7'\]"):
        generated_record(class_labels=[0, 1], class_names=["7"])
