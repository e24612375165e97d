"""Python that makes a clip of the studio again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autoencoder import adapter
from eval.app.settings import Settings
from eval.app.videos import Video
from pipelines.flags import GenerateFlags
from pipelines.pipeline_vidtwin import VidTwinPipeline
from pipelines.sampling import sampling_options

GENERATOR = "from pipelines.sampling import clip_generator"
PIPELINE = "from vidtwin_gen import VidTwinPipeline"
READING = (
    "from vidtwin_gen.data.pixels import to_diffusers",
    "from vidtwin_gen.data.whole_video import VideoWindows",
)


@dataclass(frozen=True)
class Code:
    """Of one pipeline, saved in `folder`. schedulers: by class, the values of its config that are not the
    pipeline's; scheduler: the class of the pipeline's own."""

    folder: str
    pipe: VidTwinPipeline
    schedulers: Mapping[str, Mapping[str, Any]]
    scheduler: str

    def generated(self, settings: Settings, label: int, number: int) -> str:
        call = self._call(settings, [(int(settings.seed), label, number)])
        return "\n".join([*self._loading([GENERATOR, PIPELINE], settings), f"frames = {call}.frames[0]"])

    def edited(
        self, settings: Settings, video: Video, stride: int, keep: str, label: int, number: int
    ) -> str:
        known = {"video": "to_diffusers(clip[None])", "keep": repr(keep)}
        call = self._call(settings, [(int(settings.seed), label, number)], known)
        return "\n".join(
            [
                *self._loading([GENERATOR, PIPELINE, *READING], settings),
                f"clip, _ = next(iter({self._windows(video, f'stride={int(stride)}')}))",
                f"frames = {call}.frames[0]",
            ]
        )

    def mixed(self, settings: Settings, labels: Sequence[int], number: int) -> list[str]:
        """Of the two clips and of their two mixtures."""
        seed = int(settings.seed)
        clips = [(seed + side, label, number) for side, label in enumerate(labels)]
        call = self._call(settings, clips, {"output_type": "'latent'"})
        lines = [*self._loading([GENERATOR, PIPELINE], settings), f"a, b = {call}.frames.split(1)"]
        shown = (
            "a",
            "b",
            "pipe.mix(structure_of=a, dynamics_of=b)",
            "pipe.mix(structure_of=b, dynamics_of=a)",
        )
        return ["\n".join([*lines, f"(frames,) = pipe.decode({latents})"]) for latents in shown]

    def reenacted(self, a: Video, b: Video, stride: int, num_frames: int) -> list[str]:
        """Of A's Structure with B's Dynamics, and the reverse; of so many frames."""
        lines = [
            *self._loading([PIPELINE, *READING]),
            f"a = {self._windows(a, f'stride={int(stride)}')}",
            f"b = {self._windows(b, 'fps=a.fps')}",
            "frames = []",
            "for windows in zip(a, b):",
            "    first, second = (pipe.encode_video(to_diffusers(clip[None])) for clip, _ in windows)",
        ]
        return [
            "\n".join(
                [
                    *lines,
                    f"    frames += pipe.decode(pipe.mix(structure_of={one}, dynamics_of={other}))[0]",
                    f"frames = frames[:{num_frames}]",
                ]
            )
            for one, other in (("first", "second"), ("second", "first"))
        ]

    def taken_apart(self, video: Video, stride: int, part: str) -> str:
        """Of what `part` of the video's latents decodes to."""
        imports = [
            "import torch",
            "from autoencoder import adapter",
            "from autoencoder.parts import decode_parts",
            PIPELINE,
            "from vidtwin_gen.data.pixels import to_uint8",
            "from vidtwin_gen.data.whole_video import VideoWindows",
        ]
        return "\n".join(
            [
                *self._loading(imports),
                "frames = []",
                "with torch.inference_mode():",
                f"    for clip, _ in {self._windows(video, f'stride={int(stride)}')}:",
                "        latents = adapter.encode(pipe.vae, clip[None].to(pipe.device)).mode()",
                "        parts = decode_parts(pipe.vae, latents, pipe.transformer.layout)",
                f"        frames.extend(to_uint8(parts[{part!r}][0].cpu()).numpy())",
                f"frames = frames[:{video.num_frames}]",
            ]
        )

    def _loading(self, imports: Sequence[str], settings: Settings | None = None) -> list[str]:
        """The pipeline, with the settings' scheduler."""
        lines = [*imports, "", f"pipe = VidTwinPipeline.from_pretrained({self.folder!r})"]
        if self.pipe.device.type != "cpu":
            lines[-1] += f".to({self.pipe.device.type!r})"
        if settings is not None and settings.scheduler != self.scheduler:
            lines.insert(0, f"from diffusers import {settings.scheduler}")
            changes = self.schedulers[settings.scheduler].items()
            words = "".join(f", {name}={value!r}" for name, value in changes)
            lines.append(f"pipe.scheduler = {settings.scheduler}.from_config(pipe.scheduler.config{words})")
        return lines

    def _call(
        self,
        settings: Settings,
        clips: Sequence[tuple[int, int, int]],
        more: Mapping[str, str] | None = None,
    ) -> str:
        """Of the pipeline, for (seed, label, number) of each clip; `more` arguments as they are written."""
        names = self.pipe.config.class_names
        labels = [names[label] if names else label for _, label, _ in clips]
        generators = [f"clip_generator({seed}, {label}, {number})" for seed, label, number in clips]
        options = sampling_options(GenerateFlags(**settings.flags(self.folder)))
        words = {name: repr(value) for name, value in options.items()} | dict(more or {})
        words["generator"] = f"[{', '.join(generators)}]"
        lines = "".join(f"    {name}={value},\n" for name, value in words.items())
        return f"pipe(\n    {labels!r},\n{lines})"

    def _windows(self, video: Video, rate: str) -> str:
        num_frames, *size = adapter.clip_size(self.pipe.vae, self.pipe.transformer.layout)
        return f"VideoWindows({video.name!r}, {num_frames}, size={tuple(size)}, {rate})"
