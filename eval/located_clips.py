"""Real clips that are reconstructed, each with the place that it was taken from, one at a time."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm.auto import tqdm

from eval.clips import Split, fit
from vidtwin_gen.data.decoding import VideoError
from vidtwin_gen.data.ucf101 import VIDEO_SUFFIXES, build_index
from vidtwin_gen.data.video import read_frames


@dataclass(frozen=True)
class LocatedClip:
    """`frames` (F, H, W, C) uint8, from the file `path`, where the first has the number `start`."""

    frames: torch.Tensor
    path: str
    start: int


class LocatedClips:
    """One clip a video, a random window of it, in an order that the seed decides; read when asked for.

    Videos that can't be read or are too short are passed over for the next one. Frames of any size are
    resized and cropped by `eval.clips.fit`, as in training.

    Args:
        queues: paths of videos; a clip is taken from each queue in turn.
        shape: (num_frames, height, width) of a clip.
        stride, fps: how densely frames are taken, as for `vidtwin_gen.data.video.read_clip`.
        generator: draws the windows.

    Attributes:
        skipped: why each video that gave no clip did not. num_clips: clips given so far.
        source_sizes: "height x width" of the files, and how many clips came from files of that size.
        rate: of the frames of the first clip, in hertz.
    """

    def __init__(
        self,
        queues: Sequence[Sequence[str]],
        shape: Sequence[int],
        *,
        stride: int | None = None,
        fps: float | None = None,
        generator: torch.Generator,
    ) -> None:
        self.queues = [deque(queue) for queue in queues]
        self.num_videos = sum(map(len, queues))
        self.num_frames, self.size = shape[0], (shape[1], shape[2])
        self.stride, self.fps = stride, fps
        self.generator = generator
        self.skipped: list[str] = []
        self.source_sizes: Counter[str] = Counter()
        self.num_clips = 0
        self.rate: float | None = None

    @classmethod
    def of_split(
        cls,
        data: str | Path,
        shape: Sequence[int],
        split: Split,
        *,
        fold: int = 1,
        stride: int | None = None,
        fps: float | None = None,
        seed: int = 0,
    ) -> LocatedClips:
        """Of the videos `<data>/<class>/<video>` of a split, all classes in turn. Errors as `build_index`."""
        index = build_index(data, split=split, fold=fold)
        generator = torch.Generator().manual_seed(seed)
        queues: dict[str, list[str]] = {name: [] for name in index.features["label"].names}
        names, paths = index["class_name"], index["path"]
        for row in torch.randperm(len(names), generator=generator).tolist():
            queues[names[row]].append(paths[row])
        return cls(list(queues.values()), shape, stride=stride, fps=fps, generator=generator)

    @classmethod
    def of_files(
        cls,
        places: Sequence[str | Path],
        shape: Sequence[int],
        *,
        stride: int | None = None,
        fps: float | None = None,
        seed: int = 0,
    ) -> LocatedClips:
        """Of files, and of all videos below folders, in one shuffled queue. Errors as `find_videos`."""
        videos = find_videos(places)
        generator = torch.Generator().manual_seed(seed)
        queue = [str(videos[i]) for i in torch.randperm(len(videos), generator=generator).tolist()]
        return cls([queue], shape, stride=stride, fps=fps, generator=generator)

    def batches(self, num_clips: int | None, batch_size: int, title: str) -> Iterator[list[LocatedClip]]:
        """At most `num_clips` clips (None: of every video), in lists of `batch_size`, with a progress bar.

        Raises:
            ValueError: not positive; or no video at all gave a clip, with the reasons of the last three.
        """
        for name, value in (("--num_clips", num_clips), ("--batch_size", batch_size)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be positive, got {value}")
        if num_clips is not None and num_clips > self.num_videos:
            print(f"there are {self.num_videos} videos: measuring those instead of {num_clips}")
        wanted = min(self.num_videos, num_clips or self.num_videos)
        batch: list[LocatedClip] = []
        with tqdm(total=wanted, desc=title, unit="clip") as progress:
            for clip in self._in_turn():
                batch.append(clip)
                self.num_clips += 1
                if len(batch) == batch_size or self.num_clips == wanted:
                    yield batch
                    progress.update(len(batch))
                    progress.set_postfix({"skipped": len(self.skipped)} if self.skipped else {})
                    batch = []
                if self.num_clips == wanted:
                    return
            if batch:
                yield batch
                progress.update(len(batch))
        if self.num_clips == 0:
            raise ValueError(f"none of {self.num_videos} videos gives a clip: {'; '.join(self.skipped[-3:])}")

    @property
    def gif_fps(self) -> float:
        """The clips' frame rate, or the 50 a second that viewers of GIFs keep up with; after the first."""
        assert self.rate is not None
        return min(self.rate, 50.0)

    def _in_turn(self) -> Iterator[LocatedClip]:
        while any(self.queues):
            for queue in self.queues:
                clip = None
                while clip is None and queue:
                    clip = self._read(queue.popleft())
                if clip is not None:
                    yield clip

    def _read(self, path: str) -> LocatedClip | None:
        try:
            raw = read_frames(
                path, self.num_frames, fps=self.fps, stride=self.stride, generator=self.generator
            )
        except VideoError as error:
            self.skipped.append(str(error))
            return None
        self.source_sizes["x".join(map(str, raw.frames.shape[1:3]))] += 1
        if self.rate is None:
            self.rate = self.fps if self.fps is not None else raw.fps / (self.stride or 1)
        return LocatedClip(fit(torch.from_numpy(raw.frames), self.size), path, raw.start)


def find_videos(places: Sequence[str | Path]) -> list[Path]:
    """Files as they are given, and of each folder the videos at any depth (by their suffix, hidden ones left
    out), sorted, none twice.

    Raises:
        ValueError: no such file or folder, or a folder without a video.
    """
    found: dict[Path, None] = {}
    for place in map(Path, places):
        place = place.expanduser()
        if place.is_file():
            found[place] = None
            continue
        if not place.is_dir():
            raise ValueError(
                f"{place} is neither a file nor a folder: name videos, or folders that hold some"
            )
        videos = sorted(
            path
            for path in place.rglob("*")
            if path.suffix.lower() in VIDEO_SUFFIXES and path.name[0] != "." and path.is_file()
        )
        if not videos:
            raise ValueError(
                f"{place} holds no video at any depth; what ends in {' '.join(sorted(VIDEO_SUFFIXES))} is one"
            )
        found |= dict.fromkeys(videos)
    return list(found)
