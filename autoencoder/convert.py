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
        state_dict = to_released_state_dict(load_folder(flags.checkpoint).state_dict())
        with replacing_file(out) as partial:
            save_file({name: value.contiguous() for name, value in state_dict.items()}, partial)
        print(f"wrote {out}: {len(state_dict)} tensors under their released names")
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
