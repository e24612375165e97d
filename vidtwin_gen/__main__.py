"""python -m vidtwin_gen demo | data | encode | export"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autoencoder.encode.flags import EncodeFlags
from pipelines.flags import CheckpointFlags
from vidtwin_gen.demo import DemoFlags, demo
from vidtwin_gen.flags import Verb, flag, run_verb


@dataclass(kw_only=True)
class DataFlags:
    """Where the embedded data set goes, and how large it is."""

    out: str = flag("folder for it, new or empty", required=True)
    seed: int = flag("of everything that is drawn", 0, type=int)
    clips_per_group: int = flag("25 groups of these make a class", 4, type=int)


def data(flags: DataFlags) -> None:
    from vidtwin_gen.data.synthetic import write_dataset

    root = write_dataset(flags.out, seed=flags.seed, clips_per_group=flags.clips_per_group)
    print(f"wrote {root}")


VERBS = {
    "demo": Verb(DemoFlags, demo, "data, both stages, generation, evaluation, report"),
    "data": Verb(DataFlags, data, "write the embedded data set, in UCF-101's layout"),
    "encode": Verb(
        EncodeFlags,
        "autoencoder.encode.dataset:encode",
        "encode a data set into latents, once; the same command again continues",
    ),
    "export": Verb(
        CheckpointFlags,
        "pipelines.trained:export",
        "the autoencoder or the pipeline of a checkpoint, as its run would have ended there",
    ),
}


def main(argv: Sequence[str] | None = None) -> None:
    run_verb("python -m vidtwin_gen", "Two-stage latent video diffusion.", VERBS, argv)


if __name__ == "__main__":
    main()
