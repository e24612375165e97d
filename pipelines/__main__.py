"""python -m pipelines generate | edit | mix | export | card: videos, and the pipeline for others."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.flags import CardFlags, EditFlags, ExportFlags, GenerateFlags, MixFlags
from vidtwin_gen.flags import Verb, run_verb


def generate(flags: GenerateFlags) -> None:
    from pipelines.generate import generate

    generate(flags)


def edit(flags: EditFlags) -> None:
    from pipelines.edit import edit

    edit(flags)


def mix(flags: MixFlags) -> None:
    from pipelines.edit import mix

    mix(flags)


def export(flags: ExportFlags) -> None:
    from pipelines.sharing.command import export

    export(flags)


def card(flags: CardFlags) -> None:
    from pipelines.sharing.command import card

    card(flags)


VERBS = {
    "generate": Verb(GenerateFlags, generate, "write videos of classes"),
    "edit": Verb(EditFlags, edit, "new Dynamics for the Structure of a video, or the reverse"),
    "mix": Verb(MixFlags, mix, "generate two clips and swap their Dynamics"),
    "export": Verb(ExportFlags, export, "a saved pipeline with its code, for where this package is not"),
    "card": Verb(CardFlags, card, "write what was measured into a saved pipeline's model card"),
}


def main(argv: Sequence[str] | None = None) -> None:
    run_verb("python -m pipelines", "Videos of classes, and the pipeline for others.", VERBS, argv)


if __name__ == "__main__":
    main()
