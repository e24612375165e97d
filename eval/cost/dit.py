"""What a generator costs on a layout of latents: tokens, FLOPs, training memory; counted, not measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from math import prod
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from eval.cost.geometry import Tokenizer
from eval.cost.memory import attention_kernel, predict_training_memory
from eval.cost.paper_counter import counted_macs, counted_parameters
from vidtwin_gen.latents import LatentLayout, PatchSize
from vidtwin_gen.records import CostRow


def dit_flops(
    num_tokens: int, num_layers: int, hidden_size: int, *, mlp_ratio: float = 4, cross_attention: bool = False
) -> int:
    """Forward FLOPs of a transformer on one sequence, F(N) = 2 N L (4 + 2 r) D^2 + 4 L N^2 D: projections and
    an MLP of r times the width, then attention; 2 N L 12 D^2 with the usual r of 4. Cross-attention to one
    vector adds two projections of the tokens and N scores, 2 N L 2 D^2 + 4 L N D. Modulation, embeddings and
    heads are left out."""
    n, layers, d = num_tokens, num_layers, hidden_size
    crossed = 2 * n * layers * 2 * d**2 + 4 * layers * n * d if cross_attention else 0
    return 2 * n * layers * (4 * d**2 + 2 * d * int(d * mlp_ratio)) + 4 * layers * n**2 * d + crossed


def count_flops(model_fn: Callable[[], object]) -> int:
    """FLOPs (a multiply-add is two) of calling `model_fn`. Matrix products, convolutions and attention count,
    other work does not."""
    with FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION) as counter:
        model_fn()
    return counter.get_total_flops()


def count_step(model_fn: Callable[[], torch.Tensor]) -> tuple[int, int]:
    """As `count_flops`: of the forward pass, and of it and the backward pass from the sum of what it returns
    together."""
    with FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION) as counter:
        out = model_fn()
        forward = counter.get_total_flops()
        out.sum().backward()
    return forward, counter.get_total_flops()


class Prediction(nn.Module):
    """`model` with its output unwrapped, which is all the counters want."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, hidden_states: torch.Tensor, timestep: torch.Tensor, class_labels: torch.Tensor
    ) -> torch.Tensor:
        return self.model(hidden_states, timestep, class_labels, return_dict=False)[0]


def example(
    layout: LatentLayout,
    make_model: Callable[..., Any],
    *,
    batch_size: int,
    gradient_checkpointing: bool = False,
    **sizes: Any,
) -> tuple[Prediction, dict[str, torch.Tensor]]:
    """A DiT on this layout, and inputs to call it with by keyword."""
    model = make_model(layout=layout.to_config(), **sizes)
    if gradient_checkpointing:
        model.enable_gradient_checkpointing()
    return Prediction(model), {
        "hidden_states": torch.zeros(batch_size, layout.num_elements),
        "timestep": torch.zeros(batch_size),
        "class_labels": torch.zeros(batch_size, dtype=torch.long),
    }


def dit_cost(
    tokenizer: Tokenizer,
    *,
    patch_size: PatchSize = 1,
    hidden_size: int,
    num_layers: int,
    num_heads: int,
    mlp_ratio: float = 4.0,
    conditioning: str = "adaln",
    batch_size: int = 1,
    attention: str = "fused",
    gradient_checkpointing: bool = False,
    make_model: Callable[..., Any],
    size: str = "",
) -> CostRow:
    """The cost of a DiT of this size on these latents, without allocating or computing anything.

    `make_model(layout=, patch_size=, hidden_size=, num_layers=, num_heads=, mlp_ratio=, conditioning=)`, the
    layout as its `to_config()`, builds a network that is called as `model(hidden_states (B, L), timestep
    (B,), class_labels (B,), return_dict=False)`.
    `attention` is "fused", or "math" for products and a softmax one after the other; `size` names the DiT.
    """
    sizes: dict[str, Any] = {"hidden_size": hidden_size, "num_layers": num_layers, "mlp_ratio": mlp_ratio}
    config = sizes | {
        "patch_size": patch_size,
        "num_heads": num_heads,
        "conditioning": conditioning,
        "batch_size": batch_size,
        "gradient_checkpointing": gradient_checkpointing,
    }
    with FakeTensorMode(), attention_kernel(attention):
        model, inputs = example(tokenizer.layout, make_model, **config)
        forward, training = count_step(lambda: model(**inputs))
        model.zero_grad()
        memory = predict_training_memory(model, inputs)
    num_tokens = tokenizer.layout.num_tokens(patch_size)
    crossed = conditioning == "cross_attention"
    of_tokenizer = ("source", "clip_shape", "frames_taken", "printed_rate", "verdict", "remark")
    return CostRow(
        **config,
        **{name: getattr(tokenizer, name) for name in of_tokenizer},
        size=size,
        tokenizer=tokenizer.name,
        num_elements=tokenizer.layout.num_elements,
        compression_rate=tokenizer.compression_rate,
        num_codes=tokenizer.codebook_size,
        bit_rate=tokenizer.bit_rate,
        num_tokens=num_tokens,
        attention=attention,
        num_parameters=sum(p.numel() for p in model.parameters()),
        forward_flops=forward,
        formula_flops=batch_size * dit_flops(num_tokens, **sizes, cross_attention=crossed),
        training_flops=training,
        training_memory_bytes=memory,
        figure_5=figure_5_counts(tokenizer, patch_size) if isinstance(patch_size, int) else None,
        grids=grids_of(tokenizer.layout, patch_size),
    )


def figure_5_counts(tokenizer: Tokenizer, patch_size: int) -> dict[str, Any]:
    """What the paper's Figure 5 counts, with the last patch of an axis padded or left out."""
    padded, floored = tokenizer.paper_tokens(patch_size)
    return {
        "num_parameters": counted_parameters(),
        "num_tokens": {"padded": padded, "floored": floored},
        "macs": {"padded": counted_macs(padded), "floored": counted_macs(floored)},
    }


def grids_of(layout: LatentLayout, patch_size: PatchSize) -> list[dict[str, Any]]:
    """Each grid with its numbers of elements and tokens."""
    patches = layout.patch_sizes(patch_size)
    return [
        asdict(grid)
        | {"num_elements": grid.num_elements, "num_tokens": prod(grid.token_shape(patches[grid.name]))}
        for grid in layout.grids
    ]


# the fused attention of the CPU has no entry in torch's registry: uncounted, attention would be free
_CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda q, k, v, *args, **kwargs: sdpa_flop_count(q, k, v)
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda grad, q, k, v, *args, **kwargs: sdpa_backward_flop_count(grad, q, k, v)
    ),
}
