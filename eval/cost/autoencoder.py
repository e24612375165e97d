"""What an autoencoder costs: parameters, FLOPs, memory, time of encode, decode and a training step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from autoencoder.model.vidtwin import AutoencoderVidTwin
from eval.cost.dit import count_flops, count_step
from eval.cost.measured_step import can_measure_memory, fill_zeros, measure_peaks, training_step
from eval.cost.timing import Spread, interleaved, ratios, spread, square_product

KL_WEIGHT = 1e-3
PASSES = ("encode", "decode", "training_step")
# the same kind of model, as small as may be
SMALL: dict[str, Any] = {
    "num_frames": 4,
    "height": 32,
    "width": 32,
    "patch_size": 8,
    "hidden_size": 16,
    "num_layers": 1,
    "num_heads": 2,
    "num_queries": 2,
    "query_hidden_size": 8,
    "qformer_layers": 1,
    "qformer_heads": 2,
    "qformer_intermediate_size": 16,
    "structure_base_channels": 8,
}

Config = Mapping[str, Any]
Pass = Callable[[], torch.Tensor]


@dataclass(frozen=True)
class Workload:
    """What is measured.

    Args:
        device: where. dtype: float32 or bfloat16; in bfloat16 encode and decode have weights of that type,
            while a training step keeps them in float32 and runs under autocast.
        batch_size: clips at once. gradient_checkpointing: in the training step.
        repeats: how often each pass is timed. training: whether the training step is measured at all.
    """

    device: torch.device
    dtype: torch.dtype = torch.float32
    batch_size: int = 1
    gradient_checkpointing: bool = False
    repeats: int = 5
    training: bool = True


class TrainingLoss(nn.Module):
    """L1 + KL of a reconstruction, the loss of stage 1 without its networks: (B, C, F, H, W) -> ()."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = model
        self.dtype = dtype

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        with torch.autocast(sample.device.type, self.dtype, enabled=self.dtype != torch.float32):
            reconstruction, posterior = self.model(sample, sample_posterior=True, return_dict=False)
        l1 = (reconstruction - sample).abs().mean()
        return l1 + KL_WEIGHT * posterior.kl().mean() / sample[0, :, 0].numel()


def autoencoder_cost(config: Config, workload: Workload) -> dict[str, Any]:
    """A record of counts, and of memory and times with random weights and clips.

    `config` holds the arguments of `AutoencoderVidTwin`. A multiply-add is two FLOPs, and what gradient
    checkpointing computes again is not counted. `of_matmul_rate` is the rate at which a pass works off its
    FLOPs, over that of a large square matrix product in the same round. `peak_memory_bytes` is that of
    `measure_peaks`, the model included; None where the system does not tell it.
    """
    record, device = count(config, workload), str(workload.device)
    peaks: dict[str, int] = {}
    if can_measure_memory(device):
        passes, small = (partial(make_passes, sizes, workload) for sizes in (config, SMALL))
        peaks = measure_peaks(passes, small, device=device)
    for name, function in make_passes(config, workload):
        num_frames = workload.batch_size * record["clip_shape"][0]
        record[name] = {"peak_memory_bytes": peaks.get(name)}
        record[name] |= speed({"model": function}, workload, num_frames, record["flops"][name])
    return record


def make_passes(config: Config, workload: Workload) -> Iterator[tuple[str, Pass]]:
    """Encode, decode and, where it is asked for, a training step: forward, backward, optimizer."""
    torch.manual_seed(0)
    model: Any = AutoencoderVidTwin.from_config(config).to(workload.device)
    fill_zeros(model)
    clips, latents = make_inputs(model, workload)
    if workload.training:
        loss = TrainingLoss(model.train(), workload.dtype)
        if workload.gradient_checkpointing:
            model.enable_gradient_checkpointing()
        yield "training_step", training_step(model, partial(loss, clips))
        model.zero_grad()
    model.requires_grad_(False).eval().to(workload.dtype)
    clips, latents = clips.to(workload.dtype), latents.to(workload.dtype)
    yield "encode", lambda: model.encode(clips).latent_dist.parameters
    yield "decode", lambda: model.decode(latents).sample


def speed(
    functions: Mapping[str, Callable[[], object]], workload: Workload, num_frames: int, flops: int
) -> dict[str, Any]:
    """Times of functions["model"], of `flops` each, and its time over that of every other one in the same
    round."""
    square, square_flops = square_product(workload.device, workload.dtype)
    seconds = interleaved({**functions, "square": square}, workload.repeats, workload.device)
    measured: dict[str, Any] = {}
    for other in [name for name in functions if name != "model"]:
        measured[f"{other}_seconds"] = spread(seconds[other]).to_json()
        measured[f"{other}_ratio"] = ratios(seconds["model"], seconds[other]).to_json()
    typical = spread(seconds["model"])
    rate = ratios(seconds["square"], seconds["model"]).scaled(flops / square_flops)
    return measured | {
        "seconds": typical.to_json(),
        "frames_per_second": num_frames / typical.median,
        "flops_per_second": flops / typical.median,
        "of_matmul_rate": rate.to_json(),
    }


def count(config: Config, workload: Workload) -> dict[str, Any]:
    """The part of the record that needs nothing allocated or computed: sizes and FLOPs."""
    flops = {}
    with FakeTensorMode():
        model: Any = AutoencoderVidTwin.from_config(config).eval().requires_grad_(False)
        clips, latents = make_inputs(model, Workload(torch.device("cpu"), batch_size=workload.batch_size))
        with torch.no_grad():
            flops["encode"] = count_flops(lambda: model.encode(clips).latent_dist.parameters)
            flops["decode"] = count_flops(lambda: model.decode(latents).sample)
        if workload.training:
            loss = TrainingLoss(model.train().requires_grad_(True), workload.dtype)
            flops["training_step"] = count_step(lambda: loss(clips))[1]
    full = model.config
    shape = (full.num_frames, full.height, full.width)
    return {
        "device": _name(workload.device),
        "num_threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "dtype": str(workload.dtype).removeprefix("torch."),
        "batch_size": workload.batch_size,
        "gradient_checkpointing": workload.gradient_checkpointing,
        "clip_shape": shape,
        "num_parameters": sum(p.numel() for p in model.parameters()),
        "latent_elements": model.layout.num_elements,
        "compression_rate": model.layout.compression_rate(*shape, full.in_channels),
        "flops": flops,
    }


def describe(record: Mapping[str, Any]) -> str:
    """What the command prints, a line per pass."""
    lines = [
        f"{record['num_parameters'] / 1e6:.1f} M parameters, {record['latent_elements']} latent numbers "
        f"({record['compression_rate']:.3%}); {record['device']}, {record['dtype']}, batch "
        f"{record['batch_size']}"
    ]
    for name in PASSES:
        if name not in record:
            continue
        row = record[name]
        peak = row["peak_memory_bytes"]
        memory = "memory not measured here" if peak is None else f"{peak / 2**30:.2f} GiB"
        lines.append(
            f"{name}: {Spread(**row['seconds'])} s, {row['frames_per_second']:.3g} frames/s, "
            f"{record['flops'][name] / 1e12:.3g} TFLOPs, of a large matrix product's rate "
            f"{Spread(**row['of_matmul_rate'])}, {memory}"
        )
    return "\n".join(lines)


def make_inputs(model: Any, workload: Workload) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips (B, C, F, H, W) in [-1, 1] and latents (B, L)."""
    config = model.config
    shape = (config.in_channels, config.num_frames, config.height, config.width)
    clips = torch.rand(workload.batch_size, *shape, device=workload.device) * 2 - 1
    return clips, torch.randn(workload.batch_size, model.layout.num_elements, device=workload.device)


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({torch.backends.cpu.get_cpu_capability()})"
