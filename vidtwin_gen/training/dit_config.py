"""The configuration of stage 2, `train_dit.py`: its flags and presets."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from vidtwin_gen.models.objectives import BlockType, Conditioning, LossWeighting, Objective, Prediction
from vidtwin_gen.models.sizes import SIZES
from vidtwin_gen.training.config import TrainingConfig, flag


@dataclass
class DiTConfig(TrainingConfig):
    """Flags of stage 2."""

    tracker_project_name: str = flag(
        "name of the project in the tracker, and title of the progress bar", "train_dit"
    )

    vae: str = flag("the autoencoder that made the latents, named as for `encode`", "")
    latents: str = flag("folder written by `python -m vidtwin_gen encode`", "")
    objective: Objective = flag("flow: velocity; paper: x_0 by DDPM, as in VidTwin's paper", "flow")
    prediction: Prediction = flag(
        "what the network predicts under flow; the loss is the velocity's either way", "velocity"
    )
    allow_empty_classes: bool = flag("train even if some classes have no latents", False)
    sample_posterior: bool = flag("draw latents from their posteriors; off: the mean, as in the paper", False)
    class_dropout: float = flag("share of labels replaced by the null class, for guidance", 0.1)
    logit_mean: float = flag("mean of the logit-normal noise levels", 0.0)
    logit_std: float = flag("standard deviation of the logit-normal noise levels", 1.0)
    shift: str = flag(
        "above 1: moves noise levels towards the noise, in training and sampling; auto: by the latent's size",
        "1.0",
    )
    loss_weighting: LossWeighting = flag(
        "what counts equally in the loss: every latent number, or every grid", "element"
    )
    internal_guidance: bool = flag(
        "train a second head, after a third of the blocks, for internal guidance", False
    )
    contrastive_weight: float = flag("weight of the loss to another class's target, which is subtracted", 0.0)

    repa_weight: float = flag(
        "weight of REPA, the alignment of early tokens with a video encoder's features; 0.5 in its paper", 0.0
    )
    repa_layer: int = flag("align the tokens after so many blocks; 0: after a third of all", 0)
    repa_dim: int = flag("width of the MLP that projects tokens to features", 2048)
    repa_normalise: bool = flag("standardise the features over their grid first, as in iREPA", False)

    patch_size: str = flag('latent positions per token side: a number, or JSON such as {"structure": 2}', "1")
    hidden_size: int = flag("width of the DiT", 768)
    num_layers: int = flag("blocks of the DiT", 12)
    num_heads: int = flag("attention heads of the DiT", 12)
    conditioning: Conditioning = flag("how the class conditions the blocks", "adaln")
    block_type: BlockType = flag("lightning: RMSNorm, SwiGLU and rotary positions", "dit")

    guidance_scale: float = flag("classifier-free guidance of the sample grids", 2.0)
    internal_guidance_scale: float = flag("internal guidance of the sample grids; 1: none", 1.0)
    num_inference_steps: int = flag("sampling steps of the sample grids", 30)
    num_sample_classes: int = flag("classes in a sample grid; 0: no grids", 10)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.vae or not self.latents:
            raise ValueError("--vae and --latents are required: run `python -m vidtwin_gen encode` first")
        if not 0 <= self.class_dropout < 1:
            raise ValueError(f"--class_dropout must be from 0 to below 1, got {self.class_dropout}")
        if self.shift != "auto":
            if not _is_positive(self.shift):
                raise ValueError(f"--shift is a number above 0, or auto, got {self.shift!r}")
            self.shift = str(float(self.shift))
        if not 0 <= self.contrastive_weight < 1:
            raise ValueError(
                f"--contrastive_weight must be from 0 to below 1, got {self.contrastive_weight}: from 1 on "
                "the loss has no minimum"
            )
        if self.internal_guidance and self.num_layers < 2:
            raise ValueError(f"--internal_guidance needs 2 or more --num_layers, got {self.num_layers}")
        if self.internal_guidance_scale != 1 and not self.internal_guidance:
            raise ValueError(
                f"--internal_guidance_scale {self.internal_guidance_scale} needs --internal_guidance, which "
                "trains the head that it guides with; or leave it out"
            )
        if not 0 <= self.repa_layer <= self.num_layers:
            raise ValueError(
                f"--repa_layer is a number of blocks, from 1 to --num_layers {self.num_layers}, or 0 for a "
                f"third of them, got {self.repa_layer}"
            )
        if self.contrastive_weight and self.train_batch_size == 1:
            raise ValueError(
                f"--contrastive_weight {self.contrastive_weight} needs clips of several classes in a pass: "
                "--train_batch_size 2 or more"
            )
        if self.objective == "paper":
            plain = {"shift": "1.0", "prediction": "velocity", "contrastive_weight": 0}
            for name, value in (plain | {"logit_mean": 0.0, "logit_std": 1.0}).items():
                if getattr(self, name) != value:
                    raise ValueError(
                        f"--{name} {getattr(self, name)} is of --objective flow: say --{name} {value}, as "
                        "a preset may have another, or train flow"
                    )
        try:
            json.loads(self.patch_size)
        except json.JSONDecodeError:
            raise ValueError(f"--patch_size is a number or JSON, got {self.patch_size!r}") from None

    def check_guidance(self) -> None:
        """Raises ValueError where the clips of a validation would be guided with what is not trained. Earlier
        runs may have been."""
        guides = self.num_sample_classes and self.guidance_scale > 1
        if guides and not self.class_dropout and not self.init_from:  # whose weights may know it
            raise ValueError(
                f"--guidance_scale {self.guidance_scale} guides the clips of the validations away from no "
                "class, which --class_dropout 0 does not train: say --guidance_scale 1, or "
                "--num_sample_classes 0"
            )

    @property
    def early_layer(self) -> int:
        """A third of the blocks: where the head of internal guidance stands."""
        return math.ceil(self.num_layers / 3)


def _is_positive(text: str) -> bool:
    with suppress(ValueError):
        return 0 < float(text) < math.inf
    return False


# 24 tokens. A Structure token is a position with all its queries, which stand for no one time; a Dynamics
# token is a position with all its frames, which keeps motion smooth.
DEMO: dict[str, Any] = {
    "patch_size": '{"structure": [8, 1, 1], "dynamics_x": [16, 1], "dynamics_y": [16, 1]}',
    "hidden_size": 128,
    "num_layers": 4,
    "num_heads": 4,
    "block_type": "lightning",
    "prediction": "x0",
    "shift": "2.0",
    "train_batch_size": 64,
    "max_train_steps": 2000,
    "lr_warmup_steps": 100,
    "optimizer": "muon",
    "learning_rate": 2e-3,
    "adam_weight_decay": 0.0,
    "ema_decay": 0.998,
    "checkpointing_steps": 500,
    "validation_steps": 500,
    "dataloader_num_workers": 0,
    "report_to": "none",
}

# what the presets named after a size share: patch 1 and LightningDiT's optimizer (arXiv 2501.01423);
# compiled, a step of B takes 0.55 of the time and 0.7 of the memory (benchmarks/2026-11-28_h200.md)
SIZED: dict[str, Any] = {
    "max_train_steps": 100_000,
    "lr_warmup_steps": 1000,
    "lr_scheduler": "constant_with_warmup",
    "learning_rate": 2e-4,
    "adam_beta2": 0.95,
    "adam_weight_decay": 0.0,
    "ema_decay": 0.9999,
    "mixed_precision": "bf16",
    "compile": True,
    "checkpointing_steps": 5000,
    "validation_steps": 5000,
}

# 256 clips a step of one process: as many a pass as leave room for all else on a card of 80 GB, at 1,008
# tokens without checkpointing, which costs more time than passes do
PASSES: dict[str, dict[str, Any]] = {
    "S": {"train_batch_size": 128, "gradient_accumulation_steps": 2},
    "B": {"train_batch_size": 64, "gradient_accumulation_steps": 4},
    "L": {"train_batch_size": 32, "gradient_accumulation_steps": 8},
    "XL": {"train_batch_size": 16, "gradient_accumulation_steps": 16},
    "paper": {"train_batch_size": 32, "gradient_accumulation_steps": 8},
}

PRESETS: dict[str, dict[str, Any]] = {
    "demo": DEMO,
    "long": {
        **DEMO,
        "num_layers": 6,
        "max_train_steps": 3000,
    },
    # real clips on a CPU
    "cpu": {
        **DEMO,
        "contrastive_weight": 0.05,
        "train_batch_size": 32,
        "max_train_steps": 2500,
        "checkpointing_steps": 100,
        "validation_steps": 500,
    },
    # ten classes of UCF-101 at 64x64, minutes on one data-centre GPU: 320 tokens, and the recipe of `cpu`
    "ucf101-10": {
        **SIZED,
        "patch_size": '{"structure": [2, 2, 2], "dynamics_x": [4, 2], "dynamics_y": [4, 2]}',
        "hidden_size": 240,  # its SwiGLU is 640 wide, and a head 48: widths that tensor cores take
        "num_layers": 5,
        "num_heads": 5,
        "block_type": "lightning",
        "prediction": "x0",
        "shift": "2.0",
        "contrastive_weight": 0.05,
        "optimizer": "muon",
        "train_batch_size": 128,
        "max_train_steps": 10_000,
        "lr_warmup_steps": 300,
        "lr_scheduler": "cosine",
        "learning_rate": 1e-3,
        "ema_decay": 0.999,
        "checkpointing_steps": 2500,
        "validation_steps": 2500,
        "dataloader_num_workers": 8,
        "report_to": "none",
    },
    **{name: {**SIZED, **SIZES[name], **PASSES[name]} for name in ("S", "B", "L", "XL")},
    # VidTwin's generator (arXiv 2412.17726, appendix D.3). The paper does not tell its learning rate, batch
    # size, number of steps, average or precision: these are the other sizes'.
    "paper": {
        **SIZED,
        **SIZES["paper"],
        **PASSES["paper"],
        "objective": "paper",
        "class_dropout": 0.2,
        "lr_warmup_steps": 10_000,
        "adam_beta2": 0.999,
        "guidance_scale": 5.0,
        "num_inference_steps": 50,
    },
}
