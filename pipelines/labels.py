"""Class labels as people write them: names or ids."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Mapping, Sequence
from typing import Any

from vidtwin_gen.data.names import folded

ClassLabel = str | int


def label_ids(
    class_labels: ClassLabel | Sequence[ClassLabel], num_classes: int, class_names: Sequence[str] | None
) -> list[int]:
    """One id per label. A label is a class name, whatever its case, or an id; a string is one label.

    Args:
        class_labels: one label, or several in any mixture.
        num_classes: ids run from 0 to num_classes - 1.
        class_names: the name of each id, where there are names.

    Raises:
        ValueError: an unknown name, with the nearest ones; an id out of range; neither a name nor an id.
    """
    labels: list[Any]
    try:
        labels = [class_labels] if isinstance(class_labels, str) else list(class_labels)  # type: ignore[arg-type]
    except TypeError:
        labels = [class_labels]  # a single id
    if not labels:
        raise ValueError("class_labels is empty; pass at least one class name or id")
    ids = {folded(known): index for index, known in enumerate(class_names or ())}
    return [
        _id_of_name(label, num_classes, class_names, ids)
        if isinstance(label, str)
        else _checked_id(label, num_classes)
        for label in labels
    ]


def check_class_count(class_names: Sequence[str], num_classes: int) -> None:
    """Raises ValueError unless there is one name per class."""
    if len(class_names) != num_classes:
        raise ValueError(f"the transformer knows {num_classes} classes, got {len(class_names)} class names")


def labels_by_name(class_names: Sequence[str] | None) -> dict[str, int] | None:
    return None if class_names is None else {name: label for label, name in enumerate(class_names)}


def names_in_order(class_names: Sequence[str] | Mapping[str, int] | None) -> list[str] | None:
    """The inverse of `labels_by_name`; a list stays as it is. Raises ValueError where the labels are not 0,
    1, 2, ..., or for what is neither."""
    if class_names is None:
        return None
    if isinstance(class_names, Mapping):
        labels = list(class_names.values())
        if not all(type(label) is int for label in labels) or sorted(labels) != list(range(len(labels))):
            raise ValueError(f"class labels run from 0 without gaps, got {labels}")
        return sorted(class_names, key=lambda name: class_names[name])
    if not isinstance(class_names, (list, tuple)) or not all(isinstance(name, str) for name in class_names):
        raise ValueError(f"class names are a list of words, or the label of each, got {class_names!r}")
    return list(class_names)


def _id_of_name(
    name: str, num_classes: int, class_names: Sequence[str] | None, ids: Mapping[str, int]
) -> int:
    """`ids`: by folded name."""
    if class_names is None:
        raise ValueError(
            f"this pipeline has no class names; pass an id from 0 to {num_classes - 1}, got {name!r}"
        )
    if folded(name) not in ids:
        nearest = difflib.get_close_matches(folded(name), ids, n=3, cutoff=0.0)
        names = ", ".join(repr(class_names[ids[match]]) for match in nearest)
        raise ValueError(f"no class is called {name!r}; the nearest of the {num_classes} are {names}")
    return ids[folded(name)]


def _checked_id(label: Any, num_classes: int) -> int:
    try:
        index = None if isinstance(label, bool) else operator.index(label)
    except TypeError:
        index = None
    if index is None:
        raise ValueError(f"a class label is a name or an id, got {label!r} of type {type(label).__name__}")
    if not 0 <= index < num_classes:
        raise ValueError(f"class ids run from 0 to {num_classes - 1}, got {index}")
    return index
