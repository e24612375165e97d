"""The generated clips that are measured: a file of ours, or a folder of videos of any generator."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import median_low
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from eval.clips import Clips, find_videos, prepare
from eval.flags import Codec, GeneratedFlags, Resize
from vidtwin_gen.data.decoding.guarded import VideoError, VideoTooShortError, codec_name, guarded
from vidtwin_gen.data.names import names_of_files
from vidtwin_gen.data.video import read_frames
from vidtwin_gen.data.whole_video import VideoWindows
from vidtwin_gen.devices import by_the_first
from vidtwin_gen.draws import seeded_generator
from vidtwin_gen.files import check_readable, file_sha256
from vidtwin_gen.records.json_types import check_type

SAMPLING = (
    "scheduler",
    "num_inference_steps",
    "guidance_scale",
    "guidance_interval",
    "internal_guidance_scale",
)
ANEW = "write both files anew, with `python -m pipelines generate` or as docs/latents.md shows"
CODEC_NOTE = (
    "the generated clips were decoded from videos ({codec}). A lossy codec smooths detail and adds blocks, "
    "which the measure sees as the generator's doing: it may move up or down, the more the harder the videos "
    "are compressed. Compare it with measures of videos written alike only; without a codec are "
    "clips.safetensors, almost so H.264 at -crf 0"
)


@dataclass(frozen=True)
class GeneratedClips:
    """Clips and the class name asked for of each, None where nothing says it.

    Args:
        path: the file or folder. shape: (num_frames, height, width) of a clip.
        frames: (N, F, H, W, C) uint8, mapped from a file; None for the `videos` of a folder, of each of which
            a window is taken that its name and `window_seed` choose, at `rate` (stride, fps).
        codec: of the videos. fps: of the clips, by most of the videos; of a file by its record, where that
            says so.
        sampling: how they were sampled but for the seed, as far as the record says so.
    """

    path: Path
    shape: tuple[int, int, int]
    names: list[str] | None
    seed: int | None = None
    frames: torch.Tensor | None = None
    videos: Sequence[Path] = ()
    rate: dict[str, Any] = field(default_factory=dict)
    window_seed: int = 0
    codec: str = "none"
    fps: float | None = None
    sampling: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.videos if self.frames is None else self.frames)

    @cached_property
    def sha256(self) -> str:
        if self.frames is not None:
            return file_sha256(self.path)
        lines = (f"{file_sha256(path)}  {path.relative_to(self.path).as_posix()}\n" for path in self.videos)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def reading(self) -> dict[str, Any]:
        """What a clip depends on besides `sha256`."""
        return {"window_seed": self.window_seed, "shape": self.shape, **self.rate} if self.videos else {}

    @property
    def note(self) -> str | None:
        """What a result of these clips says of their codec."""
        return CODEC_NOTE.format(codec=self.codec) if self.videos else None

    def named_as(self, class_names: Sequence[str]) -> GeneratedClips:
        """The same clips; of folders that are called as `generate` calls those of these classes, the classes
        are these."""
        if self.names is None or not self.videos:
            return self
        found = names_of_files(set(self.names), class_names)
        return replace(self, names=[found.get(name, name) for name in self.names]) if found else self

    def clip(self, index: int) -> torch.Tensor:
        """(F, H, W, C) uint8. Raises VideoError as `read_frames`."""
        if self.frames is not None:
            return self.frames[index]
        path = self.videos[index]
        window = seeded_generator(self.window_seed, path.relative_to(self.path).as_posix())
        return torch.from_numpy(read_frames(path, self.shape[0], **self.rate, generator=window).frames)

    def read(
        self, index: int, size: tuple[int, int], resize: Resize = "bilinear", codec: Codec = "none"
    ) -> Clips:
        """A clip at (height, width), as `prepare` makes it. Raises VideoError as `read_frames`."""
        clip = self.clip(index)
        prepared = prepare(clip, size, resize, codec)
        return Clips((prepared,), torch.tensor([0, *clip.shape[1:3]]))


def read_generated(
    path: str | Path,
    num_frames: int | None = None,
    *,
    stride: int | None = None,
    fps: float | None = None,
    generated_stride: int | None = None,
    seed: int = 0,
) -> GeneratedClips:
    """The clips.safetensors that `python -m pipelines generate` writes, with generated.json beside it for the
    names of the labels; or of a folder the videos, `<class>/<video>` or without classes, in order of name.

    Args:
        num_frames: of a clip; None: all its frames.
        stride, fps: as for real clips, for videos: a file of ours has the frames that are compared.
        generated_stride: in place of these.
        seed: of the windows.

    Raises:
        ValueError: files that are damaged or hold something else, clips of another length, videos of
            several sizes, or a stride of a file of ours.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        if generated_stride is not None:
            stride, fps = generated_stride, None
        return by_the_first(lambda: _of_videos(path, num_frames, stride, fps, seed))
    if generated_stride is not None:
        raise ValueError(
            f"--generated_stride {generated_stride} is of videos, and {path} holds the frames that are "
            "compared: leave it out"
        )
    clips = _of_file(path)
    if num_frames not in (None, clips.shape[0]):
        raise ValueError(
            f"--generated {path}: clips of {clips.shape[0]} frames, and clips of {num_frames} are compared; "
            "a distance between clips of unequal length means nothing"
        )
    return clips


def generated_of(flags: GeneratedFlags) -> GeneratedClips:
    """Those that the flags name. Errors as `read_generated`."""
    names = ("num_frames", "stride", "fps", "generated_stride", "seed")
    return read_generated(flags.generated, **{name: getattr(flags, name) for name in names})


def _of_file(path: Path) -> GeneratedClips:
    reading = beside = path.with_name("generated.json")
    try:
        record = json.loads(beside.read_text(encoding="utf-8"))
        check_type("class_names", record["class_names"], list[str])
        names = dict(zip(record["class_labels"], record["class_names"], strict=True))
        seed, fps = record.get("seed"), record.get("fps")
        sampling = {name: record[name] for name in SAMPLING if name in record}
        if (digest := record.get("command", {}).get("pipeline")) is not None:
            sampling["pipeline"] = digest
        reading = path
        check_readable(path)
        tensors = load_file(path)
        frames, labels = tensors["frames"], tensors["labels"]
    except (SafetensorError, OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{reading} can't be read ({type(error).__name__}: {error}); {ANEW}") from None
    if frames.dtype != torch.uint8 or frames.ndim != 5 or frames.shape[-1] != 3:
        raise ValueError(
            f"{path}: expected frames (N, F, H, W, 3) of uint8, got {tuple(frames.shape)} of "
            f"{frames.dtype}; {ANEW}"
        )
    if labels.shape != frames.shape[:1]:
        raise ValueError(
            f"{path}: expected a label for each of {len(frames)} clips, got {tuple(labels.shape)}; {ANEW}"
        )
    if nameless := sorted(set(labels.tolist()) - names.keys()):
        raise ValueError(f"{beside} has no name for label {nameless[0]} of {path.name}; {ANEW}")
    _, num_frames, height, width, _ = frames.shape
    asked = [names[label] for label in labels.tolist()]
    fps = float(fps) if isinstance(fps, (int, float)) and 0 < fps <= sys.float_info.max else None
    return GeneratedClips(path, (num_frames, height, width), asked, seed, frames, fps=fps, sampling=sampling)


def _of_videos(
    root: Path, num_frames: int | None, stride: int | None, fps: float | None, seed: int
) -> GeneratedClips:
    paths = find_videos([root])
    depths = {len(path.relative_to(root).parts) for path in paths}
    if depths not in ({1}, {2}):
        raise ValueError(
            f"--generated {root}: expected <class>/<video> throughout, or videos and no folders; "
            f"{paths[0].relative_to(root)} and {paths[-1].relative_to(root)} are neither"
        )
    bad: list[str] = []
    way_out = ""
    codecs, shapes, rates = set[str](), dict[tuple[int, int, int], Path](), list[float]()
    for path in paths:
        try:
            video = VideoWindows(path, num_frames or 1, size=1, stride=stride, fps=fps)
        except VideoError as error:
            bad.append(str(error))
            if isinstance(error, VideoTooShortError) and (stride or 1, fps) != (1, None):
                way_out = ". Where a video holds the frames of a clip and no more, --generated_stride 1"
            continue
        codecs.add(guarded(path, codec_name, path))
        rates.append(video.fps)
        length = num_frames or len(video.indices)
        shapes.setdefault((length, video.info.height, video.info.width), path)
    if bad:
        raise ValueError(
            f"--generated {root}: {len(bad)} of {len(paths)} can't be read: {'; '.join(bad[:3])}{way_out}"
        )
    if len(shapes) > 1:
        (one, first), (other, second) = list(shapes.items())[:2]
        raise ValueError(
            f"--generated {root}: {first.name} gives a clip of {'x'.join(map(str, one))} (frames, height, "
            f"width), {second.name} one of {'x'.join(map(str, other))}: a generator has one size; "
            "--num_frames takes a window of each"
        )
    return GeneratedClips(
        root,
        next(iter(shapes)),
        [path.parent.name for path in paths] if depths == {2} else None,
        videos=paths,
        rate={"stride": stride, "fps": fps},
        window_seed=seed,
        codec=", ".join(sorted(codecs)),
        fps=median_low(rates),
    )
