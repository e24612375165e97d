"""What the studio does with a pipeline; it knows no gradio. A method is a `Job`, which says its steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from threading import Lock
from typing import Any

import diffusers
import numpy as np
import torch

from autoencoder import adapter
from autoencoder.losses.perceptual import LPIPS, load_lpips
from autoencoder.parts import decode_parts
from autoencoder.side_by_side import frame_quality, quality_text
from eval.app.code import Code
from eval.app.jobs import Job, Step, steps_of
from eval.app.settings import Settings, whole_number
from eval.app.videos import Video, read_upload
from pipelines.edit import edited_clips, mixed_clips, mixed_names
from pipelines.flags import EditFlags, GenerateFlags, MixFlags
from pipelines.sampling import all_class_names, frame_rate, load_pipeline, sample
from pipelines.schedulers import offered_schedulers
from vidtwin_gen.data.decoding.process import while_waiting
from vidtwin_gen.data.pixels import from_diffusers, to_diffusers, to_uint8
from vidtwin_gen.records.autoencoder import PART_TITLES
from vidtwin_gen.weights import MissingWeightsError


@dataclass(frozen=True)
class Clip:
    """frames: uint8 (F, H, W, C). code: Python that makes it again, "" of what a visitor brought."""

    title: str
    frames: np.ndarray
    fps: float
    code: str = ""


Shown = tuple[list[Clip], str]  # and what is to be said of them


class Studio:
    """One pipeline, used by one visitor's work at a time. It keeps nothing of a visitor."""

    def __init__(self, pipeline: str | Path, device: str | None = None) -> None:
        self.pipeline, self.turn = str(pipeline), Lock()
        flags = GenerateFlags(pipeline=self.pipeline, out="", device=device)
        self.pipe = load_pipeline(flags)
        self.scheduler, self.fps = self.pipe.scheduler, frame_rate(self.pipe, flags)
        self.class_names = all_class_names(self.pipe)
        self.schedulers = offered_schedulers(self.scheduler, self.pipe.transformer.config.prediction_type)
        self.layout = self.pipe.transformer.layout
        self.clip_size = adapter.clip_size(self.pipe.vae, self.layout)
        self.code = Code(self.pipeline, self.pipe, self.schedulers, type(self.scheduler).__name__)
        self.lpips: LPIPS | None = None
        self.missing = ""
        try:
            self.lpips = load_lpips(device=self.pipe.vae.device)
        except MissingWeightsError as error:
            self.missing = f"LPIPS left out: {error}"

    @property
    def has_internal_guidance(self) -> bool:
        return self.pipe.transformer.config.get("internal_layer") is not None

    def generate(self, label: int | None, settings: Settings) -> Job[Shown]:
        """Clips of one class."""
        (chosen,) = self.chosen(label)
        name = self.class_names[chosen]
        flags = GenerateFlags(**settings.flags(self.pipeline))

        def work(step: Step) -> Shown:
            self._set_scheduler(settings)
            clips = [(flags.seed, chosen, number) for number in range(flags.num_videos_per_class)]
            videos = sample(self.pipe, flags, clips, output_type="pt", callback_on_step_end=_callback(step))
            frames = to_uint8(from_diffusers(videos)).cpu().numpy()
            titles = [f"{name}, seed {flags.seed}, clip {number}" for _, _, number in clips]
            codes = [self.code.generated(settings, chosen, number) for _, _, number in clips]
            return list(map(Clip, titles, frames, repeat(self.fps), codes)), ""

        return (yield from steps_of(work, self.turn))

    def take_apart(self, file: str | None, stride: int) -> Job[Shown]:
        """The video, its reconstruction and the decode of each part alone; the reconstruction's quality."""
        video = yield from self.reading(file, stride)

        @torch.inference_mode()
        def work(step: Step) -> Shown:
            shown: dict[str, list[torch.Tensor]] = {}
            measured = []
            for number, (window, length) in enumerate(zip(video.windows, video.lengths(), strict=True), 1):
                clip = window[None].to(self.pipe.vae.device)
                decoded = decode_parts(self.pipe.vae, adapter.encode(self.pipe.vae, clip).mode(), self.layout)
                for name, part in {"original": clip, **decoded}.items():
                    shown.setdefault(name, []).append(part[0, :, :length].float().cpu())
                measured.append(
                    frame_quality(decoded["both"][0, :, :length], clip[0, :, :length], self.lpips)
                )
                step(number, len(video.windows))
            quality = {name: torch.cat([m[name] for m in measured]).mean().item() for name in measured[0]}
            text = f"{quality_text(quality)} of the reconstruction, the mean of {video.num_frames} frames. "
            clips = [
                (PART_TITLES.get(name, video.name), torch.cat(parts, 1)) for name, parts in shown.items()
            ]
            codes = [
                self.code.taken_apart(video, stride, name) if name in PART_TITLES else "" for name in shown
            ]
            return clips_of(clips, video.fps, codes), f"{text}{video.remark} {self.missing}".strip()

        return (yield from steps_of(work, self.turn))

    def reenact(self, file: str | None, other: str | None, stride: int) -> Job[Shown]:
        """Two videos, and each one's Structure with the other's Dynamics, over the shorter length and at the
        first one's rate."""
        if file is None or other is None:
            raise ValueError("drop two videos first, A and B")
        a = yield from self.reading(file, stride)
        b = yield from self.reading(other, fps=a.fps)

        @torch.inference_mode()
        def work(step: Step) -> Shown:
            shown: list[list[torch.Tensor]] = []
            lengths = [min(pair) for pair in zip(a.lengths(), b.lengths(), strict=False)]
            for number, length in enumerate(lengths):
                pair = torch.stack([a.windows[number], b.windows[number]]).to(self.pipe.vae.device)
                first, second = adapter.encode(self.pipe.vae, pair).mode().chunk(2)
                latents = torch.cat([self.pipe.mix(first, second), self.pipe.mix(second, first)])
                swapped = adapter.decode(self.pipe.vae, latents, self.layout)
                shown.append([clip[:, :length].float().cpu() for clip in (*pair, *swapped)])
                step(number + 1, len(lengths))
            names = ["A", "B", *mixed_names("A", "B")[2:]]
            clips = [
                (name, torch.cat(parts, 1))
                for name, parts in zip(names, zip(*shown, strict=True), strict=True)
            ]
            text = (
                f"A is {a.name}, of {a.num_total} frames at {a.fps:.5g} a second, B is {b.name}, of "
                f"{b.num_total}: the first {sum(lengths)} of both are used."
            )
            codes = ["", "", *self.code.reenacted(a, b, stride, sum(lengths))]
            return clips_of(clips, a.fps, codes), text

        return (yield from steps_of(work, self.turn))

    def edit(
        self, file: str | None, stride: int, keep: str, label: int | None, settings: Settings
    ) -> Job[Shown]:
        """As `python -m pipelines edit`: the first window of a video, one part of it kept."""
        ids, video = self.chosen(label), (yield from self.reading(file, stride))
        flags = EditFlags(video="", keep=keep, class_labels=[], **settings.flags(self.pipeline))

        def work(step: Step) -> Shown:
            self._set_scheduler(settings)
            window = video.windows[:1]
            known = self.pipe.encode_video(to_diffusers(window))
            edits = [(flags.seed, ids[0], number) for number in range(flags.num_videos_per_class)]
            edited = edited_clips(self.pipe, flags, known, edits, callback_on_step_end=_callback(step))
            part = "Dynamics" if keep == "structure" else "Structure"
            titles = [f"new {part} of {self.class_names[ids[0]]}, {number}" for number in range(len(edited))]
            clips = [(video.name, window[0]), *zip(titles, edited, strict=True)]
            text = f"The {keep.title()} is that of the first {len(window[0][0])} frames of {video.name}."
            made = (self.code.edited(settings, video, stride, keep, ids[0], n) for n in range(len(edited)))
            return clips_of(clips, video.fps, ["", *made]), text

        return (yield from steps_of(work, self.turn))

    def mix(self, first: int | None, second: int | None, settings: Settings) -> Job[Shown]:
        """As `python -m pipelines mix`: two generated clips and each one's Structure with the other's
        Dynamics."""
        ids = self.chosen(first, second)
        names = mixed_names(*(self.class_names[label] for label in ids))
        flags = MixFlags(class_labels=[], **settings.flags(self.pipeline))

        def work(step: Step) -> Shown:
            self._set_scheduler(settings)
            rows = mixed_clips(self.pipe, flags, ids, callback_on_step_end=_callback(step))
            codes = [code for number in range(len(rows)) for code in self.code.mixed(settings, ids, number)]
            return clips_of(zip(names * len(rows), rows.flatten(0, 1), strict=True), self.fps, codes), ""

        return (yield from steps_of(work, self.turn))

    def chosen(self, *labels: int | None) -> list[int]:
        """Ids of classes, none of them left out."""
        ids = [label for label in labels if label is not None]
        if len(ids) < len(labels):
            raise ValueError("choose a class first")
        return ids

    def reading(self, file: str | None, stride: int | None = None, fps: float | None = None) -> Job[Video]:
        """A visitor's video. It takes nobody's turn, and ends with its decoder once nobody waits."""
        if fps is None:
            stride = whole_number("number of frames from one that is taken to the next", stride, 1, 1000)

        def work(step: Step) -> Video:
            while_waiting.set(lambda: step(0, 1))  # of this work's own thread
            return read_upload(file, self.clip_size, stride=stride, fps=fps)

        return (yield from steps_of(work, Lock()))

    def _set_scheduler(self, settings: Settings) -> None:
        """Gives it to the pipeline; only for whoever has the turn."""
        if settings.scheduler not in self.schedulers:
            raise ValueError(f"choose a scheduler, one of {', '.join(self.schedulers)}")
        changes = self.schedulers[settings.scheduler]
        made = getattr(diffusers, settings.scheduler)
        self.pipe.scheduler = made.from_config(self.scheduler.config, **changes)


def _callback(step: Step) -> Callable[..., dict[str, Any]]:
    """What the pipeline calls after each step, and by which it says how far it is."""

    def after_step(pipe: Any, number: int, *_: Any) -> dict[str, Any]:
        step(number + 1, pipe.num_timesteps)
        return {}

    return after_step


def clips_of(clips: Iterable[tuple[str, torch.Tensor]], fps: float, codes: Iterable[str]) -> list[Clip]:
    """From names and clips (C, F, H, W) in [-1, 1], and what makes each."""
    return [
        Clip(name, to_uint8(clip).numpy(), fps, code) for (name, clip), code in zip(clips, codes, strict=True)
    ]
