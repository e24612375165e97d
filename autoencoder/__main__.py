"""python -m autoencoder convert: the released checkpoint as a diffusers folder, or the way back."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from vidtwin_gen.config import user_errors


def convert(args: argparse.Namespace) -> None:
    """Released checkpoint -> folder of `save_pretrained`, or with --reverse a folder -> released names."""
    from safetensors.torch import save_file

    from autoencoder.convert import load_released, to_released_state_dict
    from autoencoder.vidtwin import AutoencoderVidTwin

    out = Path(args.out)
    if out.exists() and (out.is_file() or any(out.iterdir())):
        raise ValueError(f"{out} is there already and would be overwritten: name another")
    if args.reverse:
        if not (Path(args.checkpoint) / "config.json").is_file():
            raise ValueError(f"{args.checkpoint} holds no config.json; expected a folder of save_pretrained")
        vae = AutoencoderVidTwin.from_pretrained(args.checkpoint)
        released = {
            name: value.contiguous() for name, value in to_released_state_dict(vae.state_dict()).items()
        }
        out.parent.mkdir(parents=True, exist_ok=True)
        save_file(released, out)
        print(f"wrote {out}: {len(released)} tensors under their released names")
        return
    vae = load_released(args.checkpoint, num_heads=args.num_heads, qformer_heads=args.qformer_heads)
    vae.save_pretrained(out)
    config = vae.config
    print(
        f"wrote {out}: {vae.num_parameters():,} parameters, {config.num_frames} frames of "
        f"{config.height}x{config.width}, latents of {vae.layout.num_elements:,} numbers"
    )


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m autoencoder", description="The VidTwin autoencoder.")
    verbs = top.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("convert", help="the released checkpoint as a diffusers folder")
    verb.add_argument("checkpoint", help="a .ckpt or .safetensors file, or microsoft/vidtwin on the hub")
    verb.add_argument("out", help="folder for it, new or empty; with --reverse the .safetensors to write")
    verb.add_argument("--num_heads", type=int, help="of the trunk; left out: one for every 64 of its width")
    verb.add_argument("--qformer_heads", type=int, default=8)
    verb.add_argument("--reverse", action="store_true", help="a folder of ours -> the released names")
    verb.set_defaults(run=convert)
    return top


def main(argv: Sequence[str] | None = None) -> None:
    top = parser()
    args = top.parse_args(argv)
    with user_errors(f"{top.prog} {args.verb}"):
        args.run(args)


if __name__ == "__main__":
    main()
