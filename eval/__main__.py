"""python -m eval VERB: measure a run and write JSON beside each number."""

from __future__ import annotations

from collections.abc import Sequence

from eval.cost.flags import CostFlags
from eval.diagnose.flags import DiagnoseFlags
from eval.flags import AccuracyFlags
from eval.fvd.flags import FVDFlags, ReferenceFlags, SelftestFlags, SensitivityFlags
from eval.recon.flags import ReconFlags
from eval.report.flags import ReportFlags
from vidtwin_gen.flags import Verb, run_verb


def fvd(flags: FVDFlags) -> None:
    from eval.fvd.command import measure_fvd

    measure_fvd(flags)


def reference(flags: ReferenceFlags) -> None:
    from eval.fvd.reference import measure_reference

    measure_reference(flags)


def sensitivity(flags: SensitivityFlags) -> None:
    from eval.fvd.sensitivity import measure_sensitivity

    measure_sensitivity(flags)


def recon(flags: ReconFlags) -> None:
    from eval.recon.command import measure_recon

    measure_recon(flags)


def diagnose(flags: DiagnoseFlags) -> None:
    from eval.diagnose.command import diagnose

    diagnose(flags)


def accuracy(flags: AccuracyFlags) -> None:
    from eval.accuracy import measure_accuracy

    measure_accuracy(flags)


def cost(flags: CostFlags) -> None:
    from eval.cost.command import measure_cost

    measure_cost(flags)


def report(flags: ReportFlags) -> None:
    from eval.report.report import write_report

    print(f"report: {write_report(flags.runs, flags.out, flags.baseline)}")


def selftest(flags: SelftestFlags) -> None:
    from eval.fvd.selftest import run_selftest

    run_selftest(flags)


VERBS = {
    "fvd": Verb(FVDFlags, fvd, "FVD of generated clips against real ones, with its floors"),
    "reference": Verb(ReferenceFlags, reference, "the statistics of real clips, for `eval fvd --reference`"),
    "sensitivity": Verb(
        SensitivityFlags, sensitivity, "does FVD grow with noise, blur, shuffling, freezing?"
    ),
    "recon": Verb(ReconFlags, recon, "PSNR, SSIM, LPIPS, rFVD of reconstructions"),
    "diagnose": Verb(
        DiagnoseFlags, diagnose, "is a latent fit to be generated? tFVD, swaps, its channels, noise"
    ),
    "accuracy": Verb(AccuracyFlags, accuracy, "are generated clips recognised as their class?"),
    "cost": Verb(CostFlags, cost, "tokens, FLOPs and memory of a DiT on these latents and MAGVIT-v2's"),
    "report": Verb(ReportFlags, report, "report.md and report.html of one run or of several"),
    "selftest": Verb(SelftestFlags, selftest, "do the metrics give the numbers here that they must give?"),
}


def main(argv: Sequence[str] | None = None) -> None:
    run_verb("python -m eval", "Measure a run and write JSON beside each number.", VERBS, argv)


if __name__ == "__main__":
    main()
