"""python -m eval accuracy: are generated clips recognised as the class that was asked for?

A small classifier is trained on real clips; its accuracy on generated clips is reported beside that on real
held-out clips, without which the first number means nothing.
"""

from __future__ import annotations

import math
import tempfile
from collections import deque
from collections.abc import Iterable, Sequence
from typing import IO, Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn
from tqdm.auto import tqdm

from eval.flags import AccuracyFlags, frame_rate
from eval.generated_clips import read_generated
from eval.real_clips import RealClips
from vidtwin_gen.data.writing import write_gif
from vidtwin_gen.devices import by_the_first, find_device, processes, shared
from vidtwin_gen.records import AccuracyResult

BATCH_SIZE = 16  # clips that are in memory at their full size
MAX_SIZE = 32  # pixels a side that the classifier sees at most

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]


def measure_accuracy(flags: AccuracyFlags) -> None:
    """Several processes share the clips, those to train on and those that the classifier is asked about."""
    generated = read_generated(
        flags.generated, flags.num_frames, stride=flags.stride, fps=flags.fps, seed=flags.seed
    )
    if generated.names is None:
        raise ValueError(
            f"--generated {generated.path}: nothing says the classes of its clips; name a folder of "
            "<class>/<video>"
        )
    shape = generated.shape
    train, test = (
        RealClips.of_split(
            flags.data, shape, split, fold=flags.fold, stride=flags.stride, fps=flags.fps, seed=flags.seed
        )
        for split in ("train", "test")
    )
    labels = torch.tensor([train.label(name) for name in generated.names])
    flags.out.parent.mkdir(parents=True, exist_ok=True)
    train_names = train.even_names(flags.num_clips)
    model, num_train = shared_classifier(train, train_names, flags)
    test_names = test.even_names(flags.num_clips)

    def seen_of_real(clips: torch.Tensor, numbers: Sequence[int]) -> torch.Tensor:
        if flags.real_gifs:
            for number, clip in zip(numbers, clips, strict=True):
                if test_names.index(test_names[number]) == number:  # the first of its class
                    write_gif(flags.real_gifs / f"{test_names[number]}.gif", clip, test.gif_fps)
        return classes_seen(model, clips)

    def seen_of_generated(part: torch.Tensor) -> torch.Tensor:
        return classes_seen(model, torch.stack([generated.clip(index) for index in part.tolist()]))

    parts = torch.arange(len(labels)).split(BATCH_SIZE)
    seen_of_parts = shared(parts, seen_of_generated, "generated clips")
    of_generated = zip(seen_of_parts, labels.split(BATCH_SIZE), strict=True)
    real = test.labelled(test_names, BATCH_SIZE, seen_of_real)
    sides: dict[str, dict[str, Any]] = {}
    for side, answers in (("generated", of_generated), ("real", real)):
        value, confusion = recognised(answers, len(train.class_names))
        count = int(confusion.sum())
        sides[side] = {"accuracy": value, "interval": interval(value, count), "num_clips": count}
        sides[side]["confusion"] = confusion.tolist()
    if not processes().is_main_process:
        return
    result = AccuracyResult(
        class_names=train.class_names,
        num_train=num_train,
        seed=flags.seed,
        fold=flags.fold,
        resolution="x".join(map(str, shape)),
        frame_rate=frame_rate(flags.stride, flags.fps),
        num_steps=flags.num_steps,
        horizontal_flip=flags.horizontal_flip,
        codec=generated.codec if generated.videos else None,
        note=generated.note,
        skipped_videos=[*train.skipped, *test.skipped] or None,
        **sides,
    )
    result.write(flags.out)
    skipped = f"; {len(result.skipped_videos)} videos skipped" if result.skipped_videos else ""
    print(
        f"class accuracy {result.text('generated')} of {sides['generated']['num_clips']} generated clips, "
        f"{result.text('real')} of {sides['real']['num_clips']} real held-out clips{skipped}"
    )


def shared_classifier(
    train: RealClips, names: Sequence[str], flags: AccuracyFlags
) -> tuple[ClipClassifier, int]:
    """Trained on a clip of each of these classes, and on how many. Processes share reading and shrinking; the
    first one trains, in a minute or so, and gives it to all. The clips wait in a file beside `flags.out`."""
    device = find_device(flags.device)
    with tempfile.TemporaryFile(dir=flags.out.parent) as file:
        batches = train.labelled(names, BATCH_SIZE, shrunken)
        if processes().is_main_process:
            clips = store(batches, file)
        else:
            deque(batches, maxlen=0)  # a share of them is this process's

        def trained() -> tuple[ClipClassifier, int]:
            model = train_classifier(
                *clips,
                len(train.class_names),
                num_steps=flags.num_steps,
                horizontal_flip=flags.horizontal_flip,
                seed=flags.seed,
                device=device,
            )
            return model.cpu(), len(clips[1])

        model, num_train = by_the_first(trained)
    return model.to(device), num_train


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


def interval(share: float, count: int) -> list[float]:
    """The 95 % confidence interval of a share of `count` clips (Wilson, 1927): it also has a width where all
    of them are right."""
    z = 1.96**2 / count
    centre, half = share + z / 2, math.sqrt(z * (share * (1 - share) + z / 4))
    return [(centre - half) / (1 + z), (centre + half) / (1 + z)]


class ClipClassifier(nn.Module):
    """(2+1)-D convolutions (Tran et al., arXiv 1711.11248) on frames and on differences of frames, so that a
    class may be an appearance or a motion.

    Shapes: (B, F, H, W, C) uint8 clips, F >= 2 -> (B, num_classes) logits. Frames are averaged down to
    at most MAX_SIZE x MAX_SIZE.
    """

    def __init__(self, num_classes: int, channels: int = 3, width: int = 32) -> None:
        super().__init__()
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


def train_classifier(
    clips: torch.Tensor,
    labels: torch.Tensor,
    num_classes: int,
    *,
    num_steps: int = 160,
    batch_size: int = 32,
    learning_rate: float = 3e-3,
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
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=num_steps)
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
