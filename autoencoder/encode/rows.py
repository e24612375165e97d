"""What stands in one row of a folder of latents, and how it comes out of an autoencoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import torch
from diffusers import AutoencoderVidTok
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.models.modeling_utils import ModelMixin

from vidtwin_gen.latents import LatentLayout

Encode = Callable[[torch.Tensor], DiagonalGaussianDistribution]  # clips (B, C, F, H, W) -> over (B, L)


@dataclass(frozen=True)
class ClipEncoder:
    """All that encoding wants of an autoencoder.

    Args:
        layout: of the flat latent.
        num_frames, size: of the clips that it takes, size as (height, width).
        encode: clips (B, C, F, H, W) in [-1, 1] -> a Gaussian over the flat latents (B, L).
        decode: Python that makes clips of flat latents `z`, whitened by `mean` and `std` (L,), and of `vae`;
            stands in the dataset card's example.
    """

    layout: LatentLayout
    num_frames: int
    size: tuple[int, int]
    encode: Encode
    decode: str

    @classmethod
    def of_flat(cls, vae: ModelMixin) -> ClipEncoder:
        """Of an autoencoder with a flat latent and clips of one size, as it stands on its device."""
        return cls(
            layout=vae.layout,
            num_frames=vae.config.num_frames,
            size=(vae.config.height, vae.config.width),
            encode=lambda clips: vae.encode(clips.to(vae.device, vae.dtype)).latent_dist,
            decode="vae.decode(z * std + mean).sample",
        )

    @classmethod
    def of_grid(
        cls, vae: ModelMixin, layout: LatentLayout, clip_size: tuple[int, int, int], encode: Encode
    ) -> ClipEncoder:
        """Of an autoencoder whose latent is a single grid, which its `decode` takes with the channels first;
        for clips of `clip_size`, frames, height and width."""
        grid = layout.grids[0]
        shape = ", ".join(map(str, (*grid.shape, grid.channels)))
        decode = f"vae.decode((z * std + mean).view(1, {shape}).movedim(-1, 1))"
        return cls(
            layout=layout,
            num_frames=clip_size[0],
            size=(clip_size[1], clip_size[2]),
            encode=lambda clips: encode(clips.to(vae.device, vae.dtype)),
            decode=decode if isinstance(vae, AutoencoderVidTok) else f"{decode}.sample",
        )


class RowEncoder:
    """Batches of clips -> rows of latents.

    Args:
        index: of the split, with paths below `root`.
        flip: gives a second row of each window, mirrored.
        dtype: numpy's name of the type in which the latents are stored.
    """

    def __init__(
        self, encoder: ClipEncoder, index: datasets.Dataset, root: Path, split: str, *, flip: bool, dtype: str
    ) -> None:
        self.encoder, self.index, self.root, self.split = encoder, index, root, split
        self.mirrorings = (False, True) if flip else (False,)
        self.dtype = np.dtype(dtype)
        latents = datasets.List(datasets.Value(dtype), length=encoder.layout.num_elements)
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

    @torch.inference_mode()
    def encode(self, batch: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Those of the batch in its order, but for the stand-ins of bad files, which have rows of their own.

        Raises:
            ValueError: a latent is not finite, or not in the type in which it is stored.
        """
        posteriors = [
            self.encoder.encode(batch["video"].flip(-1) if flipped else batch["video"])
            for flipped in self.mirrorings
        ]
        for i, number in enumerate(batch["index"].tolist()):
            if batch["substitute"][i]:
                continue
            source = self.index[number]
            path = Path(source["path"])
            for flipped, posterior in zip(self.mirrorings, posteriors, strict=True):
                yield {
                    **{name: source[name] for name in ("label", "class_name", "split")},
                    "path": path.relative_to(self.root).as_posix(),
                    "group": source["group"] if source["group"] != path.stem else None,
                    "start": int(batch["start"][i]),
                    "flipped": flipped,
                    "mean": self._stored(posterior.mean[i], path),
                    "logvar": self._stored(posterior.logvar[i], path),
                }

    def table(self, rows: list[dict[str, Any]]) -> pa.Table:
        """The rows, with what `datasets` wants to know of their types."""
        schema = self.features.arrow_schema
        columns = []
        for field in schema:
            values = [row[field.name] for row in rows]
            if pa.types.is_fixed_size_list(field.type):
                flat = np.concatenate([np.empty(0, self.dtype), *values])
                columns.append(pa.FixedSizeListArray.from_arrays(pa.array(flat), type=field.type))
            else:
                columns.append(pa.array(values, field.type))
        return pa.Table.from_arrays(columns, schema=schema)

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
        raise ValueError(f"{path}: the autoencoder gives latents that are NaN or infinite; was it trained?")
