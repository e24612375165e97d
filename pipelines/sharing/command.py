"""python -m pipelines export | card"""

from __future__ import annotations

from pathlib import Path

from pipelines.flags import CardFlags, ExportFlags
from pipelines.sharing.export import export_pipeline
from pipelines.sharing.model_card import CARD, write_card
from pipelines.sharing.training_record import update_record


def export(flags: ExportFlags) -> None:
    """A saved pipeline with its code, for where this package is not."""
    out = export_pipeline(flags.pipeline, flags.out)
    loads = f"diffusers.DiffusionPipeline.from_pretrained({str(out)!r}, trust_remote_code=True)"
    print(f"wrote {out}: {loads} loads it")


def card(flags: CardFlags) -> None:
    """What is known of a saved pipeline, into its config and its model card."""
    unknown = update_record(flags.pipeline, flags.metrics or (), dataset=flags.dataset, licence=flags.license)
    for path in unknown:
        print(f"{path} left out: no result of eval fvd, recon or accuracy, nor generated.json")
    path, written = Path(flags.pipeline) / CARD, write_card(flags.pipeline)
    print(f"wrote {path}" if written else f"{path} was written by hand and is left as it is")
