"""The autoencoder's training loss as pure functions (arXiv 2412.17726, section 3.4)."""

from __future__ import annotations

import torch

from autoencoder.posterior import FlatGaussian


def vidtwin_loss(
    reconstruction: torch.Tensor, clips: torch.Tensor, posterior: FlatGaussian, kl_weight: float
) -> dict[str, torch.Tensor]:
    """L1 + KL, (B, C, F, H, W) twice -> scalars `loss`, `l1`, `kl`.

    The paper sums the error over a frame's C H W numbers and averages over frames, and sums the KL over a
    clip. Here both are divided by C H W: `loss = l1 + kl_weight kl / (C H W)`, with `l1` the mean absolute
    error on [-1, 1] and `kl` nats per clip, so that `kl_weight` is the paper's 0.001 while the loss, and with
    it the gradient's norm, does not grow with the frame.
    """
    l1 = (reconstruction - clips).abs().mean()
    kl = posterior.kl().mean()
    numbers_per_frame = clips.shape[1] * clips.shape[3] * clips.shape[4]
    return {"loss": l1 + kl_weight * kl / numbers_per_frame, "l1": l1, "kl": kl}
