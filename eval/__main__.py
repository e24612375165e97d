"""python -m eval VERB: measure a run and write JSON beside each number."""

from __future__ import annotations

from collections.abc import Sequence

from eval.cost.flags import CostFlags
from eval.diagnose.flags import DiagnoseFlags
from eval.flags import AccuracyFlags, NearestFlags
from eval.fvd.flags import FVDFlags, ReferenceFlags, SelftestFlags, SensitivityFlags
from eval.recon.flags import ReconFlags
from eval.report.flags import ReportFlags
from eval.study.flags import StudyFlags
from vidtwin_gen.flags import Verb, run_verb

VERBS = {
    "fvd": Verb(
        FVDFlags,
        "eval.fvd.command:measure_fvd",
        "FVD and KVD of generated clips against real ones, and the best values to expect (floors)",
    ),
    "reference": Verb(
        ReferenceFlags,
        "eval.fvd.reference:measure_reference",
        "measure the real clips once, for `eval fvd --reference`",
    ),
    "sensitivity": Verb(
        SensitivityFlags,
        "eval.fvd.sensitivity:measure_sensitivity",
        "does FVD grow with noise, blur, shuffling, freezing?",
    ),
    "recon": Verb(
        ReconFlags, "eval.recon.command:measure_recon", "PSNR, SSIM, LPIPS, rFVD of reconstructions"
    ),
    "diagnose": Verb(
        DiagnoseFlags,
        "eval.diagnose.command:diagnose",
        "is a latent suited to a generator? tFVD, swaps, channels, noise",
    ),
    "accuracy": Verb(
        AccuracyFlags, "eval.accuracy:measure_accuracy", "are generated clips recognised as their class?"
    ),
    "nearest": Verb(
        NearestFlags, "eval.nearest:measure_nearest", "are generated clips copies of training clips?"
    ),
    "cost": Verb(
        CostFlags,
        "eval.cost.command:measure_cost",
        "tokens, FLOPs and memory of a DiT on given latents, beside MAGVIT-v2's",
    ),
    "study": Verb(
        StudyFlags,
        "eval.study.run:study",
        "train several autoencoders, and the same DiT on each one's latents: quality beside cost",
    ),
    "report": Verb(
        ReportFlags, "eval.report.report:report", "write report.md and report.html of one run or several"
    ),
    "selftest": Verb(
        SelftestFlags,
        "eval.fvd.selftest:run_selftest",
        "do FVD and LPIPS give the originals' numbers on this machine?",
    ),
}


def main(argv: Sequence[str] | None = None) -> None:
    run_verb(
        "python -m eval", "Measure a run and write the numbers as JSON, with their protocol.", VERBS, argv
    )


if __name__ == "__main__":
    main()
