"""python -m eval VERB: measure a run and write JSON beside each number."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

from eval.accuracy import measure_accuracy
from eval.cost.command import measure_cost
from eval.diagnose.command import diagnose
from eval.flags import parser
from eval.fvd.command import measure_fvd
from eval.fvd.reference_command import measure_reference
from eval.fvd.selftest_command import run_selftest
from eval.fvd.sensitivity import measure_sensitivity
from eval.recon.command import measure_recon
from eval.report.report import write_report
from vidtwin_gen.weights import MissingWeightsError


def main(argv: Sequence[str] | None = None) -> None:
    words = sys.argv[1:] if argv is None else argv
    args = parser().parse_args(words)
    args.command = shlex.join(["python", "-m", "eval", *words])
    run = {
        "fvd": measure_fvd,
        "reference": measure_reference,
        "sensitivity": measure_sensitivity,
        "recon": measure_recon,
        "diagnose": diagnose,
        "accuracy": measure_accuracy,
        "cost": measure_cost,
        "report": report,
        "selftest": run_selftest,
    }
    try:
        run[args.verb](args)
    except (ValueError, MissingWeightsError) as error:
        args.error(str(error))


def report(args: argparse.Namespace) -> None:
    print(f"report: {write_report(args.runs, args.out, args.baseline)}")


if __name__ == "__main__":
    main()
