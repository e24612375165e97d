"""A small VideoMAE (arXiv 2203.12602) of a data set's own clips: an encoder for the row `repa` where no
published one is at hand.

    python -m benchmarks.recipe.video_encoder --data UCF101-10 --stride 2 --size 64 --out runs/videomae
    python -m benchmarks.recipe --features runs/videomae ...

Trains without labels on windows of the training videos, with three quarters of the patches hidden through
all frames; goes on from its last checkpoint. Then says how many held-out clips a linear classifier on its
features recognises, trained and as it was drawn: whether there is anything in it to be aligned with.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.optimization import get_cosine_schedule_with_warmup
from einops import rearrange
from tqdm.auto import tqdm
from transformers import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEModel

from autoencoder.encode.video_encoder import VideoEncoder
from vidtwin_gen.data.pixels import from_uint8, to_uint8
from vidtwin_gen.data.split_lists import Split
from vidtwin_gen.data.ucf101 import build_index
from vidtwin_gen.data.video_dataset import VideoDataset
from vidtwin_gen.draws import seeded_generator
from vidtwin_gen.files import changed_flags, owned_folder, replacing_file, write_json
from vidtwin_gen.flags import OneLineErrors, positive
from vidtwin_gen.models.pretrained import DEFAULT_MEAN, DEFAULT_STD
from vidtwin_gen.program.errors import user_errors

PROGRAM = "python -m benchmarks.recipe.video_encoder"
HIDDEN = 0.75
CELLS = 8  # patches along each side of a frame
TUBELET = 2  # frames of a patch


def masked_batch(clips: torch.Tensor, size: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Some of the clips (N, F, H, W, C) uint8 as the model is shown them, half of them mirrored, and the
    patches that are hidden from it through all frames."""
    frames = clips[torch.randint(len(clips), (size,), generator=generator)] / 255
    mirrored = torch.rand(size, 1, 1, 1, 1, generator=generator) < 0.5
    frames = rearrange(torch.where(mirrored, frames.flip(3), frames), "b f h w c -> b f c h w")
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (DEFAULT_MEAN, DEFAULT_STD))
    order = torch.rand(size, CELLS**2, generator=generator).argsort(1)
    hidden = order < round(HIDDEN * CELLS**2)
    tubelets = clips.shape[1] // TUBELET
    return {"pixel_values": (frames - mean) / std, "bool_masked_pos": hidden.repeat(1, tubelets)}


def model_config(num_frames: int, size: int, hidden_size: int) -> VideoMAEConfig:
    """Half of its width and a third of its depth reconstruct, as in the published models."""
    return VideoMAEConfig(
        image_size=size,
        patch_size=size // CELLS,
        num_frames=num_frames,
        tubelet_size=TUBELET,
        hidden_size=hidden_size,
        intermediate_size=hidden_size * 4,
        num_hidden_layers=6,
        num_attention_heads=3,
        decoder_hidden_size=hidden_size // 2,
        decoder_intermediate_size=hidden_size * 2,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=3,
    )


def pretrain(clips: torch.Tensor, model: VideoMAEForPreTraining, args: argparse.Namespace) -> None:
    """Trains, and goes on from `<out>/checkpoint.pt`. transformers' Trainer would lose biases there."""
    path = args.out / "checkpoint.pt"
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05)
    schedule = get_cosine_schedule_with_warmup(optimizer, args.max_train_steps // 20, args.max_train_steps)
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    first, flags = 0, {name: str(value) for name, value in vars(args).items()}
    if path.exists():
        saved = torch.load(path, weights_only=True)
        if changed := changed_flags(saved["flags"], flags):
            raise ValueError(f"{path} is of other flags ({changed}): repeat those, or name another --out")
        first = saved["step"]
        for name, part in parts.items():
            part.load_state_dict(saved[name])
    bar = tqdm(range(first, args.max_train_steps), initial=first, total=args.max_train_steps, unit="step")
    for step in bar:
        loss = model(**masked_batch(clips, args.batch_size, seeded_generator(args.seed, step))).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if (step + 1) % 50 == 0 or step + 1 == args.max_train_steps:
            bar.set_postfix(loss=f"{loss.item():.3f}")
            with replacing_file(path) as partial:
                states = {name: part.state_dict() for name, part in parts.items()}
                torch.save({"step": step + 1, "flags": flags, **states}, partial)


def save(model: VideoMAEModel, folder: Path) -> None:
    """As transformers saves a VideoMAE and its processor."""
    model.save_pretrained(folder)
    colours = {"do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255}
    means = {"image_mean": DEFAULT_MEAN, "image_std": DEFAULT_STD}
    write_json(folder / "preprocessor_config.json", colours | means)


def linear_accuracy(folder: Path, clips: Sequence[torch.Tensor], labels: Sequence[torch.Tensor]) -> float:
    """The share of held-out clips that ridge regression on features of training clips, averaged over a clip,
    gives their class. Both are (training, held-out)."""
    encoder = VideoEncoder(str(folder), clips[0].shape[1], (1, 1, 1))
    features = [torch.cat([encoder(from_uint8(x)) for x in part.split(32)]).double() for part in clips]
    std, mean = torch.std_mean(features[0], dim=0)
    train, test = (F.pad((x - mean) / std, (0, 1), value=1.0) for x in features)
    penalty = len(train) * 0.01 * torch.eye(train.shape[1], dtype=train.dtype)
    weights = torch.linalg.solve(train.T @ train + penalty, train.T @ F.one_hot(labels[0]).double())
    return float(((test @ weights).argmax(1) == labels[1]).double().mean())


def read(args: argparse.Namespace, split: Split, windows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random windows of every video, (N, F, H, W, C) uint8, and their labels (N,)."""
    size = (args.num_frames, args.size)
    clips = VideoDataset(build_index(args.data, split=split), *size, stride=args.stride, seed=args.seed)
    samples = (clips[i] for i in range(len(clips) * windows))
    videos, labels = zip(*((to_uint8(sample["video"]), sample["label"]) for sample in samples), strict=True)
    return torch.stack(videos), torch.tensor(labels)


def parser() -> argparse.ArgumentParser:
    top = OneLineErrors(prog=PROGRAM, description=(__doc__ or "").splitlines()[0])
    top.add_argument("--data", required=True, help="videos, <data>/<class>/<video>")
    top.add_argument("--out", type=Path, required=True, help="folder of the model")
    top.add_argument("--stride", type=positive, default=1)
    top.add_argument("--num_frames", type=positive, default=16)
    top.add_argument("--size", type=positive, default=64, help=f"of a frame's sides, a multiple of {CELLS}")
    top.add_argument("--hidden_size", type=positive, default=192)
    top.add_argument("--windows_per_video", type=positive, default=8)
    top.add_argument("--max_train_steps", type=positive, default=1500)
    top.add_argument("--batch_size", type=positive, default=16)
    top.add_argument("--seed", type=int, default=0)
    return top


def check(args: argparse.Namespace) -> None:
    """Raises ValueError for sizes that do not divide."""
    if args.size % CELLS or args.num_frames % TUBELET:
        sizes = f"--size {args.size} --num_frames {args.num_frames}"
        raise ValueError(f"{sizes}: the side is a multiple of {CELLS}, and frames come in pairs")


def make(args: argparse.Namespace) -> dict[str, Any]:
    """Trains, saves, and returns the linear accuracies."""
    torch.manual_seed(args.seed)
    model = VideoMAEForPreTraining(model_config(args.num_frames, args.size, args.hidden_size))
    untrained = args.out / "untrained"
    save(model.videomae, untrained)
    train, test = read(args, "train", args.windows_per_video), read(args, "test", 1)
    pretrain(train[0], model, args)
    save(model.videomae, args.out)
    once = [part[: len(part) // args.windows_per_video] for part in train]  # each video
    clips, labels = zip(once, test, strict=True)
    accuracies = {
        name: linear_accuracy(folder, clips, labels)
        for name, folder in {"trained": args.out, "untrained": untrained}.items()
    }
    return {**vars(args), "out": str(args.out), "linear_accuracy": accuracies}


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    with user_errors(PROGRAM):
        check(args)
        with owned_folder(args.out, "name another --out"):
            about = make(args)
            write_json(args.out / "video_encoder.json", about)
        print(about["linear_accuracy"])


if __name__ == "__main__":
    main()
