"""The autoencoder's training loss as pure functions (arXiv 2412.17726, section 3.4)."""

from __future__ import annotations

import torch

from autoencoder.posterior import FlatGaussian


def vidtwin_loss(
    reconstruction: torch.Tensor,
    clips: torch.Tensor,
    posterior: FlatGaussian,
    kl_weight: float,
    mse_weight: float = 0.0,
) -> dict[str, torch.Tensor]:
    """L1 + KL, (B, C, F, H, W) twice -> scalars `loss`, `l1`, `mse`, `kl`.

    The paper sums the error over a frame's C H W numbers and averages over frames, and sums the KL over a
    clip. Here both are divided by C H W: `loss = l1 + kl_weight kl / (C H W)`, with `l1` the mean absolute
    error on [-1, 1] and `kl` nats per clip, so that `kl_weight` is the paper's 0.001 while the loss, and with
    it the gradient's norm, does not grow with the frame.

    `mse_weight` adds the mean squared error, which the paper does not have: under L1 alone a small model
    first paints the background, the median, and only much later what moves in front of it.
    """
    l1 = (reconstruction - clips).abs().mean()
    kl = posterior.kl().mean()
    numbers_per_frame = clips.shape[1] * clips.shape[3] * clips.shape[4]
    mse = (reconstruction - clips).square().mean()
    loss = l1 + mse_weight * mse + kl_weight * kl / numbers_per_frame
    return {"loss": loss, "l1": l1, "mse": mse, "kl": kl}
