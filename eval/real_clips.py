"""The real clips that are measured: draws of windows of the videos of a split."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from tqdm.auto import tqdm

from eval.clips import Clips, find_videos, fit, preparation, prepare
from eval.flags import Codec, Resize, Split
from eval.generated_clips import GeneratedClips
from vidtwin_gen.data.decoding.guarded import VideoError
from vidtwin_gen.data.names import folded
from vidtwin_gen.data.ucf101 import build_index, column
from vidtwin_gen.data.video import common_frame_rate, is_other_speed, read_frames
from vidtwin_gen.devices import processes
from vidtwin_gen.unpack.cached import video_folder

Measure = Callable[[torch.Tensor, Sequence[int]], torch.Tensor]


@dataclass(frozen=True)
class ClipDraw:
    """A real clip to be read: its video's row in the index, and the number of its window. The first window of
    each video has a number below the count of videos."""

    row: int
    number: int


class RealClips:
    """Clips of real videos, (F, H, W, C) uint8, in an order that the seed decides.

    Which clip a draw is depends on the seed, its video and its turn, not on what was read before, so that
    processes can share the draws. A bad or short file goes into `bad`, and draws made afterwards pass over
    it; those of other videos stay the same.

    Args:
        root: folder above all videos, None where they have none in common.
        paths: of the videos. names: the class of each. class_names: all classes.
        shape: (num_frames, height, width) of a clip.
        stride, fps: how densely frames are taken, as for `read_clip`.
        resize, codec: as for `prepare`.
    """

    def __init__(
        self,
        root: Path | None,
        paths: Sequence[str],
        names: Sequence[str],
        class_names: Sequence[str],
        shape: Sequence[int],
        *,
        stride: int | None = None,
        fps: float | None = None,
        seed: int = 0,
        resize: Resize = "bilinear",
        codec: Codec = "none",
    ) -> None:
        self.root, self.paths, self.names = root, list(paths), list(names)
        self.class_names = list(class_names)
        self.label_of = {folded(name): label for label, name in enumerate(self.class_names)}
        self.num_frames, self.size = shape[0], (shape[1], shape[2])
        self.stride, self.fps = stride, fps
        self.resize, self.codec = resize, codec
        self.num_videos = len(self.names)
        self.generator = torch.Generator().manual_seed(seed)
        self.order: list[int] = torch.randperm(self.num_videos, generator=self.generator).tolist()
        self.position = {row: position for position, row in enumerate(self.order)}
        self.bad: dict[int, str] = {}

    @classmethod
    def of_split(
        cls, data: str | Path, shape: Sequence[int], split: Split, *, fold: int = 1, **how: Any
    ) -> RealClips:
        """Of the videos of an official split. Errors as `video_folder` and `build_index`."""
        root = video_folder(data)
        index = build_index(root, split=split, fold=fold)
        class_names = index.features["label"].names
        return cls(root, column(index, "path"), column(index, "class_name"), class_names, shape, **how)

    @classmethod
    def of_files(cls, paths: Sequence[str | Path], shape: Sequence[int], **how: Any) -> RealClips:
        """Of files, and of all videos below folders, as one class. Errors as `find_videos`."""
        videos = [str(video) for video in find_videos(paths)]
        return cls(None, videos, ["videos"] * len(videos), ["videos"], shape, **how)

    @property
    def skipped(self) -> list[str]:
        """The bad files that draws have met, each with what is wrong with it."""
        return sorted(self.bad.values())

    @property
    def good(self) -> list[int]:
        """The videos that are not known to be bad, in the order of the draws."""
        return [row for row in self.order if row not in self.bad]

    @property
    def rows(self) -> dict[str, list[int]]:
        """The good videos of each class, in the order of the draws."""
        return self._by_class(self.good)

    @property
    def frame_rate(self) -> float:
        """Of the clips, by most of the videos."""
        return self.fps if self.fps is not None else common_frame_rate(self.paths) / (self.stride or 1)

    def warn_of_other_rate(self, generated: GeneratedClips) -> None:
        """Prints a warning where generated clips show their frames much faster or slower than these do."""
        if generated.fps is None or not is_other_speed(self.frame_rate, generated.fps):
            return
        taken = f"--fps {self.fps:g}" if self.fps is not None else f"--stride {self.stride or 1}"
        rate = {"stride": self.stride, "fps": self.fps}
        if generated.videos and generated.rate == rate and (self.stride or 1, self.fps) != (1, None):
            reason = (
                f". {taken} is of both, and leaves clips of {generated.shape[0]} frames of the generated "
                "videos: where these hold the frames of a clip and no more, add --generated_stride 1"
            )
        else:
            reason = ", unless --stride or --fps is that which the generator's latents were encoded with"
        print(
            f"the generated clips have {generated.fps:.5g} frames a second, real ones by {taken} "
            f"{self.frame_rate:.5g}: motion of one speed is compared with motion of another{reason}"
        )

    def label(self, name: str) -> int:
        """Of a class, by its name, or by one that differs by its case or its Unicode form."""
        label = self.label_of.get(folded(name))
        if label is None:
            raise ValueError(
                f"a generated clip is of class {name!r}, the data has {', '.join(self.class_names)}: name "
                "the --data that the generator was trained on"
            )
        return label

    def of_classes(self, names: Sequence[str]) -> list[ClipDraw]:
        """A draw for each class named: every video once before any again with another window."""
        rows, drawn, draws = self.rows, Counter[str](), []
        for name in names:
            name = self.class_names[self.label(name)]
            of_class = rows[name]
            if not of_class:
                raise ValueError(
                    f"class {name!r} has no video to measure with, {'; '.join(self.skipped[-3:])}: restore "
                    "them, or take the class out of --data and of what was generated"
                )
            turn, at = divmod(drawn[name], len(of_class))
            draws.append(self._draw(of_class[at], turn))
            drawn[name] += 1
        return draws

    def of_videos(self, count: int) -> list[ClipDraw]:
        """So many draws: every video once before any again with another window."""
        good = self.good
        if not good:
            raise ValueError(f"no video is left to measure with; {'; '.join(self.skipped[-3:])}")
        return [self._draw(good[number % len(good)], number // len(good)) for number in range(count)]

    def _draw(self, row: int, turn: int) -> ClipDraw:
        return ClipDraw(row, self.position[row] + turn * self.num_videos)

    @property
    def reading(self) -> dict[str, Any]:
        """What a clip depends on besides its key."""
        rate = {"stride": self.stride or 1} if self.fps is None else {"fps": self.fps}
        drawn = {"seed": self.generator.initial_seed(), "num_videos": self.num_videos}
        prepared = preparation(self.resize, self.codec)
        return {"num_frames": self.num_frames, "size": list(self.size), **prepared, **rate, **drawn}

    def key(self, draw: ClipDraw) -> str:
        """A name for what this draw reads, by the file's place below the root, its size and its time."""
        try:
            stat = Path(self.paths[draw.row]).stat()
        except OSError:  # such as of a link that leads nowhere, which `read` tells
            return f"{self._name(draw)} draw {draw.number}"
        return f"{self._name(draw)} {stat.st_size} {stat.st_mtime_ns} draw {draw.number}"

    def sha256(self, draws: Sequence[ClipDraw]) -> str:
        """Which videos and which of their windows these are; the same for every copy of the data."""
        lines = (f"{self._name(draw)} draw {draw.number}\n" for draw in draws)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def _name(self, draw: ClipDraw) -> str:
        path = Path(self.paths[draw.row])
        return (path.relative_to(self.root) if self.root else path.absolute()).as_posix()

    def read(self, draw: ClipDraw, *more_sizes: tuple[int, int]) -> Clips:
        """The clip of a draw, and the same at other sizes, without the codec; it is decoded once.

        Raises:
            VideoError: as `read_clip`.
        """
        window = self.generator.clone_state()
        torch.randint(2, (draw.number,), generator=window)  # the windows of the draws before: one number each
        raw = read_frames(
            self.paths[draw.row], self.num_frames, fps=self.fps, stride=self.stride, generator=window
        )
        frames = torch.from_numpy(raw.frames)
        origin = torch.tensor([raw.start, *frames.shape[1:3]])
        clip = prepare(frames, self.size, self.resize, self.codec)
        return Clips((clip, *(fit(frames, size, self.resize) for size in more_sizes)), origin)

    def labelled(
        self,
        names: Sequence[str],
        batch_size: int,
        measure: Measure = lambda clips, _: clips,
        *,
        repeated: bool = False,
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """What `measure` gives of batches of clips of these classes, in their order, and labels (B,).

        Several processes share the batches, each measures one of a round, and all get what is measured.

        Args:
            measure: of clips (B, F, H, W, C) and their numbers, (B, ...) on the CPU.
            repeated: a class that is named more often than it has good videos gives further windows of them;
                otherwise fewer clips.
        """
        draws, labels, state = self.of_classes(names), [self.label(name) for name in names], processes()
        numbers = range(len(names))
        with tqdm(
            total=len(names), desc="reading real clips", unit="clip", disable=not state.is_main_process
        ) as progress:
            for start in range(0, len(names), batch_size * state.num_processes):
                mine = numbers[start + state.process_index * batch_size :][:batch_size]
                read = self._read_together(names, draws, mine, repeated)
                clips, there = list(read.values()), list(read)
                measured = [(measure(Clips.batch(clips).frames[0], there), there)] if there else []
                for values, there in gather_object(measured):
                    yield values, torch.tensor([labels[number] for number in there])
                progress.update(min(batch_size * state.num_processes, len(names) - start))

    def _read_together(
        self, names: Sequence[str], draws: list[ClipDraw], mine: range, repeated: bool
    ) -> dict[int, Clips]:
        """The clips of the draws of these numbers. While any process meets a bad video, the earliest one is
        marked bad, the draws from its number on are made again, and all read again."""
        read: dict[ClipDraw, Clips | str] = {}
        while True:
            taken = [number for number in mine if repeated or draws[number].number < self.num_videos]
            for draw in (draws[number] for number in taken):
                if draw not in read:
                    try:
                        read[draw] = self.read(draw)
                    except VideoError as error:
                        read[draw] = str(error)
            found = {number: read[draws[number]] for number in taken}
            errors = gather_object(
                [(number, clip) for number, clip in found.items() if isinstance(clip, str)]
            )
            if not errors:
                return {number: clip for number, clip in found.items() if isinstance(clip, Clips)}
            number, reason = min(errors)
            self.bad[draws[number].row] = reason
            draws[number:] = self.of_classes(names)[number:]

    def each_once(self, num_clips: int | None) -> list[ClipDraw]:
        """A draw of each video, at most `num_clips`, all classes in turn; the windows are numbered in this
        order.

        Raises:
            ValueError: no video gives a clip.
        """
        if len(self.bad) == self.num_videos:
            raise ValueError(f"none of {self.num_videos} videos gives a clip: {'; '.join(self.skipped[-3:])}")
        numbers = {row: number for number, row in enumerate(self._in_turn(self.order))}
        return [ClipDraw(row, numbers[row]) for row in self._in_turn(self.good)[:num_clips]]

    def even_names(self, num_clips: int | None) -> list[str]:
        """Class names in turns, as many of each as it has videos, until there are `num_clips`."""
        names = [self.names[row] for row in self._in_turn(self.good)]
        if num_clips is not None and num_clips > len(names):
            print(f"the split holds {len(names)} videos: measuring those instead of {num_clips}")
        return names[:num_clips]

    def _in_turn(self, rows: Sequence[int]) -> list[int]:
        """These rows, of each class the next one in turn."""
        turns = zip_longest(*self._by_class(rows).values())
        return [row for turn in turns for row in turn if row is not None]

    def _by_class(self, rows: Sequence[int]) -> dict[str, list[int]]:
        of_class: dict[str, list[int]] = {name: [] for name in self.class_names}
        for row in rows:
            of_class[self.names[row]].append(row)
        return of_class
