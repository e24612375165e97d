"""Any video autoencoder as stage 1 trains it: clips to reconstructions and the posterior in one call."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers.models.modeling_utils import ModelMixin

from autoencoder.adapter import decode, decoding_modules, encode, is_ours
from autoencoder.loading import build_video_autoencoder, load_video_autoencoder
from autoencoder.model.vidtwin import AutoencoderVidTwinOutput
from vidtwin_gen.files import file_sha256
from vidtwin_gen.latents import LatentLayout
from vidtwin_gen.weights import weights_sha256


def autoencoder_to_train(path: str) -> ModelMixin:
    """With random weights of the class and the sizes in a JSON file, or with those of a saved folder.

    Raises:
        ValueError: as `build_video_autoencoder` and `load_video_autoencoder`.
    """
    is_config = path.endswith(".json") or Path(path).is_file()
    return (build_video_autoencoder(path) if is_config else load_video_autoencoder(path)).train()


def source_sha256(path: str) -> str:
    """The digest of what `autoencoder_to_train` read: of the JSON file, or of the folder's weights."""
    return file_sha256(path) if Path(path).is_file() else weights_sha256(path)


def freeze_encoder(vae: ModelMixin, layout: LatentLayout) -> None:
    """Leaves to be trained only what decoding uses. The rest keeps its weights and is in evaluation mode, so
    that latents are the same as before."""
    decoding = decoding_modules(vae, layout)
    for name, module in vae.named_modules():
        if name not in decoding:
            module.training = False
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)


def return_posterior(vae: ModelMixin, layout: LatentLayout) -> None:
    """Gives another class's model the `forward` that ours has: clips, a generator and noise to reconstruction
    and posterior, so that a training step needs no call past a distributed wrapper."""
    if is_ours(vae):
        return

    def forward(
        sample: torch.Tensor,
        sample_posterior: bool = False,
        generator: torch.Generator | None = None,
        latent_noise: torch.Tensor | None = None,
    ) -> AutoencoderVidTwinOutput:
        posterior = encode(vae, sample)
        latents = posterior.sample(generator) if sample_posterior else posterior.mode()
        if latent_noise is not None:
            latents = latents + latent_noise
        return AutoencoderVidTwinOutput(sample=decode(vae, latents, layout), latent_dist=posterior)

    vae.forward = forward  # type: ignore[method-assign]
