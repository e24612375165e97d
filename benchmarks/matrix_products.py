"""The matrix products inside a computation, alone: the floor of `benchmarks.speed`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


@dataclass(frozen=True)
class Operand:
    """A tensor without its numbers."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, tensor: torch.Tensor) -> Operand:
        return cls(tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device)

    def draw(self) -> torch.Tensor:
        """Random numbers in this shape, strided like this."""
        extent = 1 + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
        numbers = torch.randn(extent, device=self.device).to(self.dtype)
        return numbers.as_strided(self.shape, self.stride)


@dataclass(frozen=True)
class Product:
    """One product of two operands. `convolution` holds stride, padding and so on of a convolution, None
    means a matrix product or a batch of them."""

    first: Operand
    second: Operand
    convolution: tuple[Any, ...] | None = None


class ProductRecorder(TorchDispatchMode):
    """Writes down every product while it is on: matrix products, convolutions, and attention, which is two
    batches of matrix products. To be used without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.products: list[Product] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        operation = func.overloadpacket
        if operation in (aten.mm, aten.bmm):
            self.products.append(Product(Operand.of(args[0]), Operand.of(args[1])))
        elif operation in (aten.addmm, aten.baddbmm):
            self.products.append(Product(Operand.of(args[1]), Operand.of(args[2])))
        elif operation is aten.convolution:
            options = tuple(tuple(x) if isinstance(x, list) else x for x in args[3:])
            self.products.append(Product(Operand.of(args[0]), Operand.of(args[1]), options))
        elif operation.__name__.startswith("_scaled_dot_product"):
            self.products += _attention(*args[:3])
        return func(*args, **(kwargs or {}))


def record_products(function: Callable[[], object]) -> list[Product]:
    """Every product that the call computes, in its order."""
    with torch.no_grad(), ProductRecorder() as recorder:
        function()
    return recorder.products


def replay(products: list[Product]) -> Callable[[], None]:
    """A function that computes just these products, of random numbers and into tensors that are there.

    Equal operands share one tensor, and so do equal results, so memory stays small and caches stay warm:
    what takes the time is the multiplication.
    """
    operands = {operand: operand.draw() for p in products for operand in (p.first, p.second)}
    results: dict[tuple[int, ...], torch.Tensor] = {}
    calls: list[Callable[[], object]] = []
    for product in products:
        first, second = operands[product.first], operands[product.second]
        if product.convolution is not None:
            calls.append(_convolution(first, second, product.convolution))
            continue
        shape = (*first.shape[:-1], second.shape[-1])
        out = results.setdefault(shape, first.new_empty(shape))
        calls.append(_matmul(first, second, out))

    def run() -> None:
        for call in calls:
            call()

    return run


def _matmul(first: torch.Tensor, second: torch.Tensor, out: torch.Tensor) -> Callable[[], object]:
    return lambda: torch.matmul(first, second, out=out)


def _convolution(image: torch.Tensor, weight: torch.Tensor, options: tuple[Any, ...]) -> Callable[[], object]:
    return lambda: aten.convolution(image, weight, None, *options)


def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> list[Product]:
    """q k^T and its product with v, of (B, heads, n, d) and twice (B, heads, m, d)."""
    (b, heads, n, d), m = query.shape, key.shape[-2]
    scores = query.new_empty(b * heads, n, m)
    return [
        Product(Operand.of(query.new_empty(b * heads, n, d)), Operand.of(key.new_empty(b * heads, d, m))),
        Product(Operand.of(scores), Operand.of(value.new_empty(b * heads, m, value.shape[-1]))),
    ]
