"""FSDP: what accelerate leaves to a training script when one network is sharded over the processes."""

from __future__ import annotations

import os
from types import MethodType
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import (
    AutocastKwargs,
    DistributedType,
    FullyShardedDataParallelPlugin,
    convert_outputs_to_fp32,
)
from accelerate.utils.modeling import get_mixed_precision_context_manager
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy

Model = TypeVar("Model", bound=ModelMixin)


def fsdp_plugin(mixed_precision: str) -> FullyShardedDataParallelPlugin | None:
    """accelerate's settings, where its launcher was asked to shard; else None.

    bfloat16 is for the weights on their way and the products, as autocast has it. accelerate's own policy
    also rounds a forward pass's arguments to it, the timestep among them, and sums gradients in it.

    Raises:
        ValueError: FSDP's first version, or float16.
    """
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return None
    plugin = FullyShardedDataParallelPlugin()
    if plugin.fsdp_version != 2:
        raise ValueError(
            f"fsdp_version is {plugin.fsdp_version} in accelerate's configuration: set it to 2, as in "
            "docs/fsdp.yaml"
        )
    if mixed_precision == "fp16":
        raise ValueError("--mixed_precision fp16 does not go with FSDP: take bf16")
    if mixed_precision == "bf16":
        plugin.mixed_precision_policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False
        )
    return plugin


def is_sharded(accelerator: Accelerator) -> bool:
    return accelerator.distributed_type == DistributedType.FSDP


def autocast_forward(model: nn.Module, accelerator: Accelerator) -> None:
    """Gives the model's forward pass the precision that accelerate gives it without FSDP."""
    if accelerator.native_amp:
        autocast = get_mixed_precision_context_manager(native_amp=True, autocast_kwargs=AutocastKwargs())
        forward = convert_outputs_to_fp32(autocast(type(model).forward))
        model.forward = MethodType(forward, model)


def reshard(model: nn.Module) -> None:
    """Frees the whole weights that a forward pass without a backward pass leaves in place, which other values
    of the shards would not reach."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def whole_copy(model: Model, accelerator: Accelerator) -> Model | None:
    """The model itself, or, where it is sharded, one with all weights on the CPU, and None but on the first
    process. All processes have to call it."""
    if not is_sharded(accelerator):
        return model
    weights = accelerator.get_state_dict(model)
    if not accelerator.is_main_process:
        return None
    copy: Model = model_class(model).from_config(model.config)
    copy.load_state_dict(weights)
    return copy.eval()


def model_class(model: ModelMixin) -> Any:
    """The model's own class: sharding puts some before it."""
    return next(cls for cls in type(model).__mro__ if not issubclass(cls, FSDPModule))
