"""The EMA of the weights: how a model uses it for a while, and how a checkpoint holds both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.models.modeling_utils import ModelMixin
from diffusers.training_utils import EMAModel
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from vidtwin_gen.training.config import TrainingConfig
from vidtwin_gen.training.fsdp import is_sharded, model_class, reshard, whole_copy


class EMA(EMAModel):
    """diffusers' exponential moving average, also of weights that FSDP shards: each process averages its
    shards. Its weights are saved with the model's (`ModelFolders`), its counts in a file of accelerate's."""

    shadow_params: list[torch.Tensor]

    def state_dict(self) -> dict[str, Any]:
        return {name: value for name, value in super().state_dict().items() if name != "shadow_params"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Also takes the state of earlier versions, which holds whole weights. The decay stays the flag's."""
        super().load_state_dict(state_dict | {"shadow_params": None, "decay": self.decay})
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


def make_ema(model: nn.Module, config: TrainingConfig, accelerator: Accelerator) -> EMA:
    """The average of the model's weights, which starts as they are. On a GPU they are averaged all at once
    (foreach), which rounds the last bit differently from one by one."""
    at_once = accelerator.device.type != "cpu" and not is_sharded(accelerator)
    return EMA(model.parameters(), decay=config.ema_decay, foreach=at_once)


@contextmanager
def ema_weights(ema: EMAModel | None, model: nn.Module) -> Iterator[nn.Module]:
    """The model in evaluation mode, with the EMA's weights where there is one; afterwards as it was."""
    parameters, training = list(model.parameters()), {m: m.training for m in model.modules()}
    if ema is not None:
        ema.store(parameters)
        ema.copy_to(parameters)
    model.eval()
    try:
        with torch.no_grad():
            yield model
    finally:
        for module, was_training in training.items():
            module.training = was_training
        reshard(model)
        if ema is not None:
            ema.restore(parameters)


class ModelFolders:
    """Makes accelerate save `<name>/` and `<name>_ema/`, which `from_pretrained` loads, in place of its own
    file of weights. Of a sharded model the shards are saved beside them, for its optimizer's state.

    Args:
        model: the first that accelerate has prepared. ema: its average, None where there is none.
        name: of its kind: autoencoder, transformer.
    """

    def __init__(self, model: ModelMixin, ema: EMA | None, accelerator: Accelerator, name: str) -> None:
        self.model, self.ema, self.accelerator, self.name = model, ema, accelerator, name
        accelerator.register_save_state_pre_hook(self.save)
        accelerator.register_load_state_pre_hook(self.load)

    def save(self, models: list[torch.nn.Module], weights: list[Any], checkpoint: str) -> None:
        """A hook of `Accelerator.save_state`, in all processes."""
        for folder, ema in ((self.name, None), (f"{self.name}_ema", self.ema)):
            if folder == self.name or ema is not None:
                with ema_weights(ema, self.model):
                    whole = whole_copy(self.model, self.accelerator)
                    if whole is not None and self.accelerator.is_main_process:
                        whole.save_pretrained(Path(checkpoint) / folder)
        del weights[:1]

    def load(self, models: list[torch.nn.Module], checkpoint: str) -> None:
        """A hook of `Accelerator.load_state`. A checkpoint of earlier versions has no such folders; there the
        weights are in accelerate's file and in the EMA's state."""
        folder = Path(checkpoint) / self.name
        if not folder.is_dir():
            return
        load = model_class(self.model).from_pretrained
        if not is_sharded(self.accelerator):
            self.model.load_state_dict(load(folder).state_dict())
            del models[:1]
        if self.ema is not None:
            self.ema.set_weights(load(Path(checkpoint) / f"{self.name}_ema").parameters())
