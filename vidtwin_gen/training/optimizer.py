"""The optimizers of a training, and a step that NaN and infinity leave without effect."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import islice
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.optimization import get_scheduler
from torch import nn
from torch.distributed.tensor import DTensor
from torch.overrides import TorchFunctionMode

from vidtwin_gen.training.config import TrainingConfig
from vidtwin_gen.training.fsdp import is_sharded

SMALLEST_8BIT = 4096  # numbers of a tensor: bitsandbytes keeps the moments of smaller ones in float32
SMALLEST_MATRIX = 16  # a side: below there is little to orthogonalise
EIGHT_BIT_DEVICES = ("cuda", "xpu", "cpu")  # for which bitsandbytes 0.50 has the optimizer's kernels


class Float32OnCPU(TorchFunctionMode):
    """In it torch's Muon orthogonalises in float32 on a CPU, not in bfloat16, whose products take 20 times as
    long on most CPUs; what it gives is then the same on all of them up to rounding."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        # as Muon asks for it, before torch 2.15 and since
        is_to_bfloat16 = func is torch.Tensor.bfloat16 or (
            func is torch.Tensor.to and kwargs.get("dtype") is torch.bfloat16
        )
        if is_to_bfloat16 and args[0].device.type == "cpu":
            return args[0].to(torch.float32, copy=True)
        return func(*args, **kwargs)


class SkippingOptimizer:
    """The optimizers that the flags ask for, each with its schedule over `num_steps`, for networks that are
    trained together; a step in which NaN or infinity comes up leaves their weights as they are.

    Args:
        networks: prepared here by accelerate, and with them the optimizers and the schedules: a checkpoint
            holds them all.
        log_prefix: of the names under which `step` gives what is to be logged.

    Attributes:
        modules: the networks as a forward pass calls them (DDP's wrappers, where there are several processes;
            FSDP shards in place).
        moved: whether the last step moved the weights. learning_rate: with which it did, AdamW's.

    Raises:
        ValueError: as `make_optimizers`.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        config: TrainingConfig,
        accelerator: Accelerator,
        learning_rate: float,
        num_steps: int,
        *,
        log_prefix: str = "",
    ) -> None:
        self.accelerator, self.max_grad_norm = accelerator, config.max_grad_norm
        optimizers = make_optimizers(networks, config, accelerator, learning_rate)
        schedules = [
            # accelerate steps a schedule once per process
            get_scheduler(
                config.lr_scheduler,
                optimizer,
                num_warmup_steps=config.lr_warmup_steps * accelerator.num_processes,
                num_training_steps=num_steps * accelerator.num_processes,
            )
            for optimizer in optimizers
        ]
        prepared = iter(accelerator.prepare(*networks, *optimizers, *schedules))
        self.modules = list(islice(prepared, len(networks)))
        self.optimizers = list(islice(prepared, len(optimizers)))
        self.lr_schedulers = list(prepared)
        self.settings = [
            {name: value for name, value in optimizer.param_groups[0].items() if name != "params"}
            for optimizer in self.optimizers
        ]
        self.finite = torch.ones((), dtype=torch.bool, device=accelerator.device)
        self.moved, self.learning_rate, self.log_prefix = True, learning_rate, log_prefix

    def apply_flags(self) -> None:
        """After a checkpoint was loaded: the settings and the schedule of this run's flags, which may have
        another end than those of the run that saved it."""
        for optimizer, wrapped, settings in zip(
            self.optimizers, self.lr_schedulers, self.settings, strict=True
        ):
            schedule = wrapped.scheduler
            learning_rate = settings["initial_lr"] * schedule.lr_lambdas[0](schedule.last_epoch)
            optimizer.param_groups[0] |= settings | {"lr": learning_rate}
            schedule.base_lrs, schedule._last_lr = [settings["initial_lr"]], [learning_rate]

    def step(self, loss: torch.Tensor) -> dict[str, torch.Tensor]:
        """Backward from `loss`, and with the last of the passes that a step accumulates the step itself.

        The weights are not moved, in any process, where NaN or infinity is in a loss or in the gradient.

        Returns what is to be logged: `grad_norm`, the norm that the step's gradient had; nothing where more
        passes are to come.
        """
        self.finite = self.finite & loss.detach().isfinite()
        self.accelerator.backward(loss)
        if not self.accelerator.sync_gradients:
            return {}
        parameters = [parameter for module in self.modules for parameter in module.parameters()]
        norm = self.accelerator.clip_grad_norm_(parameters, self.max_grad_norm or math.inf)
        grad_norm = norm.full_tensor() if isinstance(norm, DTensor) else norm  # of sharded gradients
        finite = self.finite & grad_norm.isfinite()
        self.moved = self.accelerator.reduce(finite.float(), "mean").item() == 1.0
        self.learning_rate = self.lr_schedulers[0].get_last_lr()[0]
        for optimizer, schedule in zip(self.optimizers, self.lr_schedulers, strict=True):
            # float16's gradient scaler looks for itself, and has to, to lower its scale
            if self.moved or self.accelerator.scaler is not None:
                # in the mode each operation costs the host twice the time, which a GPU then waits for
                with Float32OnCPU() if self.finite.device.type == "cpu" else nullcontext():
                    optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        self.finite = torch.ones_like(self.finite)
        return {f"{self.log_prefix}grad_norm": grad_norm}


def make_optimizers(
    networks: Sequence[nn.Module], config: TrainingConfig, accelerator: Accelerator, learning_rate: float
) -> list[torch.optim.Optimizer]:
    """AdamW, and after it, where the flags ask for it and a network has such matrices, Muon for those of its
    repeated blocks (arXiv 2502.16982). Raises ValueError as `make_adamw`, and where Muon can't train."""
    parameters = [p for network in networks for p in network.parameters() if p.requires_grad]
    if config.optimizer == "adamw":
        return [make_adamw(parameters, config, accelerator, learning_rate)]
    if is_sharded(accelerator):
        raise ValueError("--optimizer muon needs whole matrices, which FSDP shards: train with DDP")
    matrices = [matrix for network in networks for matrix in block_matrices(network)]
    chosen = set(map(id, matrices))
    rest = [parameter for parameter in parameters if id(parameter) not in chosen]
    optimizers = [make_adamw(rest, config, accelerator, learning_rate)]
    if matrices:
        optimizers.append(
            torch.optim.Muon(matrices, lr=config.muon_learning_rate, weight_decay=config.adam_weight_decay)
        )
    return optimizers


def block_matrices(network: nn.Module) -> list[nn.Parameter]:
    """The weights to be trained with two axes, of 16 or more each, in the blocks that a model of diffusers
    repeats."""
    repeated = getattr(network, "_repeated_blocks", ())
    blocks = [module for module in network.modules() if type(module).__name__ in repeated]
    parameters = [parameter for block in blocks for parameter in block.parameters()]
    return [p for p in parameters if p.requires_grad and p.ndim == 2 and min(p.shape) >= SMALLEST_MATRIX]


def optimizer_bytes(network: nn.Module, config: TrainingConfig) -> int:
    """What the optimizers of `make_optimizers` keep for the network: two float32 moments of each number, one
    where Muon trains it, and two of a byte each, with a scale for 256 of them, where 8-bit AdamW does."""
    under_muon = set(map(id, block_matrices(network))) if config.optimizer == "muon" else set()
    total = 0
    for parameter in network.parameters():
        if id(parameter) in under_muon:
            bytes_each = 4.0
        elif config.use_8bit_adam and parameter.numel() >= SMALLEST_8BIT:
            bytes_each = 2 * (1 + 4 / 256)
        else:
            bytes_each = 8.0
        total += math.ceil(bytes_each * parameter.numel())
    return total


def make_adamw(
    parameters: list[nn.Parameter], config: TrainingConfig, accelerator: Accelerator, learning_rate: float
) -> torch.optim.Optimizer:
    """AdamW; with `use_8bit_adam` that of bitsandbytes, which keeps the moments of tensors of 4096 numbers or
    more in 8 bits by blocks (arXiv 2110.02861). Raises ValueError where that is not installed, or can't train
    here."""
    settings: dict[str, Any] = {
        "lr": learning_rate,
        "betas": (config.adam_beta1, config.adam_beta2),
        "weight_decay": config.adam_weight_decay,
        "eps": config.adam_epsilon,
    }
    if not config.use_8bit_adam:
        return torch.optim.AdamW(parameters, fused=True, **settings)
    if is_sharded(accelerator):
        raise ValueError(
            "--use_8bit_adam does not go with FSDP, whose shards bitsandbytes can't read: leave it out, or "
            "train with DDP"
        )
    if accelerator.device.type not in EIGHT_BIT_DEVICES:
        raise ValueError(
            f"--use_8bit_adam runs on {', '.join(EIGHT_BIT_DEVICES)}, not on {accelerator.device.type}"
        )
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        raise ValueError("--use_8bit_adam needs bitsandbytes: pip install 'bitsandbytes>=0.50'") from None
    return AdamW8bit(parameters, **settings)
