"""python -m pipelines generate: videos of classes, as files and as tensors."""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from collections.abc import Sequence
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
    write_clip,
)
from vidtwin_gen.data.names import file_names
from vidtwin_gen.data.pixels import from_diffusers, to_uint8
from vidtwin_gen.files import is_done, new_folder, reserve
from vidtwin_gen.records import GeneratedRecord

RECORD = "generated.json"


def generate(flags: GenerateFlags) -> None:
    """Write `<out>/<Class>/<Class>_0000.mp4` ..., `clips.safetensors` and `generated.json`.

    clips.safetensors holds `frames` uint8 (N, F, H, W, C) and `labels` int64 (N,), class after class; it is
    what metrics read, since a video codec changes FVD. The folder has its name when all videos are done, and
    is left as it is when the command is repeated.
    """
    command = sampling_command(flags)
    if is_done(flags.out, RECORD, command):
        return
    pipe = load_pipeline(flags)
    counts = videos_per_class(pipe, flags)
    ids = list(counts)
    class_names = all_class_names(pipe)
    names = file_names(class_names)
    fps = frame_rate(pipe, flags)
    clips = [(flags.seed, label, number) for label in ids for number in range(counts[label])]
    size = (*adapter.clip_size(pipe.vae, pipe.transformer.layout), 3)

    out = Path(flags.out)
    with new_folder(out) as partial, tqdm(total=len(clips), unit="clip") as progress:
        all_frames = create_clip_file(partial / "clips.safetensors", [label for _, label, _ in clips], size)
        for start in range(0, len(clips), flags.batch_size):
            batch = clips[start : start + flags.batch_size]
            videos = sample(pipe, flags, batch, output_type="pt")  # (B, F, C, H, W) in [0, 1]
            frames = to_uint8(from_diffusers(videos)).cpu().numpy()
            all_frames[start : start + len(batch)] = frames  # (B, F, H, W, C)
            for (_, label, number), clip in zip(batch, frames, strict=True):
                write_clip(partial / names[label] / f"{names[label]}_{number:04d}", clip, fps, flags)
            progress.update(len(batch))
        all_frames.flush()
        record = GeneratedRecord(
            **sampling_record(pipe, flags, fps, command),
            class_names=[class_names[label] for label in ids],
            class_labels=ids,
            num_videos_per_class=None if flags.labels_from else flags.num_videos_per_class,
            labels_from=flags.labels_from.name if flags.labels_from else None,
            num_videos=len(clips),
        )
        record.write(partial / RECORD)
    print(f"{len(clips)} videos of {len(ids)} classes in {out}")


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
        return dict(zip(ids, counts.values(), strict=True))
    except ValueError as error:
        raise ValueError(f"--labels_from {flags.labels_from}: {error}") from None


MOST_CLIPS = 10**6  # of a class


def read_counts(path: Path) -> dict[str, int]:
    """How many clips of each class a file of reference statistics was measured on, or a JSON file names.
    Raises ValueError for any other file."""
    try:
        if path.suffix == ".json":
            counts = json.loads(path.read_text(encoding="utf-8"))
        else:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata()
                about = json.loads(metadata.get("reference", "{}"))
                names = about["class_names"] if about else json.loads(metadata["class_names"])  # of before
                counts = dict(Counter(names[label] for label in file.get_tensor("labels").tolist()))
        if not counts or not all(type(count) is int and 0 < count <= MOST_CLIPS for count in counts.values()):
            raise ValueError(f"expected a number from 1 to {MOST_CLIPS} for each class")
    except (OSError, SafetensorError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"--labels_from {path} can't be read ({error!r}): name a file that `python -m eval reference` "
            'wrote, or JSON like {"Archery": 12, "Biking": 9}'
        ) from None
    return counts


def create_clip_file(path: Path, labels: Sequence[int], size: Sequence[int]) -> np.memmap:
    """A safetensors file with `labels`, whose `frames` (N, *size) are still to be written through the result.

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
        begin = file.tell()
        reserve(file, 8 + len(header) + end)
    return np.memmap(path, dtype=np.uint8, mode="r+", offset=begin, shape=shape)
