"""Weights: those of published networks, looked for in one order, verified and read without running anything,
and the digest of a saved model."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    snapshot_download,
    try_to_load_from_cache,
)

from vidtwin_gen.files import file_sha256, first_line
from vidtwin_gen.flags import is_hub_id

# Of the cache folder; left out, it is `vidtwin-gen` in the folder that the hub's own tools keep, HF_HOME.
CACHE_VARIABLE = "VIDTWIN_GEN_CACHE"
# To ask the hub about a file. A machine that is cut off without knowing it waits no longer than that.
HUB_TIMEOUT_S = 3.0


class MissingWeightsError(ValueError):
    """The weights of a network are not on this machine; the message says how to get them."""


@dataclass(frozen=True)
class HubFile:
    """A file on the model hub. Args: `repo`, the whole `revision` of a commit, `file` in it, its `sha256`."""

    repo: str
    revision: str
    file: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.file} of {self.repo}@{self.revision[:8]}"


@dataclass(frozen=True)
class WeightsFile:
    """A file whose `sha256` was checked."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class PublishedWeights:
    """The weights of one published network, and the places where they may be.

    They are looked for in this order: the path given by a flag; the environment variable `variable`; the
    cache folder (`cache_folder`), under the file names below; the installed package; the hub.

    Args:
        title: whose weights they are, for messages. variable: environment variable that names a file;
            `<variable>_SHA256` names the digest that this file must have.
        package, file: the import name of the package, and the path in it. sha256: of that file.
        install: the command that puts it there.
        hub: the file on the hub, where one is known; it may be of another format.
    """

    title: str
    package: str
    file: str
    sha256: str
    install: str
    variable: str
    hub: HubFile | None = None

    @property
    def known(self) -> dict[str, str]:
        """Published digests -> the file that has it."""
        known = {self.sha256: f"{Path(self.file).name} of {self.package}"}
        return known | ({self.hub.sha256: str(self.hub)} if self.hub else {})

    def find(self, path: str | Path | None = None) -> Path:
        """Where a file is, its contents not yet looked at. Raises MissingWeightsError where it is in none of
        the places, with all that can be done."""
        named = path or os.environ.get(self.variable)
        if named:
            if not Path(named).is_file():
                raise MissingWeightsError(
                    f"the {self.title} weights are not at {named}: correct the path (its flag, or "
                    f"{self.variable}) or leave it out and run `{self.install}`"
                )
            return Path(named)
        found = next(filter(Path.is_file, self._places()), None)
        return found or self._fetch()

    def verified(self, path: str | Path | None = None, sha256: str | None = None) -> WeightsFile:
        """The file that `find` finds, if its digest is a published one, or is `sha256` where that is given
        (or `<variable>_SHA256` set).

        Raises:
            MissingWeightsError: as `find`. ValueError: another digest.
        """
        weights = self.find(path)
        stat = weights.stat()
        found = _sha256(str(weights.resolve()), stat.st_size, stat.st_mtime_ns)
        expected = sha256 or os.environ.get(self._sha256_variable)
        if expected and expected.lower() != found:
            raise ValueError(
                f"{weights} has sha256 {found}, not {expected} as was named for it: correct the digest, or "
                "the path"
            )
        if not expected and found not in self.known:
            published = ", ".join(f"{digest} ({name})" for digest, name in self.known.items())
            raise ValueError(
                f"{weights} has sha256 {found}, which is no published file of the {self.title} weights: "
                f"{published}. Its numbers would compare with nothing: delete it and run `{self.install}`; "
                "or, where it holds the same weights in another format, name its digest too (the flag that "
                f"ends in _sha256, or {self._sha256_variable}) and let `python -m eval selftest` check it"
            )
        return WeightsFile(weights, found)

    def read(self, path: str | Path | None = None, sha256: str | None = None) -> dict[str, np.ndarray]:
        """The arrays of the package's kind of file, verified, nested names joined by "/".

        Raises:
            MissingWeightsError, ValueError: as `verified`, or it holds something else than arrays.
        """
        return read_numpy_pickle(self.verified(path, sha256).path)

    def _places(self) -> Iterator[Path]:
        yield from (cache_folder() / name for name in self._cache_names)
        # located and never imported: the packages want JAX
        spec = importlib.util.find_spec(self.package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            yield Path(folder) / self.file

    def _fetch(self) -> Path:
        """From the cache of the hub's tools, or else from the hub."""
        if self.hub is None:
            raise MissingWeightsError(self._ways_out())
        try:
            return Path(_cached_or_fetched(self.hub.repo, self.hub.file, self.hub.revision))
        except Exception as error:  # of the hub's own classes, of httpx and of the disk
            reason = first_line(error.__cause__ or error)
            raise MissingWeightsError(self._ways_out(f" (now {type(error).__name__}: {reason})")) from error

    @property
    def _cache_names(self) -> list[str]:
        return [Path(file).name for file in (self.file, *([self.hub.file] if self.hub else []))]

    @property
    def _sha256_variable(self) -> str:
        return f"{self.variable}_SHA256"

    def _ways_out(self, reason: str = "") -> str:
        ways = [
            f"run `{self.install}` (its own dependencies are not needed)",
            f"name the file by the flag for it or by {self.variable}",
            f"put {' or '.join(self._cache_names)} into {cache_folder()} ({CACHE_VARIABLE} names another)",
        ]
        if self.hub:
            ways.append(f"let this machine reach the hub, which has {self.hub}{reason}")
        return f"the {self.title} weights are in none of their places; one of these helps: {'; '.join(ways)}"


def cache_folder() -> Path:
    """Where files of weights may be put to be found: what VIDTWIN_GEN_CACHE names, else
    `<HF_HOME>/vidtwin-gen`, which is ~/.cache/huggingface/vidtwin-gen where nothing is set."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path(constants.HF_HOME) / "vidtwin-gen")


@lru_cache(maxsize=8)
def _sha256(path: str, size: int, mtime_ns: int) -> str:
    """A file is read once a process."""
    return file_sha256(path)


def _cached_or_fetched(repo: str, file: str, revision: str | None = None) -> str:
    """A file of the hub, by its path in the cache of the hub's tools."""
    cached = try_to_load_from_cache(repo, file, revision=revision)
    if isinstance(cached, str):
        return cached
    if not constants.is_offline_mode():
        # asked once: the download itself would try for half a minute to reach a hub that is not there
        get_hf_file_metadata(hf_hub_url(repo, file, revision=revision), timeout=HUB_TIMEOUT_S)
    return hf_hub_download(repo, file, revision=revision)


def model_folder(name: str | Path) -> Path:
    """The folder of a saved model: a path as it is; `owner/name`, or `owner/name/subfolder` as of the
    autoencoder of a pipeline, where there is no such path: out of the cache of the hub's tools, into which it
    is fetched first.

    Raises:
        ValueError: neither the cache nor the hub has such a model.
    """
    if Path(name).exists() or not is_hub_id("/".join(str(name).split("/")[:2])):
        return Path(name)
    return hub_folder(
        str(name), ("*.safetensors", "*.safetensors.index.json"), "OWNER/NAME/vae of a pipeline"
    )


@lru_cache
def hub_folder(name: str, files: tuple[str, ...], example: str, revision: str | None = None) -> Path:
    """A model's folder in the cache of the hub's tools, into which it is fetched where it isn't there; the
    hub is asked once a process.

    Args:
        name: owner/name, or owner/name/subfolder.
        files: patterns of those that are wanted beside config.json. example: of a name, for the message.

    Raises:
        MissingWeightsError: neither the cache nor the hub has it.
    """
    repo, below = "/".join(name.split("/")[:2]), "".join(f"{part}/" for part in name.split("/")[2:])
    try:
        # first: a pipeline has none, and gigabytes
        config = _cached_or_fetched(repo, f"{below}config.json", revision)
        root = Path(config).parents[below.count("/")]  # is named by its commit
        snapshot_download(
            repo,
            revision=root.name,
            allow_patterns=[f"{below}{file}" for file in ("config.json", *files)],
            ignore_patterns=["*.fp16.*", *([] if below else ["*/*"])],
            etag_timeout=HUB_TIMEOUT_S,
        )
    except Exception as error:  # of the hub's own classes, of httpx and of the disk
        reason = first_line(error)
        raise MissingWeightsError(
            f"{name} is no folder, and no {below}config.json of {repo} (revision {revision or 'main'}) came "
            f"from the hub or its cache ({type(error).__name__}: {reason}); correct the path or the name, "
            f"e.g. {example}, or, without a network, run `hf download {repo} --include '{below}*'` where "
            "there is one and copy its cache (HF_HOME) here, which HF_HUB_OFFLINE=1 reads"
        ) from error
    return root / below


def weights_sha256(model: str | Path) -> str:
    """The digest of a saved model's safetensors files: says which autoencoder made a set of latents. Those of
    a variant (`model.fp16.safetensors`) count only where there are no others. Raises ValueError where there
    are none, or as `model_folder`."""
    files = sorted(model_folder(model).glob("*.safetensors"))
    if not files:
        raise ValueError(f"{model}: no .safetensors file; expected a folder written by save_pretrained")
    return file_sha256(*([path for path in files if path.name.count(".") == 1] or files))


def weights_digest(folder: Path) -> str:
    """The digest of a published model. Of one file it is that of `weights_sha256`; of several the sha256 of
    the lines "<sha256>  <name>" by name, which whoever names it with --weights_sha256 can make with
    sha256sum, while folders of latents keep the other one. Raises ValueError where there is no file."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(
            f"{folder} has no weights in safetensors; other formats can run code when they are read. Load "
            "the model where it is trusted and write it with save_pretrained"
        )
    digests = [file_sha256(file) for file in files]
    if len(files) == 1:
        return digests[0]
    lines = "".join(f"{digest}  {file.name}\n" for digest, file in zip(digests, files, strict=True))
    return hashlib.sha256(lines.encode()).hexdigest()


_NUMPY_BUILDERS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"),  # of protocol 5, Python's own from 3.14 on
}


class _NumpyUnpickler(pickle.Unpickler):
    """Builds numpy arrays and plain containers, and refuses everything else a pickle may name."""

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy._core", "numpy.core")
        if (module, name) not in _NUMPY_BUILDERS:
            raise pickle.UnpicklingError(f"refused {module}.{name}: this file may hold numpy arrays only")
        if importlib.util.find_spec("numpy._core") is not None:  # NumPy 2 renamed it
            module = module.replace("numpy.core", "numpy._core")
        return super().find_class(module, name)


def read_numpy_pickle(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a pickle of nested dicts of numpy arrays, nested names joined by "/". Raises ValueError
    where it holds, or is, anything else."""
    try:
        with open(path, "rb") as file:
            return _flatten(_NumpyUnpickler(file).load())
    except (pickle.UnpicklingError, EOFError, AttributeError, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no pickle of numpy arrays alone: {error}") from error


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b/c": x}} -> {"a/b/c": x}: such files nest some names and join others."""
    arrays: dict[str, Any] = {}
    for key, value in tree.items():
        arrays |= _flatten(value, f"{prefix}{key}/") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return arrays
