"""VidTwinPipeline: class labels to videos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import get_module_execution_device, randn_tensor
from diffusers.video_processor import VideoProcessor

from autoencoder.vidtwin import AutoencoderVidTwin
from pipelines.labels import ClassLabel, check_class_names, label_ids
from pipelines.sharing import SharingMixin, names_in_order
from vidtwin_gen.transformer import LatentTransformer

OUTPUT_TYPES = ("pil", "np", "pt", "latent")

Frames = torch.Tensor | np.ndarray | list[list[PIL.Image.Image]]


@dataclass
class VidTwinPipelineOutput(BaseOutput):
    """`frames`: for `"pil"` a list of images per video; for `"np"` (B, F, H, W, C) and for `"pt"`
    (B, F, C, H, W) in [0, 1]; for `"latent"` the whitened latents (B, L)."""

    __module__ = "vidtwin_gen"

    frames: Frames


class VidTwinPipeline(SharingMixin, DiffusionPipeline):
    """Class-conditional video generation on VidTwin latents.

    Args:
        vae: decodes the flat latent; its config holds the latent's whitening.
        transformer: predicts what the scheduler expects, over the same latent layout.
        scheduler: any diffusers scheduler of matching prediction type, by default
            `FlowMatchEulerDiscreteScheduler`; assign another to `pipe.scheduler` to swap it.
        class_names: name of each class, in the order of the transformer's labels, or the label of each name.
        fps: frames per second of the clips that the models were trained on.
        training: what the model card tells of data, recipe and metrics, as JSON (`pipelines.model_card`).

    Example:
        >>> from diffusers.utils import export_to_video
        >>> from vidtwin_gen import VidTwinPipeline
        >>> pipe = VidTwinPipeline.from_pretrained("path/to/pipeline").to("cuda")
        >>> frames = pipe(["Archery", "BabyCrawling", 7], num_videos_per_class=2).frames
        >>> export_to_video(frames[0], "archery.mp4", fps=pipe.config.fps)
    """

    __module__ = "vidtwin_gen"  # where users find it, whatever folder it lives in

    model_cpu_offload_seq = "transformer->vae"
    _callback_tensor_inputs = ["latents"]

    vae: AutoencoderVidTwin
    transformer: LatentTransformer
    scheduler: Any

    def __init__(
        self,
        vae: AutoencoderVidTwin,
        transformer: LatentTransformer,
        scheduler: SchedulerMixin,
        class_names: list[str] | dict[str, int] | None = None,
        fps: float | None = None,
        training: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        class_names = names_in_order(class_names)
        if vae is not None and transformer is not None and vae.layout != transformer.layout:
            raise ValueError(
                "the transformer was made for another latent than this autoencoder's: "
                f"{transformer.layout} and {vae.layout}"
            )
        if class_names is not None and transformer is not None:
            check_class_names(class_names, transformer.config.num_classes)
        self.register_modules(vae=vae, transformer=transformer, scheduler=scheduler)
        fps = None if fps is None else float(fps)
        self.register_to_config(class_names=class_names, fps=fps, training=training)
        self.video_processor = VideoProcessor(do_resize=False)

    @property
    def guidance_scale(self) -> float:
        return self._guidance_scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        return self._guidance_scale > 1

    @property
    def num_timesteps(self) -> int:
        return self._num_timesteps

    @property
    def current_timestep(self) -> torch.Tensor | None:
        return self._current_timestep

    @property
    def interrupt(self) -> bool:
        """Set `_interrupt` in a callback to stop denoising and decode what there is."""
        return self._interrupt

    def get_label_ids(self, class_labels: ClassLabel | Sequence[ClassLabel]) -> list[int]:
        """Class names, whatever their case, or ids -> ids. Raises ValueError for what is neither."""
        return label_ids(class_labels, self.transformer.config.num_classes, self.config.class_names)

    def check_inputs(
        self,
        batch_size: int,
        num_videos_per_class: int,
        num_inference_steps: int,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None,
        output_type: str,
        callback_on_step_end_tensor_inputs: Sequence[str],
    ) -> None:
        """Whatever would otherwise fail only after the denoising. Raises ValueError."""
        if num_videos_per_class < 1 or num_inference_steps < 1:
            raise ValueError(
                "num_videos_per_class and num_inference_steps must be positive, "
                f"got {num_videos_per_class} and {num_inference_steps}"
            )
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f"output_type is one of {OUTPUT_TYPES}, got {output_type!r}")
        if isinstance(generator, list) and len(generator) != batch_size:
            raise ValueError(
                f"{batch_size} videos need as many generators, or a single one, got {len(generator)}"
            )
        expected = (batch_size, self.transformer.layout.num_elements)
        if latents is not None and tuple(latents.shape) != expected:
            raise ValueError(
                f"latents must be (videos, latent numbers) = {expected}, got {tuple(latents.shape)}"
            )
        unknown = set(callback_on_step_end_tensor_inputs) - set(self._callback_tensor_inputs)
        if unknown:
            raise ValueError(
                f"callback_on_step_end_tensor_inputs may name {self._callback_tensor_inputs}, "
                f"got {sorted(unknown)}"
            )

    def prepare_latents(
        self,
        batch_size: int,
        device: torch.device,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None,
    ) -> torch.Tensor:
        """(B, L) float32, what the scheduler starts from: the given unit noise, or drawn."""
        if latents is None:
            shape = (batch_size, self.transformer.layout.num_elements)
            latents = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
        # flow-matching schedulers start from unit noise and have no such attribute
        return latents.to(device, torch.float32) * getattr(self.scheduler, "init_noise_sigma", 1.0)

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """(B, L) whitened latents -> (B, 3, F, H, W) videos, around [-1, 1]."""
        device = get_module_execution_device(self.vae)
        latents = self.vae.layout.unwhiten(
            latents.to(device), self.vae.config.latents_mean, self.vae.config.latents_std
        )
        return self.vae.decode(latents.to(self.vae.dtype), return_dict=False)[0]

    @torch.no_grad()
    def __call__(
        self,
        class_labels: ClassLabel | Sequence[ClassLabel],
        num_videos_per_class: int = 1,
        guidance_scale: float = 4.0,
        num_inference_steps: int = 50,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict[str, Any]]
        | PipelineCallback
        | MultiPipelineCallbacks
        | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> VidTwinPipelineOutput | tuple[Frames]:
        """Generate `len(class_labels) * num_videos_per_class` videos, those of one label side by side.

        Args:
            class_labels: class name or id, or a list of them.
            num_videos_per_class: videos per label.
            guidance_scale: classifier-free guidance (arXiv 2207.12598); 1 or less: none, at half the cost.
            num_inference_steps: steps of the scheduler.
            generator: one for all videos, or a list with one per video; a video drawn from a generator of its
                own does not depend on the rest of the batch.
            latents: (B, L) unit Gaussian noise to start from, in place of drawing it.
            output_type: `"pil"`, `"np"`, `"pt"`, or `"latent"` for the whitened latents, not decoded.
            return_dict: a `VidTwinPipelineOutput` or else a tuple with the frames.
            callback_on_step_end: called after every step as `f(pipe, step, timestep, tensors)`; returns a
                dict, whose `"latents"` replace the current ones.
            callback_on_step_end_tensor_inputs: names of the tensors to give to the callback: `"latents"`.

        Raises:
            ValueError: an argument that cannot be met, before the first step.
        """
        if isinstance(callback_on_step_end, (PipelineCallback, MultiPipelineCallbacks)):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs
        ids = self.get_label_ids(class_labels)
        batch_size = len(ids) * num_videos_per_class
        self.check_inputs(
            batch_size,
            num_videos_per_class,
            num_inference_steps,
            generator,
            latents,
            output_type,
            callback_on_step_end_tensor_inputs,
        )
        self._guidance_scale = guidance_scale
        self._current_timestep = None
        self._interrupt = False
        device = self._execution_device

        labels = torch.tensor(ids, device=device).repeat_interleave(num_videos_per_class)  # (B,)
        null_labels = torch.full_like(labels, self.transformer.null_class)
        # before the noise is scaled: some schedulers know their init_noise_sigma only afterwards
        self.scheduler.set_timesteps(num_inference_steps, device=device)
        latents = self.prepare_latents(batch_size, device, generator, latents)  # (B, L)
        timesteps = self.scheduler.timesteps
        self._num_timesteps = len(timesteps)
        num_warmup_steps = len(timesteps) - num_inference_steps * self.scheduler.order

        with self.progress_bar(total=num_inference_steps) as progress_bar:
            for i, t in enumerate(timesteps):
                if self.interrupt:
                    break
                self._current_timestep = t
                guided = self.do_classifier_free_guidance
                model_input = latents
                if hasattr(self.scheduler, "scale_model_input"):  # flow-matching schedulers scale nothing
                    model_input = self.scheduler.scale_model_input(latents, t)
                model_input = torch.cat([model_input] * 2) if guided else model_input  # (2 B, L) or (B, L)
                with self.transformer.cache_context("cond_uncond" if guided else "cond"):
                    prediction = self.transformer(
                        model_input.to(self.transformer.dtype),
                        timestep=t.expand(len(model_input)),
                        class_labels=torch.cat([null_labels, labels]) if guided else labels,
                        return_dict=False,
                    )[0].float()
                if guided:
                    unconditional, conditional = prediction.chunk(2)
                    prediction = unconditional + self.guidance_scale * (conditional - unconditional)
                latents = self.scheduler.step(prediction, t, latents, return_dict=False)[0]

                if callback_on_step_end is not None:
                    tensors = {}
                    for name in callback_on_step_end_tensor_inputs:
                        tensors[name] = locals()[name]
                    latents = callback_on_step_end(self, i, t, tensors).pop("latents", latents)
                if i == len(timesteps) - 1 or (
                    i + 1 > num_warmup_steps and (i + 1) % self.scheduler.order == 0
                ):
                    progress_bar.update()
        self._current_timestep = None

        frames: Frames = latents
        if output_type != "latent":
            frames = self.video_processor.postprocess_video(self.decode_latents(latents), output_type)
        self.maybe_free_model_hooks()
        return VidTwinPipelineOutput(frames=frames) if return_dict else (frames,)
