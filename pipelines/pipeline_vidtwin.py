"""VidTwinPipeline: class labels to videos."""

from __future__ import annotations

import inspect
import math
import numbers
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.guiders import BaseGuidance
from diffusers.image_processor import PipelineImageInput
from diffusers.loaders import CogVideoXLoraLoaderMixin
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.torch_utils import get_module_execution_device, randn_tensor
from diffusers.video_processor import VideoProcessor

from autoencoder import adapter
from autoencoder.parts import join_parts
from pipelines.guidance import (
    SETTINGS_OF_GUIDANCE,
    check_guidance,
    check_guider,
    guide,
    inside_interval,
    rehearse,
)
from pipelines.inpainting import (
    KnownRegion,
    check_latents,
    grids_to_keep,
    in_unit_range,
    keep_mask,
    repeat_for_videos,
)
from pipelines.labels import ClassLabel, check_class_count, label_ids, names_in_order
from pipelines.noise_levels import model_timestep, noise_level, set_timesteps
from pipelines.pipeline_output import OUTPUT_TYPES, Frames, VidTwinPipelineOutput
from pipelines.schedulers import check_scheduler, trained_shift
from pipelines.sharing.record_types import check_record
from pipelines.sharing.saving import SharingMixin
from vidtwin_gen.data.names import check_different
from vidtwin_gen.models.transformer import LatentTransformer

Generators = torch.Generator | list[torch.Generator]
Callback: TypeAlias = Callable[..., dict[str, Any]] | PipelineCallback | MultiPipelineCallbacks


class VidTwinPipeline(SharingMixin, DiffusionPipeline, CogVideoXLoraLoaderMixin):
    """Class-conditional video generation on VidTwin latents.

    Args:
        vae: decodes the flat latent: an `AutoencoderVidTwin`, with the latent's whitening in its config, or
            any video autoencoder of diffusers that `autoencoder.adapter` can see as one.
        transformer: predicts what the scheduler expects, over the same latent layout.
        scheduler: any diffusers scheduler for what the transformer predicts, its config's `prediction_type`;
            assign another to `pipe.scheduler` to swap it. One that does not fit is refused when called.
        class_names: name of each class, in the order of the transformer's labels, or the label of each name.
        fps: frames per second of the clips that the models were trained on.
        latents_mean, latents_std: the latent's whitening, one number per grid and channel in layout order.
            None: that of the `AutoencoderVidTwin`; another class has none that would fit.
        training: data, recipe and metrics for the model card, as JSON
            (`pipelines.sharing.model_card`).

    Example:
        >>> from diffusers.utils import export_to_video
        >>> from vidtwin_gen import VidTwinPipeline
        >>> pipe = VidTwinPipeline.from_pretrained("path/to/pipeline").to("cuda")
        >>> frames = pipe(["Archery", "BabyCrawling", 3], num_videos_per_class=2).frames
        >>> export_to_video(frames[0], "archery.mp4", fps=pipe.config.fps)

        Another solver, which needs fewer steps:

        >>> from diffusers import UniPCMultistepScheduler
        >>> pipe.scheduler = UniPCMultistepScheduler.from_config(
        ...     pipe.scheduler.config,
        ...     use_flow_sigmas=True,
        ...     prediction_type="flow_prediction",
        ...     flow_shift=pipe.scheduler.config.shift,
        ... )

        New Dynamics for the Structure of a given clip, and the parts of two clips joined:

        >>> moved = pipe("Archery", video=[frames[0]], keep="structure", num_videos_per_class=3).frames
        >>> a, b = pipe(["Archery", "BabyCrawling"], output_type="latent").frames.split(1)
        >>> mixed = pipe.decode(pipe.mix(structure_of=a, dynamics_of=b))
    """

    __module__ = "vidtwin_gen"  # where users find it, whatever folder it lives in

    model_cpu_offload_seq = "transformer->vae"
    _optional_components = ["vae"]
    _callback_tensor_inputs = ["latents", "prediction"]

    vae: ModelMixin
    transformer: LatentTransformer
    scheduler: Any

    def __init__(
        self,
        vae: ModelMixin,
        transformer: LatentTransformer,
        scheduler: SchedulerMixin,
        class_names: list[str] | dict[str, int] | None = None,
        fps: float | None = None,
        latents_mean: list[float] | None = None,
        latents_std: list[float] | None = None,
        training: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        class_names = names_in_order(class_names)
        if transformer is not None:
            _check_fit(vae, transformer, class_names, latents_mean, latents_std)
            check_different(class_names or [])
        if fps is not None and not (isinstance(fps, (int, float)) and 0 < fps <= sys.float_info.max):
            raise ValueError(f"fps is a number of frames per second above 0, got {fps!r}")
        check_record(training)
        self.register_modules(vae=vae, transformer=transformer, scheduler=scheduler)
        self.register_to_config(
            class_names=class_names,
            fps=None if fps is None else float(fps),
            latents_mean=_floats(latents_mean),
            latents_std=_floats(latents_std),
            training=training,
        )
        self.video_processor = VideoProcessor(do_resize=False)

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs: Any) -> VidTwinPipeline:
        """A pipeline of the components of another one, see `DiffusionPipeline.from_pipe`, which by itself
        would share models of the annotated class only: none that inherits, none of exported code."""
        shared = {
            name: pipeline.components[name] for name in ("vae", "transformer") if name in pipeline.components
        }
        return super().from_pipe(pipeline, **{**shared, **kwargs})

    @property
    def trained_shift(self) -> float | None:
        """The shift of the noise levels that the transformer was trained with, where `training` says it."""
        return trained_shift(self.config.training, self.transformer.layout.num_elements)

    @property
    def guidance_scale(self) -> float:
        return self._guidance_scale

    @property
    def guidance_interval(self) -> tuple[float, float]:
        return self._guidance_interval

    @property
    def guidance_rescale(self) -> float:
        return self._guidance_rescale

    @property
    def internal_guidance_scale(self) -> float:
        return self._internal_guidance_scale

    @property
    def guider(self) -> BaseGuidance | None:
        return self._guider

    @property
    def do_classifier_free_guidance(self) -> bool:
        return self._guider is None and self._guidance_scale > 1

    @property
    def attention_kwargs(self) -> dict[str, Any] | None:
        return self._attention_kwargs

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
        num_labels: int,
        num_videos_per_class: int,
        num_inference_steps: int,
        generator: Generators | None,
        latents: torch.Tensor | None,
        output_type: str,
        callback_on_step_end_tensor_inputs: Sequence[str],
        num_resamples: int,
    ) -> None:
        """Whatever would otherwise fail only after the denoising. Raises ValueError."""
        config = self.config  # models, like the scheduler, may have been assigned since
        _check_fit(self.vae, self.transformer, config.class_names, config.latents_mean, config.latents_std)
        check_scheduler(self.scheduler, self.transformer.config.prediction_type, self.trained_shift)
        check_guidance(
            self.guidance_scale,
            self.guidance_interval,
            self.guidance_rescale,
            self.internal_guidance_scale,
            self.transformer,
        )
        if self.guider is not None:
            parameters = inspect.signature(type(self).__call__).parameters
            settings = {name: getattr(self, name) for name in SETTINGS_OF_GUIDANCE}
            settings["guidance_interval"] = tuple(self.guidance_interval)
            others = {key: value for key, value in settings.items() if value != parameters[key].default}
            check_guider(self.guider, self.transformer, others)
        for name, number, least in (
            ("num_videos_per_class", num_videos_per_class, 1),
            ("num_inference_steps", num_inference_steps, 1),
            ("num_resamples", num_resamples, 0),
        ):
            if not isinstance(number, numbers.Integral) or isinstance(number, bool) or number < least:
                raise ValueError(f"{name} is a whole number, at least {least}, got {number!r}")
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f"output_type is one of {OUTPUT_TYPES}, got {output_type!r}")
        if output_type != "latent":
            self._check_vae(f"output_type {output_type!r}")
        options = {} if self.attention_kwargs is None else self.attention_kwargs
        scale = (
            options.get("scale", 1.0) if isinstance(options, dict) and options.keys() <= {"scale"} else None
        )
        if not isinstance(scale, numbers.Real) or not math.isfinite(scale):
            raise ValueError(f"attention_kwargs is {{'scale': s}} with a finite number s, got {options!r}")
        batch_size = num_labels * num_videos_per_class
        generators = [] if generator is None else generator if isinstance(generator, list) else [generator]
        if not all(isinstance(item, torch.Generator) for item in generators):
            raise ValueError(f"generator is a torch.Generator or a list of them, got {generator!r}")
        if isinstance(generator, list) and len(generator) != batch_size:
            raise ValueError(
                f"{batch_size} videos need as many generators, or a single one, got {len(generator)}"
            )
        if latents is not None:
            check_latents("latents", latents, self.transformer.layout)
            if len(latents) != batch_size:
                raise ValueError(f"{batch_size} videos need as many latents, got {len(latents)}")
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
        generator: Generators | None,
        latents: torch.Tensor | None,
    ) -> torch.Tensor:
        """(B, L) float32 noise of unit variance: given, or drawn."""
        if latents is None:
            shape = (batch_size, self.transformer.layout.num_elements)
            latents = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
        return latents.to(device, torch.float32)

    @torch.no_grad()
    def encode_video(self, video: PipelineImageInput) -> torch.Tensor:
        """Clips -> their whitened latents (B, L) float32, the posterior's mean.

        Args:
            video: what this pipeline returns, in the size that it generates: a list of images per clip, array
                (B, F, H, W, C) or tensor (B, F, C, H, W), in [0, 1].

        Raises:
            ValueError: clips of another length or size, values outside of [0, 1], or no autoencoder.
        """
        self._check_vae("a video")
        video = in_unit_range(video)
        try:
            clips = self.video_processor.preprocess_video(video)  # (B, C, F, H, W) in [-1, 1]
        except RuntimeError as error:
            if "stack expects" not in str(error):
                raise
            raise ValueError(f"the clips of a video must be of one length, size and mode: {error}") from None
        size, expected = tuple(clips.shape[2:]), adapter.clip_size(self.vae, self.transformer.layout)
        if size != expected:  # a latent of another shape may have as many numbers
            raise ValueError(f"video must be of {expected} (frames, height, width), got {size}")
        clips = clips.to(get_module_execution_device(self.vae), self.vae.dtype)
        latents = adapter.encode(self.vae, clips).mode().float()
        mean, std = adapter.whitening(self.vae, self.config.latents_mean, self.config.latents_std)
        return self.transformer.layout.whiten(latents, mean, std)

    def prepare_known_latents(
        self,
        video: PipelineImageInput | None,
        known_latents: torch.Tensor | None,
        keep: str | Sequence[str] | None,
        num_labels: int,
        num_videos_per_class: int,
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The latents (B, L) of given clips, and (L,) bool, true where `keep` lets them stay; None where no
        clip is given.

        Raises:
            ValueError: a clip without `keep` or the reverse, both a video and latents, or as `keep_mask`,
                `encode_video` and `repeat_for_videos`.
        """
        num_given = (video is not None) + (known_latents is not None)
        if num_given != (keep is not None):
            raise ValueError(
                "to keep a part of a clip pass the clip, as video or else as known_latents, together with "
                f"keep='structure' or keep='dynamics'; got {'no' if video is None else 'a'} video, "
                f"{'no' if known_latents is None else 'some'} known_latents and keep={keep!r}"
            )
        if keep is None:
            return None
        layout = self.transformer.layout
        mask = keep_mask(layout, keep)
        latents = known_latents if known_latents is not None else self.encode_video(video)
        return repeat_for_videos(latents, layout, num_labels, num_videos_per_class), mask

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """(B, L) whitened latents -> (B, 3, F, H, W) videos, around [-1, 1]."""
        self._check_vae("decoding")
        device = get_module_execution_device(self.vae)
        layout = self.transformer.layout
        mean, std = adapter.whitening(self.vae, self.config.latents_mean, self.config.latents_std)
        latents = layout.unwhiten(latents.to(device), mean, std)
        return adapter.decode(self.vae, latents.to(self.vae.dtype), layout)

    @torch.no_grad()
    def decode(self, latents: torch.Tensor, output_type: str = "pil") -> Frames:
        """(B, L) whitened latents -> videos, as the call returns them.

        `pipe.vae.enable_slicing()` decodes one after the other.

        Raises:
            ValueError: latents of another length, or with NaN or infinity among them, or no autoencoder.
        """
        check_latents("latents", latents, self.transformer.layout)
        return self._videos(latents, output_type)

    def _check_vae(self, what: str) -> None:
        """Raises ValueError where this needs an autoencoder that the pipeline has not."""
        if self.vae is None:
            raise ValueError(f"{what} needs a vae and this pipeline's is None: assign one, pipe.vae = ...")

    def _videos(self, latents: torch.Tensor, output_type: str) -> Frames:
        return self.video_processor.postprocess_video(self.decode_latents(latents), output_type)

    def mix(self, structure_of: torch.Tensor, dynamics_of: torch.Tensor) -> torch.Tensor:
        """The Structure of the first clips with the Dynamics of the second, (B, L) each -> (B, L).

        Raises:
            ValueError: latents of another length, or without these parts.
        """
        grids_to_keep(self.transformer.layout, "structure")
        return join_parts(self.transformer.layout, structure_of, dynamics_of)

    @torch.no_grad()
    def __call__(
        self,
        class_labels: ClassLabel | Sequence[ClassLabel],
        num_videos_per_class: int = 1,
        guidance_scale: float = 4.0,
        num_inference_steps: int = 50,
        generator: Generators | None = None,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        *,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        guidance_rescale: float = 0.0,
        internal_guidance_scale: float = 1.0,
        guider: BaseGuidance | None = None,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        video: PipelineImageInput | None = None,
        known_latents: torch.Tensor | None = None,
        keep: str | Sequence[str] | None = None,
        num_resamples: int = 1,
        attention_kwargs: dict[str, Any] | None = None,
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
            callback_on_step_end_tensor_inputs: names of the tensors to give to the callback: `"latents"`, and
                `"prediction"`, what the transformer predicted, after guidance.
            guidance_interval: (start, stop), fractions of the steps. Guided are the steps k = 0, 1, ... of n
                with int(start n) <= k < int(stop n); the others cost half.
            guidance_rescale: share, 0 to 1, of the guided prediction that is brought back to the standard
                deviation of the unguided one (arXiv 2305.08891, section 3.4).
            internal_guidance_scale: of the direction from what the transformer's `internal_layer` predicts to
                what its last one does (arXiv 2512.24176), at no cost; 1: none. It acts at all steps, and
                where the other guidance acts, on both of its halves.
            guider: one of `diffusers.guiders` in place of all of these; what it guides is what the
                transformer predicts, with one call for each of its predictions.
            timesteps: falling, in [0, 1000], in place of the scheduler's own `num_inference_steps`, where it
                can. sigmas: the same in its own noise levels, for flow matching in [0, 1]. A scheduler with a
                `shift` moves them as it moves its own.
            video: one clip, one per label or one per video, to keep a part of; see `encode_video`.
            known_latents: whitened latents (1, labels or B; L) in place of `video`.
            keep: the part that stays: `"structure"`, `"dynamics"`, or names of the layout's grids; the rest
                is generated to go with it. In the result the kept part is exactly that of the given clip.
            num_resamples: with `keep`, how often half of the noise of the generated part is drawn anew before
                each step, at the cost of one more prediction. With 0 that part hardly follows the kept one,
                which the noise hides in the steps that decide most.
            attention_kwargs: `{"scale": s}` scales the LoRA adapters that are loaded.

        Raises:
            ValueError: an argument that cannot be met, before the first step.
        """
        if isinstance(callback_on_step_end, (PipelineCallback, MultiPipelineCallbacks)):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs
        self._guidance_scale = guidance_scale
        self._guidance_interval = guidance_interval
        self._guidance_rescale = guidance_rescale
        self._internal_guidance_scale = internal_guidance_scale
        self._guider = guider
        self._attention_kwargs = attention_kwargs
        self._current_timestep = None
        self._interrupt = False
        if callback_on_step_end is not None and not callable(callback_on_step_end):
            raise ValueError(f"callback_on_step_end is a function, got {callback_on_step_end!r}")
        ids = self.get_label_ids(class_labels)
        self.check_inputs(
            len(ids),
            num_videos_per_class,
            num_inference_steps,
            generator,
            latents,
            output_type,
            callback_on_step_end_tensor_inputs,
            num_resamples,
        )
        device = self._execution_device
        # before the noise is scaled: some schedulers know their init_noise_sigma only afterwards
        times, num_steps = set_timesteps(
            self.scheduler, num_inference_steps, device, timesteps, sigmas, shift=self.trained_shift
        )
        self._num_timesteps = len(times)
        if guider is not None:
            rehearse(guider, self.transformer, num_steps)
        known = self.prepare_known_latents(video, known_latents, keep, len(ids), num_videos_per_class)

        labels = torch.tensor(ids, device=device).repeat_interleave(num_videos_per_class)  # (B,)
        noise = self.prepare_latents(len(labels), device, generator, latents)  # (B, L)
        # flow-matching schedulers start from unit noise and have no such attribute
        latents = noise * getattr(self.scheduler, "init_noise_sigma", 1.0)
        known_region = None
        if known is not None:
            known_region = KnownRegion(known[0].to(noise), noise, known[1].to(device))
            latents = known_region.insert_into(latents, self.scheduler, 0)
        latents = self.denoise(
            latents,
            labels,
            num_steps,
            known_region,
            num_resamples,
            generator,
            callback_on_step_end,
            callback_on_step_end_tensor_inputs,
        )
        frames = latents if output_type == "latent" else self._videos(latents, output_type)
        self.maybe_free_model_hooks()
        return VidTwinPipelineOutput(frames=frames) if return_dict else (frames,)

    def denoise(
        self,
        latents: torch.Tensor,
        labels: torch.Tensor,
        num_steps: int,
        known_region: KnownRegion | None,
        num_resamples: int,
        generator: Generators | None,
        callback: Callback | None,
        callback_tensor_inputs: Sequence[str],
    ) -> torch.Tensor:
        """(B, L) latents at the scheduler's first noise level -> (B, L) at its last. The loop of the call."""
        scheduler, timesteps = self.scheduler, self.scheduler.timesteps
        self._transformer_dtype = self.transformer.dtype  # which takes a walk through all modules
        options: dict[str, Any] = {"return_dict": False}
        if "generator" in inspect.signature(scheduler.step).parameters:  # of those that draw noise
            options["generator"] = generator

        was_guided = None
        with self.progress_bar(total=num_steps) as progress_bar:
            for i, t in enumerate(timesteps):
                if self.interrupt:
                    break
                self._current_timestep = t
                guided = self.do_classifier_free_guidance and inside_interval(
                    i // scheduler.order, num_steps, self.guidance_interval
                )
                if guided != was_guided and self.transformer.is_cache_enabled:
                    self.transformer._reset_stateful_cache()  # it is of another batch size
                was_guided = guided
                if known_region is not None and i % scheduler.order == 0:
                    for _ in range(num_resamples):
                        prediction = self.predict(latents, labels, i, guided)
                        latents = known_region.resample(latents, prediction, scheduler, i, generator)
                prediction = self.predict(latents, labels, i, guided)
                latents = scheduler.step(prediction, t, latents, **options)[0]  # (B, L)
                if known_region is not None:
                    latents = known_region.insert_into(latents, scheduler, i + 1)

                if callback is not None:
                    tensors = {}
                    for name in callback_tensor_inputs:  # a subclass may offer others of these names
                        tensors[name] = locals()[name]
                    latents = callback(self, i, t, tensors).pop("latents", latents)
                if i == len(timesteps) - 1 or (i + 1) % scheduler.order == 0:
                    progress_bar.update()
        self._current_timestep = None
        return latents

    def predict(self, latents: torch.Tensor, labels: torch.Tensor, index: int, guided: bool) -> torch.Tensor:
        """The transformer's prediction (B, L) float32 at the scheduler's time number `index`: with guidance
        from one forward of both halves, with the guider's, or without."""
        if self.guider is not None:
            return self._predict_with_guider(self.guider, latents, labels, index)
        if not guided:
            return self._predict_once(latents, labels, index, "cond")
        nothing = torch.full_like(labels, self.transformer.null_class)
        both = torch.cat([nothing, labels])
        prediction = self._predict_once(torch.cat([latents] * 2), both, index, "cond_uncond")  # (2 B, L)
        unconditional, conditional = prediction.chunk(2)
        return guide(unconditional, conditional, self.guidance_scale, self.guidance_rescale)

    def _predict_with_guider(
        self, guider: BaseGuidance, latents: torch.Tensor, labels: torch.Tensor, index: int
    ) -> torch.Tensor:
        """(B, L) float32: diffusers' protocol of guiders, which may change the transformer for a call."""
        order, num_calls = self.scheduler.order, self.num_timesteps
        guider.set_state(index // order, -(-num_calls // order), self.scheduler.timesteps[index])
        nothing = torch.full_like(labels, self.transformer.null_class)
        batches = guider.prepare_inputs({"class_labels": (labels, nothing)})
        for batch in batches:
            guider.prepare_models(self.transformer)
            try:
                name = getattr(batch, guider._identifier_key)
                batch.noise_pred = self._predict_once(latents, batch.class_labels, index, name)
            finally:
                guider.cleanup_models(self.transformer)
        return guider(batches)[0]

    def _predict_once(
        self, latents: torch.Tensor, labels: torch.Tensor, index: int, context: str
    ) -> torch.Tensor:
        """(B, L) float32, one forward of the transformer; `context` names its step cache's."""
        scheduler = self.scheduler
        if hasattr(scheduler, "scale_model_input"):  # flow-matching schedulers scale nothing
            latents = scheduler.scale_model_input(latents, scheduler.timesteps[index])
        timestep = model_timestep(scheduler, index, latents.device)
        options: dict[str, Any] = {"attention_kwargs": self.attention_kwargs, "return_dict": False}
        if self.internal_guidance_scale != 1:  # transformers exported by earlier versions do not know it
            options["internal_guidance_scale"] = self.internal_guidance_scale
        with self.transformer.cache_context(
            context,
            step_index=index,
            num_inference_steps=self.num_timesteps,
            # read from the device, so only where a cache may want it
            sigma=noise_level(scheduler, index) if self.transformer.is_cache_enabled else None,
        ):
            return self.transformer(
                latents.to(self._transformer_dtype),
                timestep=timestep.expand(len(latents)),
                class_labels=labels,
                **options,
            )[0].float()  # as latents


def _check_fit(
    vae: ModelMixin | None,
    transformer: LatentTransformer,
    class_names: Sequence[str] | None,
    latents_mean: Sequence[float] | None,
    latents_std: Sequence[float] | None,
) -> None:
    """Raises ValueError where the models have different latents, or where there are more or fewer names or
    numbers of the whitening than the transformer has classes or channels."""
    if vae is not None:
        try:
            adapter.clip_size(vae, transformer.layout)
        except ValueError as error:
            raise ValueError(
                f"the transformer was made for another latent than this autoencoder's: {error}"
            ) from None
    if class_names is not None:
        check_class_count(class_names, transformer.config.num_classes)
    transformer.layout.check_whitening(latents_mean, latents_std)


def _floats(values: Sequence[float] | None) -> list[float] | None:
    """As JSON has them; those of a tensor, too."""
    return None if values is None else [float(value) for value in values]
