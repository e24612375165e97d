"""The names of the training objectives, of what a network predicts and of the weightings of the loss;
`diffusion` computes them."""

from __future__ import annotations

from typing import Literal

Objective = Literal["flow", "paper"]
Prediction = Literal["velocity", "x0"]
LossWeighting = Literal["element", "grid"]
