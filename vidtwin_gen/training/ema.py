"""The EMA of the weights: how it is saved, and how the model takes it for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from diffusers.training_utils import EMAModel
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from vidtwin_gen.training.fsdp import reshard


class EMA(EMAModel):
    """diffusers' exponential moving average, also of weights that FSDP shards: each process averages its
    shards, and what is saved is whole.

    accelerate saves such an object from the first process only, whose shards every process would then load.
    """

    shadow_params: list[torch.Tensor]

    def state_dict(self) -> dict[str, Any]:
        """All processes have to call it: the shards are gathered, one tensor after the other."""
        return super().state_dict() | {"shadow_params": [_whole(shadow) for shadow in self.shadow_params]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        like = self.shadow_params
        super().load_state_dict(state_dict)
        self.shadow_params = [
            distribute_tensor(whole, shards.device_mesh, shards.placements, src_data_rank=None)
            if isinstance(shards, DTensor)
            else whole
            for whole, shards in zip(self.shadow_params, like, strict=True)
        ]


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    """Of shards the whole tensor, on the CPU of the first process, and the shards themselves elsewhere."""
    if not isinstance(tensor, DTensor):
        return tensor
    whole = tensor.full_tensor()
    return whole.cpu() if dist.get_rank() == 0 else tensor


@contextmanager
def ema_weights(ema: EMAModel | None, model: nn.Module) -> Iterator[nn.Module]:
    """The model in evaluation mode, with the EMA's weights where there is one."""
    parameters = list(model.parameters())
    if ema is not None:
        ema.store(parameters)
        ema.copy_to(parameters)
    model.eval()
    try:
        with torch.no_grad():
            yield model
    finally:
        model.train()
        reshard(model)
        if ema is not None:
            ema.restore(parameters)
