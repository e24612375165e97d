"""The terms of the autoencoder's training loss (arXiv 2412.17726, section 3.4) and the discriminator's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from autoencoder.losses.perceptual import LPIPS
from autoencoder.model.posterior import FlatGaussian
from vidtwin_gen.draws import Draw, normal, uniform


class LogVariance(nn.Module):
    """The learned log-variance of the reconstruction error, one number for all pixels, 0 at the start.

    A module, and not a parameter of the autoencoder, which does not know its loss; called without arguments,
    so that a distributed wrapper sees it used.
    """

    def __init__(self) -> None:
        super().__init__()
        self.logvar = nn.Parameter(torch.zeros(()))

    def forward(self) -> torch.Tensor:
        return self.logvar.clone()  # what is logged of a step is the number that the step used


def frames_of(clips: torch.Tensor) -> torch.Tensor:
    """(B, C, F, H, W) -> (B F, C, H, W)."""
    return rearrange(clips, "b c f h w -> (b f) c h w")


def hide_later_frames(clips: torch.Tensor, share: float, draw: Draw) -> torch.Tensor:
    """Clips (B, C, F, H, W) as an encoder sees them that has to predict: of about `share` of them the frames
    from a random one on, never the first, are 0, which is mid-grey.

    PV-VAE (arXiv 2605.02134) pads the latents of such frames; here their pixels are, as a latent of VidTwin
    is of all frames.
    """
    if not share:
        return clips
    num_frames = clips.shape[2]
    is_cut, cut = draw(uniform) < share, 1 + (draw(uniform) * (num_frames - 1)).long()  # (B,)
    first_hidden = torch.where(is_cut, cut, num_frames)
    is_seen = torch.arange(num_frames, device=cut.device) < first_hidden[:, None]  # (B, F)
    return clips * is_seen[:, None, :, None, None].to(clips)


def noise_for_decoding(std: torch.Tensor, level: float, draw: Draw) -> torch.Tensor:
    """Noise (B, L) for latents of these standard deviations (L,), from which a decoder learns to decode
    latents that are not quite an encoder's, such as generated ones: the noise-augmented decoding of arXiv
    2510.11690. Each clip has a strength of its own, `level` times the magnitude of a normal number.
    """
    return level * draw(normal(1)).abs() * std * draw(normal(len(std)))


class _KnownGradient(torch.autograd.Function):
    """A scalar of a tensor, and its gradient there, which a backward pass only scales."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, tensor: torch.Tensor, value: torch.Tensor, gradient: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None, None]:  # type: ignore[override]
        (gradient,) = ctx.saved_tensors
        return upstream * gradient, None, None


def differentiated_once(
    function: Callable[[torch.Tensor], torch.Tensor], tensor: torch.Tensor
) -> torch.Tensor:
    """`function(tensor)`, a scalar, whose gradient is computed at once, which frees the function's graph;
    later backward passes only scale it."""
    leaf = tensor.detach().requires_grad_()
    value = function(leaf)
    with torch.autocast(tensor.device.type, enabled=False):
        (gradient,) = torch.autograd.grad(value, leaf)
    return _KnownGradient.apply(tensor, value.detach(), gradient)


def vidtwin_loss(
    reconstruction: torch.Tensor,
    clips: torch.Tensor,
    posterior: FlatGaussian,
    kl_weight: float,
    mse_weight: float = 0.0,
    lpips: LPIPS | None = None,
    lpips_weight: float = 0.0,
    logvar: torch.Tensor | None = None,
    *,
    one_backward: bool = False,
) -> dict[str, torch.Tensor]:
    """L1 + LPIPS + KL, (B, C, F, H, W) twice -> scalars `loss`, `nll`, `l1`, `mse`, `kl`; `lpips` with a
    network for it, `logvar` where that is learned.

    The paper sums the error over a frame's C H W numbers and averages over frames, and sums the KL over a
    clip. Here both are divided by C H W: `loss = nll + kl_weight kl / (C H W)`, where

        nll = r / exp(logvar) + logvar,    r = l1 + mse_weight mse + lpips_weight lpips

    with `l1` the mean absolute error on [-1, 1] and `kl` nats per clip, so that `kl_weight` is the paper's
    0.001 while the loss, and with it the gradient's norm, does not grow with the frame. The paper adds
    `lpips_weight` times a frame's LPIPS to the error of each of its numbers, which is that weight times the
    mean LPIPS here. Without `logvar` it is 0.

    `mse_weight` adds the mean squared error, which the paper does not have: under L1 alone a small model
    first paints the background, the median, and only much later what moves in front of it.

    one_backward: LPIPS by `differentiated_once`, for a loss that `adversarial_losses` weighs. Gradients are
    the same up to rounding; not for float16, in which a gradient without the scaler's factor vanishes.
    """
    l1 = (reconstruction - clips).abs().mean()
    kl = posterior.kl().mean()
    mse = (reconstruction - clips).square().mean()
    error = l1 + mse_weight * mse
    parts = {"l1": l1, "mse": mse, "kl": kl}
    if lpips is not None:

        def distance(decoded: torch.Tensor) -> torch.Tensor:
            return lpips(frames_of(decoded), frames_of(clips), apart=True).mean()

        parts["lpips"] = (
            differentiated_once(distance, reconstruction) if one_backward else distance(reconstruction)
        )
        error = error + lpips_weight * parts["lpips"]
    if logvar is not None:
        parts["logvar"] = logvar
        error = error / logvar.exp() + logvar
    numbers_per_frame = clips.shape[1] * clips.shape[3] * clips.shape[4]
    return {"loss": error + kl_weight * kl / numbers_per_frame, "nll": error, **parts}


def discriminator_losses(
    discriminator: nn.Module, clips: torch.Tensor, reconstruction: torch.Tensor
) -> dict[str, torch.Tensor]:
    """The discriminator's loss and its logits, (B, C, F, H, W) twice -> scalars `discriminator_loss`,
    `logits_real`, `logits_fake`. No gradient reaches the reconstruction."""
    frames = torch.cat([frames_of(clips), frames_of(reconstruction.detach())])
    real, fake = discriminator(frames).chunk(2)
    return {
        "discriminator_loss": hinge_loss(real, fake),
        "logits_real": real.mean(),
        "logits_fake": fake.mean(),
    }


def adversarial_losses(
    discriminator: nn.Module,
    reconstruction: torch.Tensor,
    nll: torch.Tensor,
    last_layer: torch.Tensor,
    *,
    one_backward: bool = False,
) -> dict[str, torch.Tensor]:
    """The adversarial term of the autoencoder's loss: scalars `gan` and `gan_adaptive_weight`, its factor.

    The discriminator's own parameters get no gradient; it is to be given without a distributed wrapper.
    `one_backward`: the term by `differentiated_once`, as in `vidtwin_loss`.
    """

    def score(decoded: torch.Tensor) -> torch.Tensor:
        return generator_loss(discriminator(frames_of(decoded)))

    discriminator.requires_grad_(False)
    gan = differentiated_once(score, reconstruction) if one_backward else score(reconstruction)
    discriminator.requires_grad_(True)
    return {"gan": gan, "gan_adaptive_weight": adaptive_weight(nll, gan, last_layer)}


def generator_loss(fake_logits: torch.Tensor) -> torch.Tensor:
    """The autoencoder's: -mean D(x^) (Lim and Ye, arXiv 1705.02894)."""
    return -fake_logits.mean()


def hinge_loss(real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
    """The discriminator's: mean max(0, 1 - D(x)) / 2 + mean max(0, 1 + D(x^)) / 2 (arXiv 1705.02894)."""
    return 0.5 * (F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean())


def adaptive_weight(nll: torch.Tensor, adversarial: torch.Tensor, last_layer: torch.Tensor) -> torch.Tensor:
    """How much heavier the adversarial term has to be to pull at the last layer's weights as the other one
    does: |grad nll| / (|grad adversarial| + 1e-4), at most 1e4 (VQGAN, arXiv 2012.09841, equation 7).

    The released code takes the ratio with the error summed over a frame, C H W times ours; since all of its
    loss is that much larger, the balance is the same, but for the bound of 1e4, which its ratio can reach.
    """
    (of_nll,) = torch.autograd.grad(nll, last_layer, retain_graph=True)
    (of_adversarial,) = torch.autograd.grad(adversarial, last_layer, retain_graph=True)
    return (of_nll.norm() / (of_adversarial.norm() + 1e-4)).clamp(max=1e4)
