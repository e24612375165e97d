"""The names of the training objectives and of the weightings of their loss; `diffusion` computes them."""

from __future__ import annotations

from typing import Literal

Objective = Literal["flow", "paper"]
LossWeighting = Literal["element", "grid"]
