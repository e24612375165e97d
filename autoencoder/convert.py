"""python -m autoencoder convert: the released checkpoint as a folder of ours, and the way back."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file

from autoencoder.flags import ConvertFlags
from autoencoder.loading import load_folder
from autoencoder.model.vidtwin import AutoencoderVidTwin
from autoencoder.released import to_released_state_dict
from vidtwin_gen.files import check_new, new_folder, replacing_file


def convert(flags: ConvertFlags) -> None:
    out = Path(flags.out)
    check_new(out)
    if flags.reverse:
        write_released(flags.checkpoint, out)
        return
    vae = AutoencoderVidTwin.from_released(
        flags.checkpoint, num_heads=flags.num_heads, qformer_heads=flags.qformer_heads
    )
    with new_folder(out) as partial:
        vae.save_pretrained(partial)
    config = vae.config
    print(
        f"wrote {out}: {vae.num_parameters():,} parameters, {config.num_frames} frames of "
        f"{config.height}x{config.width}, latents of {vae.layout.num_elements:,} numbers"
    )


def write_released(folder: str | Path, out: Path) -> None:
    """A folder of ours -> a .safetensors file of the released names."""
    vae = load_folder(folder)
    released = {name: value.contiguous() for name, value in to_released_state_dict(vae.state_dict()).items()}
    with replacing_file(out) as partial:
        save_file(released, partial)
    print(f"wrote {out}: {len(released)} tensors under their released names")
