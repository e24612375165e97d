"""How fast the card is, and how much of that the autoencoder and the DiT make use of."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as functional
from einops import rearrange
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from autoencoder.losses.discriminator import PatchDiscriminator
from autoencoder.losses.perceptual import LPIPS
from autoencoder.losses.terms import adversarial_losses, discriminator_losses, frames_of, vidtwin_loss
from autoencoder.model.presets import preset
from autoencoder.model.vidtwin import AutoencoderVidTwin
from benchmarks.gpu_rows import Rows
from benchmarks.transformer_speed import reference_dit
from eval.cost.dit import Prediction, count_flops, count_step
from eval.cost.memory import predict_training_memory
from eval.cost.timing import spread, square_product
from eval.cost.tokenizers import vidtwin
from vidtwin_gen.latents import LatentGrid, LatentLayout
from vidtwin_gen.models.sizes import SIZES
from vidtwin_gen.models.transformer import LatentTransformer

GUIDANCE = 4.0
# 1,024 tokens, a square as diffusers' DiT takes: VidTwin's latents of 16 x 256 x 256 with 12 queries
SQUARE = LatentLayout(
    (
        LatentGrid("structure", ("query", "height", "width"), (12, 8, 8), 4),
        LatentGrid("dynamics_x", ("time", "width"), (16, 8), 8),
        LatentGrid("dynamics_y", ("time", "height"), (16, 8), 8),
    )
)
LPIPS_FRAMES = 96  # of a batch of 6 clips

Step = Callable[[], object]


@dataclass(frozen=True)
class Sizes:
    """What is measured: the card's, or as small as a rehearsal on a CPU wants it.

    Args:
        training: name of a DiT -> clips per training step without and with checkpointing.
        beside: clips per step where ours and diffusers' DiT are timed in turns, training and sampling.
        layout, square: latents of the DiT, and those with as many tokens as a square has.
        compiled: whether every row is measured with compiled blocks, too.
    """

    autoencoder: dict[str, Any] = field(default_factory=lambda: preset("base"))
    clips: int = 6
    dits: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {name: SIZES[name] for name in ("S", "B", "XL")}
    )
    training: dict[str, tuple[int, int]] = field(
        default_factory=lambda: {"B": (64, 128), "S": (128, 256), "XL": (16, 64)}
    )
    beside: dict[str, tuple[int, int]] = field(
        default_factory=lambda: {"B": (32, 16), "S": (64, 16), "XL": (16, 8)}
    )
    layout: LatentLayout = field(default_factory=lambda: vidtwin().layout)
    square: LatentLayout = SQUARE
    matrix: int = 8192
    copied_bytes: int = 4 * 2**30
    repeats: int = 15
    compiled: bool = True


SMALL = LatentLayout((LatentGrid("video", ("time", "width"), (4, 4), 4),))
TINY_DIT = {"hidden_size": 32, "num_layers": 2, "num_heads": 2}
TINY = Sizes(
    autoencoder={"num_frames": 2, "height": 32, "width": 32, "hidden_size": 32, "num_layers": 1}
    | {"num_heads": 2, "num_queries": 2, "qformer_layers": 1, "qformer_intermediate_size": 32},
    clips=1,
    dits={"B": TINY_DIT},
    training={"B": (1, 1)},
    beside={"B": (1, 1)},
    layout=SMALL,
    square=SMALL,
    matrix=64,
    copied_bytes=2**20,
    repeats=1,
    compiled=False,
)


def measure_speed(rows: Rows, sizes: Sizes, device: torch.device) -> None:
    """All rows; those that say most come first."""
    rows.run("matmul bf16", lambda: matrix_product(sizes, device, torch.bfloat16))
    rows.run("copy", lambda: copy_rate(sizes, device))
    ceiling = rows.rows["matmul bf16"].get("flops_per_second", math.nan)

    for name, (plain, checkpointed) in sizes.training.items():
        make = partial(make_dit, sizes.layout, sizes.dits[name])
        for batch, options in (
            (plain, {}),
            (plain, {"compiled": True}),
            (checkpointed, {"checkpointing": True}),
            (checkpointed, {"checkpointing": True, "compiled": True}),
            (checkpointed, {}),
            (checkpointed, {"compiled": True}),
        ):
            if options.get("compiled") and not sizes.compiled:
                continue
            if name != "B" and batch == checkpointed and not options.get("compiled"):
                continue
            told = " ".join(["", *options])
            rows.run(
                f"DiT-{name} training, batch {batch}{told}",
                partial(dit_training, make, batch, device, ceiling, sizes.repeats, **options),
            )
        if name == "B":
            measure_autoencoder(rows, sizes, device, ceiling)
        train, sample = sizes.beside[name]
        for compiled in (False, True) if sizes.compiled else (False,):
            told = " compiled" if compiled else ""
            rows.run(
                f"DiT-{name} beside diffusers' DiT, sampling, batch {sample}{told}",
                partial(beside_sampling, sizes, name, sample, device, ceiling, compiled),
            )
            rows.run(
                f"DiT-{name} beside diffusers' DiT, training, batch {train}{told}",
                partial(beside_training, sizes, name, train, device, ceiling, compiled),
            )
    rows.run("matmul float32", lambda: matrix_product(sizes, device, torch.float32))


def measure_autoencoder(rows: Rows, sizes: Sizes, device: torch.device, ceiling: float) -> None:
    """The base autoencoder: encode, decode, its training step with and without its networks, and where the
    time of a step goes."""
    flops = autoencoder_flops(sizes)
    measure = partial(autoencoder_training, sizes, flops["training"], device, ceiling)
    for name in ("encode", "decode"):
        rows.run(f"autoencoder {name}", partial(autoencoder_pass, name, sizes, flops[name], device, ceiling))
    rows.run("autoencoder training, whole loss", partial(measure, whole=True))
    rows.run("autoencoder training, L1 and KL", measure)
    rows.run("autoencoder training, L1 and KL checkpointing", partial(measure, checkpointing=True))
    rows.run(
        "autoencoder training, whole loss checkpointing", partial(measure, whole=True, checkpointing=True)
    )
    if sizes.compiled:
        rows.run("autoencoder training, L1 and KL compiled", partial(measure, compiled=True))
        rows.run("autoencoder training, whole loss compiled", partial(measure, whole=True, compiled=True))
        rows.run(
            "autoencoder training, whole loss compiled, LPIPS in float32",
            partial(measure, whole=True, compiled=True, lpips_autocast=False),
        )
    frames = LPIPS_FRAMES if device.type == "cuda" else 1
    for told, in_bf16, channels_last in (
        ("float32", False, False),
        ("autocast", True, False),
        ("autocast channels_last", True, True),
    ):
        rows.run(
            f"LPIPS forward and backward {told}",
            partial(lpips_pass, sizes, frames, device, in_bf16, channels_last),
        )
    rows.run("patch embedding", partial(patch_embedding, sizes, device))
    rows.run("autoencoder training, L1 and KL: kernels", partial(measure, kernels=True))
    rows.run("autoencoder training, whole loss: kernels", partial(measure, whole=True, kernels=True))


def timed(step: Step, repeats: int, device: torch.device, warm_up: int = 3) -> list[float]:
    """Seconds of each of `repeats` calls. On a GPU between events, after `warm_up` calls that do not count,
    and queued one behind the other as a training loop queues them."""
    for _ in range(warm_up if device.type == "cuda" else 0):
        step()
    if device.type != "cuda":
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        return seconds
    events = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    torch.cuda.synchronize(device)
    events[0].record()
    for event in events[1:]:
        step()
        event.record()
    torch.cuda.synchronize(device)
    return [a.elapsed_time(b) / 1000 for a, b in zip(events, events[1:], strict=False)]


def measured(
    step: Step, repeats: int, device: torch.device, *, flops: int, ceiling: float, warm_up: int = 3
) -> dict[str, Any]:
    """Time, FLOPs of the model, their share of the matrix products' rate, and the most memory in use."""
    step()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = spread(timed(step, repeats, device, warm_up))
    row: dict[str, Any] = {"seconds": seconds.to_json(), "flops": flops}
    row["mfu"] = flops / seconds.median / ceiling
    if device.type == "cuda":
        row["peak_memory_bytes"] = torch.cuda.max_memory_allocated(device)
    return row


def matrix_product(sizes: Sizes, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """The rate of a large square product of random matrices: what "of the matmul rate" means here."""
    if device.type == "cuda":
        step, flops = square_product(device, dtype)
    else:
        a, b = (torch.randn(sizes.matrix, sizes.matrix, dtype=dtype) for _ in range(2))
        step, flops = (lambda: torch.mm(a, b)), 2 * sizes.matrix**3
    seconds = spread(timed(step, 4 * sizes.repeats, device, 10))
    return {"seconds": seconds.to_json(), "flops_per_second": flops / seconds.median}


def copy_rate(sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """Bytes read and written a second by a copy that no cache holds."""
    source = torch.randint(255, (sizes.copied_bytes,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = spread(timed(lambda: target.copy_(source), sizes.repeats, device))
    return {"seconds": seconds.to_json(), "bytes_per_second": 2 * sizes.copied_bytes / seconds.median}


def autocast(device: torch.device, enabled: bool = True) -> torch.autocast:
    """bf16 on a GPU. A rehearsal is in float32: in bf16 an old CPU takes minutes for a step."""
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled and device.type == "cuda")


def onto(model: nn.Module, device: torch.device) -> Any:
    """As `model.to(device)`, which tensors of FakeTensorMode refuse."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(parameter.detach().to(device))
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.to(device)
    return model


def compile_blocks(model: Any) -> None:
    """Ours as `--compile` does it; diffusers' DiT names no repeated blocks, which are the same list."""
    if getattr(model, "_repeated_blocks", None):
        model.compile_repeated_blocks()
    else:
        for block in model.transformer_blocks:
            block.compile()


# ---- the DiT


def make_dit(layout: LatentLayout, size: dict[str, Any]) -> LatentTransformer:
    return LatentTransformer(layout.to_config(), num_classes=1000, **size)


def conditions(batch: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    timestep = torch.linspace(0, 999, batch, device=device)
    return timestep, torch.zeros(batch, dtype=torch.long, device=device)


class Autocast(nn.Module):
    """A model called under autocast: its output is a float32 tensor."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.model, self.device = model, device

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        with autocast(self.device):
            return self.model(**inputs).float()


def dit_flops(make: Callable[[], nn.Module], latents: tuple[int, ...], batch: int) -> tuple[int, int]:
    """Of a forward pass and of a training step on a batch: counted for one clip, times the clips."""
    with FakeTensorMode():
        model = make()
        inputs = torch.zeros(1, *latents)
        step = count_step(lambda: model(inputs, *conditions(1, inputs.device), return_dict=False)[0])
    return batch * step[0], batch * step[1]


def predicted_peak(make: Callable[[], Any], batch: int, device: torch.device, checkpoint: bool) -> int:
    """Bytes of a training step in bf16, by the predictor of `eval cost`, on tensors that are not there."""
    with FakeTensorMode():
        model = onto(make(), device)
        if checkpoint:
            model.enable_gradient_checkpointing()
        timestep, labels = conditions(batch, device)
        latents = torch.zeros(batch, model.layout.num_elements, device=device)
        inputs = {"hidden_states": latents, "timestep": timestep, "class_labels": labels}
        wrapped = Autocast(Prediction(model), device)
        return predict_training_memory(wrapped, inputs)["peak"]


def training_step(model: nn.Module, latents: torch.Tensor) -> Step:
    """Forward under autocast, backward from the mean square, fused AdamW."""
    fill_zeros(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    given = conditions(len(latents), latents.device)
    if not isinstance(model, LatentTransformer):
        given = (given[0].long(), given[1])

    def step() -> None:
        optimizer.zero_grad()
        with autocast(latents.device):
            prediction = model(latents, *given, return_dict=False)[0]
        prediction.float().square().mean().backward()
        optimizer.step()

    return step


def sampling_step(model: nn.Module, latents: torch.Tensor) -> Step:
    """Both halves of guidance as one batch, weights in bf16, and an Euler step."""
    fill_zeros(model)
    dtype = torch.bfloat16 if latents.is_cuda else torch.float32
    model.eval().requires_grad_(False).to(dtype)
    given = conditions(2 * len(latents), latents.device)
    if not isinstance(model, LatentTransformer):
        given = (given[0].long(), given[1])

    @torch.no_grad()
    def step() -> None:
        doubled = torch.cat([latents] * 2).to(dtype)
        unconditional, conditional = model(doubled, *given, return_dict=False)[0].float().chunk(2)
        if conditional.shape != latents.shape:  # diffusers' DiT also predicts a variance
            unconditional, conditional = (
                half[:, : latents.shape[1]] for half in (unconditional, conditional)
            )
        torch.add(latents, unconditional + GUIDANCE * (conditional - unconditional), alpha=-0.02)

    return step


@torch.no_grad()
def fill_zeros(model: nn.Module) -> None:
    """A branch that is zero at initialisation has gradients that are no typical numbers."""
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)


def dit_training(
    make: Callable[[], LatentTransformer],
    batch: int,
    device: torch.device,
    ceiling: float,
    repeats: int,
    *,
    checkpointing: bool = False,
    compiled: bool = False,
) -> dict[str, Any]:
    """A training step; its FLOPs are the model's, without what checkpointing computes again."""
    torch._dynamo.reset()
    model = make().to(device)
    elements = model.layout.num_elements
    if checkpointing:
        model.enable_gradient_checkpointing()
    if compiled:
        compile_blocks(model)
    row: dict[str, Any] = {"batch_size": batch, "num_tokens": model.layout.num_tokens()}
    _, flops = dit_flops(make, (elements,), batch)
    step = training_step(model, torch.randn(batch, elements, device=device))
    row |= measured(step, repeats, device, flops=flops, ceiling=ceiling)
    if not compiled:
        row["predicted_peak_bytes"] = predicted_peak(make, batch, device, checkpointing)
        if device.type == "cuda":
            row["predicted_over_measured"] = row["predicted_peak_bytes"] / row["peak_memory_bytes"]
    return row


def _two(
    sizes: Sizes, name: str, batch: int, device: torch.device
) -> tuple[dict[str, tuple[nn.Module, torch.Tensor]], Callable[[], LatentTransformer]]:
    """Ours and diffusers' DiT of this size on 1,024 tokens, each with latents."""
    make = partial(make_dit, sizes.square, sizes.dits[name])
    tokens = sizes.square.num_tokens()
    side = math.isqrt(tokens)
    plain = {key: sizes.dits[name][key] for key in ("hidden_size", "num_layers", "num_heads")}
    return {
        "ours": (make().to(device), torch.randn(batch, sizes.square.num_elements, device=device)),
        "reference": (
            reference_dit(tokens, **plain).to(device),
            torch.randn(batch, 4, side, side, device=device),
        ),
    }, make


def _beside(
    models: dict[str, tuple[nn.Module, torch.Tensor]],
    as_step: Callable[[nn.Module, torch.Tensor], Step],
    repeats: int,
    device: torch.device,
    flops: int,
    ceiling: float,
    compiled: bool,
) -> dict[str, Any]:
    """Both in turns of `repeats` steps, three turns each."""
    steps = {}
    for key, (model, latents) in models.items():
        if compiled:
            compile_blocks(model)
        steps[key] = as_step(model, latents)
    seconds: dict[str, list[float]] = {key: [] for key in steps}
    for turn in range(3):
        for key, step in steps.items():
            seconds[key] += timed(step, repeats, device, 1 if turn else 3)
    ours, reference = spread(seconds["ours"]), spread(seconds["reference"])
    return {
        "batch_size": len(models["ours"][1]),
        "flops": flops,
        "seconds": ours.to_json(),
        "mfu": flops / ours.median / ceiling,
        "reference_seconds": reference.to_json(),
        "reference_ratio": ours.median / reference.median,
    }


def beside_training(
    sizes: Sizes, name: str, batch: int, device: torch.device, ceiling: float, compiled: bool
) -> dict[str, Any]:
    torch._dynamo.reset()
    models, make = _two(sizes, name, batch, device)
    _, flops = dit_flops(make, (sizes.square.num_elements,), batch)
    return _beside(models, training_step, sizes.repeats // 2 + 1, device, flops, ceiling, compiled)


def beside_sampling(
    sizes: Sizes, name: str, batch: int, device: torch.device, ceiling: float, compiled: bool
) -> dict[str, Any]:
    torch._dynamo.reset()
    models, make = _two(sizes, name, batch, device)
    flops, _ = dit_flops(make, (sizes.square.num_elements,), 2 * batch)
    return _beside(models, sampling_step, sizes.repeats, device, flops, ceiling, compiled)


# ---- the autoencoder


def make_autoencoder(sizes: Sizes, device: torch.device) -> AutoencoderVidTwin:
    model = AutoencoderVidTwin(**sizes.autoencoder).to(device)
    fill_zeros(model)
    return model


def random_clips(model: AutoencoderVidTwin, count: int, device: torch.device) -> torch.Tensor:
    config = model.config
    shape = (config.in_channels, config.num_frames, config.height, config.width)
    return torch.rand(count, *shape, device=device) * 2 - 1


def autoencoder_flops(sizes: Sizes) -> dict[str, int]:
    """Of encode, decode and a training step of a batch, without its networks."""
    with FakeTensorMode():
        model = AutoencoderVidTwin(**sizes.autoencoder)
        clips = random_clips(model, 1, torch.device("cpu"))
        latents = torch.zeros(1, model.layout.num_elements)
        flops = {"training": count_step(lambda: model(clips).sample)[1]}
        model.eval().requires_grad_(False)
        flops["encode"] = count_flops(lambda: model.encode(clips).latent_dist.parameters)
        flops["decode"] = count_flops(lambda: model.decode(latents).sample)
    return {name: sizes.clips * value for name, value in flops.items()}


def autoencoder_pass(
    name: str, sizes: Sizes, flops: int, device: torch.device, ceiling: float
) -> dict[str, Any]:
    """Encode or decode in bf16."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    model = make_autoencoder(sizes, device).eval().requires_grad_(False).to(dtype)
    clips = random_clips(model, sizes.clips, device).to(dtype)
    latents = torch.randn(sizes.clips, model.layout.num_elements, device=device).to(dtype)
    passes: dict[str, Step] = {
        "encode": lambda: model.encode(clips).latent_dist.parameters,
        "decode": lambda: model.decode(latents).sample,
    }
    row = measured(passes[name], sizes.repeats, device, flops=flops, ceiling=ceiling)
    frames = sizes.clips * model.config.num_frames
    return row | {"batch_size": sizes.clips, "frames_per_second": frames / row["seconds"]["median"]}


def autoencoder_training(
    sizes: Sizes,
    flops: int,
    device: torch.device,
    ceiling: float,
    *,
    whole: bool = False,
    checkpointing: bool = False,
    compiled: bool = False,
    lpips_autocast: bool = True,
    kernels: bool = False,
) -> dict[str, Any]:
    """A step of stage 1 in bf16 as train_vae makes it, with L1 and KL, or with LPIPS and GAN as well (LPIPS'
    weights are random, which costs the same). `mfu` counts the autoencoder's FLOPs alone; `flops_of_all` are
    those of the whole step, the networks and what is computed again included."""
    torch._dynamo.reset()
    model = make_autoencoder(sizes, device).train()
    if checkpointing:
        model.enable_gradient_checkpointing()
    if compiled:
        compile_blocks(model)
    clips = random_clips(model, sizes.clips, device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    lpips = LPIPS().to(device).eval().requires_grad_(False) if whole else None
    discriminator = PatchDiscriminator().to(device) if whole else None
    opponent = torch.optim.AdamW(discriminator.parameters(), lr=1e-4, fused=True) if discriminator else None

    def step() -> None:
        with autocast(device):
            output = model(clips, sample_posterior=True)
        reconstruction = output.sample.float()
        with autocast(device, lpips_autocast):
            losses = vidtwin_loss(
                reconstruction, clips, output.latent_dist, 1e-3, lpips=lpips, lpips_weight=0.05
            )
        loss = losses["loss"]
        if discriminator is not None and opponent is not None:
            opponent.zero_grad()
            with autocast(device):
                discriminator_losses(discriminator, clips, reconstruction)["discriminator_loss"].backward()
            opponent.step()
            with autocast(device):
                last_layer = model.patch_output.linear.weight
                adversarial = adversarial_losses(discriminator, reconstruction, losses["nll"], last_layer)
            loss = loss + 0.05 * adversarial["gan_adaptive_weight"] * adversarial["gan"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    if kernels:
        return kernel_times(step, device)
    row: dict[str, Any] = {"batch_size": sizes.clips}
    row |= measured(step, sizes.repeats, device, flops=flops, ceiling=ceiling)
    if not compiled:
        row["flops_of_all"] = count_flops(step)
        row["of_matmul_rate"] = row["flops_of_all"] / row["seconds"]["median"] / ceiling
    if not compiled and not whole:
        row["predicted_peak_bytes"] = predicted_autoencoder_peak(sizes, device, checkpointing)
        if device.type == "cuda":
            row["predicted_over_measured"] = row["predicted_peak_bytes"] / row["peak_memory_bytes"]
    return row


def kernel_times(step: Step, device: torch.device, most: int = 14) -> dict[str, Any]:
    """Milliseconds and calls of the kernels that take longest in a step, of the second one, and of all."""
    activity = torch.profiler.ProfilerActivity
    kinds = [activity.CPU] if device.type != "cuda" else [activity.CPU, activity.CUDA]
    for _ in range(3 if device.type == "cuda" else 0):
        step()
    with torch.profiler.profile(activities=kinds) as profile:
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    events = [event for event in profile.key_averages() if event.self_device_time_total]
    events.sort(key=lambda event: -event.self_device_time_total)
    kernels = [event for event in events if event.device_type.name == "CUDA"]
    operations = [event for event in events if event.device_type.name != "CUDA"]
    told = {
        name: [
            {"name": event.key[:90], "ms": event.self_device_time_total / 1000, "calls": event.count}
            for event in of_kind[:most]
        ]
        for name, of_kind in (("kernels", kernels), ("operations", operations))
    }
    return told | {"all_ms": sum(event.self_device_time_total for event in kernels) / 1000}


def patch_embedding(sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """The convolution of the patch embedding, forward and backward, beside the linear layer that it is."""
    model = make_autoencoder(sizes, device)
    projection, clips = model.patch_embed.proj, random_clips(model, sizes.clips, device)
    patch = model.config.patch_size

    def convolution() -> None:
        with autocast(device):
            projection(clips).float().mean().backward()

    def linear() -> None:
        with autocast(device):
            patches = rearrange(clips, "b c f (h p) (w q) -> b f h w (c p q)", p=patch, q=patch)
            tokens = functional.linear(patches, projection.weight.flatten(1), projection.bias)
            tokens.float().mean().backward()

    return {
        step.__name__: {"seconds": spread(timed(step, sizes.repeats, device)).to_json()}
        for step in (convolution, linear)
    }


def predicted_autoencoder_peak(sizes: Sizes, device: torch.device, checkpointing: bool) -> int:
    with FakeTensorMode():
        model = onto(AutoencoderVidTwin(**sizes.autoencoder), device)
        if checkpointing:
            model.enable_gradient_checkpointing()
        inputs = {"sample": random_clips(model, sizes.clips, device)}
        return predict_training_memory(Autocast(Reconstruction(model), device), inputs)["peak"]


class Reconstruction(nn.Module):
    """`model` with its output unwrapped."""

    def __init__(self, model: AutoencoderVidTwin) -> None:
        super().__init__()
        self.model = model

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        return self.model(sample, sample_posterior=True, return_dict=False)[0]


def lpips_pass(
    sizes: Sizes, frames: int, device: torch.device, in_bf16: bool, channels_last: bool
) -> dict[str, Any]:
    """The perceptual term alone on the frames of a batch: its forward and backward pass."""
    network = LPIPS().to(device).eval().requires_grad_(False)
    if channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    height, width = sizes.autoencoder.get("height", 224), sizes.autoencoder.get("width", 224)
    first = frames_of(torch.randn(1, 3, frames, height, width, device=device)).requires_grad_()
    second = frames_of(torch.randn(1, 3, frames, height, width, device=device))

    def step() -> None:
        first.grad = None
        with autocast(device, in_bf16):
            network(first, second).mean().backward()

    seconds = spread(timed(step, sizes.repeats, device))
    return {"num_frames": frames, "seconds": seconds.to_json()}
