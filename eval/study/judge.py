"""Class accuracy as `eval accuracy` measures it. One classifier judges all rows: training it costs more than
judging."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch

from eval.classifier import BATCH_SIZE, ClipClassifier, accuracy, shrunken, store, train_classifier
from eval.flags import Split
from eval.generated_clips import read_generated
from eval.real_clips import RealClips


@dataclass(frozen=True)
class Judge:
    """Args:
    data, fold, rate, shape: of the real clips, as `RealClips` takes them.
    num_clips: of them at most, to train on and to be tested on. num_steps: of its training.
    """

    data: Path
    fold: int
    rate: Mapping[str, Any]
    shape: tuple[int, ...]
    num_clips: int = 1000
    num_steps: int = 160

    def real(self, split: Split) -> RealClips:
        return RealClips.of_split(self.data, self.shape, split, fold=self.fold, **self.rate)

    @cached_property
    def classifier(self) -> ClipClassifier:
        """Trained when it is first asked for, on training clips."""
        real = self.real("train")
        with TemporaryFile() as file:
            clips = store(real.labelled(real.even_names(self.num_clips), BATCH_SIZE, shrunken), file)
            return train_classifier(*clips, len(real.class_names), num_steps=self.num_steps)

    def of_held_out(self) -> float:
        """The share of held-out real clips that it recognises, what generated ones may reach."""
        real = self.real("test")
        return accuracy(self.classifier, real.labelled(real.even_names(self.num_clips), BATCH_SIZE))[0]

    def of_generated(self, path: Path) -> float:
        """The share of the clips of `pipelines generate` that it recognises."""
        generated, train = read_generated(path), self.real("train")
        assert generated.names is not None and generated.frames is not None
        labels = torch.tensor([train.label(name) for name in generated.names])
        parts = zip(generated.frames.split(BATCH_SIZE), labels.split(BATCH_SIZE), strict=True)
        return accuracy(self.classifier, parts)[0]
