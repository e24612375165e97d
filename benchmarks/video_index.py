"""What a folder of very many videos costs before the first is read: seconds, and memory of a data worker.

    python -m benchmarks.video_index --num_videos 650000

Makes empty files, a thousand a class, and of them the index, the digest and the stream of clips that training
makes; a forked worker then draws without reading.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from vidtwin_gen.data.ucf101 import build_indices, index_sha256
from vidtwin_gen.data.video_dataset import VideoDataset
from vidtwin_gen.flags import positive

NUM_DRAWS, MIB = 200, 2**20


def make_files(folder: Path, num_videos: int) -> None:
    for number in range(num_videos):
        place = folder / f"class_{number // 1000:03d}" / f"v_g{number // 4 % 250:03d}_c{number % 4:02d}.mp4"
        if number % 1000 == 0:
            place.parent.mkdir()
        place.touch()


class Unread(VideoDataset):
    """Draws clips of nothing: all but the reading."""

    def _read(self, row: int, position: int) -> tuple[None, int]:  # type: ignore[override]
        return None, 0


def worker_cost(dataset: VideoDataset) -> tuple[float, float]:
    """Milliseconds of a draw, and MiB that a forked worker has for itself after some draws."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        dataset[0]  # makes the epoch's order
        begin = time.perf_counter()
        for position in range(NUM_DRAWS):
            dataset[position]
        milliseconds = (time.perf_counter() - begin) / NUM_DRAWS * 1000
        os.write(writing, f"{milliseconds} {psutil.Process().memory_full_info().uss / MIB}".encode())
        os._exit(0)
    os.close(writing)
    first, second = os.read(reading, 100).split()
    return float(first), float(second)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.video_index", description=__doc__)
    parser.add_argument("--num_videos", type=positive, default=650_000)
    flags = parser.parse_args(arguments)
    with TemporaryDirectory() as folder:
        make_files(Path(folder), flags.num_videos)
        times = [time.perf_counter()]
        indices = build_indices(folder, ("train", "test"))
        times.append(time.perf_counter())
        index_sha256(*indices.values())
        times.append(time.perf_counter())
        dataset = Unread(indices["train"], 16, 64)
        times.append(time.perf_counter())
        milliseconds, memory = worker_cost(dataset)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    index, digest, stream = (end - begin for begin, end in zip(times, times[1:], strict=False))
    print("| videos | index, s | digest, s | stream, s | peak, MiB | a draw, ms | a worker's own, MiB |")
    print("|---|---|---|---|---|---|---|")
    seconds = f"{index:.1f} | {digest:.1f} | {stream:.1f}"
    print(f"| {flags.num_videos:,} | {seconds} | {peak:.0f} | {milliseconds:.2f} | {memory:.0f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
