"""python -m autoencoder reconstruct | reenact | convert | export"""

from __future__ import annotations

from collections.abc import Sequence

from autoencoder.flags import ConvertFlags, ExportFlags, ReconstructFlags, ReenactFlags
from vidtwin_gen.flags import Verb, run_verb

VERBS = {
    "reconstruct": Verb(
        ReconstructFlags,
        "autoencoder.side_by_side:reconstruct",
        "a video beside its reconstruction and what each part of the latent holds; PSNR, SSIM, LPIPS",
    ),
    "reenact": Verb(
        ReenactFlags,
        "autoencoder.side_by_side:reenact",
        "the Structure of each of two videos with the Dynamics of the other, over the shorter length",
    ),
    "convert": Verb(
        ConvertFlags, "autoencoder.convert:convert", "the released checkpoint as a diffusers folder"
    ),
    "export": Verb(
        ExportFlags,
        "autoencoder.export:export",
        "a saved autoencoder with its code, for use without this package",
    ),
}


def main(argv: Sequence[str] | None = None) -> None:
    run_verb("python -m autoencoder", "The VidTwin autoencoder.", VERBS, argv)


if __name__ == "__main__":
    main()
