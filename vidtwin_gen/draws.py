"""Random numbers and orders that depend on names and positions, not on what was drawn before."""

from __future__ import annotations

import hashlib

import torch


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
