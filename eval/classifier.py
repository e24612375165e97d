"""A small classifier of clips, and what it sees in others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import IO

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn
from tqdm.auto import tqdm

BATCH_SIZE = 16  # clips that are in memory at their full size
MAX_SIZE = 32  # pixels a side that the classifier sees at most
LEARNING_RATE = 3e-3  # at its highest

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]


class ClipClassifier(nn.Module):
    """(2+1)-D convolutions (Tran et al., arXiv 1711.11248) on frames and on differences of frames, so that a
    class may be an appearance or a motion.

    Shapes: (B, F, H, W, C) uint8 clips, F >= 2 -> (B, num_classes) logits. Frames are averaged down to
    at most MAX_SIZE x MAX_SIZE.
    """

    def __init__(self, num_classes: int, channels: int = 3) -> None:
        super().__init__()
        width = 32
        self.space_1 = nn.Conv3d(2 * channels, width, (1, 6, 6), stride=(1, 4, 4), padding=(0, 1, 1))
        self.time_1 = nn.Conv3d(width, width, (3, 1, 1), padding=(1, 0, 0), bias=False)
        self.norm_1 = nn.BatchNorm3d(width)
        self.space_2 = nn.Conv3d(width, 2 * width, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        self.time_2 = nn.Conv3d(2 * width, 2 * width, (5, 1, 1), (2, 1, 1), padding=(2, 0, 0), bias=False)
        self.norm_2 = nn.BatchNorm3d(2 * width)
        self.head = nn.Linear(4 * width, num_classes)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        x = self.preprocess(clips)  # (B, 2C, F - 1, h, w)
        x = F.relu(self.norm_1(self.time_1(F.relu(self.space_1(x)))))  # (B, D, F - 1, h/4, w/4)
        x = F.relu(self.norm_2(self.time_2(F.relu(self.space_2(x)))))  # (B, 2D, F/2, h/8, w/8)
        # a class may fill the clip or a corner of it
        x = torch.cat([x.mean((2, 3, 4)), x.amax((2, 3, 4))], dim=1)  # (B, 4D)
        return self.head(x)

    def preprocess(self, clips: torch.Tensor) -> torch.Tensor:
        """(B, F, H, W, C) uint8 -> (B, 2C, F - 1, h, w) float: frames in [-1, 1], and what changes before the
        next one."""
        _check_clips(clips)
        frames = rearrange(shrink(clips, MAX_SIZE).float() / 127.5 - 1, "b f h w c -> b c f h w")
        return torch.cat([frames[:, :, :-1], frames.diff(dim=2)], dim=1)


def shrink(clips: torch.Tensor, max_size: int) -> torch.Tensor:
    """(B, F, H, W, C) uint8 -> uint8 clips whose sides are at most `max_size`, by averaging."""
    size = [min(length, max_size) for length in clips.shape[2:4]]
    if size == list(clips.shape[2:4]):
        return clips
    frames = rearrange(clips, "b f h w c -> (b f) c h w").float()
    frames = F.interpolate(frames, size, mode="area").round().to(torch.uint8)
    return rearrange(frames, "(b f) c h w -> b f h w c", b=len(clips))


def shrunken(clips: torch.Tensor, _: Sequence[int]) -> torch.Tensor:
    """(B, F, H, W, C) uint8, as small as the classifier sees them."""
    return shrink(clips, MAX_SIZE)


def store(batches: Batches, file: IO[bytes]) -> tuple[torch.Tensor, torch.Tensor]:
    """All clips of the batches, (N, F, H, W, C) uint8 mapped from the file, and labels (N,): so memory does
    not grow with the number of clips."""
    labels, shape = [], torch.Size()
    for clips, of_batch in batches:
        file.write(clips.numpy().tobytes())
        labels.append(of_batch)
        shape = clips.shape[1:]
    file.flush()
    all_labels = torch.cat(labels)
    mapped = np.memmap(file, np.uint8, "r+", shape=(len(all_labels), *shape))
    return torch.from_numpy(mapped), all_labels


def train_classifier(
    clips: torch.Tensor,
    labels: torch.Tensor,
    num_classes: int,
    *,
    num_steps: int = 160,
    batch_size: int = 32,
    horizontal_flip: bool = False,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> ClipClassifier:
    """A classifier trained on clips (N, F, H, W, C) uint8 with labels (N,) int64; a seed gives one network.
    Clips are shifted by up to an eighth of the frame, and half of them are blurred and made noisy: a judge
    that saw sharp clips only would judge sharpness, which is FVD's part. `horizontal_flip` mirrors half of
    them, which is wrong where the direction of a motion is the class.

    Raises:
        ValueError: clips that are not uint8 (N, F >= 2, H, W, C), or labels that do not fit them.
    """
    _check_clips(clips)
    _check_labels(clips, labels, num_classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ClipClassifier(num_classes, channels=clips.shape[-1]).to(device)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=num_steps)
    order = torch.empty(0, dtype=torch.long)
    for _ in tqdm(range(num_steps), desc="training the classifier", unit="step"):
        while len(order) < batch_size:  # every clip once before any again
            order = torch.cat([order, torch.randperm(len(clips), generator=generator)])
        batch, order = order[:batch_size], order[batch_size:]
        augmented = _augment(shrink(clips[batch], MAX_SIZE), horizontal_flip, generator)
        logits = model(augmented.to(device))
        loss = F.cross_entropy(logits, labels[batch].to(device), label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def accuracy(model: ClipClassifier, batches: Batches) -> tuple[float, torch.Tensor]:
    """As `recognised`, of batches of clips (B, F, H, W, C) and labels (B,)."""
    answers = ((classes_seen(model, clips), labels) for clips, labels in batches)
    return recognised(answers, model.head.out_features)


@torch.no_grad()
def classes_seen(model: ClipClassifier, clips: torch.Tensor) -> torch.Tensor:
    """(B, F, H, W, C) uint8 -> the class of each (B,), on the CPU."""
    return model(clips.to(model.head.weight.device)).argmax(1).cpu()


def recognised(answers: Batches, num_classes: int) -> tuple[float, torch.Tensor]:
    """Of batches of classes seen (B,) and labels (B,), the fraction that is recognised and the confusion
    matrix (K, K) int64: row = label asked for, column = class seen."""
    confusion = torch.zeros(num_classes**2, dtype=torch.long)
    for seen, labels in answers:
        _check_labels(seen, labels, num_classes)
        confusion += torch.bincount(labels * num_classes + seen, minlength=num_classes**2)
    confusion = confusion.view(num_classes, num_classes)
    return confusion.trace().item() / confusion.sum().item(), confusion


def _augment(clips: torch.Tensor, horizontal_flip: bool, generator: torch.Generator) -> torch.Tensor:
    """One shift, blur and mirroring at most for a whole clip, so that its motion stays what it was."""
    reach = (clips.shape[2] // 8, clips.shape[3] // 8)
    around = (reach[1], reach[1], reach[0], reach[0])
    padded = F.pad(rearrange(clips, "b f h w c -> b (f c) h w").float(), around, "replicate")
    padded = rearrange(padded, "b (f c) h w -> b f h w c", c=clips.shape[-1]).to(torch.uint8)
    moved = []
    for clip in padded:
        top, left = (int(torch.randint(2 * r + 1, (), generator=generator)) for r in reach)
        clip = clip[:, top : top + clips.shape[2], left : left + clips.shape[3]]
        if horizontal_flip and torch.rand((), generator=generator) < 0.5:
            clip = clip.flip(2)
        if torch.rand((), generator=generator) < 0.5:
            clip = _degrade(clip, generator)
        moved.append(clip)
    return torch.stack(moved)


def _degrade(clip: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """uint8 (F, H, W, C): seen through 2 to 4 times fewer pixels a side, with noise."""
    frames = rearrange(clip, "f h w c -> f c h w").float()
    factor = int(torch.randint(2, 5, (), generator=generator))
    size = [max(1, side // factor) for side in clip.shape[1:3]]
    frames = F.interpolate(F.interpolate(frames, size, mode="area"), clip.shape[1:3], mode="bilinear")
    frames = frames + 12 * torch.randn(frames.shape, generator=generator)
    return rearrange(frames.round().clamp(0, 255).to(torch.uint8), "f c h w -> f h w c")


def _check_clips(clips: torch.Tensor) -> None:
    if clips.dtype != torch.uint8 or clips.ndim != 5 or clips.shape[1] < 2:
        raise ValueError(
            "expected uint8 clips (N, F, H, W, C) of at least 2 frames, "
            f"got {clips.dtype} {tuple(clips.shape)}"
        )


def _check_labels(clips: torch.Tensor, labels: torch.Tensor, num_classes: int) -> None:
    if labels.shape != (len(clips),) or len(clips) == 0:
        raise ValueError(f"expected one label for each of {len(clips)} clips, got {tuple(labels.shape)}")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"labels must lie in 0..{num_classes - 1}, got {int(labels.min())}..{int(labels.max())}"
        )
