"""python -m eval accuracy: are generated clips recognised as their class?"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from eval.classifier import accuracy, train_classifier
from eval.clips import SPLITS, read_generated
from eval.fvd.measuring import device_of, rate_of, real_clips, write_json
from vidtwin_gen.data.writing import write_gif


def measure_accuracy(args: argparse.Namespace) -> None:
    generated = read_generated(args.generated)
    shape = generated.frames.shape[1:4]
    train, test = (real_clips(args, shape, split) for split in SPLITS[:2])
    labels = torch.tensor([train.label(name) for name in generated.names])
    train_clips, train_labels = train.labelled(args.num_clips)
    test_clips, test_labels = test.labelled(args.num_clips)
    model = train_classifier(
        train_clips,
        train_labels,
        len(train.class_names),
        num_steps=args.num_steps,
        horizontal_flip=args.horizontal_flip,
        seed=args.seed,
        device=device_of(args),
    )
    record: dict[str, Any] = {
        "class_names": train.class_names,
        "num_train": len(train_clips),
        "seed": args.seed,
    }
    record |= {"fold": args.fold, "resolution": "x".join(map(str, shape)), "frame_rate": rate_of(args)}
    record |= {"num_steps": args.num_steps, "horizontal_flip": args.horizontal_flip}
    for key, clips, wanted in (
        ("generated", generated.frames, labels),
        ("real", test_clips, test_labels),
    ):
        value, confusion = accuracy(model, clips, wanted)
        record[key] = {"accuracy": value, "num_clips": len(clips), "confusion": confusion.tolist()}
    write_json(args.out, record)
    if args.real_gifs:
        for label, name in enumerate(test.class_names):
            clip = test_clips[test_labels == label][:1]
            if len(clip):
                write_gif(Path(args.real_gifs) / f"{name}.gif", clip[0], test.gif_fps)
    print(
        f"class accuracy {record['generated']['accuracy']:.1%} of {len(generated.frames)} generated clips, "
        f"{record['real']['accuracy']:.1%} of {len(test_clips)} real held-out clips"
    )
