"""What an autoencoder costs: parameters, FLOPs, memory, time of encode, decode and a training step."""

from __future__ import annotations

import copy
import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from eval.cost import eager_vidtwin
from eval.cost.dit import count_flops, count_step
from eval.cost.matrix_products import record_products, replay
from eval.cost.timing import Spread, interleaved, ratios, spread, square_product

KL_WEIGHT = 1e-3
# what rounding may change: root mean square of the difference, over that of the output
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.1}

Pass = Callable[[], torch.Tensor]


@dataclass(frozen=True)
class Workload:
    """What is measured.

    Args:
        device: where. dtype: float32 or bfloat16; in bfloat16 encode and decode have weights of that type,
            while a training step keeps them in float32 and runs under autocast.
        batch_size: clips at once. gradient_checkpointing: in the training step.
        repeats: how often each pass is timed. training: whether the training step is measured at all.
        compare: whether encode and decode are also timed against the baseline and the floor.
    """

    device: torch.device
    dtype: torch.dtype = torch.float32
    batch_size: int = 1
    gradient_checkpointing: bool = False
    repeats: int = 5
    training: bool = True
    compare: bool = False


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


def autoencoder_cost(make_model: Callable[[], Any], workload: Workload) -> dict[str, Any]:
    """A record of counts, and of times with random weights and clips.

    `make_model()` builds an `AutoencoderVidTwin` in float32. A multiply-add is two FLOPs, and what gradient
    checkpointing computes again is not counted. `of_matmul_rate` is the rate at which a pass works off its
    FLOPs, over that of a large square matrix product. With `workload.compare`, `baseline_ratio` is the time
    of a pass over that of `eager_vidtwin`'s and `floor_ratio` over that of the pass's own matrix products
    alone; in bfloat16 `float32_ratio` is over its own time in float32. All ratios are of times in the same
    round of one run. `peak_memory_bytes` is, on a GPU, what is allocated at most
    during the pass: the model, and with `workload.compare` what it is compared with. On a CPU it is the
    process's peak so far, which says something about the training step only, since that comes first.
    """
    record = count(make_model, workload)
    torch.manual_seed(0)
    model = make_model().to(workload.device)
    _fill_zeros(model)
    clips, latents = _inputs(model, workload)
    num_frames = workload.batch_size * model.config.num_frames

    def measure(name: str, **functions: Callable[[], object]) -> dict[str, Any]:
        return _measure(functions, workload, num_frames, record["flops"][name])

    if workload.training:
        step = _training_step(model, clips, workload)
        record["training_step"] = measure("training_step", model=step)
        model.zero_grad()
    model.requires_grad_(False).eval()
    passes = _passes(model, clips, latents)
    others: dict[str, dict[str, Pass]] = {name: {} for name in passes}
    if workload.dtype != torch.float32:
        if workload.compare:
            full = _passes(copy.deepcopy(model), clips, latents)
            others = {name: {"float32": function} for name, function in full.items()}
        clips, latents = clips.to(workload.dtype), latents.to(workload.dtype)
        passes = _passes(model.to(workload.dtype), clips, latents)
    weights = model.state_dict()
    baselines: dict[str, Pass] = {
        "encode": lambda: eager_vidtwin.encode(weights, model.config, clips),
        "decode": lambda: eager_vidtwin.decode(weights, model.config, latents),
    }
    for name, ours in passes.items():
        if not workload.compare:
            record[name] = measure(name, model=ours)
            continue
        difference = difference_between(ours(), baselines[name]())
        assert difference["relative_rms"] < TOLERANCES[workload.dtype], f"{name}, baseline: {difference}"
        floor = replay(record_products(ours))
        record[name] = measure(name, model=ours, baseline=baselines[name], floor=floor, **others[name])
        record[name]["baseline_difference"] = difference
    return record


def _measure(
    functions: Mapping[str, Callable[[], object]], workload: Workload, num_frames: int, flops: int
) -> dict[str, Any]:
    """Memory and speed of functions["model"], and its time over that of every other one."""
    ours, device = functions["model"], workload.device
    ours()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        ours()
    measured: dict[str, Any] = {"peak_memory_bytes": _peak_memory(device)}
    square, square_flops = square_product(device, workload.dtype)
    seconds = interleaved({**functions, "square": square}, workload.repeats, device)
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


def _passes(model: Any, clips: torch.Tensor, latents: torch.Tensor) -> dict[str, Pass]:
    return {
        "encode": lambda: model.encode(clips).latent_dist.parameters,
        "decode": lambda: model.decode(latents).sample,
    }


def count(make_model: Callable[[], Any], workload: Workload) -> dict[str, Any]:
    """The part of the record that needs nothing allocated or computed: sizes and FLOPs."""
    flops = {}
    with FakeTensorMode():
        model = make_model().eval().requires_grad_(False)
        clips, latents = _inputs(model, Workload(torch.device("cpu"), batch_size=workload.batch_size))
        with torch.no_grad():
            flops["encode"] = count_flops(lambda: model.encode(clips).latent_dist.parameters)
            flops["decode"] = count_flops(lambda: model.decode(latents).sample)
        if workload.training:
            loss = TrainingLoss(model.train().requires_grad_(True), workload.dtype)
            flops["training_step"] = count_step(lambda: loss(clips))[1]
    config = model.config
    shape = (config.num_frames, config.height, config.width)
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
        "compression_rate": model.layout.compression_rate(*shape, config.in_channels),
        "flops": flops,
    }


def difference_between(output: torch.Tensor, expected: torch.Tensor) -> dict[str, float]:
    """Of two tensors of one shape: the largest, and the root mean square over that of `expected`."""
    error = (output - expected).double()
    relative = error.square().mean().sqrt() / expected.double().square().mean().sqrt()
    return {"max_abs": error.abs().max().item(), "relative_rms": relative.item()}


def describe(record: Mapping[str, Any]) -> str:
    """What the command prints, a line per pass."""
    lines = [
        f"{record['num_parameters'] / 1e6:.1f} M parameters, {record['latent_elements']} latent numbers "
        f"({record['compression_rate']:.3%}); {record['device']}, {record['dtype']}, batch "
        f"{record['batch_size']}"
    ]
    for name in ("encode", "decode", "training_step"):
        if name not in record:
            continue
        row = record[name]
        line = (
            f"{name}: {Spread(**row['seconds'])} s, {row['frames_per_second']:.3g} frames/s, "
            f"{record['flops'][name] / 1e12:.3g} TFLOPs, of a large matrix product's rate "
            f"{Spread(**row['of_matmul_rate'])}, {row['peak_memory_bytes'] / 2**30:.2f} GiB"
        )
        if "baseline_difference" in row:
            line += (
                f"; over the eager baseline {Spread(**row['baseline_ratio'])}, over its matrix products "
                f"{Spread(**row['floor_ratio'])}, outputs at most "
                f"{row['baseline_difference']['max_abs']:.1e} apart"
            )
        if "float32_ratio" in row:
            line += f"; over float32 {Spread(**row['float32_ratio'])}"
        lines.append(line)
    return "\n".join(lines)


def _inputs(model: Any, workload: Workload) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips (B, C, F, H, W) in [-1, 1] and latents (B, L)."""
    config = model.config
    shape = (config.in_channels, config.num_frames, config.height, config.width)
    clips = torch.rand(workload.batch_size, *shape, device=workload.device) * 2 - 1
    return clips, torch.randn(workload.batch_size, model.layout.num_elements, device=workload.device)


def _training_step(model: Any, clips: torch.Tensor, workload: Workload) -> Pass:
    """Forward, backward, optimiser; returns the loss."""
    loss = TrainingLoss(model.train(), workload.dtype)
    if workload.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(clips)
        value.backward()
        optimizer.step()
        return value.detach()

    return step


@torch.no_grad()
def _fill_zeros(model: nn.Module) -> None:
    """A branch that is zero at initialisation would hide from the comparison of outputs."""
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)


def _peak_memory(device: torch.device) -> int:
    """Bytes: on a GPU what was allocated at most since the last reset, elsewhere the most that this process
    ever had in memory, the program itself included."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({torch.backends.cpu.get_cpu_capability()})"
