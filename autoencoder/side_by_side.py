"""python -m autoencoder reconstruct | reenact: videos beside what the autoencoder makes of them."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from tqdm.auto import tqdm

from autoencoder.flags import ReconstructFlags, ReenactFlags, VideoFlags
from autoencoder.loading import load_autoencoder
from autoencoder.losses.perceptual import LPIPS, load_lpips
from autoencoder.model.vidtwin import AutoencoderVidTwin
from autoencoder.parts import decode_parts, join_parts, part_names
from vidtwin_gen.data.pixels import to_uint8
from vidtwin_gen.data.whole_video import VideoWindows
from vidtwin_gen.data.writing import gif_rate, tile, video_writer, write_gif
from vidtwin_gen.devices import find_device, find_dtype
from vidtwin_gen.files import file_sha256, replacing_file, write_json, writing
from vidtwin_gen.flags import dtype_record
from vidtwin_gen.quality import SSIM_WINDOWS, psnr, ssim
from vidtwin_gen.records.autoencoder import PART_TITLES
from vidtwin_gen.weights import MissingWeightsError

GIF_FRAMES = 100  # each costs a third of a second to write
SAME_RATE = 0.01  # 24 and 23.976 frames a second go together, 25 and 30 do not
PROTOCOL = {
    "resize": "until the frame covers the model's size (bilinear, antialiased), then a centre crop",
    "frames": "consecutive windows; the last one is padded with its last frame, and the padding trimmed",
    "latent": "the posterior's mean",
}
METRICS = {
    "psnr": "dB, data range 1 on frames in [0, 1], mean over frames",
    "ssim": f"windows {SSIM_WINDOWS}; data range 1 on frames in [0, 1], mean over frames",
    "lpips": "version 0.1 on VGG16, mean over frames",
}


@torch.inference_mode()
def reconstruct(flags: ReconstructFlags) -> None:
    """A video beside its reconstruction and the decodes of each part of its latent, and the quality of the
    reconstruction."""
    device = find_device(flags.device)
    vae = load_autoencoder(flags.vae, find_dtype(flags.dtype, device)).to(device)
    video = _windows(flags.video, vae, flags)
    lpips = _load_lpips(flags)
    measured = []

    def panels() -> Iterator[torch.Tensor]:
        for window, num_real in tqdm(video, desc="reconstructing", unit="window", disable=None):
            clip = window[None].to(device)  # (1, C, F, H, W)
            z = vae.encode(clip.to(vae.dtype)).latent_dist.mode()  # (1, L)
            parts = (clip, *decode_parts(vae, z, vae.layout).values())
            shown = [part[0, :, :num_real].float() for part in parts]
            measured.append(frame_quality(shown[1], shown[0], lpips))
            yield _panel(shown)

    files = _write_panels(flags, f"{Path(flags.video).stem}_reconstruction", panels(), video.fps)
    quality = {name: torch.cat([values[name] for values in measured]).mean().item() for name in measured[0]}
    num_frames, config = len(video.indices), vae.config
    rate = vae.layout.compression_rate(config.num_frames, config.height, config.width, config.in_channels)
    record = {"video": _video_record(video), **_record(flags, vae, num_frames, video.fps)}
    record |= {"psnr": None, "ssim": None, "lpips": None, **quality}
    record |= {"compression_rate": rate, "num_elements": vae.layout.num_elements}
    record["protocol"] |= {name: words for name, words in METRICS.items() if name in quality}
    written = _write_record(flags, files, record)
    print(f"{quality_text(quality)} (mean of {num_frames} frames)")
    print(
        f"compression rate {rate:.3%}: {vae.layout.num_elements:,} numbers for each window "
        f"of {video.num_frames} frames"
    )
    columns = ", ".join(["original", *(PART_TITLES[part] for part in part_names(vae, vae.layout))])
    print(f"wrote {written}: {columns}; {video.fps:.5g} frames a second")


@torch.inference_mode()
def reenact(flags: ReenactFlags) -> None:
    """Two videos, and each one's Structure with the other's Dynamics, over the shorter length."""
    device = find_device(flags.device)
    vae = load_autoencoder(flags.vae, find_dtype(flags.dtype, device)).to(device)
    if "dynamics" not in part_names(vae, vae.layout):
        raise ValueError(f"{flags.vae} has no Dynamics that two videos could exchange; name another --vae")
    first, second = [_windows(path, vae, flags) for path in (flags.a, flags.b)]
    if not math.isclose(first.fps, second.fps, rel_tol=SAME_RATE):
        raise ValueError(
            f"{flags.a} gives {first.fps:.5g} frames a second and {flags.b} {second.fps:.5g}: one would move "
            "at the other's speed; sample both at one rate with --fps"
        )

    def panels() -> Iterator[torch.Tensor]:
        num_windows = min(len(first), len(second))
        pairs = zip(first, second, strict=False)
        for windows in tqdm(pairs, total=num_windows, desc="re-enacting", unit="window", disable=None):
            a, b = (clip[None].to(device) for clip, _ in windows)  # (1, C, F, H, W)
            z_a, z_b = (vae.encode(clip.to(vae.dtype)).latent_dist.mode() for clip in (a, b))  # (1, L)
            swapped = [vae.decode(join_parts(vae.layout, *pair)).sample for pair in ((z_a, z_b), (z_b, z_a))]
            num_real = min(num for _, num in windows)
            yield _panel([clip[0, :, :num_real].float() for clip in (a, b, *swapped)])

    name = f"{Path(flags.a).stem}_{Path(flags.b).stem}_reenactment"
    files = _write_panels(flags, name, panels(), first.fps)
    num_frames = min(len(first.indices), len(second.indices))
    record = {"a": _video_record(first), "b": _video_record(second)}
    record |= _record(flags, vae, num_frames, first.fps)
    written = _write_record(flags, files, record)
    print(
        f"wrote {written}: A, B, Structure of A with Dynamics of B, Structure of B with Dynamics of A; "
        f"{num_frames} frames, {first.fps:.5g} a second"
    )


def _windows(path: str, vae: AutoencoderVidTwin, flags: VideoFlags) -> VideoWindows:
    size = (vae.config.height, vae.config.width)
    return VideoWindows(path, vae.config.num_frames, size=size, fps=flags.fps, stride=flags.stride)


def _load_lpips(flags: ReconstructFlags) -> LPIPS | None:
    """None, after a line that says why, where no weights were named and none are found."""
    try:
        return load_lpips(flags.lpips_weights, find_device(flags.device))
    except MissingWeightsError as error:
        if flags.lpips_weights:
            raise ValueError(str(error)) from None
        print(f"LPIPS left out: {error}")
        return None


def frame_quality(
    reconstruction: torch.Tensor, original: torch.Tensor, lpips: LPIPS | None
) -> dict[str, torch.Tensor]:
    """Two clips (C, F, H, W) -> name: (F,), a value for each frame, so that a short last window counts by its
    frames."""
    a, b = (rearrange(clip, "c f h w -> f c 1 h w") for clip in (reconstruction, original))
    values = {"psnr": psnr(a, b), "ssim": ssim(a, b)}
    if lpips is not None:
        values["lpips"] = lpips(a[:, :, 0].clamp(-1, 1), b[:, :, 0])
    return values


def quality_text(quality: Mapping[str, float]) -> str:
    """PSNR, SSIM and, where it was measured, LPIPS."""
    text = f"PSNR {quality['psnr']:.2f} dB, SSIM {quality['ssim']:.3f}"
    return text + (f", LPIPS {quality['lpips']:.3f}" if "lpips" in quality else "")


def _panel(clips: Sequence[torch.Tensor]) -> torch.Tensor:
    """Clips (C, F, H, W) in [-1, 1] -> uint8 (F, H', W', C) side by side. An odd side gains a white line, as
    4:2:0 colour in mp4 wants both even."""
    panel = tile(clips, columns=len(clips))
    odd_height, odd_width = (side % 2 for side in panel.shape[-2:])
    return to_uint8(F.pad(panel, (0, odd_width, 0, odd_height), value=1.0)).cpu()


def _video_record(video: VideoWindows) -> dict[str, Any]:
    info = video.info
    return {
        "path": str(video.path),
        "num_frames": info.num_frames,
        "fps": info.fps,
        "size": [info.height, info.width],
    }


def _record(flags: VideoFlags, vae: AutoencoderVidTwin, num_frames: int, fps: float) -> dict[str, Any]:
    """What both verbs write with --json; `size` and `fps` are the model's and the written files'."""
    config = vae.config
    return {
        "vae": flags.vae,
        "num_frames": num_frames,
        "windows": math.ceil(num_frames / config.num_frames),
        "window_frames": config.num_frames,
        "fps": fps,
        "size": [config.height, config.width],
        "protocol": PROTOCOL | dtype_record(flags.dtype),
    }


def _write_panels(flags: VideoFlags, name: str, panels: Iterator[torch.Tensor], fps: float) -> list[Path]:
    """Writes panels (F, H, W, C) as one mp4, and its first GIF_FRAMES as gif; returns both paths. Raises
    ValueError where another file, as of a video of the same name, is there."""
    files = [Path(flags.out) / f"{name}{suffix}" for suffix in (".mp4", ".gif")]
    if not any(file.exists() for file in files):
        _write_files(files, panels, fps)
        return files
    with TemporaryDirectory() as folder, writing(folder):
        again = [Path(folder, file.name) for file in files]
        _write_files(again, panels, fps)
        for file, new in zip(files, again, strict=True):
            if not file.exists():
                with replacing_file(file) as partial:
                    shutil.copyfile(new, partial)
            elif file_sha256(file) != file_sha256(new):
                raise ValueError(
                    f"{file} is there already, of another video or another command: remove it, or name "
                    "another --out"
                )
    return files


def _write_files(files: Sequence[Path], panels: Iterator[torch.Tensor], fps: float) -> None:
    """The mp4 as the panels come: what is held in memory does not grow with the video."""
    every, rate = gif_rate(fps)
    first = next(panels)
    moving = first[:0]
    with video_writer(files[0], first.shape[1:3], fps) as write:
        number = 0
        for panel in chain([first], panels):
            write(panel.numpy())
            room = GIF_FRAMES - len(moving)
            moving = torch.cat([moving, panel[-number % every :: every][:room]]) if room else moving
            number += len(panel)
    write_gif(files[1], moving, rate)


def _write_record(flags: VideoFlags, files: list[Path], record: dict[str, Any]) -> str:
    """Writes the record where --json says; returns the names of all files."""
    if flags.json:
        write_json(flags.json, record)
        files = [*files, flags.json]
    return ", ".join(map(str, files))
