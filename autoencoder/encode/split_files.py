"""The parquet files of one split: which windows stand in each, and how they are encoded and written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from autoencoder.encode.flags import EncodeFlags
from autoencoder.encode.rows import RowEncoder, Split
from vidtwin_gen.data.latent_dataset import DATA
from vidtwin_gen.data.video_dataset import BadVideos, VideoDataset, collate
from vidtwin_gen.devices import end_with_lost_batch, one_error, processes, shared, worker_context
from vidtwin_gen.partial_folder import PartialFolder

FILES = 16  # a small split has at most so many files
WINDOWS = 16  # and in each a multiple of so many windows
ROW_GROUP = 128  # rows that a reader of parquet has in memory at a time


def encode_split(folder: PartialFolder, rows: RowEncoder, flags: EncodeFlags) -> BadVideos:
    """Writes the files of one split that `folder` lacks, each process its share of them; returns the bad
    videos that all have met. No batch spans two files, so a file's rows are the same to the last bit
    whichever process encodes it. Raises ValueError as `BadVideos.update` and `RowEncoder.encode` do, and
    where `folder` has files of an encoding that was planned otherwise."""
    train, state = rows.split == "train", processes()
    num_frames, *size = rows.encoder.clip_size
    reader = VideoDataset(
        rows.index,
        num_frames,
        (size[0], size[1]),
        stride=flags.frame_stride,
        fps=flags.fps,
        shuffle=False,
        start="random" if train else "center",
        seed=flags.seed,
        decoder=flags.decoder,
        substitutes=False,
    )
    num_windows = len(rows.index) * (flags.windows_per_video if train else 1)
    files = plan_files(rows.split, num_windows, flags.windows_per_file)
    with one_error():
        if others := [
            name
            for name, file in folder.files.items()
            if file["split"] == rows.split
            and (name not in files or not _holds(file, files[name], len(rows.index), len(rows.mirrorings)))
        ]:
            raise ValueError(
                f"{folder.path} holds {others[0]}, of a version that divided clips otherwise: remove it, or "
                "name another --out"
            )
        bad_videos = _bad_videos(folder, files, len(rows.index), flags)
    missing = [name for name in files if name not in folder.files]
    batches = {
        name: [
            list(files[name][i : i + flags.batch_size]) for i in range(0, len(files[name]), flags.batch_size)
        ]
        for name in missing[state.process_index :: state.num_processes]  # as `shared` deals them
    }
    batch_sampler = [batch for of_file in batches.values() for batch in of_file]
    loader = DataLoader(
        reader,
        batch_sampler=batch_sampler,
        num_workers=flags.num_workers,
        collate_fn=collate,
        worker_init_fn=end_with_lost_batch,
        multiprocessing_context=worker_context(flags.num_workers),
    )
    done = (num_windows - sum(len(files[name]) for name in missing)) // state.num_processes
    with tqdm(
        total=done + sum(map(len, batch_sampler)),
        initial=done,
        desc=f"encoding {rows.split} clips",
        unit="window",
        disable=not state.is_main_process,
    ) as bar:
        stream = iter(loader)

        def encode_file(name: str) -> None:
            _encode_file(folder, name, files[name], rows, islice(stream, len(batches[name])), bad_videos, bar)

        for _ in shared(missing, encode_file):
            pass
    folder.gather()
    with one_error():
        return _bad_videos(folder, files, len(rows.index), flags)


def plan_files(split: Split, num_windows: int, windows_per_file: int) -> dict[str, range]:
    """The files of a split, by their path in the folder, and the draws whose windows stand in each:
    `windows_per_file` windows each, fewer for a small split, so that several processes have files to share;
    independent of how many processes there are."""
    windows_per_file = min(windows_per_file, WINDOWS * math.ceil(num_windows / (WINDOWS * FILES)))
    count = math.ceil(num_windows / windows_per_file)
    return {
        f"{DATA}/{split}-{number:05d}-of-{count:05d}.parquet": range(
            number * windows_per_file, min((number + 1) * windows_per_file, num_windows)
        )
        for number in range(count)
    }


def _encode_file(
    folder: PartialFolder,
    name: str,
    draws: range,
    rows: RowEncoder,
    batches: Iterable[Mapping[str, Any]],
    bad_videos: BadVideos,
    bar: tqdm,
) -> None:
    encoded: list[dict[str, Any]] = []
    skipped: list[tuple[int, str]] = []
    for batch in batches:
        bad_videos.update(batch)
        encoded += rows.encode(batch)
        skipped += batch["skipped"]
        bar.update(len(batch["index"]))
    about: dict[str, Any] = {"split": rows.split, "draws": [draws.start, draws.stop]}
    about |= {"num_rows": len(encoded), "skipped": skipped}
    _add(folder, name, rows.table(encoded), about)


def _add(folder: PartialFolder, name: str, table: pa.Table, about: Mapping[str, Any]) -> None:
    """Byte-stream split puts the first bytes of all floats together, the only ones that compress well;
    dictionary encoding would make these columns larger."""
    latents = [field.name for field in table.schema if pa.types.is_fixed_size_list(field.type)]
    with folder.adding(name, about) as path:
        pq.write_table(
            table,
            path,
            row_group_size=ROW_GROUP,
            compression="zstd",
            use_dictionary=[name for name in table.column_names if name not in latents],
            use_byte_stream_split=[f"{name}.list.element" for name in latents],
        )


def _holds(file: Mapping[str, Any], draws: range, num_videos: int, rows_per_draw: int) -> bool:
    """Whether a finished file is of these draws. Records of earlier versions do not name the draws; there the
    number of rows has to agree."""
    if "draws" in file:
        return list(file["draws"]) == [draws.start, draws.stop]
    bad = {row for row, _ in file["skipped"]}
    return file["num_rows"] == rows_per_draw * sum(draw % num_videos not in bad for draw in draws)


def _bad_videos(
    folder: PartialFolder, files: Mapping[str, range], num_videos: int, flags: EncodeFlags
) -> BadVideos:
    """Those that were met while the finished files were encoded."""
    bad_videos = BadVideos(num_videos, flags.max_bad_fraction, of_all=True)
    for name in (name for name in files if name in folder.files):
        seen = [draw % num_videos for draw in files[name]]
        bad_videos.update({"index": seen, "skipped": folder.files[name]["skipped"]})
    return bad_videos
