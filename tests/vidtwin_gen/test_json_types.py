"""What was read as JSON is what an annotation says, or the place that is not is named."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict

import pytest

from vidtwin_gen.records.json_types import check_type


class Point(TypedDict):
    x: float
    tags: list[str]


@dataclass
class Size:
    width: int
    unit: str = "pixel"


SIZE = Annotated[dict[str, Any], Size]


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (3, int),
        (3, float),
        (None, float | None),
        ([1, None], list[int | None]),
        ({"x": 1.5, "tags": ["a"], "more": []}, Point),
        ({"width": 2, "more": 1}, SIZE),
        ("a", Literal["a", "b"]),
        (object(), Any),
    ],
)
def test_what_fits(value, hint):
    check_type("it", value, hint)


@pytest.mark.parametrize(
    ("value", "hint", "told"),
    [
        (True, int, "it must be a whole number, got True"),
        (1.5, int, "it must be a whole number, got 1.5"),
        (math.nan, float, "it must be a finite number, got nan"),
        (10**400, float, "it must be a finite number, got 1000"),
        ("1", float | None, "it must be a finite number, got '1'"),
        ("1", int | bool | None, "it must be a whole number or true or false or null, got '1'"),
        ("ab", list[str], "it must be a list, each a word, got 'ab'"),
        ({"x": 1}, Point, "it has no tags"),
        ({"x": 1, "tags": [3]}, Point, r"it.tags\[0\] must be a word, got 3"),
        ({"a": {"x": "1", "tags": []}}, dict[str, Point], "it.a.x must be a finite number"),
        ({}, SIZE, "it has no width"),
        ({"width": "2"}, SIZE, "it.width must be a whole number"),
        (3, SIZE, "it must be an object, got 3"),
        ("c", Literal["a", "b"], "it must be 'a' or 'b', got 'c'"),
    ],
)
def test_what_does_not_fit_is_named(value, hint, told):
    with pytest.raises(ValueError, match=told):
        check_type("it", value, hint)
