"""What is measured of many clips: each is decoded once, ahead of the networks; processes share them; and what
is computed of one stays on disk, so that a command that was killed goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import gather_object
from torch.utils.data import BatchSampler, DataLoader, Dataset
from tqdm.auto import tqdm

from eval.clips import Clips
from eval.feature_store import FeatureStore
from eval.flags import StoringFlags
from eval.fvd.features import FeatureExtractor
from eval.generated_clips import GeneratedClips
from eval.real_clips import ClipDraw, RealClips
from vidtwin_gen.data.decoding.guarded import VideoError
from vidtwin_gen.devices import end_with_lost_batch, processes, refuse, worker_context


@dataclass(frozen=True)
class View:
    """Something that is measured of each clip: `measure` gives (B, D) of a batch."""

    store: FeatureStore
    measure: Callable[[Clips], torch.Tensor]


@dataclass(frozen=True)
class ReadClips(Dataset[Clips | str]):
    """What `read` gives for each of `arguments`; of a video that gives no clip, what is wrong with it."""

    read: Callable[..., Clips]
    arguments: Sequence[tuple[Any, ...]]

    def __len__(self) -> int:
        return len(self.arguments)

    def __getitem__(self, index: int) -> Clips | str:
        try:
            return self.read(*self.arguments[index])
        except VideoError as error:
            return str(error)


def as_read(clips: Clips) -> torch.Tensor:
    return clips.frames[0]


def identity(extractor: FeatureExtractor) -> tuple[Any, ...]:
    """All of an extractor that its features depend on."""
    return (extractor.name, extractor.dim, extractor.resize, extractor.weights_sha256)


class Extraction:
    """What all sets of clips of one run share.

    With several processes (accelerate's launcher) number i of a set belongs to process i modulo their count:
    nothing is padded, so nothing is counted twice, and every process gets all features in the set's order.
    """

    def __init__(self, flags: StoringFlags) -> None:
        self.folder = flags.features_dir or flags.out.with_suffix(".features")
        self.batch_size, self.num_workers = flags.batch_size, flags.num_workers
        self.state = processes()

    def features(
        self, extractor: FeatureExtractor, prepare: Callable[[Clips], torch.Tensor] = as_read, **about: Any
    ) -> View:
        """An extractor's features of the clips (B, F, H, W, C) uint8 that `prepare` makes, which `about`
        describes."""
        store = FeatureStore(self.folder, about | {"extractor": identity(extractor)})
        return View(store, lambda clips: extractor(prepare(clips)))

    def real(
        self,
        real: RealClips,
        draw: Callable[[], Sequence[ClipDraw]],
        views: Mapping[str, View],
        more_sizes: Sequence[tuple[int, int]] = (),
        title: str = "real clips",
    ) -> tuple[list[ClipDraw], dict[str, torch.Tensor]]:
        """The draws as they stand when bad videos have been replaced, and (N, D) for each view.

        `draw()` makes the draws; it is called again after videos turned out to be bad.
        """
        while True:
            draws = list(draw())
            keys = [real.key(one) for one in draws]
            clips = ReadClips(real.read, [(one, *more_sizes) for one in draws])
            errors = self._compute(clips, keys, list(views.values()), title)
            if not errors:
                return draws, {name: self._gather(view.store, keys) for name, view in views.items()}
            real.bad |= {draws[index].row: error for index, error in errors.items()}

    def generated(
        self, generated: GeneratedClips, chosen: Sequence[int], how: Sequence[Any], view: View
    ) -> torch.Tensor:
        """(N, D), of the chosen clips, brought to `how` = (size, resize, codec) as `prepare` takes them.
        Raises ValueError for videos that give no clip."""
        keys = [str(index) for index in chosen]
        clips = ReadClips(generated.read, [(index, *how) for index in chosen])
        if errors := self._compute(clips, keys, [view], "generated clips"):
            refuse(f"--generated: {'; '.join(sorted(errors.values())[:3])}")
        return self._gather(view.store, keys)

    def _compute(
        self, clips: Dataset[Clips | str], keys: Sequence[str], views: Sequence[View], title: str
    ) -> dict[int, str]:
        """Computes and stores what is missing; the videos that gave no clip, of all processes."""
        mine = range(self.state.process_index, len(keys), self.state.num_processes)
        todo = [index for index in mine if any(keys[index] not in view.store for view in views)]
        errors: dict[int, str] = {}
        num_workers = min(self.num_workers, len(todo))
        batches = list(BatchSampler(todo, self.batch_size, drop_last=False))
        loader = DataLoader(
            clips,
            batch_sampler=batches,
            num_workers=num_workers,
            collate_fn=list,
            worker_init_fn=end_with_lost_batch,
            multiprocessing_context=worker_context(num_workers),
        )
        with ExitStack() as flushed:
            for view in views:
                flushed.callback(view.store.flush)
            progress = flushed.enter_context(
                tqdm(total=len(mine), desc=title, unit="clip", disable=not self.state.is_main_process)
            )
            progress.update(len(mine) - len(todo))
            for indices, batch in zip(batches, loader, strict=True):
                read: dict[str, Clips] = {}
                for index, clip in zip(indices, batch, strict=True):
                    if isinstance(clip, str):
                        errors[index] = clip
                    else:
                        read[keys[index]] = clip
                self._add(read, views)
                progress.update(len(batch))
        return {index: error for of_process in gather_object([errors]) for index, error in of_process.items()}

    def _add(self, clips: Mapping[str, Clips], views: Sequence[View]) -> None:
        for view in views:
            wanted = [key for key in clips if key not in view.store]
            if wanted:
                view.store.add(wanted, view.measure(Clips.batch([clips[key] for key in wanted])))

    def _gather(self, store: FeatureStore, keys: Sequence[str]) -> torch.Tensor:
        mine = keys[self.state.process_index :: self.state.num_processes]
        # by process; only the last ones can have none
        parts = gather_object([torch.stack([store[key] for key in mine])] if mine else [])
        rows = parts[0].new_empty(len(keys), *parts[0].shape[1:])
        for process, part in enumerate(parts):
            rows[process :: self.state.num_processes] = part
        return rows
