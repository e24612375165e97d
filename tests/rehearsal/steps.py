"""What is rehearsed on the device of `watch.rehearsal`: steps of both trainings, sampling, the metrics."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from torch.utils._python_dispatch import _disable_current_modes, _get_current_dispatch_mode

import train_dit
import train_vae
from autoencoder.adapter import last_layer, latent_layout
from autoencoder.losses.discriminator import PatchDiscriminator
from autoencoder.losses.perceptual import LPIPS
from autoencoder.losses.terms import LogVariance
from autoencoder.model.vidtwin import AutoencoderVidTwin
from autoencoder.training_config import VAEConfig
from benchmarks.gpu.timing import onto
from eval.cost.tokenizers import find
from eval.fvd.i3d import I3D
from tests.builders.autoencoders import TINY_AUTOENCODER
from tests.builders.gaussian import ODE_SOLVERS, STOCHASTIC
from tests.builders.pipelines import NAMES, build_pipeline
from tests.rehearsal.watch import Fault, GPUGenerator, Watch, rehearsal
from vidtwin_gen.data.video_dataset import BadVideos
from vidtwin_gen.draws import BatchDraw
from vidtwin_gen.latents import LatentLayout
from vidtwin_gen.quality import lpips_per_frame, psnr_per_frame, ssim_per_frame
from vidtwin_gen.training.config import model_arguments
from vidtwin_gen.training.dit_config import PRESETS, DiTConfig
from vidtwin_gen.training.ema import make_ema
from vidtwin_gen.training.metrics_log import MetricsLog
from vidtwin_gen.training.optimizer import SkippingOptimizer

Step = Callable[[], object]
FEATURES = {"grid": [2, 2, 2], "dim": 8}
LOGS = TemporaryDirectory()  # until this process ends
TINY_VAE = TINY_AUTOENCODER | {
    "height": 32,
    "width": 32,
    "train_batch_size": 2,
    "discriminator_channels": 8,
    "mse_weight": 0.5,
    "gan_start": 0,
}
SOLVERS = {name: of[:2] for name, of in (ODE_SOLVERS | STOCHASTIC).items()}
TINY_DIT = {"hidden_size": 32, "num_layers": 3, "num_heads": 2, "train_batch_size": 4, "repa_dim": 16}


def watched(name: str) -> Watch:
    """What the second step of this name does: the first also makes what stays, such as Adam's moments."""
    with rehearsal() as device:
        with Watch():  # answers what is asked of numbers
            step = REHEARSALS[name](device)
            step()
        with Watch() as watch:
            step()
    return watch


def faults(name: str) -> list[Fault]:
    return watched(name).faults


def make_accelerator(device: torch.device, mixed_precision: str) -> Accelerator:
    """One whose process has this device."""
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState(cpu=True).device = device
    return Accelerator(cpu=True, mixed_precision=mixed_precision, device_placement=False)


def vae_step(device: torch.device, **flags: Any) -> Step:
    """Of stage 1 as `train_vae.py` makes it with every loss, EMA and log; without flags the base model's."""
    config = VAEConfig(output_dir=LOGS.name, data=LOGS.name, report_to="none", **flags)
    accelerator = make_accelerator(device, config.mixed_precision)
    vae: Any = onto(AutoencoderVidTwin(**model_arguments(config, AutoencoderVidTwin)), device).train()
    layout = latent_layout(vae, config.num_frames, config.height, config.width)
    optimizer = SkippingOptimizer([vae, onto(LogVariance(), device)], config, accelerator, 1e-4, 10)
    channels, num_layers = config.discriminator_channels, config.discriminator_layers
    discriminator = onto(PatchDiscriminator(base_channels=channels, num_layers=num_layers), device)
    discriminator_optimizer = SkippingOptimizer(
        [discriminator], config, accelerator, 1e-4, 10, log_prefix="discriminator_"
    )
    lpips, last_weight = onto(LPIPS().eval().requires_grad_(False), device), last_layer(vae, layout)
    size, batch_size = (config.num_frames, config.height, config.width), config.train_batch_size
    clips, bad_videos = torch.rand(batch_size, 3, *size, device=device), BadVideos(batch_size)
    batch = {"video": clips, "index": list(range(batch_size)), "skipped": []}
    draw, end = draw_for(batch_size), end_of_step(vae, config, accelerator)

    def step() -> None:
        bad_videos.update(batch)
        clips = batch["video"]
        end(
            train_vae.training_step(
                clips, config, draw, optimizer, discriminator_optimizer, lpips, last_weight
            )
        )

    return step


def dit_step(device: torch.device, layout: LatentLayout | None = None, **flags: Any) -> Step:
    """Of stage 2 as `train_dit.py` makes it, EMA and log included."""
    layout = layout or build_pipeline().transformer.layout
    config = DiTConfig(output_dir=LOGS.name, vae="vae", latents="latents", report_to="none", **flags)
    accelerator = make_accelerator(device, config.mixed_precision)
    metadata = {
        "layout": layout.to_config(),
        "latents_mean": [0.5] * layout.num_channels,
        "latents_std": [2.0] * layout.num_channels,
        "class_names": NAMES,
        "features": FEATURES,
    }
    transformer: Any = onto(train_dit.make_transformer(config, metadata), device)
    networks = [transformer]
    if config.repa_weight:
        networks.append(onto(train_dit.alignment_head(transformer, metadata, config), device))
    optimizer = SkippingOptimizer(networks, config, accelerator, config.learning_rate, 10)
    wrapped, *wrapped_heads = optimizer.modules
    batch_size = config.train_batch_size
    batch = {name: torch.randn(batch_size, layout.num_elements, device=device) for name in ("mean", "logvar")}
    batch["label"] = torch.randint(len(NAMES), (batch_size,), device=device)
    batch["features"] = torch.randn(batch_size, 8 * 8, device=device)
    whitening, draw = train_dit.Whitening.of(metadata, device), draw_for(batch_size)
    end = end_of_step(transformer, config, accelerator)

    def step() -> None:
        losses = train_dit.diffusion_losses(
            wrapped, batch, whitening, config, draw, transformer.null_class, *wrapped_heads
        )
        end(losses | optimizer.step(losses["loss"]))

    return step


def draw_for(batch_size: int) -> BatchDraw:
    return BatchDraw(GPUGenerator(), GPUGenerator(), batch_size, slice(None))


def end_of_step(
    model: torch.nn.Module, config: Any, accelerator: Accelerator
) -> Callable[[dict[str, torch.Tensor]], None]:
    """What `Run.end_step` does on the device: the EMA, and the sums of what is logged."""
    ema, log = make_ema(model, config, accelerator), MetricsLog(accelerator, config, 0)
    log.bar.disable = True

    def end(values: dict[str, torch.Tensor]) -> None:
        log.add(values)
        ema.step(model.parameters())
        log.end_step(counts=True)

    return end


def with_fake_tables(scheduler: Any) -> Any:
    """A copy of a scheduler that makes its tables out of numbers, for which some use numpy; a step meets them
    as fake as all else."""
    with _disable_current_modes():
        scheduler = copy.deepcopy(scheduler)
    tables, make_tables = dict(vars(scheduler)), scheduler.set_timesteps
    # those made for flow matching alone keep the noise levels there, too
    on_device = {"timesteps", "sigmas"} if hasattr(scheduler, "scale_noise") else {"timesteps"}

    def set_timesteps(num_inference_steps: int, device: torch.device) -> None:
        with _disable_current_modes():
            vars(scheduler).update(tables)
            make_tables(num_inference_steps)
        for name, table in vars(scheduler).items():
            if isinstance(table, torch.Tensor):
                place = device if name in on_device else table.device
                setattr(scheduler, name, torch.empty(table.shape, dtype=table.dtype, device=place))

    scheduler.set_timesteps = set_timesteps
    return scheduler


def sampling(device: torch.device, solver: str = "flow euler", **options: Any) -> Step:
    """A call of the pipeline: three steps with guidance."""
    prediction_type, scheduler = SOLVERS[solver]
    pipe = build_pipeline(prediction_type=prediction_type)
    pipe.scheduler = with_fake_tables(scheduler)
    for model in (pipe.vae, pipe.transformer):
        onto(model, device)
    if "keep" in options:
        options["known_latents"] = torch.zeros(1, pipe.transformer.layout.num_elements, device=device)

    def forget_start(pipe: Any, step: int, *_: Any) -> dict[str, Any]:
        """What comes before the second step is of the call, not of each step."""
        watch = _get_current_dispatch_mode()
        if step == 0 and isinstance(watch, Watch):
            watch.faults.clear()
        return {}

    options |= {
        "callback_on_step_end": forget_start,
        "generator": GPUGenerator(),
        "num_inference_steps": 3,
        "output_type": "latent",
    }
    return lambda: pipe([1, 2], guidance_scale=2.0, **options)


def metrics(device: torch.device) -> Step:
    """Of reconstructions, and the features of FVD."""
    lpips, i3d = (onto(network.eval().requires_grad_(False), device) for network in (LPIPS(), I3D()))
    original = torch.rand(2, 3, 10, 32, 32, device=device)
    decoded, uint8 = (
        torch.rand_like(original),
        torch.zeros(2, 10, 32, 32, 3, dtype=torch.uint8, device=device),
    )

    def step() -> None:
        psnr_per_frame(decoded, original)
        ssim_per_frame(decoded, original)
        lpips_per_frame(decoded, original, lpips)
        i3d(uint8)

    return step


TRAINING: dict[str, Callable[[torch.device], Step]] = {
    "stage 1": partial(vae_step, **TINY_VAE, mixed_precision="bf16", predicted_share=0.5),
    "stage 2": partial(
        dit_step,
        **TINY_DIT,
        repa_weight=0.5,
        internal_guidance=True,
        contrastive_weight=0.05,
        sample_posterior=True,
        prediction="x0",
        block_type="lightning",
        mixed_precision="bf16",
    ),
    "stage 2, paper": partial(
        dit_step, **TINY_DIT, objective="paper", conditioning="cross_attention", optimizer="muon"
    ),
}
SAMPLING: dict[str, Callable[[torch.device], Step]] = {
    **{name: partial(sampling, solver=name) for name in SOLVERS},
    **{f"editing, {name}": partial(sampling, solver=name, keep="structure") for name in SOLVERS},
}
SIZED: dict[str, Callable[[torch.device], Step]] = {
    "base autoencoder, whole loss": partial(vae_step, mixed_precision="bf16", gan_start=0),
    "DiT-B": lambda device: dit_step(
        device, find(["vidtwin-1"])[0].layout, **PRESETS["B"] | {"gradient_accumulation_steps": 1}
    ),
}
REHEARSALS = TRAINING | SAMPLING | SIZED | {"metrics": metrics}
