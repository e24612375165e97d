"""The EMA of the weights: how it is saved, and how the model takes it for a while."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from vidtwin_gen.training.fsdp import reshard


class EMA(EMAModel):
    """diffusers' exponential moving average, also of weights that FSDP shards: each process averages its
    shards. Its weights are saved with the model's (`ModelFolders`), its counts in a file of accelerate's."""

    shadow_params: list[torch.Tensor]

    def state_dict(self) -> dict[str, Any]:
        return {name: value for name, value in super().state_dict().items() if name != "shadow_params"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Of a file of before the folders, with whole weights in it, too."""
        super().load_state_dict(state_dict | {"shadow_params": None})
        if "shadow_params" in state_dict:
            self.set_weights(state_dict["shadow_params"])

    def set_weights(self, weights: Iterable[torch.Tensor]) -> None:
        """Takes whole weights, in the order of the model's parameters."""
        self.shadow_params = [
            distribute_tensor(whole, shards.device_mesh, shards.placements, src_data_rank=None)
            if isinstance(shards, DTensor)
            else whole.detach().clone()
            for whole, shards in zip(weights, self.shadow_params, strict=True)
        ]


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
