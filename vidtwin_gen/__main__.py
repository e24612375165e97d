"""python -m vidtwin_gen demo | data | unpack | encode | export, and the door to every other program"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pkgutil import resolve_name

from autoencoder.encode.flags import EncodeFlags
from pipelines.flags import CheckpointFlags
from vidtwin_gen.demo import DemoFlags, demo
from vidtwin_gen.flags import Verb, flag, positive, run_verb, whole
from vidtwin_gen.program.errors import user_errors


@dataclass(kw_only=True)
class DataFlags:
    """Where the embedded data set goes, and how large it is."""

    out: str = flag("folder for it, new or empty", required=True)
    seed: int = flag("seed of the data", 0, type=whole)
    clips_per_group: int = flag("clips in each of the 25 groups of a class", 4, type=positive)


def data(flags: DataFlags) -> None:
    from vidtwin_gen.data.synthetic import write_dataset

    write_dataset(flags.out, seed=flags.seed, clips_per_group=flags.clips_per_group)


@dataclass(kw_only=True)
class UnpackFlags:
    """Which data set becomes a folder of videos, and where."""

    data: str = flag(
        "a folder of datasets' save_to_disk, or with parquet or WebDataset's .tar files below, or OWNER/NAME "
        "on the hub",
        required=True,
    )
    out: str = flag("folder for <class>/<video>, new or empty", required=True)
    video_column: str = flag("column of the videos; in .tar files their suffix, such as mp4", "video")
    label_column: str = flag(
        "column of the classes, labels or names; in .tar files their suffix, such as cls", "label"
    )
    train_split: str = flag("the split to train on, if there are several", "train")
    test_split: str | None = flag("the split that is held out; by default test, or else validation", None)


def unpack(flags: UnpackFlags) -> None:
    from vidtwin_gen.unpack import folder

    folder.unpack(**vars(flags))


VERBS = {
    "demo": Verb(DemoFlags, demo, "run everything: data, both stages, generation, evaluation, report"),
    "data": Verb(DataFlags, data, "write the embedded data set of moving shapes, in UCF-101's layout"),
    "unpack": Verb(
        UnpackFlags, unpack, "write the videos of a data set (hub, parquet or .tar files) as a folder"
    ),
    "encode": Verb(
        EncodeFlags,
        "autoencoder.encode.dataset:encode",
        "encode a data set into latents, once; repeat the command to continue it",
    ),
    "export": Verb(
        CheckpointFlags,
        "pipelines.trained:export",
        "write the autoencoder or the pipeline of a checkpoint, as if its run had ended there",
    ),
}


# An installation puts this one program on the path, so it runs the others too: `vidtwin-gen eval fvd …`; a
# verb of `pipelines` needs no program name.
PROGRAMS = {
    "train-vae": "train_vae:main",
    "train-dit": "train_dit:main",
    "eval": "eval.__main__:main",
    "pipelines": "pipelines.__main__:main",
    "autoencoder": "autoencoder.__main__:main",
}
OF_PIPELINES = ("generate", "edit", "mix", "app", "card")
ABOUT = (
    f"Two-stage latent video diffusion. Other programs, with their own flags after the name: "
    f"{', '.join(PROGRAMS)}; {', '.join(OF_PIPELINES)} without the name of theirs."
)


def main(argv: Sequence[str] | None = None) -> None:
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in OF_PIPELINES:
        words = ["pipelines", *words]
    if words and words[0] in PROGRAMS:
        with user_errors(words[0]):
            resolve_name(PROGRAMS[words[0]])(words[1:])
    else:
        run_verb("python -m vidtwin_gen", ABOUT, VERBS, words)


if __name__ == "__main__":
    main()
