"""How a flat latent vector is laid out: the only file that knows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange

LARGEST_GRID = 2**28
LARGEST_STATISTIC = 1e6  # of a channel: latents of autoencoders are numbers about 1
PatchSize = int | Sequence[int] | Mapping[str, int | Sequence[int]]


@dataclass(frozen=True)
class LatentGrid:
    """One regular grid of latent positions, `channels` numbers at each.

    Args:
        name: the grid's name, unique in its layout, e.g. `"dynamics_x"`.
        axes: what each dimension means, e.g. `("time", "width")`. Axes that share a name share positions in
            the generator; an axis that is an index and not a coordinate is called `"query"`.
        shape: the length of each axis.
        channels: numbers per position.
    """

    name: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    channels: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", tuple(self.axes))
        object.__setattr__(self, "shape", tuple(self.shape))
        if not all(isinstance(name, str) and name.isidentifier() for name in (self.name, *self.axes)):
            raise ValueError(f"a grid's name and axes must be words, got {self.name!r} and {self.axes}")
        if len(self.axes) != len(self.shape) or not self.shape:
            raise ValueError(
                f"grid {self.name!r}: axes {self.axes} and shape {self.shape} must be of one length"
            )
        sizes = (*self.shape, self.channels)
        if not all(type(size) is int and size > 0 for size in sizes) or math.prod(sizes) > LARGEST_GRID:
            raise ValueError(
                f"grid {self.name!r}: shape {self.shape} and channels {self.channels} must be whole numbers "
                f"from 1 on, {LARGEST_GRID} elements in all at the most"
            )

    @property
    def num_positions(self) -> int:
        return math.prod(self.shape)

    @property
    def num_elements(self) -> int:
        return self.num_positions * self.channels

    def token_shape(self, patch_size: Sequence[int]) -> tuple[int, ...]:
        """Number of patches along each axis; the last patch of an axis may be padded."""
        return tuple(math.ceil(size / patch) for size, patch in zip(self.shape, patch_size, strict=True))


@dataclass(frozen=True)
class LatentLayout:
    """An ordered list of grids that share one flat latent vector of `num_elements` numbers.

    The flat vector is the concatenation of the grids; inside a grid the order is row-major over its axes with
    the channels fastest. `split` therefore returns views.
    """

    grids: tuple[LatentGrid, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "grids", tuple(self.grids))
        names = [grid.name for grid in self.grids]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"a layout needs at least one grid and distinct names, got {names}")

    def __eq__(self, other: object) -> bool:
        # models that were exported with their code have a LatentLayout class each
        return hasattr(other, "to_config") and self.to_config() == other.to_config()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(grid.name for grid in self.grids)

    @property
    def num_elements(self) -> int:
        """Length of the flat latent."""
        return sum(grid.num_elements for grid in self.grids)

    @property
    def num_channels(self) -> int:
        """Channels of all grids together: the length of `latents_mean` and `latents_std`."""
        return sum(grid.channels for grid in self.grids)

    def num_tokens(self, patch_size: PatchSize = 1) -> int:
        """Length of the token sequence of one clip."""
        patches = self.patch_sizes(patch_size)
        return sum(math.prod(grid.token_shape(patches[grid.name])) for grid in self.grids)

    def compression_rate(self, num_frames: int, height: int, width: int, channels: int = 3) -> float:
        """Latent numbers per pixel number (VidTwin, Table 1)."""
        return self.num_elements / (num_frames * height * width * channels)

    def patch_sizes(self, patch_size: PatchSize = 1) -> dict[str, tuple[int, ...]]:
        """A patch size spelt out per grid and axis: from an int, one per axis, or a mapping by grid name."""
        if isinstance(patch_size, Mapping):
            unknown = set(patch_size) - set(self.names)
            if unknown:
                raise ValueError(
                    f"patch_size names unknown grids {sorted(unknown)}; this layout has {list(self.names)}"
                )
        sizes: dict[str, tuple[int, ...]] = {}
        for grid in self.grids:
            size = patch_size.get(grid.name, 1) if isinstance(patch_size, Mapping) else patch_size
            size = size if isinstance(size, Sequence) else (size,) * len(grid.shape)
            if len(size) != len(grid.shape) or not all(type(step) is int and step > 0 for step in size):
                raise ValueError(
                    f"grid {grid.name!r} has axes {grid.axes}: a patch size is a whole number from 1 on for "
                    f"each, got {size!r}"
                )
            sizes[grid.name] = tuple(size)
        return sizes

    def token_channels(self, patch_size: PatchSize = 1) -> dict[str, int]:
        """Numbers in one token of each grid."""
        patches = self.patch_sizes(patch_size)
        return {grid.name: math.prod(patches[grid.name]) * grid.channels for grid in self.grids}

    def split(self, latents: torch.Tensor) -> dict[str, torch.Tensor]:
        """(B, L) flat latents -> name: (B, *shape, channels), views of the input."""
        self._check(latents)
        parts = latents.split([grid.num_elements for grid in self.grids], dim=-1)
        return {
            grid.name: part.view(-1, *grid.shape, grid.channels)
            for grid, part in zip(self.grids, parts, strict=True)
        }

    def join(self, parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Name: (B, *shape, channels) -> (B, L) flat latents. The inverse of `split`."""
        self._check_grids(parts)
        batch = parts[self.names[0]].shape[:1]
        for grid in self.grids:
            shape, expected = tuple(parts[grid.name].shape), (*batch, *grid.shape, grid.channels)
            if shape != expected:
                raise ValueError(f"grid {grid.name!r} is {expected}, got {shape}")
        return torch.cat([parts[grid.name].flatten(1) for grid in self.grids], dim=-1)

    def tokens(self, latents: torch.Tensor, patch_size: PatchSize = 1) -> dict[str, torch.Tensor]:
        """(B, L) flat latents -> name: (B, n, patch volume x channels). An axis that its patch does not
        divide is padded with zeros at its end."""
        patches = self.patch_sizes(patch_size)
        return {name: _patchify(part, patches[name]) for name, part in self.split(latents).items()}

    def untokens(self, tokens: Mapping[str, torch.Tensor], patch_size: PatchSize = 1) -> torch.Tensor:
        """The inverse of `tokens`: (B, L) flat latents; what padding holds is dropped."""
        self._check_grids(tokens)
        patches = self.patch_sizes(patch_size)
        return self.join(
            {grid.name: _unpatchify(tokens[grid.name], grid, patches[grid.name]) for grid in self.grids}
        )

    def expand_channels(self, values: Sequence[float] | torch.Tensor) -> torch.Tensor:
        """(num_channels,) one value per grid and channel, in layout order -> (L,) one per latent number."""
        self._check_one_per_channel(values)
        values = torch.as_tensor(values, dtype=torch.float32)
        per_grid = values.split([grid.channels for grid in self.grids])
        return torch.cat(
            [part.repeat(grid.num_positions) for grid, part in zip(self.grids, per_grid, strict=True)]
        )

    def whiten(
        self, latents: torch.Tensor, mean: Sequence[float] | None, std: Sequence[float] | None
    ) -> torch.Tensor:
        """(B, L) raw -> (B, L) of zero mean and unit variance per grid and channel, the generator's side.

        `mean` and `std` are the autoencoder's `latents_mean` and `latents_std`; None means 0 and 1.
        """
        shift, scale = self._statistics(latents, mean, std)
        return (latents - shift) / scale

    def unwhiten(
        self, latents: torch.Tensor, mean: Sequence[float] | None, std: Sequence[float] | None
    ) -> torch.Tensor:
        """The inverse of `whiten`."""
        shift, scale = self._statistics(latents, mean, std)
        return latents * scale + shift

    def _check_one_per_channel(self, values: Sequence[float] | torch.Tensor) -> list[float]:
        """The numbers, looked at in plain Python: a model that is counted and not allocated has its
        statistics, too. Raises ValueError unless they are finite and one per grid and channel."""
        try:
            numbers = values.tolist() if isinstance(values, torch.Tensor) else list(values)
            finite = all(map(math.isfinite, numbers))
        except (TypeError, OverflowError):  # the latter of a whole number beyond all floats
            raise ValueError(f"expected {self.num_channels} numbers, got {values!r}") from None
        if len(numbers) != self.num_channels or not finite:
            raise ValueError(
                f"expected {self.num_channels} finite values, one per grid and channel, got {numbers}"
            )
        return numbers

    def check_whitening(self, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
        """Raises ValueError unless there are both or neither, as many as `whiten` needs, of numbers that a
        channel may have, and deviations above 0."""
        if (mean is None) != (std is None):
            raise ValueError("latents_mean and latents_std go together, and one is missing")
        for name, values in (("latents_mean", mean), ("latents_std", std)):
            if values is None:
                continue
            try:
                numbers = self._check_one_per_channel(values)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
            if name == "latents_std" and min(numbers) <= 0:
                raise ValueError(f"{name} must be above 0, got {numbers}")
            if max(map(abs, numbers)) > LARGEST_STATISTIC:
                raise ValueError(f"{name} must be at most {LARGEST_STATISTIC:g}, got {numbers}")

    def to_config(self) -> list[dict[str, Any]]:
        """Plain JSON."""
        return [
            {"name": grid.name, "axes": list(grid.axes), "shape": list(grid.shape), "channels": grid.channels}
            for grid in self.grids
        ]

    @classmethod
    def from_config(cls, config: Sequence[Mapping[str, Any]]) -> LatentLayout:
        """Raises ValueError for what is no list of grids as `to_config` gives it."""
        try:
            return cls(tuple(LatentGrid(**grid) for grid in config))
        except TypeError:
            raise ValueError(
                f"a layout is a list of grids with name, axes, shape, channels; got {config!r}"
            ) from None

    def statistics(
        self, mean: Sequence[float] | None, std: Sequence[float] | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What `whiten` subtracts, and what it divides by, (L,) float32 each: for a loop that puts them on
        its device once."""
        shift = self.expand_channels(mean if mean is not None else [0.0] * self.num_channels)
        scale = self.expand_channels(std if std is not None else [1.0] * self.num_channels)
        return shift, scale

    def _statistics(
        self, latents: torch.Tensor, mean: Sequence[float] | None, std: Sequence[float] | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self._check(latents)
        shift, scale = self.statistics(mean, std)
        return shift.to(latents), scale.to(latents)

    def _check_grids(self, parts: Mapping[str, torch.Tensor]) -> None:
        if set(parts) != set(self.names):
            raise ValueError(f"expected exactly the grids {list(self.names)}, got {sorted(parts)}")

    def _check(self, latents: torch.Tensor) -> None:
        if latents.ndim != 2 or latents.shape[1] != self.num_elements:
            raise ValueError(f"expected flat latents (B, {self.num_elements}), got {tuple(latents.shape)}")


def _patchify(part: torch.Tensor, patch: tuple[int, ...]) -> torch.Tensor:
    padding: list[int] = [0, 0]
    for size, step in zip(reversed(part.shape[1:-1]), reversed(patch), strict=True):
        padding += [0, -size % step]
    if any(padding):
        part = F.pad(part, padding)
    names = [f"n{i}" for i in range(len(patch))]
    blocks = " ".join(f"({name} p{i})" for i, name in enumerate(names))
    inner = " ".join(f"p{i}" for i in range(len(patch)))
    sizes = {f"p{i}": step for i, step in enumerate(patch)}
    return rearrange(part, f"b {blocks} c -> b ({' '.join(names)}) ({inner} c)", **sizes)


def _unpatchify(tokens: torch.Tensor, grid: LatentGrid, patch: tuple[int, ...]) -> torch.Tensor:
    counts = grid.token_shape(patch)
    expected = (*tokens.shape[:1], math.prod(counts), math.prod(patch) * grid.channels)
    if tuple(tokens.shape) != expected:
        raise ValueError(f"grid {grid.name!r} has tokens {expected}, got {tuple(tokens.shape)}")
    names = [f"n{i}" for i in range(len(patch))]
    blocks = " ".join(f"({name} p{i})" for i, name in enumerate(names))
    inner = " ".join(f"p{i}" for i in range(len(patch)))
    sizes = {f"p{i}": step for i, step in enumerate(patch)}
    sizes |= {name: size for name, size in zip(names, counts, strict=True)}
    part = rearrange(tokens, f"b ({' '.join(names)}) ({inner} c) -> b {blocks} c", **sizes)
    return part[(slice(None), *(slice(size) for size in grid.shape))]
