"""Random numbers and orders that depend on names and positions, not on what was drawn before."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch

# number of samples, generator -> (samples, ...)
Distribution = Callable[[int, torch.Generator], torch.Tensor]
Draw = Callable[[Distribution], torch.Tensor]  # numbers of a distribution, for the samples at hand


def hash64(*words: object) -> int:
    """64 bits, the same on every machine and in every process, as those of `hash` are not."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, words)).encode()).digest()[:8], "big")


def seeded_generator(*words: object) -> torch.Generator:
    """A CPU generator seeded by what it is for."""
    return torch.Generator().manual_seed(hash64(*words) % 2**63)


class EpochOrder:
    """An endless stream of `num_items` items: `order[position]` is one, for every position >= 0.

    Epoch `position // num_items` visits every item once, in a permutation of its own when `shuffle` is on.
    """

    def __init__(self, num_items: int, *, shuffle: bool, seed: int) -> None:
        self.num_items, self.shuffle, self.seed = num_items, shuffle, seed
        self._cached: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def __getitem__(self, position: int) -> int:
        if position < 0:
            raise IndexError(f"positions are counted from 0, got {position}")
        epoch, index = divmod(position, self.num_items)
        if not self.shuffle:
            return index
        if self._cached[0] != epoch:
            generator = seeded_generator(self.seed, "epoch", epoch)
            self._cached = epoch, torch.randperm(self.num_items, generator=generator).numpy()
        return int(self._cached[1][index])


@dataclass(frozen=True)
class BatchDraw:
    """A `Draw` for some rows of a batch: those of `distribution(batch_size, shared)`, so that a sample gets
    the same numbers however the batch is divided into parts.

    `shared` has to be seeded alike for every part; `generator` is the part's own, for draws that may depend
    on the parts.
    """

    generator: torch.Generator
    shared: torch.Generator
    batch_size: int
    rows: slice

    def __call__(self, distribution: Distribution) -> torch.Tensor:
        return distribution(self.batch_size, self.shared)[self.rows]


class SampleDraw:
    """A `Draw` for samples that have a generator each; its numbers are on `device`."""

    def __init__(self, generators: Iterable[torch.Generator], device: torch.device) -> None:
        self.generators, self.device = list(generators), device

    def __call__(self, distribution: Distribution) -> torch.Tensor:
        return torch.cat([distribution(1, generator) for generator in self.generators]).to(self.device)


def normal(length: int) -> Distribution:
    """Standard normal numbers, `length` for each sample."""
    return lambda size, generator: torch.randn(size, length, generator=generator, device=generator.device)


def uniform(size: int, generator: torch.Generator) -> torch.Tensor:
    """A number in [0, 1) for each sample: a `Distribution`."""
    return torch.rand(size, generator=generator, device=generator.device)


def seed_pass(seed: int, pass_index: int, rank: int, device: torch.device) -> torch.Generator:
    """The generator for one process's forward pass: a function of where the run is, not of how it got there.

    The global generators (dropout) are seeded the same way. So a resumed run draws what an uninterrupted one
    would have drawn.
    """
    own, everyones = np.random.SeedSequence([seed, pass_index, rank]).generate_state(2).tolist()
    torch.manual_seed(everyones)
    return torch.Generator(device).manual_seed(own)


def seed_step(seed: int, step: int, device: torch.device) -> torch.Generator:
    """The generator of what all processes and passes of one step share."""
    (state,) = np.random.SeedSequence([seed, step], spawn_key=(1,)).generate_state(1).tolist()
    return torch.Generator(device).manual_seed(state)
