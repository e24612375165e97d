"""python -m eval accuracy: are generated clips recognised as the class that was asked for?

A small classifier is trained on real clips; its accuracy on generated clips is reported beside that on real
held-out clips, without which the first number means nothing.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from eval.classifier import (
    BATCH_SIZE,
    Batches,
    ClipClassifier,
    classes_seen,
    recognised,
    shrunken,
    store,
    train_classifier,
)
from eval.flags import AccuracyFlags, rate_text
from eval.generated_clips import generated_of
from eval.real_clips import RealClips
from vidtwin_gen.data.writing import write_gif
from vidtwin_gen.devices import by_the_first, find_device, processes, shared
from vidtwin_gen.records import AccuracyResult, wilson_interval


def measure_accuracy(flags: AccuracyFlags) -> None:
    """Several processes share the clips, those to train on and those that the classifier is asked about."""
    generated = generated_of(flags)
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
    if len(train.class_names) < 2:
        raise ValueError(
            f"--data {flags.data} has one class, {train.class_names[0]}, as which any clip is recognised: "
            "name data of two or more, or compare by `python -m eval fvd`"
        )
    generated = generated.named_as(train.class_names)
    labels = torch.tensor([train.label(name) for name in generated.names or ()])
    train.warn_of_other_rate(generated)
    flags.out.parent.mkdir(parents=True, exist_ok=True)
    train_names = train.even_names(flags.num_clips)
    model, num_train = shared_classifier(train, train_names, flags)
    test_names = test.even_names(flags.num_clips)

    def seen_of_real(clips: torch.Tensor, numbers: Sequence[int]) -> torch.Tensor:
        if flags.real_gifs:
            for number, clip in zip(numbers, clips, strict=True):
                if test_names.index(test_names[number]) == number:  # the first of its class
                    write_gif(Path(flags.real_gifs) / f"{test_names[number]}.gif", clip, test.frame_rate)
        return classes_seen(model, clips)

    def seen_of_generated(part: torch.Tensor) -> torch.Tensor:
        return classes_seen(model, torch.stack([generated.clip(index) for index in part.tolist()]))

    parts = torch.arange(len(labels)).split(BATCH_SIZE)
    seen_of_parts = shared(parts, seen_of_generated, "generated clips")
    of_generated = zip(seen_of_parts, labels.split(BATCH_SIZE), strict=True)
    real = test.labelled(test_names, BATCH_SIZE, seen_of_real)
    num_classes = len(train.class_names)
    sides = {"generated": side(of_generated, num_classes), "real": side(real, num_classes)}
    if not processes().is_main_process:
        return
    result = AccuracyResult(
        class_names=train.class_names,
        num_train=num_train,
        seed=flags.seed,
        fold=flags.fold,
        resolution="x".join(map(str, shape)),
        frame_rate=rate_text(flags.stride, flags.fps, flags.generated_stride),
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


def side(answers: Batches, num_classes: int) -> dict[str, Any]:
    """What a result says of one side; `answers` as for `recognised`."""
    value, confusion = recognised(answers, num_classes)
    count = int(confusion.sum())
    return {
        "accuracy": value,
        "interval": wilson_interval(value, count),
        "num_clips": count,
        "confusion": confusion.tolist(),
    }


def shared_classifier(
    train: RealClips, names: Sequence[str], flags: AccuracyFlags
) -> tuple[ClipClassifier, int]:
    """A classifier trained on one clip for each of these class names, and the number of clips. Processes
    share reading and shrinking; the first one trains, in a minute or so, and sends the classifier to all. The
    clips wait in a file beside `flags.out`."""
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
