"""How clips are sampled, as a visitor left the fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MOST_STEPS, MOST_CLIPS, MOST_SEED, MOST_GUIDANCE = 250, 8, 2**32 - 1, 20.0


@dataclass(frozen=True)
class Settings:
    """In the order of the fields. Raises ValueError for one that can't be met."""

    num_inference_steps: int
    guidance_scale: float
    start: float
    stop: float
    internal_guidance_scale: float
    scheduler: str
    seed: int
    num_videos: int

    def __post_init__(self) -> None:
        whole_number("number of steps", self.num_inference_steps, 1, MOST_STEPS)
        whole_number("seed", self.seed, 0, MOST_SEED)
        whole_number("number of clips", self.num_videos, 1, MOST_CLIPS)
        scales = {"guidance": self.guidance_scale, "internal guidance": self.internal_guidance_scale}
        for name, value in scales.items():
            if value is None or not 0 <= value <= MOST_GUIDANCE:
                raise ValueError(f"the {name} is a number from 0 to {MOST_GUIDANCE:g}, got {seen(value)}")
        if self.start is None or self.stop is None or not 0 <= self.start < self.stop <= 1:
            raise ValueError(
                "guidance acts from one fraction of the steps to a later one, both from 0 to 1, got "
                f"{seen(self.start)} and {seen(self.stop)}"
            )

    def flags(self, pipeline: str) -> dict[str, Any]:
        """Those of every command that samples."""
        return {
            "pipeline": pipeline,
            "out": "",
            "num_inference_steps": int(self.num_inference_steps),
            "guidance_scale": float(self.guidance_scale),
            "guidance_interval": (float(self.start), float(self.stop)),
            "internal_guidance_scale": float(self.internal_guidance_scale),
            "seed": int(self.seed),
            "num_videos_per_class": int(self.num_videos),
        }


def seen(value: Any) -> str:
    return "nothing" if value is None else f"{value!r}"


def whole_number(name: str, value: Any, least: int, most: int) -> int:
    if not isinstance(value, (int, float)) or value != value // 1 or not least <= value <= most:
        raise ValueError(f"the {name} is a whole number from {least:,} to {most:,}, got {seen(value)}")
    return int(value)
