"""Names and shapes of the tensors in a checkpoint, read without their numbers, against those of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open

from vidtwin_gen.data.names import some
from vidtwin_gen.files import read_json

WEIGHTS = "diffusion_pytorch_model.safetensors"
COPY = "copy the whole folder that save_pretrained wrote"


def check_shapes(found: Mapping[str, Sequence[int]], expected: Mapping[str, Sequence[int]]) -> None:
    """Whether a checkpoint has the tensors of a model, no others, and of the same shapes, by their names.
    Raises ValueError with the names of tensors that are missing, unknown or of another shape."""
    missing = [key for key in expected if key not in found]
    unknown = [key for key in found if key not in expected]
    wrong = [
        f"{key} {list(found[key])}, expected {list(expected[key])}"
        for key in expected
        if key in found and list(found[key]) != list(expected[key])
    ]
    for kind, keys in (("missing", missing), ("unknown", unknown), ("of another shape", wrong)):
        if keys:
            raise ValueError(f"{len(keys)} tensors are {kind}: {some(keys)}")


def weight_files(folder: Path) -> list[Path]:
    """The one file, or the parts that `save_pretrained` makes of a very large model."""
    index = folder / f"{WEIGHTS}.index.json"
    names = {WEIGHTS}
    if index.is_file():
        names = set(read_json(index, COPY)["weight_map"].values())
    for name in names:
        if not (folder / name).is_file():
            others = sorted(file.name for file in folder.glob("diffusion_pytorch_model*"))
            way_out = COPY
            if others and not index.is_file():
                way_out = f"there is {some(others)}: save it anew, without variant and as safetensors"
            raise ValueError(f"{folder / name} is missing; {way_out}")
    return [folder / name for name in sorted(names)]


def stored_shapes(path: Path) -> dict[str, Sequence[int]]:
    """Read from the header, which also says how long the file should be."""
    path.open("rb").close()  # of one without permission safetensors says that it is not there
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} can't be read as safetensors, truncated or another format: {error}; copy it again"
        ) from None
