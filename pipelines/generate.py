"""python -m pipelines generate: videos of classes, as files and as tensors."""

from __future__ import annotations

import json
import math
import os
import struct
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from tqdm.auto import tqdm

from autoencoder import adapter
from pipelines.flags import GenerateFlags
from pipelines.labels import label_ids
from pipelines.pipeline_vidtwin import VidTwinPipeline
from pipelines.sampling import (
    all_class_names,
    class_ids,
    frame_rate,
    load_pipeline,
    sample,
    sampling_command,
    sampling_record,
    suffixes,
    write_clip,
)
from vidtwin_gen.data.names import file_names
from vidtwin_gen.data.pixels import from_diffusers, to_uint8
from vidtwin_gen.devices import by_the_first, processes
from vidtwin_gen.files import check_readable, is_done, own_bytes, reserve
from vidtwin_gen.partial_folder import PartialFolder, partial_folder
from vidtwin_gen.records import GeneratedRecord

RECORD, CLIPS = "generated.json", "clips.safetensors"


def generate(flags: GenerateFlags) -> None:
    """Write `<out>/<Class>/<Class>_0000.mp4` ..., `clips.safetensors` and `generated.json`.

    clips.safetensors holds `frames` uint8 (N, F, H, W, C) and `labels` int64 (N,), class after class; it is
    what metrics read, since a video codec changes FVD. Of several processes each makes its share of the
    batches. The folder has its name when all videos are done; until then the same command continues with
    those that `<out>.partial` lacks, and afterwards leaves the folder as it is.
    """
    command = sampling_command(flags)
    if by_the_first(lambda: is_done(flags.out, RECORD, command)):
        return
    pipe = load_pipeline(flags)
    counts = videos_per_class(pipe, flags)
    class_names, fps = all_class_names(pipe), frame_rate(pipe, flags)
    clips = [(flags.seed, label, number) for label in counts for number in range(counts[label])]
    with partial_folder(flags.out, command) as folder:
        write_clips(folder, pipe, flags, clips, file_names(class_names))
        folder.gather()
        record = GeneratedRecord(
            **sampling_record(pipe, flags, fps, command),
            class_names=[class_names[label] for label in counts],
            class_labels=list(counts),
            num_videos_per_class=None if flags.labels_from else flags.num_videos_per_class,
            labels_from=flags.labels_from.name if flags.labels_from else None,
            num_videos=len(clips),
        )
        by_the_first(lambda: record.write(folder.path / RECORD))
    print(f"{len(clips)} videos of {len(counts)} classes in {flags.out}")


def write_clips(
    folder: PartialFolder,
    pipe: VidTwinPipeline,
    flags: GenerateFlags,
    clips: Sequence[tuple[int, int, int]],
    names: Sequence[str],
) -> None:
    """Samples this process's share of the clips (seed, label, number) that the folder has not yet, batch by
    batch; while one is written, the next is sampled."""
    state, fps = processes(), frame_rate(pipe, flags)
    path = folder.path / CLIPS
    size = (*adapter.clip_size(pipe.vae, pipe.transformer.layout), 3)
    if CLIPS not in folder.files:
        by_the_first(lambda: create_clip_file(path, [label for _, label, _ in clips], size))
    starts = range(0, len(clips), flags.batch_size)[state.process_index :: state.num_processes]
    mine = {start: clips[start : start + flags.batch_size] for start in starts}

    def files(batch: Sequence[tuple[int, int, int]]) -> list[str]:
        """Finished with the batch; as long as none is, the file of all clips is empty."""
        stems = [f"{names[label]}/{names[label]}_{number:04d}" for _, label, number in batch]
        return [CLIPS, *(f"{stem}.{suffix}" for stem in stems for suffix in suffixes(flags))]

    def write(start: int, frames: np.ndarray) -> None:
        write_frames(path, start, frames)
        for (_, label, number), clip in zip(mine[start], frames, strict=True):
            write_clip(folder.path / names[label] / f"{names[label]}_{number:04d}", clip, fps, flags)
        folder.add(files(mine[start]))

    todo = {start: batch for start, batch in mine.items() if not folder.files.keys() >= set(files(batch))}
    total, left = (sum(map(len, batches.values())) for batches in (mine, todo))
    progress = tqdm(total=total, initial=total - left, unit="clip", disable=not state.is_main_process)
    with progress, ThreadPoolExecutor(1) as writer:
        written: Future[None] | None = None
        for start, batch in todo.items():
            videos = sample(pipe, flags, batch, output_type="pt")  # (B, F, C, H, W) in [0, 1]
            frames = to_uint8(from_diffusers(videos)).cpu().numpy()  # (B, F, H, W, C)
            if written:
                written.result()
            written = writer.submit(write, start, frames)
            progress.update(len(batch))
        if written:
            written.result()


def videos_per_class(pipe: VidTwinPipeline, flags: GenerateFlags) -> dict[int, int]:
    """How many videos of each class id the flags ask for. Raises ValueError for a --labels_from that is no
    such file, or names a class that the pipeline does not know."""
    num_classes = pipe.transformer.config.num_classes
    if flags.labels_from is None:
        ids = class_ids(pipe, flags.class_labels) if flags.class_labels else range(num_classes)
        return dict.fromkeys(ids, flags.num_videos_per_class)
    counts = read_counts(flags.labels_from)
    try:
        ids = label_ids(list(counts), num_classes, pipe.config.class_names)
        if len(set(ids)) < len(ids):
            raise ValueError("it names a class twice, in other letters: give one number for it")
        return dict(zip(ids, counts.values(), strict=True))
    except ValueError as error:
        raise ValueError(f"--labels_from {flags.labels_from}: {error}") from None


MOST_CLIPS = 10**6  # of a class


def read_counts(path: Path) -> dict[str, int]:
    """How many clips of each class a file of reference statistics was measured on, or a JSON file names.
    Raises ValueError for any other file."""
    try:
        if path.suffix == ".json":
            counts = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_without_repeats)
        else:
            check_readable(path)
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata()
                about = json.loads(metadata.get("reference", "{}"))
                # earlier versions have the names by themselves
                names = about["class_names"] if about else json.loads(metadata["class_names"])
                counts = dict(Counter(names[label] for label in file.get_tensor("labels").tolist()))
        if not counts or not all(type(count) is int and 0 < count <= MOST_CLIPS for count in counts.values()):
            raise ValueError(f"expected a number from 1 to {MOST_CLIPS} for each class")
    except (OSError, SafetensorError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"--labels_from {path} can't be read ({error!r}): name a file that `python -m eval reference` "
            'wrote, or JSON like {"Archery": 12, "Biking": 9}'
        ) from None
    return counts


def _without_repeats(pairs: Sequence[tuple[str, int]]) -> dict[str, int]:
    """A JSON object; `json` itself keeps the last of two numbers under one name."""
    counts = dict(pairs)
    if len(counts) < len(pairs):
        raise ValueError("it names a class twice")
    return counts


def create_clip_file(path: Path, labels: Sequence[int], size: Sequence[int]) -> None:
    """A safetensors file with `labels`, whose `frames` (N, *size) are still to be written by `write_frames`.

    In place, because ten thousand clips fit on a disk and not in memory. The format is eight bytes of header
    length, a JSON header, the bytes of the tensors (https://github.com/huggingface/safetensors, Format).
    """
    shape = (len(labels), *size)
    middle = 8 * len(labels)
    end = middle + math.prod(shape)
    header = json.dumps(
        {
            "labels": {"dtype": "I64", "shape": [len(labels)], "data_offsets": [0, middle]},
            "frames": {"dtype": "U8", "shape": list(shape), "data_offsets": [middle, end]},
        }
    ).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header + np.asarray(labels, dtype="<i8").tobytes())
        reserve(file, 8 + len(header) + end)


def write_frames(path: Path, start: int, frames: np.ndarray) -> None:
    """Puts clips (B, F, H, W, C) in their place in the file, from number `start` on. Frames are the last of
    the file; other processes, also of other machines, write theirs beside them."""
    with safe_open(path, framework="np") as file:
        count = file.get_slice("frames").get_shape()[0]
    size = frames[0].nbytes
    with path.open("r+b") as file:
        place = file.seek((start - count) * size, os.SEEK_END)
        with own_bytes(file, place, frames.nbytes):
            file.write(frames.tobytes())
