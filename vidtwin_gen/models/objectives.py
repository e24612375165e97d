"""The choices of stage 2 by name: training objectives, what the network predicts and the weightings of the
loss, which `diffusion` computes; where the class comes into the transformer, and its blocks."""

from __future__ import annotations

from typing import Literal

Objective = Literal["flow", "paper"]
Prediction = Literal["velocity", "x0"]
LossWeighting = Literal["element", "grid"]
Conditioning = Literal["adaln", "cross_attention"]
BlockType = Literal["dit", "lightning"]
