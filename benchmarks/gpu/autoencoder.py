"""Steps of the autoencoder, with and without the networks of its loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from autoencoder.losses.discriminator import PatchDiscriminator
from autoencoder.losses.perceptual import LPIPS
from autoencoder.losses.terms import adversarial_losses, discriminator_losses, frames_of, vidtwin_loss
from autoencoder.model.vidtwin import AutoencoderVidTwin
from benchmarks.gpu.sizes import Sizes
from benchmarks.gpu.timing import (
    Autocast,
    Step,
    autocast,
    compile_blocks,
    counting_what_is_compiled,
    dtype_on,
    kernel_times,
    measured,
    onto,
    timed,
)
from eval.cost.autoencoder import Workload, count, make_inputs
from eval.cost.dit import count_flops
from eval.cost.measured_step import fill_zeros
from eval.cost.memory import predict_training_memory
from eval.cost.timing import spread


def make_autoencoder(sizes: Sizes, device: torch.device) -> AutoencoderVidTwin:
    model = AutoencoderVidTwin(**sizes.autoencoder).to(device)
    fill_zeros(model)
    return model


def random_batch(
    model: AutoencoderVidTwin, sizes: Sizes, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips and latents."""
    return make_inputs(model, Workload(device, batch_size=sizes.clips))


def autoencoder_flops(sizes: Sizes) -> dict[str, int]:
    """Of encode, decode and a training step of a batch, without the networks of its loss."""
    workload = Workload(torch.device("cpu"), batch_size=sizes.clips)
    return dict(count(sizes.autoencoder, workload)["flops"])


def autoencoder_pass(
    name: str, sizes: Sizes, flops: int, device: torch.device, ceiling: float
) -> dict[str, Any]:
    """Encode or decode in bf16."""
    dtype = dtype_on(device)
    model = make_autoencoder(sizes, device).eval().requires_grad_(False).to(dtype)
    clips, latents = (given.to(dtype) for given in random_batch(model, sizes, device))
    passes: dict[str, Step] = {
        "encode": lambda: model.encode(clips).latent_dist.parameters,
        "decode": lambda: model.decode(latents).sample,
    }
    row = measured(passes[name], sizes.repeats, device, flops=flops, ceiling=ceiling)
    frames = sizes.clips * model.config.num_frames
    return row | {"batch_size": sizes.clips, "frames_per_second": frames / row["seconds"]["median"]}


@counting_what_is_compiled
def autoencoder_training(
    sizes: Sizes,
    flops: int,
    device: torch.device,
    ceiling: float,
    *,
    whole: bool = False,
    checkpointing: bool = False,
    compiled: bool = False,
    networks_compiled: bool = False,
    lpips_autocast: bool = True,
    kernels: bool = False,
) -> dict[str, Any]:
    """`training_step` with L1 and KL, or with LPIPS and GAN as well (LPIPS' weights are random, which costs
    the same). `networks_compiled`: these two as well, as train_vae does not yet. `mfu` counts the
    autoencoder's FLOPs alone; `flops_of_all` also those of the networks and what is computed again, counted
    before anything is compiled."""
    model = make_autoencoder(sizes, device).train()
    if checkpointing:
        model.enable_gradient_checkpointing()
    lpips = LPIPS().to(device).eval().requires_grad_(False) if whole else None
    discriminator = PatchDiscriminator().to(device) if whole else None
    clips, _ = random_batch(model, sizes, device)
    step = training_step(model, clips, lpips, discriminator, lpips_autocast)
    if kernels:
        return kernel_times(step, device)
    row: dict[str, Any] = {"batch_size": sizes.clips, "flops_of_all": count_flops(step)}
    if compiled:
        compile_blocks(model)
    if networks_compiled and lpips is not None and discriminator is not None:
        lpips.compile()
        discriminator.compile()
    row |= measured(step, sizes.repeats, device, flops=flops, ceiling=ceiling)
    row["of_matmul_rate"] = row["flops_of_all"] / row["seconds"]["median"] / ceiling
    if not compiled and not whole:
        row["predicted_peak_bytes"] = predicted_autoencoder_peak(sizes, device, checkpointing)
        if device.type == "cuda":
            row["predicted_over_measured"] = row["predicted_peak_bytes"] / row["peak_memory_bytes"]
    return row


def training_step(
    model: AutoencoderVidTwin,
    clips: torch.Tensor,
    lpips: LPIPS | None,
    discriminator: PatchDiscriminator | None,
    lpips_autocast: bool = True,
) -> Step:
    """A step of stage 1 in bf16 with the losses of train_vae's. That one is not called, because its module
    imports what reads videos; it also clips gradients, waits in each optimizer for whether they are finite,
    and has the EMA and the log to do."""
    device = clips.device
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    discriminator_optimizer = (
        torch.optim.AdamW(discriminator.parameters(), lr=1e-4, fused=True) if discriminator else None
    )

    def step() -> None:
        with autocast(device):
            output = model(clips, sample_posterior=True)
        reconstruction = output.sample.float()
        with autocast(device, lpips_autocast):
            losses = vidtwin_loss(
                reconstruction,
                clips,
                output.latent_dist,
                1e-3,
                lpips=lpips,
                lpips_weight=0.05,
                one_backward=discriminator is not None,
            )
        loss = losses["loss"]
        if discriminator is not None and discriminator_optimizer is not None:
            discriminator_optimizer.zero_grad()
            with autocast(device):
                discriminator_losses(discriminator, clips, reconstruction)["discriminator_loss"].backward()
            discriminator_optimizer.step()
            with autocast(device):
                last_layer = model.patch_output.linear.weight
                adversarial = adversarial_losses(
                    discriminator, reconstruction, losses["nll"], last_layer, one_backward=True
                )
            loss = loss + 0.05 * adversarial["gan_adaptive_weight"] * adversarial["gan"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def predicted_autoencoder_peak(sizes: Sizes, device: torch.device, checkpointing: bool) -> int:
    with FakeTensorMode():
        model = onto(AutoencoderVidTwin(**sizes.autoencoder), device)
        if checkpointing:
            model.enable_gradient_checkpointing()
        clips, _ = random_batch(model, sizes, device)
        wrapped = Autocast(Reconstruction(model), device)
        return predict_training_memory(wrapped, {"sample": clips})["peak"]


class Reconstruction(nn.Module):
    """`model` with its output unwrapped."""

    def __init__(self, model: AutoencoderVidTwin) -> None:
        super().__init__()
        self.model = model

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        return self.model(sample, sample_posterior=True, return_dict=False)[0]


@counting_what_is_compiled
def lpips_pass(
    sizes: Sizes,
    frames: int,
    device: torch.device,
    *,
    in_bf16: bool = True,
    channels_last: bool = False,
    compiled: bool = False,
) -> dict[str, Any]:
    """The perceptual term alone on the frames of a batch: its forward and backward pass, as train_vae has it
    on a GPU, the original's half without a graph."""
    network = LPIPS().to(device).eval().requires_grad_(False)
    if channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if compiled:
        network.compile()
    height, width = sizes.autoencoder.get("height", 224), sizes.autoencoder.get("width", 224)
    first = frames_of(torch.randn(1, 3, frames, height, width, device=device)).requires_grad_()
    second = frames_of(torch.randn(1, 3, frames, height, width, device=device))

    def step() -> None:
        first.grad = None
        with autocast(device, in_bf16):
            network(first, second, apart=True).mean().backward()

    seconds = spread(timed(step, sizes.repeats, device))
    return {"num_frames": frames, "seconds": seconds.to_json()}
