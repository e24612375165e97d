"""What a generator costs on a layout of latents: tokens, FLOPs, training memory; counted, not measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from eval.tokenizers import Tokenizer
from vidtwin_gen.latents import PatchSize

# the sizes of the network with which VidTwin's Figure 5 compares latents (arXiv 2412.17726, appendix C.2);
# that one has no modulation and 12.6 million parameters, a DiT of these sizes has 30
FIGURE_5_DIT = {"hidden_size": 512, "num_layers": 6, "num_heads": 8}


def dit_flops(num_tokens: int, num_layers: int, hidden_size: int, *, cross_attention: bool = False) -> int:
    """Forward FLOPs of a transformer on one sequence, F(N) = 2 N L 12 D^2 + 4 L N^2 D: projections and an MLP
    of four times the width, then attention. Cross-attention to one vector adds two projections of the tokens
    and N scores, 2 N L 2 D^2 + 4 L N D. Modulation, embeddings and heads are left out."""
    n, layers, d = num_tokens, num_layers, hidden_size
    crossed = 2 * n * layers * 2 * d**2 + 4 * layers * n * d if cross_attention else 0
    return 2 * n * layers * 12 * d**2 + 4 * layers * n**2 * d + crossed


def count_flops(model_fn: Callable[[], torch.Tensor], *, backward: bool = False) -> int:
    """FLOPs (a multiply-add is two) of calling `model_fn`, with `backward` also of the backward pass from
    the sum of what it returns. Matrix products, convolutions and attention count, other work does not."""
    with FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION) as counter:
        out = model_fn()
        if backward:
            out.sum().backward()
    return counter.get_total_flops()


def training_memory(model: nn.Module, inputs: dict[str, torch.Tensor]) -> dict[str, int]:
    """Bytes at the peak of one float32 training step with Adam, by what they hold, and their sum as `peak`.

    To be called under `FakeTensorMode`: nothing is allocated or computed. The model returns a prediction;
    the loss is its mean square. Adam's two moments exist from the start and gradients do not, as from
    the second step of a training on; Adam is fused and needs nothing for itself. The peak falls where
    activations and gradients together are largest. What an allocator or a device adds is not in it.
    """
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    tracker = MemTracker()
    tracker.track_external(model, optimizer, *inputs.values())
    with tracker:
        model(**inputs).square().mean().backward()
        optimizer.step()
    (by_kind,) = tracker.get_tracker_snapshot("peak").values()
    amounts = {str(kind).rsplit(".", 1)[-1]: amount for kind, amount in by_kind.items()}
    return {
        "parameters": amounts["PARAM"] + amounts["BUFFER"],
        "gradients": amounts["GRAD"],
        "optimizer": amounts["OPT"],
        "activations": amounts["ACT"] + amounts["TEMP"],
        "inputs": amounts["OTH"],
        "peak": amounts["Total"],
    }


@dataclass(frozen=True)
class DiTCost:
    """What `dit_cost` counts; `to_json()` is its record.

    FLOPs and memory are for a whole batch of `batch_size`; `training_flops` is forward and backward.
    `formula_flops` is `dit_flops` for the same batch.
    """

    tokenizer: str
    source: str
    clip_shape: tuple[int, int, int]
    num_elements: int
    compression_rate: float
    num_tokens: int
    patch_size: Any
    hidden_size: int
    num_layers: int
    num_heads: int
    conditioning: str
    batch_size: int
    num_parameters: int
    forward_flops: int
    formula_flops: int
    training_flops: int
    training_memory_bytes: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


class _Prediction(nn.Module):
    """`model` with its output unwrapped, which is all the counters want."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, hidden_states: torch.Tensor, timestep: torch.Tensor, class_labels: torch.Tensor
    ) -> torch.Tensor:
        return self.model(hidden_states, timestep, class_labels, return_dict=False)[0]


def dit_cost(
    tokenizer: Tokenizer,
    *,
    patch_size: PatchSize = 1,
    hidden_size: int,
    num_layers: int,
    num_heads: int,
    conditioning: str = "adaln",
    batch_size: int = 1,
    make_model: Callable[..., nn.Module],
) -> DiTCost:
    """The cost of a DiT of this size on these latents, without allocating or computing anything.

    `make_model(layout=, patch_size=, hidden_size=, num_layers=, num_heads=, conditioning=)` builds a network
    that is called as `model(hidden_states (B, L), timestep (B,), class_labels (B,), return_dict=False)`.
    """
    sizes = {"hidden_size": hidden_size, "num_layers": num_layers}
    with FakeTensorMode():
        model = _Prediction(
            make_model(
                layout=tokenizer.layout,
                patch_size=patch_size,
                num_heads=num_heads,
                conditioning=conditioning,
                **sizes,
            )
        )
        inputs = {
            "hidden_states": torch.zeros(batch_size, tokenizer.layout.num_elements),
            "timestep": torch.zeros(batch_size),
            "class_labels": torch.zeros(batch_size, dtype=torch.long),
        }
        with torch.no_grad():
            forward = count_flops(lambda: model(**inputs))
        training = count_flops(lambda: model(**inputs), backward=True)
        model.zero_grad()
        memory = training_memory(model, inputs)
    num_tokens = tokenizer.layout.num_tokens(patch_size)
    return DiTCost(
        tokenizer=tokenizer.name,
        source=tokenizer.source,
        clip_shape=tokenizer.clip_shape,
        num_elements=tokenizer.layout.num_elements,
        compression_rate=tokenizer.compression_rate,
        num_tokens=num_tokens,
        patch_size=patch_size,
        hidden_size=hidden_size,
        num_layers=num_layers,
        num_heads=num_heads,
        conditioning=conditioning,
        batch_size=batch_size,
        num_parameters=sum(p.numel() for p in model.parameters()),
        forward_flops=forward,
        formula_flops=batch_size
        * dit_flops(num_tokens, **sizes, cross_attention=conditioning == "cross_attention"),
        training_flops=training,
        training_memory_bytes=memory,
    )


def describe_size(name: str, cost: DiTCost) -> str:
    """One size of the transformer, in a sentence."""
    return (
        f"{name}: {cost.num_layers} layers of width {cost.hidden_size}, {cost.num_parameters / 1e6:.1f} M "
        f"parameters; {cost.num_tokens} tokens, {cost.forward_flops / 1e9:.1f} GFLOPs forward "
        f"({cost.forward_flops / cost.formula_flops:.4f} of the formula), {cost.training_flops / 1e9:.1f} in "
        f"training, {cost.training_memory_bytes['peak'] / 2**20:.0f} MiB in training, batch {cost.batch_size}"
    )


def compare(first: DiTCost, other: DiTCost) -> str:
    """Two kinds of latents under one transformer, in a sentence."""
    memory = [row.training_memory_bytes["peak"] for row in (first, other)]
    return (
        f"{first.tokenizer} against {other.tokenizer}, {'x'.join(map(str, first.clip_shape))}, patch size "
        f"{first.patch_size}: {first.num_tokens} and {other.num_tokens} tokens, "
        f"{first.forward_flops / 1e9:.3g} and {other.forward_flops / 1e9:.3g} GFLOPs forward "
        f"({other.forward_flops / first.forward_flops:.1f}x), {memory[0] / 2**20:.3g} and "
        f"{memory[1] / 2**20:.3g} MiB in training ({memory[1] / memory[0]:.1f}x), batch {first.batch_size}"
    )


def _attention_flops(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward_flops(grad: Any, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    return sdpa_backward_flop_count(grad, query, key, value)


# the fused attention of the CPU has no entry in torch's registry: uncounted, attention would be free
_CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
}
