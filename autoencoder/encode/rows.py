"""What stands in one row of a folder of latents, and how it comes out of an autoencoder."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import datasets
import numpy as np
import pyarrow as pa
import torch
from diffusers import AutoencoderVidTok
from diffusers.models.modeling_utils import ModelMixin

from autoencoder import adapter
from autoencoder.encode.flags import EncodeFlags
from autoencoder.encode.video_encoder import VideoEncoder
from autoencoder.model.posterior import FlatGaussian
from vidtwin_gen.latents import LatentLayout

Split = Literal["train", "test"]


@dataclass(frozen=True)
class ClipEncoder:
    """An autoencoder, as it stands on its device, for clips of one size.

    Args:
        vae: ours, or any video autoencoder of diffusers.
        layout: of the flat latents of such clips.
        clip_size: frames, height and width.
    """

    vae: ModelMixin
    layout: LatentLayout
    clip_size: adapter.ClipSize

    def encode(self, clips: torch.Tensor) -> FlatGaussian:
        """Clips (B, C, F, H, W) in [-1, 1] -> the raw posterior over flat latents (B, L)."""
        return adapter.encode(self.vae, clips.to(self.vae.device, self.vae.dtype))

    @property
    def decode_example(self) -> str:
        """Python that makes clips of flat latents `z`, whitened by `mean` and `std` (L,), and of `vae`."""
        if adapter.is_ours(self.vae):
            return "vae.decode(z * std + mean).sample"
        grid = self.layout.grids[0]
        shape = ", ".join(map(str, (*grid.shape, grid.channels)))
        decode = f"vae.decode((z * std + mean).view(1, {shape}).movedim(-1, 1))"
        return decode if isinstance(self.vae, AutoencoderVidTok) else f"{decode}.sample"


class RowEncoder:
    """Batches of clips -> rows of latents.

    Args:
        index: of the split, with paths below `root`.
        flags: `flip` gives training windows a second row, mirrored; `dtype` is that of the stored latents.
        video_encoder: of the clips' features, where they are stored too, in float16.
    """

    def __init__(
        self,
        encoder: ClipEncoder,
        index: datasets.Dataset,
        root: Path,
        split: Split,
        flags: EncodeFlags,
        video_encoder: VideoEncoder | None = None,
    ) -> None:
        self.video_encoder = video_encoder
        self.encoder, self.index, self.root, self.split = encoder, index, root, split
        self.mirrorings = (False, True) if flags.flip and split == "train" else (False,)
        self.dtype = np.dtype(flags.dtype)
        latents = datasets.List(datasets.Value(flags.dtype), length=encoder.layout.num_elements)
        self.features = datasets.Features(
            label=index.features["label"],
            class_name=datasets.Value("string"),
            path=datasets.Value("string"),
            split=datasets.Value("string"),
            group=datasets.Value("string"),
            start=datasets.Value("int32"),
            flipped=datasets.Value("bool"),
            mean=latents,
            logvar=latents,
        )
        if video_encoder is not None:
            size = math.prod((*video_encoder.grid, video_encoder.dim))
            self.features["features"] = datasets.List(datasets.Value("float16"), length=size)

    @torch.inference_mode()
    def encode(self, batch: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The rows of a batch, in its order, without those of the substitutes of bad files. Raises ValueError
        for a latent that is not finite, or not in the type in which it is stored."""
        clips = [batch["video"].flip(-1) if flipped else batch["video"] for flipped in self.mirrorings]
        posteriors = [self.encoder.encode(mirrored) for mirrored in clips]
        features = [self.video_encoder(mirrored) for mirrored in clips] if self.video_encoder else []
        for i, number in enumerate(batch["index"]):
            if batch["substitute"][i]:
                continue
            source = self.index[number]
            path = Path(source["path"])
            for n, (flipped, posterior) in enumerate(zip(self.mirrorings, posteriors, strict=True)):
                yield {
                    **{name: source[name] for name in ("label", "class_name", "split")},
                    "path": path.relative_to(self.root).as_posix(),
                    "group": source["group"] if source["group"] != path.stem else None,
                    "start": int(batch["start"][i]),
                    "flipped": flipped,
                    "mean": self._stored(posterior.mean[i], path),
                    "logvar": self._stored(posterior.logvar[i], path),
                    **({"features": _stored_features(features[n][i], path)} if features else {}),
                }

    def table(self, rows: list[dict[str, Any]]) -> pa.Table:
        """The rows, with what `datasets` wants to know of their types."""
        return pa.Table.from_pylist(rows, schema=self.features.arrow_schema)

    def _stored(self, values: torch.Tensor, path: Path) -> np.ndarray:
        exact = values.float().cpu().numpy()
        with np.errstate(over="ignore"):
            stored = exact.astype(self.dtype)
        if np.isfinite(stored).all():
            return stored
        if np.isfinite(exact).all():
            raise ValueError(
                f"{path}: its latents reach {np.abs(exact).max():g}, past float16's "
                f"{np.finfo(np.float16).max:g}: encode with --dtype float32"
            )
        raise ValueError(
            f"{path}: the autoencoder gives latents that are NaN or infinite; was it trained? If so, leave "
            "out --vae_dtype"
        )


def _stored_features(values: torch.Tensor, path: Path) -> np.ndarray:
    stored = values.half()
    if not stored.isfinite().all():
        raise ValueError(
            f"{path}: the video encoder gives features that float16 does not hold, up to "
            f"{values.abs().max():g}: name another for --features"
        )
    return stored.cpu().numpy()
