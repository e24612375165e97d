"""What is computed of clips, on disk as it comes, so that a run that was killed goes on from it."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from vidtwin_gen.files import replacing_file, write_json

SECONDS_PER_FILE = 20.0  # of work: what a killed process loses at most


class FeatureStore:
    """A vector of each clip of a set, such as its features under an extractor: `store[key]` is (D,).

    A folder of small files, each of which gets its name when it is complete; several processes may write at
    once. The folder's name is a digest of `about`, so that other settings have another folder.

    Args:
        folder: of all stores. about: what the features depend on besides the clip that a key names (JSON).
    """

    def __init__(self, folder: str | Path, about: Mapping[str, Any]) -> None:
        text = json.dumps(dict(about), sort_keys=True)
        self.folder = Path(folder) / hashlib.sha256(text.encode()).hexdigest()[:16]
        self.about = dict(about)
        self.features: dict[str, torch.Tensor] = {}
        self._pending: list[str] = []
        self._written = time.monotonic()
        for path in sorted(self.folder.glob("*.safetensors")):
            self._read(path)

    def __contains__(self, key: str) -> bool:
        return key in self.features

    def __getitem__(self, key: str) -> torch.Tensor:
        return self.features[key]

    def add(self, keys: Sequence[str], features: torch.Tensor) -> None:
        """(B, D) features of the clips that these keys name.

        Raises:
            ValueError: NaN or infinity among them, which would stay here for good.
        """
        if not features.isfinite().all():
            bad = [key for key, row in zip(keys, features, strict=True) if not row.isfinite().all()]
            raise ValueError(
                f"the network gives NaN or infinity for {len(bad)} of {len(keys)} clips, the first {bad[0]}: "
                "check it on this device with `python -m eval selftest`"
            )
        self.features |= dict(zip(keys, features.cpu().unbind(), strict=True))
        self._pending += keys
        if time.monotonic() - self._written >= SECONDS_PER_FILE:
            self.flush()

    def flush(self) -> None:
        """Writes what is not on the disk yet."""
        if not self._pending:
            return
        about = self.folder / "about.json"
        if not about.exists():
            write_json(about, self.about)
        stacked = torch.stack([self.features[key] for key in self._pending])
        with replacing_file(self.folder / f"{uuid.uuid4().hex}.safetensors") as partial:
            save_file({"features": stacked}, partial, metadata={"keys": json.dumps(self._pending)})
        self._pending, self._written = [], time.monotonic()

    def _read(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt") as file:
                keys, rows = json.loads(file.metadata()["keys"]), file.get_tensor("features")
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} can't be read as stored features ({error}); remove the file") from None
        self.features |= dict(zip(keys, rows.clone().unbind(), strict=True))
