"""Random numbers and orders that depend on names and positions, not on what was drawn before."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch

Draw = Callable[[int, torch.Generator], torch.Tensor]  # number of samples, generator -> (samples, ...)
Draws = Callable[[Draw], torch.Tensor]


def hash64(*words: object) -> int:
    """64 bits, the same on every machine and in every process, which `hash` is not."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, words)).encode()).digest()[:8], "big")


def seeded_generator(*words: object) -> torch.Generator:
    """A CPU generator seeded by what it is for."""
    return torch.Generator().manual_seed(hash64(*words) % 2**63)


class DrawOrder:
    """Which of `num_items` the draw with a given number is: `order[draw]`, defined for every draw >= 0.

    Epoch `draw // num_items` visits every item once, in a permutation of its own when `shuffle` is on.
    """

    def __init__(self, num_items: int, *, shuffle: bool, seed: int) -> None:
        self.num_items, self.shuffle, self.seed = num_items, shuffle, seed
        self._cached: tuple[int, list[int]] = (-1, [])

    def epoch(self, epoch: int) -> list[int]:
        """All items in the order of one epoch."""
        if not self.shuffle:
            return list(range(self.num_items))
        if self._cached[0] != epoch:
            generator = seeded_generator(self.seed, "epoch", epoch)
            self._cached = epoch, torch.randperm(self.num_items, generator=generator).tolist()
        return self._cached[1]

    def __getitem__(self, draw: int) -> int:
        if draw < 0:
            raise IndexError(f"draws are counted from 0, got {draw}")
        epoch, position = divmod(draw, self.num_items)
        return self.epoch(epoch)[position]


@dataclass(frozen=True)
class BatchDraws:
    """What is drawn for some rows of a batch: `draws(draw)` is those of `draw(batch_size, shared)`, the same
    numbers for a sample however a batch is cut into parts.

    `shared` has to be seeded alike for every part; `own` is the part's, for what need not be so.
    """

    own: torch.Generator
    shared: torch.Generator
    batch_size: int
    rows: slice

    def __call__(self, draw: Draw) -> torch.Tensor:
        return draw(self.batch_size, self.shared)[self.rows]


class SampleDraws:
    """What is drawn for samples one by one, each with a generator of its own: `draws(draw)`, on `device`."""

    def __init__(self, generators: Iterable[torch.Generator], device: torch.device) -> None:
        self.generators, self.device = list(generators), device

    def __call__(self, draw: Draw) -> torch.Tensor:
        return torch.cat([draw(1, generator) for generator in self.generators]).to(self.device)


def normal(length: int) -> Draw:
    """Standard normal numbers, `length` for each sample."""
    return lambda size, generator: torch.randn(size, length, generator=generator, device=generator.device)


def uniform(size: int, generator: torch.Generator) -> torch.Tensor:
    """A number in [0, 1) for each sample: a `Draw`."""
    return torch.rand(size, generator=generator, device=generator.device)


def seed_pass(seed: int, micro_step: int, rank: int, device: torch.device) -> torch.Generator:
    """The generator for one process's forward pass: a function of where the run is, not of how it got there.

    The global generators (dropout) are seeded the same way. So a resumed run draws what an uninterrupted one
    would have drawn.
    """
    own, everyones = np.random.SeedSequence([seed, micro_step, rank]).generate_state(2).tolist()
    torch.manual_seed(everyones)
    return torch.Generator(device).manual_seed(own)


def seed_step(seed: int, step: int, device: torch.device) -> torch.Generator:
    """The generator of what all processes and passes of one step share."""
    (state,) = np.random.SeedSequence([seed, step], spawn_key=(1,)).generate_state(1).tolist()
    return torch.Generator(device).manual_seed(state)
