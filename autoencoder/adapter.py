"""Any video autoencoder seen as ours: clips to one flat Gaussian latent and back, and the latent's layout.

An autoencoder with a `layout` is ours and is called as it is. Any other is one of diffusers', whose latent is
a single grid of (time, height, width), whose size depends on the clips'. The scales in such a class's config
(`scaling_factor`, `latents_mean` ...) are ignored: latents here are the raw posterior's, whitened with what
was measured on the data set (`whitening`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKLHunyuanVideo15, AutoencoderKLMagvit, AutoencoderVidTok
from diffusers.models.modeling_utils import ModelMixin
from einops import rearrange

from autoencoder.model.posterior import FlatGaussian
from vidtwin_gen.latents import LatentGrid, LatentLayout

GRID = "video"
AXES = ("time", "height", "width")
# By how many frames, and to multiples of how many pixels, a clip's size is moved in search of one that works;
# no video autoencoder of diffusers compresses more.
FRAMES_NEARBY = 8
SIDES_NEARBY = (8, 16, 32)

ClipSize = tuple[int, int, int]  # frames, height, width
Statistics = Sequence[float] | None


class NoGaussianError(ValueError):
    """The autoencoder's latent is discrete, or a point."""


def is_ours(vae: ModelMixin) -> bool:
    """Whether it has a `layout`. Its class would not tell: a pipeline that was exported with its code has one
    of its own."""
    return hasattr(vae, "layout")


def latent_layout(vae: ModelMixin, num_frames: int, height: int, width: int) -> LatentLayout:
    """The layout of the latents of clips of this size.

    For another class than ours it is read off a clip that goes there and back on torch's meta device, through
    a model of the same config: nothing is computed, and a clip that does not fit cannot damage what `vae`
    caches between its calls.

    Raises:
        ValueError: clips of this size do not come back at their own size, with a size at which they do; or
            the latent is no Gaussian.
    """
    size = (num_frames, height, width)
    if is_ours(vae):
        own = clip_size(vae, vae.layout)
        if size != own:
            raise ValueError(
                f"this {_name(vae)} takes clips of {_text(own)} (frames, height, width), not {_text(size)}"
            )
        return vae.layout
    reason = _why_refused(vae, size)
    if reason:
        working = next((other for other in _sizes_nearby(size) if not _why_refused(vae, other)), None)
        way_out = (
            f"clips of {_text(working)} work"
            if working
            else "and no size near it works: is it made for clips?"
        )
        raise ValueError(
            f"{_name(vae)} does not take clips of {_text(size)} (frames, height, width): {reason}; {way_out}"
        )
    _, channels, *shape = _encoded_shape(*_class_and_config(vae), size)
    return LatentLayout((LatentGrid(GRID, AXES, tuple(shape), channels),))


def clip_size(vae: ModelMixin, layout: LatentLayout) -> ClipSize:
    """Frames, height and width of the clips that latents of this layout are decoded to. Raises ValueError
    where the autoencoder has latents of another layout."""
    if is_ours(vae):
        if vae.layout != layout:
            raise ValueError(f"this autoencoder's latents are laid out as {vae.layout}, not as {layout}")
        return vae.config.num_frames, vae.config.height, vae.config.width
    if len(layout.grids) != 1 or layout.grids[0].axes != AXES:
        raise ValueError(f"latents of {_name(vae)} are one grid of {AXES}, not {layout}")
    grid = layout.grids[0]
    try:
        _, _, *size = _decoded_shape(*_class_and_config(vae), (1, grid.channels, *grid.shape))
    except Exception as error:  # each class refuses in a way of its own
        raise ValueError(f"{_name(vae)} can't decode latents of {layout}: {error}") from None
    return size[0], size[1], size[2]


def requested_size(
    vae: ModelMixin, num_frames: int | None, height: int | None, width: int | None
) -> ClipSize:
    """The clip size that flags ask for: ours has one size, any other class needs all three flags. Raises
    ValueError for flags that are missing, or that ask ours for another size."""
    flags = {"num_frames": num_frames, "height": height, "width": width}
    if is_ours(vae):
        own = clip_size(vae, vae.layout)
        for (name, value), expected in zip(flags.items(), own, strict=True):
            if value not in (None, expected):
                raise ValueError(f"--{name} {value}: this {_name(vae)} has {expected}; leave the flag out")
        return own
    if num_frames is None or height is None or width is None:
        missing = " ".join(f"--{name}" for name, value in flags.items() if value is None)
        raise ValueError(f"{_name(vae)} takes clips of more than one size: give {missing}")
    if min(num_frames, height, width) < 1:
        raise ValueError(
            f"--num_frames, --height and --width must be positive, got {num_frames} {height} {width}"
        )
    return num_frames, height, width


def encode(vae: ModelMixin, clips: torch.Tensor) -> FlatGaussian:
    """Clips (B, C, F, H, W) in [-1, 1] -> the raw posterior over flat latents (B, L)."""
    _slice_batches(vae)
    posterior = vae.encode(_padded(vae, clips)).latent_dist
    if is_ours(vae):
        return posterior
    moments = [rearrange(part, "b c f h w -> b (f h w c)") for part in (posterior.mean, posterior.logvar)]
    return FlatGaussian(torch.cat(moments, dim=1))


def decode(vae: ModelMixin, latents: torch.Tensor, layout: LatentLayout) -> torch.Tensor:
    """Raw flat latents (B, L) of this layout -> clips (B, C, F, H, W), around [-1, 1]."""
    if is_ours(vae):
        return vae.decode(latents).sample
    parts = layout.split(latents)
    return _decoded(vae, rearrange(parts[layout.names[0]], "b f h w c -> b c f h w").contiguous())


def last_layer(vae: ModelMixin, layout: LatentLayout) -> torch.Tensor:
    """The weight of the layer that a decoded clip comes out of."""
    if is_ours(vae):
        return vae.patch_output.linear.weight
    grid = layout.grids[0]
    name = _last_layer_name(*_class_and_config(vae), (1, grid.channels, *grid.shape))
    return _uncompiled(vae).get_submodule(name).weight


@torch.no_grad()
def decoding_modules(vae: ModelMixin, layout: LatentLayout) -> set[str]:
    """Names of the modules that decoding latents of this layout calls, as `named_modules` has them; read off
    a model of the same config on torch's meta device."""
    meta, called = _meta_model(*_class_and_config(vae)), set[str]()
    handles = [
        module.register_forward_hook(lambda *_, name=name: called.add(name))
        for name, module in meta.named_modules()
    ]
    decode(meta, torch.zeros(1, layout.num_elements, device="meta"), layout)
    for handle in handles:
        handle.remove()
    return called


def whitening(vae: ModelMixin, mean: Statistics, std: Statistics) -> tuple[Statistics, Statistics]:
    """The mean and standard deviation per grid and channel that apply: the given ones, else those in the
    config of our autoencoder. None, as in `LatentLayout.whiten`: not whitened.

    A `latents_mean` in the config of another class follows that class's own convention and is not used.
    """
    if not is_ours(vae):
        return mean, std
    own = vae.config
    return own.latents_mean if mean is None else mean, own.latents_std if std is None else std


def _padded(vae: ModelMixin, clips: torch.Tensor) -> torch.Tensor:
    """VidTok's causal `decode` drops frames at the start, which `forward` adds and `encode` does not."""
    if isinstance(_uncompiled(vae), AutoencoderVidTok) and vae.is_causal:
        first = clips[:, :, :1].repeat_interleave(vae.temporal_compression_ratio - 1, dim=2)
        return torch.cat([first, clips], dim=2)
    return clips


def _slice_batches(vae: ModelMixin) -> None:
    """Of HunyuanVideo 1.5, whose attention has a mask that fits a batch of one clip."""
    if isinstance(_uncompiled(vae), AutoencoderKLHunyuanVideo15):
        _uncompiled(vae).enable_slicing()


def _decoded(vae: ModelMixin, latents: torch.Tensor) -> torch.Tensor:
    """(B, c, f, h, w) -> (B, C, F, H, W); VidTok returns the tensor itself, and Magvit's slices would go on
    from the frames of the clip before."""
    _slice_batches(vae)
    model = _uncompiled(vae)
    if isinstance(model, AutoencoderKLMagvit) and model.use_slicing and len(latents) > 1:
        return torch.cat([_decoded(vae, clip) for clip in latents.split(1)])
    output = vae.decode(latents)
    return output if isinstance(output, torch.Tensor) else output.sample


def _why_refused(vae: ModelMixin, size: ClipSize) -> str | None:
    """Why clips of this size do not go there and back. Raises NoGaussianError where no size would."""
    try:
        encoded = _encoded_shape(*_class_and_config(vae), size)
        decoded = _decoded_shape(*_class_and_config(vae), encoded)
    except NoGaussianError:
        raise
    except Exception as error:  # each class refuses in a way of its own
        return f"{type(error).__name__}: {error}"
    if decoded != (1, 3, *size):
        return f"they come back as {decoded[1]} channels of {_text(decoded[2:])}"
    return None


def _sizes_nearby(size: ClipSize) -> Iterator[ClipSize]:
    """Sizes to try: other heights and widths first, then other numbers of frames."""
    num_frames, *sides = size
    rounded = [[max(1, round(side / to)) * to for side in sides] for to in SIDES_NEARBY]
    for height, width in rounded:
        yield num_frames, height, width
    frames = [n for d in range(1, FRAMES_NEARBY + 1) for n in (num_frames + d, num_frames - d) if n > 0]
    for height, width in (sides, rounded[-1]):
        for count in frames:
            yield count, height, width


def _class_and_config(vae: ModelMixin) -> tuple[Any, str]:
    """What shapes depend on: the class and its config."""
    return type(_uncompiled(vae)), vae.to_json_string()


def _uncompiled(vae: ModelMixin) -> Any:
    """The model in what `torch.compile` makes of one."""
    return getattr(vae, "_orig_mod", vae)


@lru_cache(maxsize=4)
def _meta_model(model_class: Any, config: str) -> ModelMixin:
    """A model without numbers, on the meta device."""
    with init_empty_weights():
        return model_class.from_config(json.loads(config)).eval().to("meta")


@lru_cache
@torch.no_grad()
def _encoded_shape(model_class: Any, config: str, size: ClipSize) -> tuple[int, ...]:
    vae = _meta_model(model_class, config)
    output: Any = vae.encode(_padded(vae, torch.zeros(1, 3, *size, device="meta")))
    if not hasattr(getattr(output, "latent_dist", None), "logvar"):
        raise NoGaussianError(
            f"{_name(vae)} of this config has no Gaussian latent with a mean and a log-variance: take one "
            "that was trained with a KL term"
        )
    return tuple(output.latent_dist.mean.shape)


@lru_cache
@torch.no_grad()
def _decoded_shape(model_class: Any, config: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(_decoded(_meta_model(model_class, config), torch.zeros(shape, device="meta")).shape)


@lru_cache
@torch.no_grad()
def _last_layer_name(model_class: Any, config: str, shape: tuple[int, ...]) -> str:
    """Of the layers with a matrix or a kernel the one that decoding calls last."""
    vae, called = _meta_model(model_class, config), [""]
    weights = {name: getattr(module, "weight", None) for name, module in vae.named_modules()}
    handles = [
        vae.get_submodule(name).register_forward_hook(lambda *_, name=name: called.append(name))
        for name, weight in weights.items()
        if weight is not None and weight.ndim > 1
    ]
    _decoded(vae, torch.zeros(shape, device="meta"))
    for handle in handles:
        handle.remove()
    return called[-1]


def _text(size: Sequence[int]) -> str:
    return "x".join(map(str, size))


def _name(vae: ModelMixin) -> str:
    return type(vae).__name__
