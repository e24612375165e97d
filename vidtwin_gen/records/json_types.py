"""Whether a value that was read as JSON is what an annotation says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a finite number",
    str: "a word",
    bool: "true or false",
    NoneType: "null",
}


def check_type(name: str, value: Any, hint: Any) -> None:
    """Raises ValueError, which names the place below `name`, where a value is of another type.

    A whole number is a float too, true and false are no numbers, and a TypedDict, or the JSON of a dataclass,
    may have more keys than it says. `Annotated[dict[str, Any], Keys]` is a dict for a type checker, and the
    TypedDict or dataclass `Keys` here. What JSON does not know, such as an array, is not looked at.
    """
    origin, inside = get_origin(hint), get_args(hint)
    if origin is Annotated:
        for one in inside:
            check_type(name, value, one)
        return
    if origin in (Union, UnionType) and NoneType in inside:
        if value is None:
            return
        inside = tuple(one for one in inside if one is not NoneType)
        if len(inside) == 1:  # whose own complaint says more
            check_type(name, value, inside[0])
            return
    if hint in WORDS:
        kind = type(value)
        fits = kind in (int, float) and _is_finite(value) if hint is float else kind is hint
    elif is_typeddict(hint) or (is_dataclass(hint) and isinstance(value, dict)):
        if fits := isinstance(value, dict):
            needed = hint.__required_keys__ if is_typeddict(hint) else needed_fields(hint)
            if missing := sorted(needed - value.keys()):
                raise ValueError(f"{name} has no {', '.join(missing)}")
            for key, inner in get_type_hints(hint, include_extras=True).items():
                if key in value:
                    check_type(f"{name}.{key}", value[key], inner)
    elif origin in (list, Sequence) or (origin is tuple and inside[1:] == (...,)):
        if fits := isinstance(value, list | tuple):
            for number, inner in enumerate(value):
                check_type(f"{name}[{number}]", inner, inside[0])
    elif origin in (dict, Mapping):
        if fits := isinstance(value, Mapping):
            for key, inner in value.items():
                check_type(f"{name}.{key}", inner, inside[1])
    elif origin is Literal:
        fits = value in inside
    elif origin in (Union, UnionType):
        fits = any(_fits(value, one) for one in inside)
    else:
        fits = True
    if not fits:
        raise ValueError(f"{name} must be {_words(hint)}, got {value!r:.80}")


def needed_fields(record: Any) -> set[str]:
    """Of a dataclass, those without a default."""
    return {field.name for field in fields(record) if field.default is MISSING}


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # a whole number beyond all floats
        return False


def _fits(value: Any, hint: Any) -> bool:
    try:
        check_type("", value, hint)
    except ValueError:
        return False
    return True


def _words(hint: Any) -> str:
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(map(_words, inside))
    if origin in (list, Sequence, tuple):
        return f"a list, each {_words(inside[0])}"
    if origin is Literal:
        return " or ".join(map(repr, inside))
    return WORDS.get(hint, "an object")
