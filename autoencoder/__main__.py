"""python -m autoencoder reconstruct | reenact | convert | export"""

from __future__ import annotations

from collections.abc import Sequence

from autoencoder.flags import ConvertFlags, ExportFlags, ReconstructFlags, ReenactFlags
from vidtwin_gen.flags import Verb, run_verb


def reconstruct(flags: ReconstructFlags) -> None:
    from autoencoder.side_by_side import reconstruct

    reconstruct(flags)


def reenact(flags: ReenactFlags) -> None:
    from autoencoder.side_by_side import reenact

    reenact(flags)


def convert(flags: ConvertFlags) -> None:
    from autoencoder.convert import convert

    convert(flags)


def export(flags: ExportFlags) -> None:
    from autoencoder.export import export

    export(flags)


VERBS = {
    "reconstruct": Verb(
        ReconstructFlags,
        reconstruct,
        "a video beside its reconstruction and what each part of the latent holds; PSNR, SSIM, LPIPS",
    ),
    "reenact": Verb(
        ReenactFlags,
        reenact,
        "two videos, and each one's Structure with the other's Dynamics, over the shorter length",
    ),
    "convert": Verb(ConvertFlags, convert, "the released checkpoint as a diffusers folder"),
    "export": Verb(ExportFlags, export, "a saved autoencoder with its code, for where this package is not"),
}


def main(argv: Sequence[str] | None = None) -> None:
    run_verb("python -m autoencoder", "The VidTwin autoencoder.", VERBS, argv)


if __name__ == "__main__":
    main()
