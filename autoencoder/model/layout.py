"""The sizes that follow from a configuration of `AutoencoderVidTwin`: its token grid and its latent's layout.

`config` is the model's, here and in all its modules: its constructor's arguments as attributes.
"""

from __future__ import annotations

from typing import Any

from vidtwin_gen.latents import LatentGrid, LatentLayout
from vidtwin_gen.models.checks import check_table


def check_config(config: Any) -> None:
    """Raises ValueError for sizes that the architecture cannot take."""
    if config.height % config.patch_size or config.width % config.patch_size:
        raise ValueError(
            f"height and width must be multiples of patch_size={config.patch_size}, got "
            f"{config.height}x{config.width}"
        )
    check_table("a frame's tokens", *token_grid(config), config.hidden_size)
    if config.hidden_size % 4 or config.hidden_size % config.num_heads:
        raise ValueError(
            f"hidden_size={config.hidden_size} must be a multiple of 4 and of num_heads={config.num_heads}"
        )
    if config.query_hidden_size % config.qformer_heads:
        raise ValueError(
            f"query_hidden_size={config.query_hidden_size} must be a multiple of "
            f"qformer_heads={config.qformer_heads}"
        )


def token_grid(config: Any) -> tuple[int, int]:
    """Rows and columns of tokens in a frame."""
    return config.height // config.patch_size, config.width // config.patch_size


def vidtwin_layout(config: Any) -> LatentLayout:
    """Structure's grid first, then those of Dynamics."""
    structure = halve(token_grid(config), config.structure_down_blocks)
    rows, columns = halve(token_grid(config), config.dynamics_down_blocks)
    frames, channels = config.num_frames, config.dynamics_channels
    if config.structure_type == "frame_qformer":
        grids = [LatentGrid("structure", ("query",), (config.num_queries,), config.structure_channels)]
    else:
        axes, shape = ("query", "height", "width"), (config.num_queries, *structure)
        grids = [LatentGrid("structure", axes, shape, config.structure_channels)]
    if config.dynamics_type == "average":
        grids.append(LatentGrid("dynamics_x", ("time", "width"), (frames, columns), channels))
        grids.append(LatentGrid("dynamics_y", ("time", "height"), (frames, rows), channels))
    elif config.dynamics_type == "qformer":
        grids.append(LatentGrid("dynamics", ("time", "query"), (frames, config.dynamics_queries), channels))
    return LatentLayout(tuple(grids))


def halve(grid: tuple[int, int], times: int) -> tuple[int, int]:
    """Rows and columns after `times` convolutions of stride 2, which round up."""
    for _ in range(times):
        grid = ((grid[0] + 1) // 2, (grid[1] + 1) // 2)
    return grid
