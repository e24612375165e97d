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
        "FVD and KVD of generated clips against real ones, with their floors",
    ),
    "reference": Verb(
        ReferenceFlags,
        "eval.fvd.reference:measure_reference",
        "the statistics of real clips, for `eval fvd --reference`",
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
        "is a latent fit to be generated? tFVD, swaps, its channels, noise",
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
        "tokens, FLOPs and memory of a DiT on these latents and MAGVIT-v2's",
    ),
    "study": Verb(
        StudyFlags,
        "eval.study.run:study",
        "train several autoencoders alike, and the same DiT on each one's latents; quality beside cost",
    ),
    "report": Verb(
        ReportFlags, "eval.report.report:report", "report.md and report.html of one run or of several"
    ),
    "selftest": Verb(
        SelftestFlags,
        "eval.fvd.selftest:run_selftest",
        "do the metrics give the numbers here that they must give?",
    ),
}


def main(argv: Sequence[str] | None = None) -> None:
    run_verb("python -m eval", "Measure a run and write JSON beside each number.", VERBS, argv)


if __name__ == "__main__":
    main()
