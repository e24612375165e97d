"""python -m autoencoder convert: the released checkpoint as a folder of ours, and the way back."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file

from autoencoder.flags import ConvertFlags
from autoencoder.loading import load_folder
from autoencoder.model.vidtwin import AutoencoderVidTwin
from autoencoder.released import to_released_state_dict
from vidtwin_gen.files import check_new, new_folder, replacing_file

RELEASED = ("qformer", "average")  # how its Structure and its Dynamics are made


def convert(flags: ConvertFlags) -> None:
    out = Path(flags.out)
    check_new(out)
    if flags.reverse:
        if out.suffix != ".safetensors":
            raise ValueError(f"{out}: --reverse writes a .safetensors, which `convert` reads by that ending")
        vae = load_folder(flags.checkpoint)
        config = vae.config
        if config.height != config.width or (config.structure_type, config.dynamics_type) != RELEASED:
            raise ValueError(
                f"{flags.checkpoint}: the release is of square clips and of both latents as in the paper, "
                f"this is of {config.height}x{config.width}, structure_type {config.structure_type!r} and "
                f"dynamics_type {config.dynamics_type!r}"
            )
        # which is computed here, and in the release a tensor that tells the size of a clip
        positions = {"encoder.pos_embed": vae.encoder.spatial[None]}
        state_dict = positions | to_released_state_dict(vae.state_dict())
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
