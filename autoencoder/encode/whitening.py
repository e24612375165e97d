"""The statistics by which raw latents become white: one mean and one standard deviation per channel."""

from __future__ import annotations

import datasets
import torch

from vidtwin_gen.latents import LatentLayout


def latent_statistics(
    rows: datasets.Dataset | datasets.IterableDataset, layout: LatentLayout
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of a posterior sample, one number per grid and channel in layout order.

    By the law of total variance: the variance of the means plus the mean of the variances. A channel that the
    posterior leaves at its prior then stays small instead of being blown up to unit variance. Float64 sums
    over the rows' `mean` and `logvar` (L,), a thousand rows at a time. Raises ValueError where there are no
    rows.
    """
    sums = torch.zeros(3, layout.num_elements, dtype=torch.float64)
    count = 0
    for batch in rows.select_columns(["mean", "logvar"]).with_format("torch").iter(1000):
        mean, logvar = batch["mean"].double(), batch["logvar"].double()
        sums += torch.stack([mean.sum(0), mean.square().sum(0), logvar.exp().sum(0)])
        count += len(mean)
    if count == 0:
        raise ValueError("no row to measure: the training split is empty")
    parts = layout.split(sums)
    means, stds = [], []
    for grid in layout.grids:
        number = count * grid.num_positions
        mean, square, noise = (part.sum(0) / number for part in parts[grid.name].flatten(1, -2))
        means += mean.tolist()
        stds += (square - mean.square() + noise).sqrt().tolist()
    return means, stds
