"""python -m pipelines generate | export | card: videos of classes; a pipeline for others, and what it is."""

from __future__ import annotations

import argparse
import json
import math
import shutil
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from tqdm.auto import tqdm

from pipelines.labels import label_ids
from pipelines.pipeline_vidtwin import VidTwinPipeline
from pipelines.share import add_parsers, card, export
from vidtwin_gen.config import user_errors
from vidtwin_gen.video import to_uint8, write_gif, write_video

DEFAULT_FPS = 8.0  # where the pipeline's config does not say


def main(argv: list[str] | None = None) -> None:
    parser = _parser()
    args = parser.parse_args(argv)
    if args.verb != "generate":
        with user_errors(f"{parser.prog} {args.verb}"):
            {"export": export, "card": card}[args.verb](args)
        return
    folder, out = Path(args.pipeline), Path(args.out)
    if not (folder / "model_index.json").is_file():
        parser.error(f"--pipeline {folder} holds no model_index.json; name the folder of a saved pipeline")
    if out.exists() and any(out.iterdir()):
        parser.error(f"--out {out} is not empty and old videos would mix with new ones; name a new folder")

    pipe = VidTwinPipeline.from_pretrained(folder).to(args.device)
    pipe.set_progress_bar_config(disable=True)
    num_classes, names = pipe.transformer.config.num_classes, pipe.config.class_names
    try:
        labels = [_label(text, names) for text in args.class_labels] or list(range(num_classes))
        ids = list(dict.fromkeys(label_ids(labels, num_classes, names)))
    except ValueError as error:
        parser.error(f"--class_labels: {error}")
    generate(
        pipe,
        ids,
        out,
        num_videos_per_class=args.num_videos_per_class,
        guidance_scale=args.guidance_scale,
        num_inference_steps=args.num_inference_steps,
        seed=args.seed,
        batch_size=args.batch_size,
        formats=("mp4", "gif") if args.format == "both" else (args.format,),
        fps=args.fps or pipe.config.fps or DEFAULT_FPS,
        pipeline_name=folder.resolve().name,
    )


def generate(
    pipe: VidTwinPipeline,
    ids: Sequence[int],
    out: Path,
    *,
    num_videos_per_class: int,
    guidance_scale: float,
    num_inference_steps: int,
    seed: int,
    batch_size: int,
    formats: Sequence[str],
    fps: float,
    pipeline_name: str,
) -> None:
    """Write `<out>/<Class>/<Class>_0000.mp4` ..., `clips.safetensors` and `generated.json`.

    clips.safetensors holds `frames` uint8 (N, F, H, W, C) and `labels` int64 (N,), class after class; it is
    what metrics read, since a video codec changes FVD. The folder has its name when all videos are done.
    """
    names = [
        _folder_name(label, pipe.config.class_names) for label in range(pipe.transformer.config.num_classes)
    ]
    clips = [(label, number) for label in ids for number in range(num_videos_per_class)]
    size = (pipe.vae.config.num_frames, pipe.vae.config.height, pipe.vae.config.width, 3)
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    all_frames = create_clip_file(partial / "clips.safetensors", [label for label, _ in clips], size)

    with tqdm(total=len(clips), unit="clip") as progress:
        for start in range(0, len(clips), batch_size):
            batch = clips[start : start + batch_size]
            videos = pipe(
                [label for label, _ in batch],
                generator=[clip_generator(seed, label, number) for label, number in batch],
                guidance_scale=guidance_scale,
                num_inference_steps=num_inference_steps,
                output_type="pt",
                return_dict=False,
            )[0]  # (B, F, C, H, W) in [0, 1]
            assert isinstance(videos, torch.Tensor)
            clamped = rearrange(videos, "b f c h w -> b c f h w") * 2 - 1
            frames = to_uint8(clamped).cpu().numpy()  # (B, F, H, W, C)
            all_frames[start : start + len(batch)] = frames
            for (label, number), clip in zip(batch, frames, strict=True):
                path = partial / names[label] / f"{names[label]}_{number:04d}"
                path.parent.mkdir(exist_ok=True)
                if "mp4" in formats:
                    write_video(path.with_suffix(".mp4"), clip, fps)
                if "gif" in formats:
                    write_gif(path.with_suffix(".gif"), clip, fps)
            progress.update(len(batch))

    all_frames.flush()
    record = {
        "pipeline": pipeline_name,
        "scheduler": type(pipe.scheduler).__name__,
        "class_names": [names[label] for label in ids],
        "class_labels": list(ids),
        "num_videos_per_class": num_videos_per_class,
        "num_videos": len(clips),
        "guidance_scale": guidance_scale,
        "num_inference_steps": num_inference_steps,
        "seed": seed,
        "fps": fps,
    }
    (partial / "generated.json").write_text(json.dumps(record, indent=2) + "\n")
    if out.exists():  # empty
        out.rmdir()
    partial.rename(out)
    print(f"{len(clips)} videos of {len(ids)} classes in {out}")


def clip_generator(seed: int, label: int, number: int) -> torch.Generator:
    """The noise of one clip: neither the batch size nor the other classes asked for change it."""
    state = np.random.SeedSequence((seed, label, number)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state))


def create_clip_file(path: Path, labels: Sequence[int], size: Sequence[int]) -> np.memmap:
    """A safetensors file with `labels`, whose `frames` (N, *size) are still to be written through the result.

    In place, because ten thousand clips fit on a disk and not in memory. The format is eight bytes of header
    length, a JSON header, the bytes of the tensors (https://github.com/huggingface/safetensors, Format).
    """
    shape = (len(labels), *size)
    middle = 8 * len(labels)
    end = middle + math.prod(shape)
    header = json.dumps(
        {
            "labels": {"dtype": "I64", "shape": [len(labels)], "data_offsets": [0, middle]},
            "frames": {"dtype": "U8", "shape": list(shape), "data_offsets": [middle, end]},
        }
    ).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header + np.asarray(labels, dtype="<i8").tobytes())
        begin = file.tell()
        file.truncate(8 + len(header) + end)
    return np.memmap(path, dtype=np.uint8, mode="r+", offset=begin, shape=shape)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipelines", description=__doc__)
    commands = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    command = commands.add_parser("generate", help="write videos of classes with a saved pipeline")
    command.add_argument("--pipeline", required=True, help="folder of a saved VidTwinPipeline")
    command.add_argument("--out", required=True, help="new folder for the videos")
    command.add_argument(
        "--class_labels", nargs="+", default=[], metavar="CLASS", help="names or ids; left out: all classes"
    )
    command.add_argument("--num_videos_per_class", type=_positive, default=4)
    command.add_argument("--guidance_scale", type=float, default=4.0, help="1 means none, at half the cost")
    command.add_argument("--num_inference_steps", type=_positive, default=50)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--batch_size", type=_positive, default=16, help="clips at once; changes no clip")
    command.add_argument("--format", choices=["mp4", "gif", "both"], default="mp4")
    command.add_argument("--fps", type=float, help="of the files; left out: the pipeline's own")
    command.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add_parsers(commands)
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be positive, got {value}")
    return value


def _label(text: str, names: Sequence[str] | None) -> str | int:
    """A class may be called 7; a number is an id only where it is not a name."""
    return int(text) if text.isdecimal() and text not in (names or ()) else text


def _folder_name(label: int, names: Sequence[str] | None) -> str:
    return names[label] if names else f"class_{label:03d}"


if __name__ == "__main__":
    main()
