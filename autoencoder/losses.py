"""The autoencoder's training loss as pure functions (arXiv 2412.17726, section 3.4)."""

from __future__ import annotations

import torch
from einops import rearrange

from autoencoder.perceptual import LPIPS
from autoencoder.posterior import FlatGaussian


def vidtwin_loss(
    reconstruction: torch.Tensor,
    clips: torch.Tensor,
    posterior: FlatGaussian,
    kl_weight: float,
    mse_weight: float = 0.0,
    lpips: LPIPS | None = None,
    lpips_weight: float = 0.0,
) -> dict[str, torch.Tensor]:
    """L1 + LPIPS + KL, (B, C, F, H, W) twice -> scalars `loss`, `l1`, `mse`, `kl`, and `lpips` with a network
    for it.

    The paper sums the error over a frame's C H W numbers and averages over frames, and sums the KL over a
    clip. Here both are divided by C H W: `loss = l1 + kl_weight kl / (C H W)`, with `l1` the mean absolute
    error on [-1, 1] and `kl` nats per clip, so that `kl_weight` is the paper's 0.001 while the loss, and with
    it the gradient's norm, does not grow with the frame. The paper adds `lpips_weight` times a frame's LPIPS
    to the error of each of its numbers, which is that weight times the mean LPIPS here.

    `mse_weight` adds the mean squared error, which the paper does not have: under L1 alone a small model
    first paints the background, the median, and only much later what moves in front of it.
    """
    l1 = (reconstruction - clips).abs().mean()
    kl = posterior.kl().mean()
    numbers_per_frame = clips.shape[1] * clips.shape[3] * clips.shape[4]
    mse = (reconstruction - clips).square().mean()
    loss = l1 + mse_weight * mse + kl_weight * kl / numbers_per_frame
    losses = {"l1": l1, "mse": mse, "kl": kl}
    if lpips is not None:
        frames = (rearrange(x, "b c f h w -> (b f) c h w") for x in (reconstruction, clips))
        losses["lpips"] = lpips(*frames).mean()
        loss = loss + lpips_weight * losses["lpips"]
    return {"loss": loss, **losses}
