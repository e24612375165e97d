"""python -m pipelines generate | edit | mix | app | export | card: videos, and the pipeline for others."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.flags import AppFlags, CardFlags, EditFlags, ExportFlags, GenerateFlags, MixFlags
from vidtwin_gen.flags import Verb, run_verb

VERBS = {
    "generate": Verb(GenerateFlags, "pipelines.generate:generate", "generate videos of classes"),
    "edit": Verb(
        EditFlags, "pipelines.edit:edit", "new Dynamics for the Structure of a video, or the reverse"
    ),
    "mix": Verb(MixFlags, "pipelines.edit:mix", "generate two clips and swap their Dynamics"),
    # its page counts costs too, so that it lives above
    "app": Verb(AppFlags, "eval.app.command:run", "a page in the browser that does all of this"),
    "export": Verb(
        ExportFlags,
        "pipelines.sharing.export:export",
        "a saved pipeline with its code, for use without this package",
    ),
    "card": Verb(
        CardFlags,
        "pipelines.sharing.training_record:card",
        "write what was measured into a saved pipeline's model card",
    ),
}


def main(argv: Sequence[str] | None = None) -> None:
    run_verb("python -m pipelines", "Generate and edit videos, and share the pipeline.", VERBS, argv)


if __name__ == "__main__":
    main()
