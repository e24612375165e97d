"""What others have published, in groups of one protocol, and when a number of ours may stand beside it.

A distance means something only beside others of its own protocol: one model scored 73 with 10,000 generated
clips and 107 with 2,048. What a source does not state is not assumed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from eval.report.page import Section, Table
from vidtwin_gen.files import read_json

NUMBERS = Path(__file__).with_name("published_ucf101.json")
APART = (
    "Published numbers stand here with the protocol and the source that are known of each, in groups of one "
    "protocol: nothing is ranked across groups, and a number of ours stands beside a published one only "
    "where name and fields of the protocol are the same."
)
UNKNOWN = "not stated"
NUM_CLASSES = 101  # UCF-101, on which all of them were measured
EXTRACTOR = "i3d-kinetics-400"  # and its TorchScript module, whose name goes on
SOME_CLASSES = {"ApplyEyeMakeup", "YoYo"}


@dataclass(frozen=True)
class PublishedFVD:
    """One model. fvd: of generated clips; rfvd: of reconstructions; spread: ± of `fvd`, as printed.
    tokens: of a clip's latent. forward_tflops: of the generator. source: where it is not the group's."""

    model: str
    fvd: float | None
    spread: float | None = None
    rfvd: float | None = None
    tokens: int | None = None
    forward_tflops: float | None = None
    note: str = ""
    source: str = ""

    @property
    def shown(self) -> str:
        """The distance as printed; empty where only reconstructions were measured."""
        spread = f" ± {self.spread:g}" if self.spread is not None else ""
        return f"{self.fvd:g}{spread}" if self.fvd is not None else ""


@dataclass(frozen=True)
class PublishedGroup:
    """Numbers of one protocol.

    Args:
        title: for people. source: paper, table or thread of every row that has none of its own.
        rows: in the order of the survey, which is no ranking.
        protocol: the name in `FVDProtocol` that a run of ours would carry, "" where no protocol of ours is
            known to be the same.
        fields: what is stated of it, under the names of `FVDProtocol`, of a text its first word ("mp4"); what
            is absent is not stated.

    In the protocols of ours that it is held against, `classes` names the classes of the data.
    """

    title: str
    source: str
    rows: tuple[PublishedFVD, ...]
    protocol: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)

    def compares_with(self, protocol: Mapping[str, Any]) -> bool:
        """Whether a distance of ours may stand beside these: on the same classes, in features of the I3D that
        FVD is defined with, of clips that no codec has changed unless one is stated here, under a protocol of
        the same name and with the same value of every field that is stated here."""
        stated = {"codec": "none", **self.fields}
        classes = set(protocol.get("classes") or ())
        return (
            bool(self.protocol)
            and protocol.get("name") == self.protocol
            and str(protocol.get("feature_extractor")).startswith(EXTRACTOR)
            and len(classes) == NUM_CLASSES
            and classes >= SOME_CLASSES
            and all(_first_word(protocol.get(name)) == value for name, value in stated.items())
        )


@cache
def published_groups() -> tuple[PublishedGroup, ...]:
    """All groups of `published_ucf101.json`, whose keys are the arguments of the two classes above."""
    groups = read_json(NUMBERS, "install the package anew")["groups"]
    return tuple(
        PublishedGroup(**group | {"rows": tuple(PublishedFVD(**row) for row in group["rows"])})
        for group in groups
    )


def published_section(groups: Sequence[PublishedGroup]) -> Section:
    """A table for each group, folded; columns that a group has nothing for are left out."""
    section = Section("Published numbers, UCF-101", [APART], folded=True)
    for group in groups:
        size = "×".join(str(group.fields.get(name, "?")) for name in ("num_frames", "height", "width"))
        stated = {"N generated": "num_generated", "split": "split", "stride": "stride"}
        protocol = {title: str(group.fields.get(name, UNKNOWN)) for title, name in stated.items()}
        columns = {
            "model": [row.model for row in group.rows],
            "FVD": [row.shown for row in group.rows],
            "rFVD": [_shown(row.rfvd) for row in group.rows],
            "tokens": [_shown(row.tokens) for row in group.rows],
            "TFLOPs forward": [_shown(row.forward_tflops) for row in group.rows],
            "clip": [UNKNOWN if size == "?×?×?" else size] * len(group.rows),
            **{title: [value] * len(group.rows) for title, value in protocol.items()},
            "source": [row.source or group.source for row in group.rows],
            "note": [row.note for row in group.rows],
        }
        columns = {title: cells for title, cells in columns.items() if any(cells)}
        name = f" ({group.protocol})" if group.protocol else ""
        section.body.append(
            Table(tuple(columns), list(zip(*columns.values(), strict=True)), group.title + name)
        )
    return section


def _first_word(value: Any) -> Any:
    """Of a text; all else is as it is."""
    return re.split("[, ]", value)[0] if isinstance(value, str) else value


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:,g}" if isinstance(value, float) else f"{value:,}"
