"""The real side of the distances: `python -m eval reference` measures it once for all generators."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from eval.autoencoder import MeasuredAutoencoder
from eval.clips import Clips, prepare
from eval.extraction import Extraction, View
from eval.fvd.distance import FeatureSet, distances
from eval.fvd.features import FeatureExtractor, check_length
from eval.fvd.flags import ReferenceFlags
from eval.fvd.networks import extractor_of
from eval.fvd.protocols import PROTOCOLS, quick_count
from eval.fvd.selection import Settings, check_classes, choose_settings, draws_of, floor_objection, real_names
from eval.real_clips import ClipDraw, RealClips
from vidtwin_gen.devices import processes
from vidtwin_gen.files import check_readable, replacing_file
from vidtwin_gen.models.checks import check_finite
from vidtwin_gen.records import FVDProtocol, kvd_text, not_measured
from vidtwin_gen.records.fvd import Distance
from vidtwin_gen.records.json_types import check_type
from vidtwin_gen.records.result import make


class About(TypedDict):
    """What stands beside the tensors in a file of statistics."""

    protocol: dict[str, Any]
    class_names: list[str]
    skipped_videos: list[str]
    num_real_videos: int
    clips_sha256: str
    floor: Distance


@dataclass(frozen=True)
class Reference:
    """Statistics of real clips, and what they are statistics of.

    Args:
        protocol: of the real side; its num_generated is what the protocol asks for.
        features: of the clips. names: the class of each clip. skipped: bad videos, replaced by others.
        num_videos: that the clips are from. clips_sha256: which clips they are, as `RealClips.sha256` says.
        floor: the distances of these clips from as many other real ones, or the reason why there is none.
    """

    protocol: FVDProtocol
    features: FeatureSet
    names: list[str]
    skipped: list[str]
    num_videos: int
    clips_sha256: str
    floor: dict[str, Any]

    def check(self, path: str | Path, wanted: FVDProtocol) -> None:
        """Raises ValueError where the statistics were measured in another way than `wanted`."""
        mine, asked = dataclasses.asdict(self.protocol), dataclasses.asdict(wanted)
        differences = [
            f"{name} {mine[name]} there, {asked[name]} here" for name in asked if mine[name] != asked[name]
        ]
        if differences:
            raise ValueError(
                f"--reference {path} is of another protocol: {'; '.join(differences)}; measure the real "
                "clips again with `python -m eval reference`, or change the flags of this command"
            )

    def check_clips(self, real: RealClips, draws: Sequence[ClipDraw]) -> None:
        """Raises ValueError where these are not the clips that were measured."""
        if real.sha256(draws) != self.clips_sha256:
            raise ValueError(
                f"--data {real.root} is not the data that --reference was measured on: its videos, or those "
                "that can't be read, are others. Name that data, or measure this with `python -m eval "
                "reference`"
            )

    def save(self, path: str | Path) -> None:
        """One safetensors file, `labels` numbering `class_names` as in the clips.safetensors of generated
        clips."""
        class_names = sorted(set(self.names))
        tensors = {
            "sum": self.features.total,
            "outer": self.features.outer,
            "labels": torch.tensor([class_names.index(name) for name in self.names]),
        }
        if self.features.rows is not None:
            tensors["features"] = self.features.rows
        about = {
            "protocol": self.protocol.to_json(),
            "class_names": class_names,
            "skipped_videos": self.skipped,
            "num_real_videos": self.num_videos,
            "clips_sha256": self.clips_sha256,
            "floor": self.floor,
        }
        with replacing_file(path) as partial:
            save_file(tensors, partial, metadata={"reference": json.dumps(about)})  # several have no order


def read_reference(path: str | Path) -> Reference:
    """What `Reference.save` wrote, or wrote before it kept features. Raises ValueError for any other file."""
    try:
        check_readable(path)
        with safe_open(path, framework="pt") as file:
            texts = {name: json.loads(value) for name, value in (file.metadata() or {}).items()}
            about = texts.get("reference", texts)  # earlier versions: each by itself
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        protocol = make(FVDProtocol, about["protocol"], "its protocol", "measure it again")
        check_type("its metadata", about, About)
        check_finite(tensors.items(), "its sums and features")
        class_names, dim = about["class_names"], protocol.feature_dim
        shapes = {"sum": (dim,), "outer": (dim, dim), "labels": (protocol.num_real,)}
        rows, floor = tensors.get("features"), about["floor"]
        if rows is not None:
            shapes["features"] = (protocol.num_real, dim)
        if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != shapes:
            raise ValueError(f"expected tensors {shapes}")
        labels = tensors["labels"].tolist()
        dtypes = {"sum": torch.float64, "outer": torch.float64, "features": torch.float32}
        if any(tensors[name].dtype != dtypes[name] for name in tensors.keys() - {"labels"}) or not all(
            type(label) is int and 0 <= label < len(class_names) for label in labels
        ):
            raise ValueError("expected sums of float64, features of float32, labels of its class_names")
        return Reference(
            protocol=protocol,
            features=FeatureSet(tensors["sum"], tensors["outer"], len(labels), "real", rows),
            names=[class_names[label] for label in labels],
            skipped=about["skipped_videos"],
            num_videos=about["num_real_videos"],
            clips_sha256=about["clips_sha256"],
            floor=floor | {"kvd": floor.get("kvd")},  # None of a file that has none
        )
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"--reference {path} can't be read ({error}); name a file that `python -m eval reference` wrote"
        ) from None


@dataclass(frozen=True)
class RealSide:
    """Real clips that are measured, and with `autoencoder` their reconstructions beside them."""

    settings: Settings
    real: RealClips
    extraction: Extraction
    extractor: FeatureExtractor
    autoencoder: MeasuredAutoencoder | None = None

    def measure(
        self, names: Sequence[str] | None = None, *, with_floor: bool = True
    ) -> tuple[Reference, torch.Tensor | None]:
        """The statistics, and the features (N, D) of the clips' reconstructions. Each clip is decoded once.

        `names` are the classes of the generated clips, where the protocol has real ones follow them.

        Raises:
            ValueError: too few videos for the protocol, or of a class.
        """
        real, protocol = self.real, self.settings.protocol
        view = self.extraction.features(self.extractor, reading=real.reading, view="real")
        reconstructions, sizes = self._reconstructions()
        while True:
            num_bad = len(real.bad)
            wanted = list(names) if names is not None else real_names(protocol, real)
            if names is not None:
                check_classes(protocol, real, wanted)
            objection = floor_objection(protocol, real, wanted) if with_floor else "left out by --no_floors"
            draws, features = self.extraction.real(
                real, partial(draws_of, protocol, real, wanted), {"real": view} | reconstructions, sizes
            )
            of_real = FeatureSet.of(features["real"], "real")
            if objection is not None:
                floor = not_measured(objection)
            else:
                second = partial(draws_of, protocol, real, wanted, number=1)
                _, other = self.extraction.real(real, second, {"real": view}, title="other real clips")
                of_other = FeatureSet.of(other["real"], "other real")
                floor = {
                    **distances(of_real, of_other, divisor=protocol.covariance_divisor)._asdict(),
                    "num_other_real": protocol.num_clips,
                    "other_real": protocol.floor_selection(len(real.good)),
                }
            if len(real.bad) == num_bad:
                break
        reference = Reference(
            self.settings.record(self.extractor),
            of_real,
            [real.names[draw.row] for draw in draws],
            real.skipped,
            num_videos=len({draw.row for draw in draws}),
            clips_sha256=real.sha256(draws),
            floor=floor,
        )
        return reference, features.get("reconstructed")

    def reconstruct(self, reference: Reference) -> torch.Tensor:
        """(N, D) features of the reconstructions of the very clips that a reference was measured on.

        Raises:
            ValueError: other data, or the same with other bad videos.
        """
        draw = partial(draws_of, self.settings.protocol, self.real, reference.names)
        if not reference.skipped:  # else the bad ones have to be met first
            reference.check_clips(self.real, draw())
        draws, features = self.extraction.real(self.real, draw, *self._reconstructions(), "reconstructions")
        reference.check_clips(self.real, draws)
        return features["reconstructed"]

    def _reconstructions(self) -> tuple[dict[str, View], list[tuple[int, int]]]:
        """A view of the clips as the autoencoder gives them back, rounded and prepared as generated ones are,
        and the (height, width) that it takes; nothing without an autoencoder."""
        autoencoder, protocol = self.autoencoder, self.settings.protocol
        how = protocol.shape[1:], protocol.resize, protocol.codec
        if autoencoder is None:
            return {}, []

        def reconstruct(clips: Clips) -> torch.Tensor:
            decoded = autoencoder.reconstruct(clips.frames[-1])  # (B, F, h, w, C)
            return torch.stack([prepare(clip, *how) for clip in decoded])

        view = self.extraction.features(
            self.extractor,
            reconstruct,
            reading=self.real.reading,
            reconstructed_by=autoencoder.sha256,
            at=autoencoder.shape,
        )
        return {"reconstructed": view}, [autoencoder.shape[1:]]


def clip_shape(flags: ReferenceFlags) -> tuple[int, int, int]:
    """(num_frames, height, width), which quick-N takes from the flags and a published protocol has.

    Raises:
        ValueError: flags for a protocol that has its own, or too few of them.
    """
    sizes = flags.num_frames, flags.height, flags.width
    if quick_count(flags.protocol) is None:
        if any(size is not None for size in sizes):
            raise ValueError(f"--protocol {flags.protocol} has its own clip size: leave out the flags for it")
        return PROTOCOLS[flags.protocol].shape
    num_frames, height, width = sizes
    if num_frames is None or height is None or width is None:
        raise ValueError(
            f"--protocol {flags.protocol} fixes no clip size: give --num_frames, --height and --width"
        )
    return num_frames, height, width


def measure_reference(flags: ReferenceFlags) -> None:
    settings = choose_settings(flags, flags.protocol, clip_shape(flags), "classes")
    extractor = extractor_of(flags)
    check_length(extractor, settings.protocol.num_frames)
    side = RealSide(settings, settings.real_clips(flags.data), Extraction(flags), extractor)
    reference, _ = side.measure(with_floor=not flags.no_floors)
    if not processes().is_main_process:
        return
    reference.save(flags.out)
    floor = reference.floor
    skipped = f"{len(reference.skipped)} videos skipped, " if reference.skipped else ""
    beside = (
        f"real against real {floor['fvd']:.1f}, KVD {kvd_text(floor['kvd'])} ({floor['other_real']})"
        if floor["fvd"] is not None
        else f"no real floor ({floor['reason']})"
    )
    flag = ", rank-deficient" if reference.protocol.rank_deficient else ""
    count = f"{len(reference.names)} real clips of {reference.num_videos} videos{flag}"
    print(f"{flags.out}: {settings.protocol.name}, {count}, {skipped}{beside}")
