"""The model and its average in a checkpoint, as folders of diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.models.modeling_utils import ModelMixin

from vidtwin_gen.training.ema import EMA, ema_weights
from vidtwin_gen.training.fsdp import is_sharded, model_class, whole_copy


class ModelFolders:
    """Makes accelerate save `<name>/` and `<name>_ema/`, which `from_pretrained` loads, in place of a file of
    its own; a sharded model's shards, which its optimizer belongs to, are saved beside them.

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
        """A hook of `Accelerator.load_state`. In a checkpoint of before the folders accelerate's file and the
        EMA's have the weights."""
        folder = Path(checkpoint) / self.name
        if not folder.is_dir():
            return
        load = model_class(self.model).from_pretrained
        if not is_sharded(self.accelerator):
            self.model.load_state_dict(load(folder).state_dict())
            del models[:1]
        if self.ema is not None:
            self.ema.set_weights(load(Path(checkpoint) / f"{self.name}_ema").parameters())
