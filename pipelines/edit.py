"""python -m pipelines edit | mix: what only a latent of two parts can do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from autoencoder import adapter
from pipelines.flags import EditFlags, MixFlags
from pipelines.inpainting import grids_to_keep
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
from vidtwin_gen.data.decoding.guarded import VideoTooShortError
from vidtwin_gen.data.decoding.video_index import video_index
from vidtwin_gen.data.names import file_names
from vidtwin_gen.data.pixels import from_diffusers, to_diffusers
from vidtwin_gen.data.video import is_other_speed, read_clip
from vidtwin_gen.data.writing import filmstrip, tile, write_png
from vidtwin_gen.devices import by_the_first, processes, shared
from vidtwin_gen.files import is_done, new_folder, write_json

EDITED, MIXED = "edited.json", "mixed.json"


def edit(flags: EditFlags) -> None:
    """New Dynamics for the Structure of a video, or the reverse: clips, a filmstrip and `edited.json`.
    Several processes share the batches, and the first writes."""
    command = sampling_command(flags)
    if by_the_first(lambda: is_done(flags.out, EDITED, command)):
        return
    pipe = load_pipeline(flags)
    ids, fps = class_ids(pipe, flags.class_labels), frame_rate(pipe, flags)
    num_frames, *size = adapter.clip_size(pipe.vae, pipe.transformer.layout)
    clip, rate = by_the_first(  # (C, F, H, W)
        lambda: given_clip(flags, num_frames, (size[0], size[1]), pipe.config.fps)
    )
    known = pipe.encode_video(to_diffusers(clip[None]))  # (1, L)
    edits = [(flags.seed, label, number) for label in ids for number in range(flags.num_videos_per_class)]
    batches = [edits[start : start + flags.batch_size] for start in range(0, len(edits), flags.batch_size)]
    edited = shared(batches, lambda batch: edited_clips(pipe, flags, known, batch), "sampling")
    rows = [row for batch in edited for row in batch]
    if not processes().is_main_process:
        return
    names = file_names(all_class_names(pipe))
    clips = {"given": clip, "reconstruction": _decode(pipe, known)[0]}
    for (_, label, number), row in zip(edits, rows, strict=True):
        clips[f"{names[label]}_{number:04d}"] = row

    out = Path(flags.out)
    record = {"video": flags.video, "start": flags.start, "stride": flags.stride, "video_fps": rate}
    record |= {"keep": flags.keep}
    record |= {"class_labels": ids, "num_videos_per_class": flags.num_videos_per_class}
    record |= {"num_resamples": flags.num_resamples} | sampling_record(pipe, flags, fps, command)
    with new_folder(out) as partial:
        for name, shown in clips.items():
            write_clip(partial / name, shown, fps, flags)
        write_png(partial / "filmstrip.png", filmstrip(list(clips.values())))
        write_json(partial / EDITED, record | {"rows": list(clips)})
    print(f"{len(edits)} videos with the {flags.keep} of {flags.video} in {out}; rows of filmstrip.png:")
    print(", ".join(clips))


def given_clip(
    flags: EditFlags, num_frames: int, size: tuple[int, int], clips_fps: float | None
) -> tuple[torch.Tensor, float | None]:
    """The window (C, F, H, W) of the video, and the frames a second that were taken, None where it does not
    say its own: by `--stride`, or else as many as the pipeline's clips have. Says where its motion is of
    another speed than theirs.

    Raises:
        VideoError: as `read_clip`. ValueError: the video is too short at that rate.
    """
    rate: dict[str, Any] = {"stride": flags.stride} if flags.stride else {"fps": clips_fps}
    try:
        clip = read_clip(flags.video, num_frames, size=size, **rate, start=flags.start)
    except VideoTooShortError:
        has_frames = video_index(flags.video).num_frames >= flags.start + num_frames
        if flags.stride or clips_fps is None or not has_frames:
            raise
        raise ValueError(
            f"{flags.video} has no {num_frames} frames from --start {flags.start} on at {clips_fps:.5g} a "
            "second, the rate of the pipeline's clips: --stride 1 takes every frame"
        ) from None
    own = video_index(flags.video).fps
    taken = own / flags.stride if flags.stride else clips_fps or own
    if clips_fps is not None and is_other_speed(taken, clips_fps):
        print(
            f"{flags.video} has {own:.5g} frames a second, of which {taken:.5g} are taken, and the "
            f"pipeline's clips have {clips_fps:.5g}: it was trained on motion of another speed"
        )
    elif clips_fps is not None and taken > own:
        print(f"{flags.video} has {own:.5g} frames a second, of which some are taken twice for {taken:.5g}")
    return clip, taken if math.isfinite(taken) else None


def mix(flags: MixFlags) -> None:
    """Generated clips of two classes, and each one's Structure with the other's Dynamics, side by side."""
    command = sampling_command(flags)
    if is_done(flags.out, MIXED, command):
        return
    pipe = load_pipeline(flags)
    ids = class_ids(pipe, flags.class_labels, may_repeat=True)
    if len(ids) != 2:
        raise ValueError(f"--class_labels takes two classes to mix, got {flags.class_labels}")
    grids_to_keep(pipe.transformer.layout, "structure")  # refused before the sampling
    out, fps = Path(flags.out), frame_rate(pipe, flags)
    rows = mixed_clips(pipe, flags, ids)
    shown = mixed_names(*(all_class_names(pipe)[label] for label in ids))
    record = {"class_labels": ids, "num_videos_per_class": flags.num_videos_per_class, "columns": shown}
    with new_folder(out) as partial:
        for number, clips in enumerate(rows):
            write_clip(partial / f"mix_{number:04d}", tile(clips, columns=4), fps, flags)
        write_png(partial / "filmstrip.png", filmstrip(list(rows.flatten(0, 1))))
        write_json(partial / MIXED, record | sampling_record(pipe, flags, fps, command))
    print(f"{len(rows)} mixtures in {out}, columns, and rows of filmstrip.png: {', '.join(shown)}")


def edited_clips(
    pipe: VidTwinPipeline,
    flags: EditFlags,
    known: torch.Tensor,
    edits: Sequence[tuple[int, int, int]],
    **options: Any,
) -> torch.Tensor:
    """(B, C, F, H, W) in [-1, 1], a clip for each (seed, label, number): a part of the known latents (1, L)
    with another part generated anew. `options` are the pipeline's."""
    options |= {"known_latents": known, "keep": flags.keep, "num_resamples": flags.num_resamples}
    return _decode(pipe, sample(pipe, flags, edits, output_type="latent", **options))


def mixed_clips(pipe: VidTwinPipeline, flags: MixFlags, ids: Sequence[int], **options: Any) -> torch.Tensor:
    """(N, 4, C, F, H, W) in [-1, 1], the columns those of `mixed_names`. `options` are the pipeline's."""
    numbers = range(flags.num_videos_per_class)
    # a seed for each side: two clips of one class are two clips
    sides = [(flags.seed + side, label, number) for side, label in enumerate(ids) for number in numbers]
    first, second = sample(pipe, flags, sides, output_type="latent", **options).chunk(2)  # (N, L) each
    columns = [first, second, pipe.mix(first, second), pipe.mix(second, first)]
    return torch.stack([_decode(pipe, column) for column in columns], dim=1)


def mixed_names(a: str, b: str) -> list[str]:
    return [a, b, f"Structure of {a} with Dynamics of {b}", f"Structure of {b} with Dynamics of {a}"]


def _decode(pipe: VidTwinPipeline, latents: torch.Tensor) -> torch.Tensor:
    """(B, L) whitened -> (B, C, F, H, W) in [-1, 1] on the CPU."""
    videos = pipe.decode(latents, output_type="pt")
    return from_diffusers(torch.as_tensor(videos).cpu())
