"""Encode every clip of a data set once, into a folder of latents that needs none of our code to be read."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import datasets
import pyarrow.parquet as pq
from diffusers.models.modeling_utils import ModelMixin

from autoencoder import adapter
from autoencoder.encode.card import write_card
from autoencoder.encode.flags import EncodeFlags
from autoencoder.encode.rows import ClipEncoder, RowEncoder, Split
from autoencoder.encode.split_files import encode_split
from autoencoder.encode.video_encoder import VideoEncoder
from autoencoder.encode.whitening import latent_statistics
from autoencoder.loading import load_video_autoencoder
from vidtwin_gen.data.latent_checks import classes_without_rows
from vidtwin_gen.data.latent_dataset import DAMAGED, DATA, METADATA, check_latents
from vidtwin_gen.data.names import some
from vidtwin_gen.data.ucf101 import build_indices, column, file_sizes
from vidtwin_gen.data.video import common_frame_rate, frame_rates
from vidtwin_gen.devices import by_the_first, find_device, find_dtype, processes
from vidtwin_gen.files import file_sha256, is_done, only_this, read_json, write_json
from vidtwin_gen.flags import dtype_record
from vidtwin_gen.latents import LatentLayout
from vidtwin_gen.partial_folder import PartialFolder, partial_folder
from vidtwin_gen.unpack.cached import video_folder
from vidtwin_gen.weights import weights_sha256

logger = logging.getLogger(__name__)

SPLITS: tuple[Split, ...] = ("train", "test")


def encode(flags: EncodeFlags) -> None:
    """python -m vidtwin_gen encode"""
    device = find_device(flags.device)
    vae = load_video_autoencoder(flags.vae, find_dtype(flags.vae_dtype, device, "vae_dtype")).to(device)
    metadata = encode_dataset(vae, flags)
    if not processes().is_main_process:
        return
    print(f"{flags.out}: {metadata['num_rows']} rows")
    for complaint in metadata["bad_videos"]:
        print(f"left out, {complaint}")
    for split in SPLITS:
        files = [Path(flags.out, name) for name in metadata["files"] if name.startswith(f"{DATA}/{split}-")]
        labels = [label for file in files for label in pq.read_table(file, columns=["label"])[0].to_pylist()]
        if empty := classes_without_rows(labels, metadata["class_names"]):
            print(f"no {split} rows of {some(empty)}: all of their videos were left out, or there are none")


def encode_dataset(vae: ModelMixin, flags: EncodeFlags) -> dict[str, Any]:
    """Encodes every video of `flags.data` into `flags.out`. The autoencoder is left as it is: the whitening
    statistics stand with the latents, and a pipeline takes them from there.

    `out` becomes a folder of parquet files by split, `latents.json` and a dataset card. A row holds `mean`
    and `logvar` (L,) of the raw posterior, `label`, `class_name`, `path` (below `data`), `split`, `group`
    (null where the file's name has none), `start` (the window's first frame in the file) and `flipped`; with
    the flag `features` also those of the clip, as `VideoEncoder` gives them, in float16.
    Training videos give `windows_per_video` random windows each, with `flip` every one as it is and mirrored;
    test videos give their centre. Which windows depends on `seed` and the window's number alone. The
    statistics are those of the training rows, as stored.

    Until all is done the finished files stand in `<out>.partial`: the same call goes on with what is missing,
    and ends with the same bytes as one that nothing interrupted; one that is done already is left as it is.
    A resumed call may change `batch_size`, `num_workers`, `max_bad_fraction` and `decoder`; decoders differ
    slightly on MPEG-4 part 2, so such latents are then only nearly the same.

    Args:
        vae: what `flags.vae` holds, on its device, with weights of `flags.vae_dtype`.

    Raises:
        ValueError: `out` is of another call or not empty, or `<out>.partial` holds another encoding (see
            partial_folder); too many unreadable files; latents that are not finite, or not in `dtype`; a
            number below 1; or one of the complaints of `build_index` and of `VideoEncoder`.

    Returns:
        What is also written as `latents.json`: layout, statistics, geometry, flags, counts, files with their
        number of rows and size, the weights' sha256.
    """
    _check(flags)
    only_this(Path(flags.out).absolute())  # or it would be refused at the end, when its rows are read
    size = adapter.requested_size(vae, flags.num_frames, flags.height, flags.width)
    encoder = ClipEncoder(vae, adapter.latent_layout(vae, *size), size)
    root = video_folder(flags.data)
    indices = build_indices(root, ("all", *SPLITS), fold=flags.fold)
    index, splits = indices["all"], {split: indices[split] for split in SPLITS}
    video_encoder = None
    if flags.features:
        video_encoder = VideoEncoder(flags.features, size[0], flags.features_grid, vae.device)
    about = _describe(encoder, video_encoder, index, root, flags)
    if done := by_the_first(
        lambda: check_latents(flags.out) if is_done(flags.out, METADATA, about["command"]) else None
    ):
        return done
    if flags.fps is None and processes().is_main_process:
        _warn_of_rates(index, about["fps"])
    with partial_folder(flags.out, about["command"]) as folder:
        bad_videos = {
            split: encode_split(folder, RowEncoder(encoder, part, root, split, flags, video_encoder), flags)
            for split, part in splits.items()
        }
        complaints = [
            f"{split}: {bad.summary()}".replace(f"{root}{os.sep}", "")
            for split, bad in bad_videos.items()
            if bad.reasons
        ]
        by_the_first(lambda: _finish(folder, encoder, about, complaints, flags))
    return by_the_first(lambda: read_json(Path(flags.out) / METADATA, DAMAGED))


def _finish(
    folder: PartialFolder,
    encoder: ClipEncoder,
    about: Mapping[str, Any],
    complaints: Sequence[str],
    flags: EncodeFlags,
) -> None:
    """Adds latents.json and the card to the files of both splits."""
    for name in (name for name, file in folder.files.items() if not file["num_rows"]):
        # all its videos are bad, and `datasets` can't read an empty file
        (folder.path / name).unlink(missing_ok=True)
    metadata = {**about, **_measured(folder, encoder.layout), "bad_videos": complaints}
    metadata |= {"max_bad_fraction": flags.max_bad_fraction}
    write_json(folder.path / METADATA, metadata)
    names = {"vae": _name(flags.vae), "data": _name(flags.data)}
    write_card(folder.path, metadata, **names, decode=encoder.decode_example)


def _check(flags: EncodeFlags) -> None:
    for name in ("windows_per_video", "windows_per_file", "batch_size"):
        number = getattr(flags, name)
        if number < 1:
            raise ValueError(f"--{name} must be at least 1, got {number}")
    if flags.dtype not in ("float16", "float32"):
        raise ValueError(f"--dtype is float16 or float32, got {flags.dtype!r}")


def _name(place: str) -> str:
    """Of a folder, without the path to it; or as it stands on the hub."""
    path = Path(place).expanduser()
    return path.resolve().name if path.exists() else place


def _settings(flags: EncodeFlags) -> dict[str, Any]:
    """The flags that the rows depend on, without those that name the autoencoder and the videos."""
    names = ("fold", "stride", "fps", "windows_per_video", "flip", "dtype", "windows_per_file", "seed")
    settings = {name: getattr(flags, name) for name in names} | {"stride": flags.frame_stride}
    return settings | dtype_record(flags.vae_dtype, "vae_dtype")


def _describe(
    encoder: ClipEncoder,
    video_encoder: VideoEncoder | None,
    index: datasets.Dataset,
    root: Path,
    flags: EncodeFlags,
) -> dict[str, Any]:
    """What latents.json says of the latents before any is made."""
    about = {
        "layout": encoder.layout.to_config(),
        "class_names": index.features["label"].names,
        **dict(zip(("num_frames", "height", "width"), encoder.clip_size, strict=True)),
        **_settings(flags),
        "fps": _frame_rate(index, flags),
        "autoencoder_class": type(encoder.vae).__name__,
        "autoencoder_sha256": weights_sha256(flags.vae),
    }
    command = {
        "vae": f"{about['autoencoder_sha256'][:16]} for {'x'.join(map(str, encoder.clip_size))}",
        "data": _digest(index, root),
        **_settings(flags),
    }
    if video_encoder is not None:
        about["features"] = video_encoder.about()
        grid = "x".join(map(str, video_encoder.grid))
        command["features"] = f"{video_encoder.weights_sha256[:16]} on {grid}"
    return about | {"command": command}


def _frame_rate(index: datasets.Dataset, flags: EncodeFlags) -> float:
    """Of the clips; by a stride of the commonest of the videos' rates."""
    if flags.fps is not None:
        return flags.fps
    return common_frame_rate(column(index, "path")) / (flags.frame_stride or 1)


def _warn_of_rates(index: datasets.Dataset, fps: float) -> None:
    """Logs that a stride makes clips of different speeds, where the videos' frame rates differ."""
    rates = frame_rates(column(index, "path"))
    if len(rates) > 1:
        known = sum(rates.values())
        shares = ", ".join(f"{rate:.5g} ({count / known:.0%})" for rate, count in rates.items())
        logger.warning(
            f"the videos have {shares} frames a second, so a stride makes clips of different speeds; "
            f"{fps:.5g} is recorded, by the commonest. --fps gives all clips one speed"
        )


def _measured(folder: PartialFolder, layout: LatentLayout) -> dict[str, Any]:
    """The whitening statistics of the training rows, and the number, size and digest of the files."""
    files = {name: file for name, file in sorted(folder.files.items()) if file["num_rows"]}
    train = [only_this(folder.path / name) for name, file in files.items() if file["split"] == "train"]
    if not train:
        raise ValueError("no training video of --data gives a clip, of which the statistics are: mend them")
    with TemporaryDirectory() as cache:  # which the library makes though nothing is kept in it
        rows = datasets.IterableDataset.from_parquet(train, columns=["mean", "logvar"], cache_dir=cache)
        mean, std = latent_statistics(rows, layout)
    return {
        "latents_mean": mean,
        "latents_std": std,
        "num_rows": {
            split: sum(file["num_rows"] for file in files.values() if file["split"] == split)
            for split in SPLITS
        },
        "files": {
            name: {
                "num_rows": file["num_rows"],
                "num_bytes": file["num_bytes"],
                "sha256": file_sha256(folder.path / name),
            }
            for name, file in files.items()
        },
    }


def _digest(index: datasets.Dataset, root: Path) -> str:
    """16 hexadecimal digits that say which videos, by name and size, classes and splits an index holds."""
    digest = hashlib.sha256(json.dumps(index.features["label"].names).encode())
    paths, labels, splits = (column(index, name) for name in ("path", "label", "split"))
    for path, label, split, size in zip(paths, labels, splits, file_sizes(paths), strict=True):
        line = [os.path.relpath(path, root), label, split, size]  # of a link that leads nowhere no size
        digest.update(json.dumps(line).encode())
    return digest.hexdigest()[:16]
