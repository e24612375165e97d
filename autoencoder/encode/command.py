"""python -m vidtwin_gen encode: videos to latents, once; a killed command goes on when it is repeated."""

from __future__ import annotations

from pathlib import Path

import torch

from autoencoder import adapter
from autoencoder.encode.dataset import encode_dataset
from autoencoder.encode.flags import EncodeFlags
from autoencoder.loading import load_video_autoencoder


def encode(flags: EncodeFlags) -> None:
    vae = load_video_autoencoder(flags.vae)
    vae = vae.to(flags.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    metadata = encode_dataset(vae, flags)
    whitening = Path(flags.vae, "config.json") if adapter.is_ours(vae) else Path(flags.out, "latents.json")
    print(f"wrote {flags.out}: {metadata['num_rows']} rows; whitening written to {whitening}")
    for complaint in metadata["bad_videos"]:
        print(f"left out, {complaint}")
